"""Fetching artifacts from a store: in parallel, checked by sha256, and taken up again where it was left.

What is on its way lies in a folder beside the destination that is named after the artifact: whoever fetches the same
artifact to the same place again, after whatever ended the first, goes on with it. A file there holds the beginning of
its object; the sha256 of the whole says whether it did.
"""

import fcntl
import hashlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import BinaryIO, cast

import fsspec

from cairn.errors import StoreError, written_at
from cairn.lineage.artifact import Artifact, Member, move_into_place, remove
from cairn.lineage.filesystem import attempt, is_local, open_url, reaching, shown, size_of
from cairn.lineage.hashing import (
    BUFFER,
    LARGE,
    Hashes,
    Meter,
    Readable,
    go_on,
    hash_file,
    hash_stream,
    hash_while,
    on_threads,
    processors,
    together,
)
from cairn.lineage.pins import address
from cairn.lineage.transfers import side_by_side

RANGE = 8 << 20
"""Bytes asked for at once."""
RANGES = 4
"""Ranges of one file that are in flight."""
KEPT = 16 << 20
"""Bytes from which a fetch that failed is worth keeping: less is sooner fetched again than wondered about."""


def fetch(roots: Sequence[str], artifact: Artifact, members: Sequence[Member], destination: Path, meter: Meter) -> None:
    """Put some members of an artifact at `destination`, in place of what is there.

    Args:
        roots: URLs under which a `files/` lies; the first that has the right bytes gives them.

    Raises StoreError when none has, naming each.
    """
    with written_at(destination), _on_its_way(destination, artifact.digest) as folder:
        content = folder / "content"
        _drop_others(content, artifact, members)

        def bring(member: Member) -> None:
            go_on()
            target = content / member.path if artifact.is_directory else content
            target.parent.mkdir(parents=True, exist_ok=True)
            _bring(roots, member, target, artifact.digest, meter)

        def several(batch: range) -> None:
            for index in batch:
                bring(members[index])

        if is_local(open_url(roots[0])[0]):
            batches = list(together([member.size for member in members]))
            on_threads(processors(), several, batches)
        else:
            side_by_side(bring, members, [member.size for member in members])
        if artifact.is_directory:
            content.mkdir(exist_ok=True)
        move_into_place(content, destination, folder / "replaced")


def read(roots: Sequence[str], member: Member, digest: str) -> bytes:
    """The bytes of a small member, from the first root that has the right ones. Raises StoreError when none has."""
    data = b""

    def right(root: str, filesystem: fsspec.AbstractFileSystem, path: str) -> bool:
        nonlocal data
        data = _whole(root, filesystem, path, member.size)
        return hashlib.sha256(data).hexdigest() == member.sha256

    _from_first(roots, member, digest, right)
    return data


def holds(root: str, member: Member) -> bool:
    """Whether the object of a member is at `root` and has its bytes; all are read, in constant memory."""

    def right(root: str, filesystem: fsspec.AbstractFileSystem, path: str) -> bool:
        with _rest(root, filesystem, path, 0, member.size) as source:
            return hash_while(source, md5=False).sha256 == member.sha256

    return not _tried(root, member, "", right)


class AbsentError(StoreError):
    """There is no such object, or none of that size."""


@contextmanager
def opened(root: str, member: Member) -> Iterator[Readable]:
    """The object of a member as a stream, whose bytes nobody has looked at. Raises AbsentError."""
    filesystem, path = open_url(root, address(member.md5))
    if attempt(root, lambda: size_of(filesystem, path)) != member.size:
        raise _absent(root, member.md5)
    with _rest(root, filesystem, path, 0, member.size) as source:
        yield source


