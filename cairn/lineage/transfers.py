"""What sending to a store and fetching from it have in common: how much is in flight at once, and how it is shown."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from cairn.lineage.hashing import LARGE, Meter, on_threads
from cairn.progress import progress

SMALL_AT_ONCE = 24
"""Small objects in flight: each takes a round trip, whatever its size."""
LARGE_AT_ONCE = 4
"""Large ones: with their buffers, what bounds the memory of a transfer."""
SHOWN_FROM = 32 << 20
"""Bytes of a transfer that may take longer than a moment."""

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
