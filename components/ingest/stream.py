"""The bytes of an object: verified against the lock while they are read, unpacked, and cut into lines of bounded size.

Nothing here holds more than one line or a few megabytes, whatever the object claims to be.
"""

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

import zstandard

from cairn.errors import SourceError, one_line
from cairn.lineage.artifact import Member
from cairn.lineage.store import Store
from components.snapshot.lock import LockedObject
from components.snapshot.objects import open_version

PIECE = 1 << 20
# A zstd block is at least 4 bytes long and holds at most 128 KiB: fed this much at a time, the decoder hands back at
# most
# 32 MiB. (`zstandard.stream_reader` bounds its output by itself, but takes a truncated frame for a whole one.)
_ZSTD_FEED = 1 << 10


@contextmanager
def opened(locked: LockedObject, member: Member | None, store: Store) -> Iterator[BinaryIO]:
    """The bytes of an object as a stream. When the block ends, what is left is read and the sha256 is checked.

    Args:
        member: where the store keeps it; None when its own store pins it.

    Raises:
        SourceError: the bytes are not those of the lock. This comes before any other complaint about them.
    """
    raw = store.open(member) if member is not None else open_version(locked.uri, cast(str, locked.version))
    with raw:
        checked = _Checked(raw)
        stream = io.BufferedReader(checked, PIECE)
        try:
            yield stream
        except SourceError:
            checked.verify(locked)
            raise
        checked.verify(locked)


@contextmanager
def unpacked(stream: BinaryIO, compression: str, uri: str) -> Iterator[BinaryIO]:
    """The stream without its compression. Raises SourceError, also while it is read, when it is cut or damaged."""
    if not compression:
        yield stream
        return
    plain: BinaryIO
    if compression == ".gz":
        plain = cast(BinaryIO, gzip.GzipFile(fileobj=stream))
    else:
        plain = io.BufferedReader(_Zstd(stream), PIECE)
    try:
        if not cast(io.BufferedReader, stream).peek(1):
            raise EOFError
        yield plain
    except EOFError:
        raise SourceError(f"{uri}: is cut short: the {compression} stream ends too early") from None
    except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise SourceError(f"{uri}: is not a whole {compression} file: {one_line(error)}") from None


@dataclass(frozen=True)
class Line:
    """One line of a text stream, without its newline."""

    number: int
    """From 1."""
    offset: int
    """Of its first byte in the unpacked stream."""
    size: int
    """Bytes, without the newline."""
    data: bytes | None
    """None when it is longer than allowed; then it was passed over piece by piece."""


def lines(stream: BinaryIO, limit: int) -> Iterator[Line]:
    """The lines of a stream, split at newlines only. One of more than `limit` bytes is not loaded."""
    number = offset = 0
    while data := stream.readline(limit + 1):
        number += 1
        size, whole = len(data), data.endswith(b"\n")
        if whole or size <= limit:
            yield Line(number, offset, size - whole, data[: size - whole])
        else:
            del data
            while not whole and (piece := stream.readline(PIECE)):
                size, whole = size + len(piece), piece.endswith(b"\n")
            yield Line(number, offset, size - whole, None)
        offset += size


def whole(stream: BinaryIO, limit: int) -> tuple[bytes | None, int]:
    """All bytes of a stream and their number; None for the bytes when there are more than `limit`."""
    kept: list[bytes] | None = []
    size = 0
    while piece := stream.read(PIECE):
        size += len(piece)
        if size > limit:
            kept = None
        if kept is not None:
            kept.append(piece)
    return (None if kept is None else b"".join(kept)), size


class _Checked(io.RawIOBase):
    """Hashes what is read through it."""

    def __init__(self, source: BinaryIO) -> None:
        self._source, self._sha256 = source, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._source.read(len(buffer))
        self._sha256.update(data)
        buffer[: len(data)] = data
        return len(data)

    def verify(self, locked: LockedObject) -> None:
        """Read the rest, and compare."""
        while data := self._source.read(PIECE):
            self._sha256.update(data)
        if self._sha256.hexdigest() != locked.sha256:
            raise SourceError(
                f"{locked.uri}: its bytes are not those of the lock file: the source or the store changed; "
                "`cairn snapshot` looks at the sources again"
            )


class _Zstd(io.RawIOBase):
    """Unpacks zstd frames, one after another, and tells a truncated one."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        self._packed = b""
        self._plain = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._plain:
            packed = self._packed or self._source.read(_ZSTD_FEED)
            if not packed:
                if self._begun:
                    raise EOFError
                return 0
            self._plain, self._packed, self._begun = memoryview(self._frame.decompress(packed)), b"", True
            if self._frame.eof:
                self._packed, self._begun = self._frame.unused_data, False
                self._frame = zstandard.ZstdDecompressor().decompressobj()
        size = min(len(buffer), len(self._plain))
        buffer[:size] = self._plain[:size]
        self._plain = self._plain[size:]
        return size
