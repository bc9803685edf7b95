"""What sending to a store and fetching from it have in common: how much is in flight at once, how it is shown, and when
bytes are those of a member."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from io import FileIO
from pathlib import Path
from typing import TypeVar

from cairn.errors import StoreError
from cairn.lineage.artifact import Member
from cairn.lineage.hashing import LARGE, Hashes, Meter, Readable, on_threads
from cairn.progress import progress

SMALL_AT_ONCE = 24
"""Small objects in flight: each takes a round trip, whatever its size."""
LARGE_AT_ONCE = 4
"""Large ones: with their buffers, what bounds the memory of a transfer."""
SHOWN_FROM = 32 << 20
"""Bytes of a transfer that may take longer than a moment."""

Opened = Callable[[], AbstractContextManager[Readable]]
"""Opens bytes to be read; may be called again, to read them again."""

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(work: Callable[[T], R], items: Sequence[T], sizes: Sequence[int]) -> list[R]:
    """What `work` returns of every item, in order: small ones many at once, large ones few at once.

    Args:
        sizes: of the items, in bytes.
    """
    small = [index for index, size in enumerate(sizes) if size < LARGE]
    large = [index for index, size in enumerate(sizes) if size >= LARGE]
    done: dict[int, R] = {}
    for indices, at_once in ((small, SMALL_AT_ONCE), (large, LARGE_AT_ONCE)):
        done.update(zip(indices, on_threads(at_once, lambda index: work(items[index]), indices), strict=True))
    return [done[index] for index in range(len(items))]


@contextmanager
def measured(label: str, total: int) -> Iterator[Meter]:
    """Progress of a transfer of `total` bytes; a meter that any thread may call."""
    lock = threading.Lock()
    with progress(label, total, "bytes", shown=total >= SHOWN_FROM) as counter:

        def meter(amount: int) -> None:
            with lock:
                counter.advance(amount)

        yield meter


@contextmanager
def source_file(path: Path) -> Iterator[FileIO]:
    """A file of the artifact, to read."""
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115
    except FileNotFoundError:
        raise StoreError(f"{path}: was removed while it was stored: store it again") from None
    with file:
        yield file


def are(hashes: Hashes, member: Member) -> bool:
    """Whether bytes are a member's, and belong at its address: a pin of somebody else may have another's there."""
    at_home = hashes.md5 in ("", member.md5.removesuffix(".dir"))
    return at_home and hashes.size == member.size and member.sha256 in ("", hashes.sha256)


def all_of(source: Readable, size: int) -> bytes:
    """The bytes of a small stream; of a longer one as many as show that it is longer."""
    buffer, filled = memoryview(bytearray(size + 1)), 0
    while count := source.readinto(buffer[filled:]):
        filled += count
    return bytes(buffer[:filled])


def member_of(name: str, hashes: Hashes) -> Member:
    return Member(name, hashes.sha256, hashes.md5, hashes.size)
