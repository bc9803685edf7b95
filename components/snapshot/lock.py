"""The lock file of the data, `sources.lock.json`: every object with its size and sha256, and where its bytes are kept.

Ingest reads this and never the recipe's sources, so what is upstream today changes nothing.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from cairn.errors import SourceError, one_line
from cairn.lineage.artifact import readable
from cairn.lineage.statement import Resource
from cairn.recipe import Section
from components.snapshot.recipe import Fields, OptOut

SHA256 = r"^[0-9a-f]{64}$"


class LockedObject(Section):
    """One object of a source: a file, or an object of an object store."""

    uri: str
    path: str | None
    """Where it lies in the tree of copied objects; null when its own store pins it under `version`."""
    version: str | None
    """Its generation (Google Cloud Storage) or version id (S3)."""
    size: int = Field(ge=0)
    """Bytes."""
    sha256: str = Field(pattern=SHA256)

    @model_validator(mode="after")
    def _is_kept_once(self) -> "LockedObject":
        if (self.path is None) == (self.version is None):
            raise ValueError("either path or version says where its bytes are kept")
        return self


class LockedSource(Section):
    """A source as the recipe had it, and the objects that it stood for."""

    name: str
    uri: str
    read: Literal["auto", "python-code", "python-docstrings"]
    kind: Literal["prose", "code"]
    domain: str
    licence: str
    text_field: str
    fields: Fields | None = None
    licence_evidence: str | None = None
    opt_out: OptOut | None = None
    objects: tuple[LockedObject, ...]


class Lock(Section):
    """The whole lock file."""

    format: Literal["cairn-sources-v1"]
    recipe: str = Field(pattern=SHA256)
    """sha256 of the snapshot section that it was resolved from, as canonical JSON."""
    tree: str | None
    """Digest of the artifact that holds the copied objects; null when every object is pinned by its own store."""
    sources: tuple[LockedSource, ...]

    def bytes(self) -> bytes:
        """The content of the file."""
        return readable(self.model_dump(mode="json"))

    def objects(self) -> dict[str, LockedObject]:
        """Every object by its URI; one that two sources name is there once."""
        return {found.uri: found for source in self.sources for found in source.objects}

    def resources(self) -> list[Resource]:
        """Every object as attestations name it. What is said of its sources they say once, as `described` has it."""
        named: dict[str, list[str]] = {}
        for source in self.sources:
            for found in source.objects:
                named.setdefault(found.uri, []).append(source.name)
        return [
            Resource(
                None,
                found.sha256,
                uri=uri,
                annotations={
                    "size": found.size,
                    "sources": named[uri],
                    **({"path": found.path} if found.version is None else {"version": found.version}),
                },
            )
            for uri, found in self.objects().items()
        ]

    def described(self) -> dict[str, dict[str, Any]]:
        """Name of each source to what is said of it: URI, domain, licence, and the evidence."""
        said = {"uri", "domain", "licence", "licence_evidence", "opt_out"}
        return {source.name: source.model_dump(mode="json", include=said) for source in self.sources}


def read_lock(path: Path) -> Lock:
    """Read `sources.lock.json`. Raises SourceError when it is missing or not one."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file: `cairn snapshot` makes it") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {one_line(error.strerror)}") from None
    return parse_lock(data, str(path))


def parse_lock(data: bytes, name: str) -> Lock:
    """The lock file in `data`, which messages call `name`. Raises SourceError when it is none."""
    try:
        return Lock.model_validate_json(data)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the file"
        raise SourceError(
            f"{name}: not a lock file of sources: {where}: {fault['msg']}: `cairn snapshot` makes a new one"
        ) from None