def hash_object(root: str, md5: str, meter: Meter) -> Hashes:
    """What lies at an address, whatever should; all is read, in constant memory. Raises AbsentError."""
    filesystem, path = open_url(root, address(md5))
    size = attempt(root, lambda: size_of(filesystem, path))
    if size is None:
        raise _absent(root, md5)
    if is_local(filesystem):
        with reaching(root):
            try:
                return hash_file(Path(path), True, memoryview(bytearray(min(BUFFER, size + 1))), meter)
            except FileNotFoundError:
                raise _absent(root, md5) from None
    with _rest(root, filesystem, path, 0, size) as source:
        if size >= LARGE:
            return hash_while(source, meter=meter)
        return hash_stream(source, memoryview(bytearray(size + 1)), meter=meter)


def _absent(root: str, md5: str) -> AbsentError:
    return AbsentError(f"{shown(root)}/{address(md5)}: is not there, or of another size")


def _bring(roots: Sequence[str], member: Member, target: Path, digest: str, meter: Meter) -> None:
    """Make `target`, which may hold the beginning of a member, hold all of it."""

    def right(root: str, filesystem: fsspec.AbstractFileSystem, path: str) -> bool:
        with open(target, "a+b", buffering=0) as copy:
            begun = os.fstat(copy.fileno()).st_size
            # Where what was there led to other bytes, it may be to blame, not the object.
            for start in (begun, 0) if 0 < begun <= member.size else (0,):
                copy.truncate(start)
                if _complete(root, filesystem, path, member, copy, start) == member.sha256:
                    return True
            copy.truncate(0)
            return False

    _from_first(roots, member, digest, right)
    meter(member.size)


def _from_first(roots: Sequence[str], member: Member, digest: str, right: Callable[..., bool]) -> None:
    """Try the roots in turn until one is `right`. One that is damaged is named, even if another was found."""
    bad: list[str] = []
    for root in roots:
        wrong = _tried(root, member, digest, right)
        if not wrong:
            for one in bad:
                if not one.endswith(_MISSING):
                    print(f"{one}: taken from {shown(root)}", file=sys.stderr, flush=True)
            return
        bad.append(wrong)
    raise StoreError("; ".join(bad))


_MISSING = "is missing from the store"


def _tried(root: str, member: Member, digest: str, right: Callable[..., bool]) -> str:
    """What is wrong with the object of a member at a root; nothing if it is `right`."""
    key = address(member.md5)
    place = f"{shown(root)}/{key}"
    try:
        filesystem, path = open_url(root, key)
        size = attempt(root, lambda: size_of(filesystem, path))
        if size is None:
            return f"{place}: {member.path} {_MISSING}"
        if size != member.size:
            return f"{place}: holds {size:,} bytes and not the {member.size:,} of {member.path}"
        return "" if right(root, filesystem, path) else f"{place}: holds other bytes than {member.path} of {digest}"
    except StoreError as error:
        return str(error)


def _complete(
    root: str, filesystem: fsspec.AbstractFileSystem, path: str, member: Member, copy: BinaryIO, start: int
) -> str:
    """Write what is missing to a file that holds the first `start` bytes of an object; the sha256 of the whole."""
    if member.size < LARGE and start == 0:
        data = _whole(root, filesystem, path, member.size)
        copy.write(data)
        return hashlib.sha256(data).hexdigest()
    with _rest(root, filesystem, path, start, member.size) as rest:
        resumed = _Resumed(copy, start, rest)
        return hash_while(resumed, resumed.write, md5=False).sha256


def _whole(root: str, filesystem: fsspec.AbstractFileSystem, path: str, size: int) -> bytes:
    def once() -> bytes:
        data = cast(bytes, filesystem.cat_file(path))
        if len(data) < size:
            raise ConnectionError(f"the answer ended at byte {len(data):,} of {size:,}")
        return data

    return attempt(root, once)


class _Resumed:
    """A stream of what a file holds already and then of the rest, which is written to the file as it is read."""

    def __init__(self, file: BinaryIO, start: int, rest: Readable) -> None:
        self._file, self._start, self._rest = file, start, rest
        self._read = self._written = 0

    def readinto(self, buffer: memoryview, /) -> int:
        left = self._start - self._read
        if left > 0:
            data = os.pread(self._file.fileno(), min(left, len(buffer)), self._read)
            buffer[: len(data)] = data
            count = len(data)
        else:
            count = self._rest.readinto(buffer) or 0
        self._read += count
        return count

    def write(self, buffer: memoryview) -> None:
        if self._written >= self._start:
            left = buffer
            while left:
                left = left[self._file.write(left) :]
        self._written += len(buffer)


