"""Web archives, WARC and WET (ISO 28500): one record after another, and what of a record is a document.

A record is told from the next by its length alone, so a damaged one ends the reading: what follows is not guessed at.
"""

import base64
import hashlib
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from cairn.errors import SourceError
from components.ingest.unpacking import PIECE

MOST_HEADERS = 1 << 20  # bytes of one block of headers
MOST_LINE = 1 << 16
_VERSION = re.compile(rb"WARC/1\.\d\r?\n")
_STATUS = re.compile(rb"HTTP/\d(?:\.\d)? +(\d{3})\b")
_HTML = ("text/html", "application/xhtml+xml")
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})[^\r\n]*\r\n")
_PACKINGS = {"gzip": 47, "x-gzip": 47, "deflate": 47}  # to zlib: either header
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Record:
    """One record of an archive, its block still unread."""

    number: int
    """From 1."""
    offset: int
    """Of its first byte in the unpacked archive."""
    headers: dict[str, str]
    """By lower-case name."""
    size: int
    """Bytes of its block."""
    block: "Block"

    @property
    def kind(self) -> str:
        """`response`, `conversion` and so on."""
        return self.headers.get("warc-type", "").lower()


@dataclass(frozen=True)
class Page:
    """What a record holds."""

    data: bytes
    html: bool
    charset: str | None


@dataclass(frozen=True)
class NoPage:
    """Why a record is no document."""

    reason: str
    told: str = ""


class Block:
    """The bytes of one record, and no more."""

    def __init__(self, stream: BinaryIO, size: int, name: str) -> None:
        self._stream, self._left, self._size, self._name = stream, size, size, name
        self._sha1 = hashlib.sha1(usedforsecurity=False)

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end. Raises SourceError when the archive ends before the record does."""
        data = self._stream.read(min(size, self._left))
        self._left -= len(data)
        self._sha1.update(data)
        if not data and size and self._left:
            raise SourceError(
                f"{self._name}: is cut short: has {self._size - self._left:,} of its {self._size:,} bytes"
            )
        return data

    def fits(self, digest: str) -> bool:
        """Whether the whole block has this digest, as far as it is of a kind that is known: SHA-1 in base 32."""
        kind, _, value = digest.partition(":")
        if kind.lower() != "sha1" or len(value) != 32 or self._left:
            return True
        return base64.b32encode(self._sha1.digest()).decode() == value.upper()

    def skip(self) -> None:
        """Pass over what is left."""
        while self.read(PIECE):
            pass


def warc_records(stream: BinaryIO, uri: str) -> Iterator[Record]:
    """The records of an archive, in order; what is left of a block is passed over.

    Raises:
        SourceError: a record does not begin where one should, has no length, or is cut short. Names record and byte.
    """
    number = offset = 0
    while line := stream.readline(MOST_LINE):
        if not line.strip(b"\r\n"):  # two of them end a record
            offset += len(line)
            continue
        number += 1
        name = f"{uri}: record {number} at byte {offset:,}"
        if not _VERSION.fullmatch(line):
            raise SourceError(f"{name}: begins with {line[:20]!r}, not with WARC/1.0 or WARC/1.1")
        headers, size = _headers(stream, name)
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 19):
            raise SourceError(f"{name}: has no Content-Length")
        block = Block(stream, int(length), name)
        yield Record(number, offset, headers, int(length), block)
        block.skip()
        offset += len(line) + size + int(length)


def page_of(record: Record, limit: int) -> Page | NoPage | None:
    """The text in a record, as bytes; None for a record that is about others, as requests and metadata are.

    Args:
        limit: of a document, in bytes. A larger one has the reason `max_document_bytes`.
    """
    kind = record.headers.get("content-type", "").lower()
    if record.kind == "response" and kind.startswith("application/http"):
        found = _response(record.block, limit)
    elif record.kind in ("conversion", "resource"):
        found = _typed(kind or "text/plain", record.block, b"", limit, {})
    else:
        return None
    said = record.headers.get("warc-block-digest", "")
    if isinstance(found, Page) and not record.block.fits(said):
        return NoPage("warc_digest", f"its bytes do not have the digest that it names ({said[:60]}), so it is dropped")
    return found


def _response(block: Block, limit: int) -> Page | NoPage:
    """The page of an HTTP response."""
    data = b""
    while (end := _BLANK_LINE.search(data)) is None and len(data) < MOST_HEADERS and (piece := block.read(1 << 14)):
        data += piece
    status = _STATUS.match(data)
    if end is None or status is None:
        return NoPage("http_status")
    if status[1] != b"200":
        return NoPage("http_status")
    headers = _parsed(data[: end.start()].splitlines()[1:])
    return _typed(headers.get("content-type", "").lower(), block, data[end.end() :], limit, headers)


def _typed(kind: str, block: Block, begun: bytes, limit: int, headers: dict[str, str]) -> Page | NoPage:
    """The page of this media type, of which `begun` is read."""
    html = kind.startswith(_HTML)
    if not html and not kind.startswith("text/plain"):
        return NoPage("not_text")
    read, size = [begun], len(begun)
    while size <= limit and (piece := block.read(PIECE)):
        read.append(piece)
        size += len(piece)
    if size > limit:
        return NoPage("max_document_bytes")
    body = b"".join(read)
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = _joined(body)
    packing = headers.get("content-encoding", "identity").lower()
    if packing in _PACKINGS:
        try:
            body = zlib.decompressobj(_PACKINGS[packing]).decompress(body, limit + 1)
        except zlib.error:
            return NoPage("http_encoding")
        if len(body) > limit:
            return NoPage("max_document_bytes")
    elif packing not in ("identity", ""):
        return NoPage("http_encoding")
    charset = _CHARSET.search(kind)
    return Page(body, html, charset[1] if charset else None)


def _joined(body: bytes) -> bytes:
    """A body that was sent in chunks, as one. Some crawlers keep the header and not the chunks: then as it is."""
    joined, place = [], 0
    while size := _CHUNK.match(body, place):
        place = size.end() + int(size[1], 16)
        joined.append(body[size.end() : place])
        place += 2  # the line end after it
    return b"".join(joined) or body


def _headers(stream: BinaryIO, name: str) -> tuple[dict[str, str], int]:
    """A block of headers, and its size in bytes."""
    lines, size = [], 0
    while (line := stream.readline(MOST_LINE)).strip(b"\r\n"):
        lines.append(line)
        size += len(line)
        if size > MOST_HEADERS:
            raise SourceError(f"{name}: has more than {MOST_HEADERS:,} bytes of headers")
    if not line:
        raise SourceError(f"{name}: is cut short: its headers do not end")
    return _parsed(lines), size + len(line)


def _parsed(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    name = ""
    for line in lines:
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text[:1] in (" ", "\t") and name:
            headers[name] += " " + text.strip()
        else:
            name, _, value = text.partition(":")
            name = name.strip().lower()
            headers[name] = value.strip()
    return headers
