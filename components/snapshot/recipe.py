"""What a person says about sources: where the text is, what it is, and under which licence."""

import re
from datetime import date
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator, model_validator

from cairn.recipe import Licence, Section

NAME = r"^[a-z0-9][a-z0-9._-]*$"
# Query parameters of signed URLs (S3, Google Cloud Storage, Azure), and what others call a secret.
_SECRET = re.compile(r"signature|credential|token|secret|password|api.?key|^(sig|key|auth)$", re.IGNORECASE)


class OptOut(Section):
    """Whether the rights holders keep their text out of training, as the European directive 2019/790 lets them in its
    Article 4(3): by robots.txt, terms of use, metadata, or a letter."""

    checked: date
    """The day on which somebody looked, such as "2026-11-24", in quotes."""
    evidence: str = Field(min_length=1)
    """Where it can be read: a URL, or the words."""
    says: Literal["allowed", "reserved", "not-applicable"]
    """A source that is `reserved` is refused. Where the licence itself allows training, the question does not arise."""

    @field_validator("evidence")
    @classmethod
    def _can_be_written_down(cls, evidence: str) -> str:
        return _without_secret(evidence)


class Fields(Section):
    """What the records of a source say of each document besides its text: kept in the document under `said`, as text,
    and only where a record has it. Each is the path of a field, as `text_field` is."""

    id: str | None = Field(default=None, min_length=1)
    """Its name in the collection that it came from."""
    url: str | None = Field(default=None, min_length=1)
    """Where it was found."""
    date: str | None = Field(default=None, min_length=1)
    """When it was written, or found."""
    language: str | None = Field(default=None, min_length=1)
    """What somebody took it to be written in."""
    licence: str | None = Field(default=None, min_length=1)
    """Its own, as the record has it. The source's licence still stands for the document."""

    def paths(self) -> dict[str, str]:
        """Name to path, of those that are asked for."""
        return {name: str(path) for name, path in self if path is not None}


class Source(Section):
    """Objects that are read alike and belong to one domain."""

    name: str = Field(pattern=NAME)
    """What the ledger and the report call it."""
    uri: str = Field(min_length=1)
    """`python://stdlib`, or a file, folder (read recursively) or glob: a path, or any URL that fsspec opens."""
    read: Literal["auto", "python-code", "python-docstrings"] = "auto"
    """How documents are found in an object: by its suffix, or as Python without docstrings, or its docstrings only."""
    kind: Literal["prose", "code"] = "prose"
    """The quality rules are made for prose; they are off for code."""
    domain: str = Field(pattern=NAME)
    """What the text is about; results are reported for each domain."""
    licence: Licence
    """An SPDX licence expression; `LicenseRef-…` for a licence without an SPDX name."""
    text_field: str = Field(default="text", min_length=1)
    """The field of a jsonl record, or column of a parquet or arrow file, that holds the text; `page.body` for the field
    `body` within `page`."""
    fields: Fields | None = None
    """What else of each record is kept."""
    licence_evidence: str | None = Field(default=None, min_length=1)
    """Where the licence can be read: a URL, or its words."""
    opt_out: OptOut | None = None
    """Whether the rights holders keep the text out of training, and how that is known; null where nobody looked."""

    @field_validator("uri")
    @classmethod
    def _names_objects(cls, uri: str) -> str:
        _without_secret(uri)
        if "::" in uri:
            raise ValueError(f"{uri!r} is a chained URL: unpack it first, or name the objects one by one")
        return uri

    @field_validator("licence_evidence")
    @classmethod
    def _can_be_written_down(cls, evidence: str | None) -> str | None:
        return evidence and _without_secret(evidence)

    @model_validator(mode="after")
    def _is_not_reserved(self) -> "Source":
        if self.opt_out is not None and self.opt_out.says == "reserved":
            raise ValueError(
                f"source {self.name!r}: its rights are reserved: take it out of the recipe, or ask for a licence and "
                "give that as licence and licence_evidence, with opt_out.says: not-applicable"
            )
        return self

    @model_validator(mode="after")
    def _python_is_read_as_python(self) -> "Source":
        if self.uri.startswith("python://") and self.read == "auto":
            raise ValueError(f"source {self.name!r}: {self.uri} needs read: python-code or read: python-docstrings")
        return self


class Snapshot(Section):
    """Which text the run is made from."""

    sources: tuple[Source, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> "Snapshot":
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are named {twice[0]!r}: names must differ")
        return self


def _without_secret(text: str) -> str:
    # The lock file and the attestation repeat what the recipe says, and both are made to be shown around. So is this
    # message.
    if "://" in text:
        url = urlsplit(text)
        if "@" in url.netloc:
            raise ValueError(f"{url.scheme} URL with a user or password: credentials go into the environment")
        secret = next((name for name, _ in parse_qsl(url.query) if _SECRET.search(name)), None)
        if secret:
            raise ValueError(f"{url.scheme} URL with {secret}=…: credentials go into the environment")
    return text
