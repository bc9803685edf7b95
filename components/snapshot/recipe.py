"""What a person says about sources: where the text is, what it is, and under which licence."""

import re
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator, model_validator

from cairn.recipe import Licence, Section

NAME = r"^[a-z0-9][a-z0-9._-]*$"
# Query parameters of signed URLs (S3, Google Cloud Storage, Azure), and what others call a secret.
_SECRET = re.compile(r"signature|credential|token|secret|password|api.?key|^(sig|key|auth)$", re.IGNORECASE)


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
    text_field: str = "text"
    """The field of a jsonl record, or column of a parquet file, that holds the text."""

    @field_validator("uri")
    @classmethod
    def _can_be_written_down(cls, uri: str) -> str:
        # The lock file and the attestation repeat the URI, and both are made to be shown around. So is this message.
        if "://" in uri:
            url = urlsplit(uri)
            if "@" in url.netloc:
                raise ValueError(f"{url.scheme} URL with a user or password: credentials go into the environment")
            secret = next((name for name, _ in parse_qsl(url.query) if _SECRET.search(name)), None)
            if secret:
                raise ValueError(f"{url.scheme} URL with {secret}=…: credentials go into the environment")
        if "::" in uri:
            raise ValueError(f"{uri!r} is a chained URL: unpack it first, or name the objects one by one")
        return uri

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
