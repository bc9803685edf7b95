"""Files read and hashed, wherever they lie: in constant memory, on every processor, each file once.

What cannot be read is told, not raised: one bad file must not keep an auditor from the next.
"""

import ctypes
import hashlib
import mmap
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from io import FileIO
from threading import Lock, local
from typing import Any, BinaryIO

from fsspec.implementations.local import LocalFileSystem

from cairn.errors import CairnError, one_line
from cairn.lineage.filesystem import open_url, reaching, size_of
from cairn.lineage.hashing import hash_stream
from cairn.progress import progress
from cairn.resources import Resources
from components.snapshot.objects import open_version

# Small enough to stay in a processor's second cache between the copy from the page cache and the hash: 256 KiB reads at
# 84 % of the speed of sha256 alone, 8 MiB at 78 % (one core, SHA-NI).
BLOCK = 256 << 10
LARGE = 64 << 20  # bytes from which a file that is not in the page cache is read past it
# To audit 100 GB then pushes nobody else's pages out. It also takes less than half of the processor: 1.9 GB for each
# second of a core against 0.5 to 0.7 where the cache has to be filled (10 GB, ext4, Linux 6.18).
DIRECT_BLOCK = 4 << 20  # there is no reading ahead, so the requests themselves have to be large
PROBES = 16
REQUESTS = 16  # to a store that is not a disk of ours, in flight at once


@dataclass(frozen=True, order=True)
class Place:
    """Where bytes lie: a path or URL, and for an object that its store keeps in versions, which one."""

    url: str
    version: str | None = None


@dataclass(frozen=True)
class Seen:
    """What was found at a place."""

    size: int | None
    """Bytes; None where there is nothing, or nothing that can be read."""
    sha256: str | None = None
    """None where the bytes were not read."""
    error: str = ""
    """Why it could not be read, in one line."""


class Reader:
    """Looks at places, and remembers what was there."""

    def __init__(self, read_bytes: bool) -> None:
        self.read_bytes = read_bytes
        self.seen: dict[Place, Seen] = {}
        self._by_file: dict[tuple[int, int], Seen] = {}
        """By device and inode: a file under two names, as in a DVC cache of links, is read once."""
        self._buffers = local()

    def look(self, places: Iterable[Place]) -> None:
        """Look at every place that was not looked at before; afterwards `seen` has it. Progress is shown in bytes."""
        new = sorted(set(places) - self.seen.keys())
        with ThreadPoolExecutor(REQUESTS) as threads:
            for place, seen in zip(new, threads.map(_measure, new), strict=True):
                self.seen[place] = seen
        if not self.read_bytes:
            return
        there = [place for place in new if self.seen[place].size is not None]
        # The largest first, so that no processor is left with one at the end.
        there.sort(key=lambda place: -(self.seen[place].size or 0))
        total = sum(self.seen[place].size or 0 for place in there)
        here = [place for place in there if _is_file(place)]
        away = [place for place in there if not _is_file(place)]
        lock = Lock()
        with progress("audit", total, "bytes") as shown:

            def hash_one(place: Place) -> None:
                def advance(amount: int) -> None:
                    with lock:
                        shown.advance(amount)

                self.seen[place] = self._hash(place, advance)

            # Twice as many as processors: half of them may wait for the disk.
            for group, workers in ((here, 2 * Resources.from_environment().workers), (away, REQUESTS)):
                with ThreadPoolExecutor(workers) as threads:
                    list(threads.map(hash_one, group))

    def _hash(self, place: Place, advance: Callable[[int], None]) -> Seen:
        try:
            if not _is_file(place):
                with reaching(place.url), _opened(place) as source:
                    return self._digest(source, advance)
            with open(place.url, "rb", buffering=0) as source:
                stat = os.fstat(source.fileno())
                known = self._by_file.get((stat.st_dev, stat.st_ino))
                if known is not None:
                    advance(known.size or 0)
                    return known
                direct = _direct(source.fileno(), place.url, stat.st_size) if stat.st_size >= LARGE else None
                if direct is None:
                    seen = self._digest(source, advance)
                else:
                    with direct:
                        seen = self._digest(direct, advance, DIRECT_BLOCK)
                self._by_file[stat.st_dev, stat.st_ino] = seen
                return seen
        except (CairnError, OSError) as error:
            return Seen(None, error=one_line(error))

    def _digest(self, source: Any, advance: Callable[[int], None], block: int = BLOCK) -> Seen:
        buffer = getattr(self._buffers, f"of_{block}", None)
        if buffer is None:
            # Of whole pages, as reading past the page cache wants it; each thread has its own.
            buffer = mmap.mmap(-1, block)
            setattr(self._buffers, f"of_{block}", buffer)
        found = hash_stream(source, memoryview(buffer), md5=False, meter=advance)
        return Seen(found.size, found.sha256)


def _direct(descriptor: int, path: str, size: int) -> FileIO | None:
    """The file again, opened to be read past the page cache; None where it is in there, or this cannot be done."""
    if not hasattr(os, "O_DIRECT") or _in_memory(descriptor, size) > 0.5:
        return None
    try:
        opened = FileIO(os.open(path, os.O_RDONLY | os.O_DIRECT), "rb")
    except OSError:
        return None
    try:
        opened.readinto(mmap.mmap(-1, mmap.PAGESIZE))  # some file systems refuse only now
        opened.seek(0)
        return opened
    except OSError:
        opened.close()
        return None


def _in_memory(descriptor: int, size: int) -> float:
    """The share of some pages of a file, evenly spread, that are in the page cache; 1 where that cannot be told."""
    found = 0
    for index in range(PROBES):
        offset = index * size // PROBES // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        try:
            with mmap.mmap(descriptor, mmap.PAGESIZE, access=mmap.ACCESS_COPY, offset=offset) as page:
                start = ctypes.c_char.from_buffer(page)
                told = ctypes.c_ubyte(1)
                failed = _libc().mincore(
                    ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(1), ctypes.byref(told)
                )
                del start  # it holds the page open
        except (OSError, ValueError, AttributeError):
            return 1.0
        found += bool(failed) or told.value & 1
    return found / PROBES


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def read_small(place: Place, sha256: str) -> bytes | None:
    """The bytes at a place, if they are those of the digest; else None."""
    try:
        if _is_file(place):
            with open(place.url, "rb") as file:
                data = file.read()
        else:
            with reaching(place.url), _opened(place) as source:
                data = source.read()
    except (CairnError, OSError):
        return None
    return data if hashlib.sha256(data).hexdigest() == sha256 else None


def _is_file(place: Place) -> bool:
    return "://" not in place.url


def _measure(place: Place) -> Seen:
    """The size of what is at a place."""
    try:
        if place.version is not None:
            return Seen(0)  # its store tells when it is opened
        if _is_file(place):
            return Seen(os.stat(place.url).st_size) if os.path.isfile(place.url) else Seen(None)
        filesystem, path = open_url(place.url)
        with reaching(place.url):
            return Seen(size_of(filesystem, path))
    except (CairnError, OSError) as error:
        return Seen(None, error=one_line(error))


def _opened(place: Place) -> BinaryIO:
    if place.version is not None:
        return open_version(place.url, place.version)
    filesystem, path = open_url(place.url)
    if isinstance(filesystem, LocalFileSystem):  # file://…
        return open(path, "rb", buffering=0)
    opened: BinaryIO = filesystem.open(path, "rb", block_size=8 << 20, cache_type="readahead")
    return opened
