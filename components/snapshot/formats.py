"""Which objects can be read as which format. Known to snapshot, which lists them, and to ingest, which reads them."""

from dataclasses import dataclass
from pathlib import PurePosixPath

COMPRESSIONS = (".gz", ".zst", ".xz")
_READ_AS = {
    ".txt": "text",
    ".md": "text",
    ".html": "html",
    ".htm": "html",
    ".warc": "warc",
    ".wet": "warc",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
}


@dataclass(frozen=True)
class Format:
    """How the bytes of an object are to be taken."""

    name: str
    """`text`, `html`, `warc`, `jsonl`, `parquet`, `arrow` or `python`."""
    compression: str
    """`.gz`, `.zst`, `.xz` or nothing."""


def format_of(uri: str, read: str) -> Format | None:
    """The format of an object by the suffix of its URI, or None when it cannot be read.

    Args:
        read: as in the recipe; the two ways to read Python take `.py` files and nothing else.
    """
    path = PurePosixPath(uri.partition("?")[0] if "://" in uri else uri)
    suffix, compression = path.suffix.lower(), ""
    if read != "auto":
        return Format("python", "") if suffix == ".py" else None
    if suffix in COMPRESSIONS:
        suffix, compression = PurePosixPath(path.stem).suffix.lower(), suffix
    name = _READ_AS.get(suffix)
    return None if name is None else Format(name, compression)


def readable_suffixes(read: str) -> str:
    """The suffixes that can be read, for messages."""
    return ".py" if read != "auto" else f"{' '.join(_READ_AS)}, each also {' '.join(COMPRESSIONS)}"
