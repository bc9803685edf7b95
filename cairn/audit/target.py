"""What an audit is asked about: an artifact that lies somewhere, or the digest of one that a store knows.

A folder that no attestation knows may be a known artifact that somebody changed. Then that artifact is what it claims
to be, and what differs is told file by file.
"""

import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cairn.audit.copies import at_path
from cairn.audit.reading import REQUESTS, Reader
from cairn.audit.verdicts import Finding, Verdict
from cairn.errors import ArtifactError, StoreError, one_line
from cairn.lineage.artifact import Artifact, Member
from cairn.lineage.model_signature import NAME
from cairn.lineage.pins import read_pin
from cairn.lineage.store import Store

SHORTEST = 6  # hexadecimal digits of a digest that are taken for one


@dataclass(frozen=True)
class Target:
    """What to walk back from."""

    digest: str
    said: str
    """As it was asked for."""
    path: Path | None = None
    """The folder or file that was named."""
    stranger: bool = False
    """The path holds something that was never pinned, and of which the artifact of `digest` is the nearest; without
    one, `digest` is that of what lies there."""
    holds: str = ""
    """Digest of what lies at the path."""


class Pins:
    """What a store says that its artifacts hold."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.known: dict[str, tuple[Artifact | None, list[Finding]]] = {}

    def of(self, digest: str) -> tuple[Artifact | None, list[Finding]]:
        """The artifact that a pin describes, None without a sound one; and what is wrong with the pin."""
        if digest not in self.known:
            self.known[digest] = self._read(digest)
        return self.known[digest]

    def misnamed(self, digest: str, name: str) -> list[Finding]:
        """Whether the pin of an artifact that is one file calls it something else: no digest covers its name."""
        pin, _ = self.of(digest)
        if pin is None or pin.is_directory or pin.members[0].path == name:
            return []
        said = f"pins/{digest}.json: calls {name} by another name"
        return [Finding(Verdict.TAMPERED, said, (pin.members[0].path,))]

    @cached_property
    def digests(self) -> list[str]:
        """Every digest that has a pin. Raises StoreError."""
        return [name.removesuffix(".json") for name in self.store.list("pins")]

    def all(self) -> Mapping[str, Artifact]:
        """Every artifact that has a sound pin, by its digest. Raises StoreError."""
        with ThreadPoolExecutor(REQUESTS) as threads:
            read = list(threads.map(self.of, self.digests))
        return {digest: pin for digest, (pin, _) in zip(self.digests, read, strict=True) if pin is not None}

    def _read(self, digest: str) -> tuple[Artifact | None, list[Finding]]:
        key = f"pins/{digest}.json"
        try:
            data = self.store.read(key)
        except StoreError as error:
            return None, [Finding(Verdict.MISSING, f"{key}: {one_line(error)}")]
        if data is None:
            return None, [Finding(Verdict.MISSING, f"{key}: no pin says which files it holds")]
        pin = read_pin(data)
        if pin is None or pin.digest != digest:
            return None, [Finding(Verdict.TAMPERED, f"{key}: does not describe this artifact, or contradicts itself")]
        return pin, []


def find(said: str, pins: Pins, reader: Reader, expected: Callable[[Path], str | None] | None = None) -> Target:
    """What `said` means: a path, or the first digits of a digest.

    Args:
        expected: tells the digest that something else, such as `dvc.lock`, says should lie at a path.

    Raises:
        ArtifactError: there is no such path and no such digest, or several. StoreError: the store cannot be reached.
    """
    path = Path(said)
    if path.exists() or path.is_symlink():
        return _at(path, pins, reader, expected)
    digits = said.lower()  # other programs print digests in capitals
    if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST},64}}", digits):
        raise ArtifactError(
            f"{said}: no such file or folder, nor {SHORTEST} to 64 digits of a digest: name what to audit"
        )
    found = [digest for digest in pins.digests if digest.startswith(digits)]
    if not found and len(digits) == 64:
        return Target(digits, said)  # a store may have lost the pin and not the attestations
    if not found:
        raise ArtifactError(f"{said}: no artifact of the store {pins.store.url} begins so, and no such path is there")
    if len(found) > 1:
        raise ArtifactError(
            f"{said}: {len(found)} artifacts begin so, such as {found[0]} and {found[1]}: say more digits"
        )
    return Target(found[0], said)


def read(path: Path, reader: Reader) -> Artifact:
    """What lies at a path, without a signature in it: hashed once, and remembered. Raises ArtifactError."""
    if path.is_symlink():
        raise ArtifactError(f"{path}: is a link: name the folder or file that it leads to")
    copy = at_path(path, None)
    if copy.odd:
        raise ArtifactError(f"{path}: holds {copy.odd[0]}, a link or no plain file: an artifact holds plain files only")
    hasher = reader if reader.read_bytes else Reader(read_bytes=True)  # without its bytes nobody knows what it is
    hasher.look(copy.places.values())
    reader.seen.update(hasher.seen)
    unread = next((one.error for place in copy.places.values() if (one := reader.seen[place]).sha256 is None), None)
    if unread is not None:
        raise ArtifactError(f"{path}: cannot be read: {unread}")
    if not copy.places:
        raise ArtifactError(f"{path}: holds no file: name an artifact")
    members = ((name, reader.seen[place]) for name, place in copy.places.items())
    found = tuple(Member(name, one.sha256 or "", "", one.size or 0) for name, one in members)
    return Artifact(found, path.is_dir())


def nearest(found: Artifact, known: Mapping[str, Artifact]) -> str | None:
    """The digest of the artifact that most of the files are of; None where none shares a file.

    Of an artifact that is one file nothing may be left. Then one of the same name is near enough.
    """
    here = {(one.path, one.sha256) for one in found.members}
    names = {one.path for one in found.members if one.path != NAME}
    best: tuple[int, int, int, str] | None = None
    for digest, pin in sorted(known.items()):
        if pin.is_directory != found.is_directory:
            continue
        equal = sum((one.path, one.sha256) in here for one in pin.members)
        same_names = sum(one.path in names for one in pin.members)
        if equal == 0 and not (len(pin.members) == 1 == same_names):
            continue
        apart = len(pin.members) + len(names) - 2 * same_names
        rank = (equal, -apart, -abs(pin.size - found.size), digest)
        best = rank if best is None or rank > best else best
    return best[3] if best else None


def _at(path: Path, pins: Pins, reader: Reader, expected: Callable[[Path], str | None] | None) -> Target:
    found = read(path, reader)
    if found.digest in pins.digests or pins.store.list(f"attestations/{found.digest}"):
        return Target(found.digest, str(path), path, holds=found.digest)
    near = (expected(path) if expected is not None else None) or nearest(found, pins.all())
    return Target(near or found.digest, str(path), path, stranger=True, holds=found.digest)
