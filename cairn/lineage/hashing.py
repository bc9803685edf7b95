"""Hashing files: sha256, which proves, and md5, which a store addresses by, in one pass and constant memory.

hashlib lets other threads run while it works on a buffer of a megabyte, so the hashes of one large file are taken side
by side, and several files at once, one on each processor. A small file is over before a thread would have begun: many
of them go to one thread together.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol, TypeVar

BUFFER = 1 << 20
"""Bytes read at once: what the hashes and the writer then find in the processor's cache."""
AHEAD = 8
"""Buffers that the reader may be ahead of the slowest."""
LARGE = 8 << 20
"""Bytes from which a file is worth threads of its own."""
TOGETHER = 16 << 20
"""Bytes of smaller files that one thread takes together."""
MOST_TOGETHER = 8192  # files

T = TypeVar("T")
R = TypeVar("R")
Meter = Callable[[int], None]
"""Told of every piece of work done, in bytes; from any thread."""


@dataclass(frozen=True)
class Hashes:
    """What was read of one file."""

    sha256: str
    md5: str
    """Empty where it was not asked for."""
    size: int
    """Bytes."""


class Readable(Protocol):
    """What can be read without a copy, as a file that was opened without a buffer."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill the buffer from its beginning; how many bytes, 0 at the end."""


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hash_files(files: Sequence[tuple[Path, int]], md5: bool, meter: Meter | None = None) -> list[Hashes]:
    """Hash files, given with their sizes in bytes, on all processors; in the order given.

    Args:
        md5: take it too.
    """

    def several(batch: Sequence[tuple[Path, int]]) -> list[Hashes]:
        buffer = memoryview(bytearray(min(BUFFER, max(size for _, size in batch) + 1)))
        return [hash_file(path, md5, buffer, meter) for path, _ in batch]

    batches = [[files[index] for index in batch] for batch in together([size for _, size in files])]
    return [hashes for batch in on_threads(processors(), several, batches) for hashes in batch]


def hash_file(path: Path, md5: bool, buffer: memoryview | None = None, meter: Meter | None = None) -> Hashes:
    """Hash one file.

    Args:
        buffer: memory to read a small file into.
    """
    with open(path, "rb", buffering=0) as file:
        if md5 and os.fstat(file.fileno()).st_size >= LARGE:
            return hash_while(file, meter=meter)
        return hash_stream(file, memoryview(bytearray(BUFFER)) if buffer is None else buffer, md5, meter)


def hash_bytes(data: bytes) -> Hashes:
    """Hash bytes that are in memory."""
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return Hashes(hashlib.sha256(data).hexdigest(), md5, len(data))


def hash_stream(source: Readable, buffer: memoryview, md5: bool = True, meter: Meter | None = None) -> Hashes:
    """Read a stream to its end, into `buffer` again and again, and hash it on this thread."""
    sha256, other, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    while count := source.readinto(buffer):
        go_on()
        filled = buffer[:count]
        sha256.update(filled)
        if md5:
            other.update(filled)
        if meter:
            meter(count)
        size += count
    return Hashes(sha256.hexdigest(), other.hexdigest() if md5 else "", size)


def hash_while(
    source: Readable, *others: Callable[[memoryview], object], md5: bool = True, meter: Meter | None = None
) -> Hashes:
    """Read a stream to its end, hash it, and give each of `others` every buffer meanwhile, on a thread of its own.

    A buffer is used again as soon as everybody is done with it: who needs the bytes for longer copies them. What one of
    `others` raises is raised here.
    """
    sha256, address = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    lanes = [_Lane(other) for other in ((address.update, *others) if md5 else others)]
    size = 0
    try:
        for buffer in cycle([memoryview(bytearray(BUFFER)) for _ in range(AHEAD)]):
            go_on()
            for lane in lanes:
                lane.wait_for_room()
            count = source.readinto(buffer)
            if not count:
                break
            for lane in lanes:
                lane.put(buffer[:count])
            sha256.update(buffer[:count])
            if meter:
                meter(count)
            size += count
    finally:
        for lane in lanes:
            lane.end()
    for lane in lanes:
        lane.check()
    return Hashes(sha256.hexdigest(), address.hexdigest() if md5 else "", size)


class _Lane:
    """A thread that is given buffers in order."""

    def __init__(self, consumer: Callable[[memoryview], object]) -> None:
        self._consumer = consumer
        self._todo: SimpleQueue[memoryview | None] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()
        for _ in range(AHEAD):
            self._room.put(None)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (buffer := self._todo.get()) is not None:
            try:
                if self._error is None:
                    self._consumer(buffer)
            except BaseException as error:  # raised by `check`, in the thread that waits for it
                self._error = error
            self._room.put(None)

    def wait_for_room(self) -> None:
        """Wait until the oldest buffer is free. Raises what the consumer raised."""
        self._room.get()
        self.check()

    def put(self, buffer: memoryview) -> None:
        self._todo.put(buffer)

    def end(self) -> None:
        """Wait until all is consumed."""
        self._todo.put(None)
        self._thread.join()

    def check(self) -> None:
        if self._error is not None:
            raise self._error


def together(sizes: Sequence[int]) -> Iterator[range]:
    """Ranges of files that one thread should take: a large one alone, small ones many at a time."""
    start = taken = 0
    for index, size in enumerate(sizes):
        if index > start and (taken + size > TOGETHER or index - start == MOST_TOGETHER):
            yield range(start, index)
            start, taken = index, 0
        taken += size
    if start < len(sizes):
        yield range(start, len(sizes))


def on_threads(threads: int, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """What `work` returns of every item, in order.

    The first error is raised, and so is what interrupts this thread; what has not begun then is dropped, and what has
    stops at its next `go_on`.
    """
    if len(items) < 2:
        return [work(item) for item in items]
    stopped = threading.Event()

    def begin(item: T) -> R:
        _of_this_thread.stopped = stopped
        go_on()
        return work(item)

    with ThreadPoolExecutor(min(threads, len(items))) as pool:
        futures = [pool.submit(begin, item) for item in items]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            failed = next((future for future in futures if future.done() and future.exception()), None)
            return [failed.result()] if failed else [future.result() for future in futures]
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class Stopped(BaseException):
    """Work on a thread that nobody waits for the end of."""


def go_on() -> None:
    """Raises Stopped when the work of this thread is not wanted any more."""
    stopped = getattr(_of_this_thread, "stopped", None)
    if stopped is not None and stopped.is_set():
        raise Stopped


_of_this_thread = threading.local()
