"""The bytes of an object: verified against the lock while they are read, and cut into lines of bounded size.

Nothing here holds more than one line or a few megabytes, whatever the object claims to be.
"""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from cairn.errors import SourceError, StoreError, one_line
from cairn.lineage.artifact import Member
from cairn.lineage.filesystem import shown
from cairn.lineage.store import Store
from components.ingest.unpacking import PIECE
from components.snapshot.lock import LockedObject
from components.snapshot.objects import open_version


@contextmanager
def opened(locked: LockedObject, member: Member | None, store: Store) -> Iterator[BinaryIO]:
    """The bytes of an object as a stream. When the block ends, what is left is read and the sha256 is checked.

    Args:
        member: where the store keeps it; None when its own store pins it.

    Raises:
        SourceError: the bytes are not there or not those of the lock. This comes before any other complaint about them.
    """
    try:
        raw = store.open(member) if member is not None else open_version(locked.uri, str(locked.version))
    except StoreError as error:
        raise SourceError(
            f"{locked.uri}: {error}: run the snapshot stage again, or point CAIRN_STORE to a store that has it"
        ) from None
    with raw:
        hashed = _Hashed(raw, locked.uri)
        try:
            yield io.BufferedReader(hashed, PIECE)
        except SourceError:
            _verify(hashed, locked, member, store)
            raise
        _verify(hashed, locked, member, store)


def _verify(hashed: "_Hashed", locked: LockedObject, member: Member | None, store: Store) -> None:
    if hashed.to_the_end() != locked.sha256:
        place = shown(store.locate(member) or str(store)) if member is not None else f"its version {locked.version}"
        raise SourceError(
            f"{locked.uri}: {place} holds other bytes than the lock file names: remove it and run the snapshot stage "
            "again, or take the sources as they are now with `cairn snapshot`"
        )


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


class _Hashed(io.RawIOBase):
    """Hashes what is read through it."""

    def __init__(self, source: BinaryIO, uri: str) -> None:
        self._source, self._uri, self._sha256 = source, uri, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def to_the_end(self) -> str:
        """Read what is left; the sha256 of everything."""
        while self._read(PIECE):
            pass
        return self._sha256.hexdigest()

    def _read(self, size: int) -> bytes:
        try:
            data = self._source.read(size)
        except Exception as error:
            # File systems raise what their libraries do, so there is no common base.
            raise SourceError(f"{self._uri}: cannot be read: {one_line(error) or type(error).__name__}") from None
        self._sha256.update(data)
        return data