@contextmanager
def _rest(root: str, filesystem: fsspec.AbstractFileSystem, path: str, start: int, size: int) -> Iterator[Readable]:
    """An object from byte `start` on, as a stream that gets over errors that pass."""
    if is_local(filesystem):
        with reaching(root):
            try:
                file = open(path, "rb", buffering=0)  # noqa: SIM115
            except FileNotFoundError:  # it was there just now
                raise AbsentError(f"{shown(root)}: {path} is not there any more") from None
        with file:
            file.seek(start)
            yield _Local(root, file)
        return
    with ThreadPoolExecutor(RANGES) as pool:
        ranges = _Ranges(root, filesystem, path, start, size, pool)
        try:
            yield ranges
        finally:
            ranges.drop()


class _Local:
    """A stream of an object on this machine."""

    def __init__(self, root: str, file: FileIO) -> None:
        self._root, self._file = root, file

    def readinto(self, buffer: memoryview, /) -> int | None:
        return attempt(self._root, lambda: self._file.readinto(buffer))


class _Ranges:
    """A stream of an object that is asked for in ranges, several ahead of what is read."""

    def __init__(
        self,
        root: str,
        filesystem: fsspec.AbstractFileSystem,
        path: str,
        start: int,
        size: int,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._root, self._filesystem, self._path, self._pool = root, filesystem, path, pool
        self._next, self._size = start, size
        self._ahead: deque[Future[bytes]] = deque()
        self._left = memoryview(b"")

    def readinto(self, buffer: memoryview, /) -> int:
        while self._next < self._size and len(self._ahead) < RANGES:
            end = min(self._next + RANGE, self._size)
            self._ahead.append(self._pool.submit(self._range, self._next, end))
            self._next = end
        if not self._left and self._ahead:
            self._left = memoryview(self._ahead.popleft().result())
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def drop(self) -> None:
        """Ask for no more."""
        for future in self._ahead:
            future.cancel()

    def _range(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`, asked for again from where an answer ended too early."""
        pieces: list[bytes] = []
        have = start

        def more() -> None:
            nonlocal have
            data = cast(bytes, self._filesystem.cat_file(self._path, start=have, end=end))[: end - have]
            if not data:
                raise ConnectionError(f"the answer ended at byte {have:,} of {self._size:,}")
            pieces.append(data)
            have += len(data)

        while have < end:
            attempt(self._root, more)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _drop_others(content: Path, artifact: Artifact, members: Sequence[Member]) -> None:
    """Remove what an earlier fetch of other members of the artifact left."""
    if not artifact.is_directory or not content.is_dir():
        return
    wanted = {str(content / member.path) for member in members}
    for folder, _, files in os.walk(content):
        for name in files:
            if os.path.join(folder, name) not in wanted:
                os.unlink(os.path.join(folder, name))


@contextmanager
def _on_its_way(destination: Path, digest: str) -> Iterator[Path]:
    """The folder of what is on its way to `destination`, held against other processes; gone when the block ends well.

    What an error leaves in it stays where it is worth it, to be gone on with.
    """
    folder = destination.with_name(f".{destination.name}.{digest[:16]}.part")
    handle = _held(folder)
    try:
        try:
            yield folder
        except BaseException:
            kept = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            if kept < KEPT:
                remove(folder)
            raise
        remove(folder)
    finally:
        os.close(handle)


def _held(folder: Path) -> int:
    """Make the folder and lock it. The kernel lets go of it when this process ends, however it ends."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # whoever held it was done just now
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: another process fetches the same: waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            if os.stat(folder).st_ino == os.fstat(handle).st_ino:
                return handle
        except FileNotFoundError:
            pass
        os.close(handle)
