"""Sending bytes to a store: hashed while they are read, and under their address only when they are whole.

On this machine a file is read once: hashed while it is written aside in the store, then renamed to its address. To a
store elsewhere it is hashed first, so that what is there is not sent again; what is then read for sending is hashed
once more and must be the same. A stream, which can be read only once, goes to `tmp/` there and is copied by the store.
"""

import hashlib
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import fsspec

from cairn.errors import StoreError
from cairn.lineage.artifact import File, Member
from cairn.lineage.fetching import holds
from cairn.lineage.filesystem import attempt, is_local, open_url, reaching, shown, size_of
from cairn.lineage.hashing import (
    LARGE,
    Hashes,
    Meter,
    Readable,
    go_on,
    hash_file,
    hash_while,
    on_threads,
    processors,
    together,
)
from cairn.lineage.pins import address
from cairn.lineage.transfers import side_by_side

PART = 32 << 20
"""Bytes of one part of an upload. An upload may have 10,000 parts: of what is larger, the parts are."""
SYNCS = 16  # at once: a journal takes many in one go
FLUSHED = 64 << 20
"""Bytes after which the disk is told to begin."""

Opened = Callable[[], AbstractContextManager[Readable]]
Receive = Callable[[Member, Opened], bool]


def send(url: str, files: list[File], verify: bool, meter: Meter) -> list[Member]:
    """Bring files into the `files/` of a store; what each was when it was read.

    On this machine every object is written anew or compared, so a damaged one is replaced. Elsewhere one that is there
    at its size is left alone.

    Args:
        verify: elsewhere too, read what is there, and replace it when it is damaged.

    Raises StoreError when a file changes between hashing and sending, or the store cannot be reached.
    """
    filesystem, root = open_url(url)
    if is_local(filesystem):
        return _Folder(url, Path(root)).keep(files, meter)
    uploads = _Uploads(url, filesystem, verify, meter)
    return side_by_side(uploads.send, files, [file.size for file in files])


def send_stream(url: str, name: str, source: Readable) -> Member:
    """Bring what a stream holds into the `files/` of a store, hashed on the way; a member that is called `name`."""
    filesystem, root = open_url(url)
    if is_local(filesystem):
        folder = _Folder(url, Path(root))
        with reaching(url):
            member = folder.write(name, source, lambda _: None)
        folder.sync()
        return member
    temporary = f"tmp/{uuid.uuid4().hex}"
    _, path = open_url(url, temporary)
    try:
        with reaching(url):
            hashes = _write_object(filesystem, path, source, 0)
        member = _member(name, hashes)
        _move(url, filesystem, path, open_url(url, address(member.md5))[1])
        _check_size(url, filesystem, member, name)
    finally:
        _forget(filesystem, path)
    return member


@contextmanager
def receiving(url: str, meter: Meter) -> Iterator[Receive]:
    """Gives what brings a member that was hashed before to its address; what it brought is on the disk at the end.

    It is told how the member is opened, which it may do again. It returns False, and nothing is changed, when the bytes
    are not that member's; of a member whose sha256 is empty only the md5 is known, and compared. Raises what opening
    raises, and StoreError.
    """
    filesystem, root = open_url(url)
    if is_local(filesystem):
        folder = _Folder(url, Path(root))
        yield lambda member, opened: folder.receive(member, opened, meter)
        folder.sync()
    else:
        yield _Uploads(url, filesystem, False, meter).receive


@dataclass(frozen=True)
class _Folder:
    """A store on this machine."""

    url: str
    root: Path
    written: list[Path] = field(default_factory=list)
    """Objects that a pin is going to vouch for, and that may not be on the disk yet."""

    def keep(self, files: list[File], meter: Meter) -> list[Member]:
        def several(batch: range) -> list[Member]:
            return [self._keep(files[index], meter) for index in batch]

        batches = list(together([file.size for file in files]))
        members = [member for batch in on_threads(processors(), several, batches) for member in batch]
        self.sync()
        return members

    def _keep(self, file: File, meter: Meter) -> Member:
        go_on()
        with _source(file.path) as source:
            if file.size >= LARGE:
                with reaching(self.url):
                    return self.write(file.name, source, meter)
            data = source.readall()
        meter(len(data))
        member = _member(file.name, _hashes(data))
        final = self.root / address(member.md5)
        with reaching(self.url):
            if not _holds_already(final, data):
                with self._aside() as aside:
                    aside.path.write_bytes(data)
                    aside.move(final)
        self.written.append(final)
        return member

    def write(self, name: str, source: Readable, meter: Meter) -> Member:
        """Write a stream aside while it is hashed, and move it to its address."""
        with self._aside() as aside:
            member = _member(name, aside.write(source, meter))
            final = self.root / address(member.md5)
            aside.move(final)
        self.written.append(final)
        return member

    def receive(self, member: Member, opened: Opened, meter: Meter) -> bool:
        with opened() as source, reaching(self.url), self._aside() as aside:
            if member.size < LARGE:
                data = _all_of(source, member.size)
                hashes = _hashes(data)
                meter(len(data))
            else:
                hashes = aside.write(source, meter)
            if not _are(hashes, member):
                return False
            if member.size < LARGE:
                aside.path.write_bytes(data)
            final = self.root / address(member.md5)
            aside.move(final)
        self.written.append(final)
        return True

    def sync(self) -> None:
        """Wait until the disk has what was written, names included."""
        with reaching(self.url):
            on_threads(SYNCS, _sync, self.written)
            on_threads(SYNCS, _sync, sorted({path.parent for path in self.written}))
            on_threads(SYNCS, _sync, sorted({path.parent.parent for path in self.written}))
        self.written.clear()

    def _aside(self) -> "_Aside":
        return _Aside(self.root / "tmp" / uuid.uuid4().hex)


@dataclass(frozen=True)
class _Aside:
    """A file that is not under its address yet; gone when the block ends, unless it was moved."""

    path: Path

    def __enter__(self) -> "_Aside":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, source: Readable, meter: Meter) -> Hashes:
        with open(self.path, "wb", buffering=0) as copy, _flushed(copy) as write:
            return hash_while(source, write, meter=meter)

    def move(self, final: Path) -> None:
        try:
            os.replace(self.path, final)
        except FileNotFoundError:
            final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.path, final)

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Uploads:
    """A store elsewhere."""

    url: str
    filesystem: fsspec.AbstractFileSystem
    verify: bool
    meter: Meter

    def send(self, file: File) -> Member:
        """Send a file unless its object is there."""
        if file.size < LARGE:
            with _source(file.path) as source:
                data = source.readall()
            member = _member(file.name, _hashes(data))
            if not self._there(member):
                path = self._path(member)
                attempt(self.url, lambda: self.filesystem.pipe_file(path, data))
                _check_size(self.url, self.filesystem, member, file.path)
            self.meter(member.size)
            return member
        member = _member(file.name, hash_file(file.path, md5=True))
        if self._there(member):
            self.meter(member.size)
            return member
        if not self._upload(lambda: _source(file.path), member, md5=False):
            raise StoreError(f"{file.path}: was changed while it was sent to {shown(self.url)}: send it again")
        _check_size(self.url, self.filesystem, member, file.path)
        return member

    def receive(self, member: Member, opened: Opened) -> bool:
        if member.size >= LARGE:
            if not self._upload(opened, member, md5=True):
                return False
        else:
            with opened() as source:
                data = _all_of(source, member.size)
            if not _are(_hashes(data), member):
                return False
            path = self._path(member)
            attempt(self.url, lambda: self.filesystem.pipe_file(path, data))
            self.meter(member.size)
        _check_size(self.url, self.filesystem, member, member.path or member.md5)
        return True

    def _upload(self, opened: Opened, member: Member, md5: bool) -> bool:
        """Send a large object; False, and nothing is changed, when what was read is not that member.

        Args:
            md5: compare it too; not needed where it was taken of the same file.
        """
        final = self._path(member)
        # An object store shows an object when it is whole; of another file system nobody knows.
        direct = bool(self.filesystem.async_impl)
        path = final if direct else open_url(self.url, f"tmp/{uuid.uuid4().hex}")[1]

        def same(hashes: Hashes) -> bool:
            return _are(hashes, member)

        def once() -> bool:
            sent = 0

            def meter(amount: int) -> None:
                nonlocal sent
                sent += amount
                self.meter(amount)

            try:
                with opened() as source:
                    hashes = _write_object(
                        self.filesystem, path, source, member.size, accept=same, md5=md5, meter=meter
                    )
            except BaseException:
                self.meter(-sent)  # what is sent again counts once
                raise
            return same(hashes)

        try:
            sound = attempt(self.url, once)
            if sound and not direct:
                _move(self.url, self.filesystem, path, final)
            return sound
        finally:
            if not direct:
                _forget(self.filesystem, path)

    def _there(self, member: Member) -> bool:
        path = self._path(member)
        if attempt(self.url, lambda: size_of(self.filesystem, path)) != member.size:
            return False
        return not self.verify or holds(self.url, member)

    def _path(self, member: Member) -> str:
        return open_url(self.url, address(member.md5))[1]


def _write_object(
    filesystem: fsspec.AbstractFileSystem,
    path: str,
    source: Readable,
    size: int,
    *,
    accept: Callable[[Hashes], bool] | None = None,
    md5: bool = True,
    meter: Meter | None = None,
) -> Hashes:
    """Write a stream as an object. It appears when it is whole and `accept` takes it, else not at all.

    Args:
        accept: without it the stream is taken for what it is.
        md5: take it; whoever knows it need not.
    """
    target: Any = filesystem.open(path, "wb", block_size=max(PART, size // 9000))
    try:
        hashes = hash_while(source, lambda buffer: target.write(bytes(buffer)), md5=md5, meter=meter)
        accepted = accept is None or accept(hashes)
    except BaseException:
        _abandon(target)
        raise
    if accepted:
        target.close()
    else:
        _abandon(target)
    return hashes


def _abandon(target: Any) -> None:
    """Give up an upload: what was sent of it is dropped, and closing it later sends nothing."""
    with suppress(Exception):  # the error that led here says more
        target.discard()
    with suppress(Exception):
        target.closed = True


def _move(url: str, filesystem: fsspec.AbstractFileSystem, temporary: str, final: str) -> None:
    attempt(url, lambda: filesystem.cp_file(temporary, final))


def _forget(filesystem: fsspec.AbstractFileSystem, path: str) -> None:
    with suppress(Exception):  # a leftover under tmp/, which the collection sweeps
        filesystem.rm_file(path)


def _check_size(url: str, filesystem: fsspec.AbstractFileSystem, member: Member, source: object) -> None:
    key = address(member.md5)
    _, path = open_url(url, key)
    if attempt(url, lambda: size_of(filesystem, path)) != member.size:
        raise StoreError(f"{shown(url)}/{key}: the upload of {source} was cut short: send it again")


def _are(hashes: Hashes, member: Member) -> bool:
    """Whether bytes are a member's, and belong at its address: a pin of somebody else may have another's there."""
    at_home = hashes.md5 in ("", member.md5.removesuffix(".dir"))
    return at_home and hashes.size == member.size and member.sha256 in ("", hashes.sha256)


def _all_of(source: Readable, size: int) -> bytes:
    """The bytes of a small stream; of a longer one as many as show that it is longer."""
    buffer, filled = memoryview(bytearray(size + 1)), 0
    while count := source.readinto(buffer[filled:]):
        filled += count
    return bytes(buffer[:filled])


def _member(name: str, hashes: Hashes) -> Member:
    return Member(name, hashes.sha256, hashes.md5, hashes.size)


def _hashes(data: bytes) -> Hashes:
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return Hashes(hashlib.sha256(data).hexdigest(), md5, len(data))


def _holds_already(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False


@contextmanager
def _source(path: Path) -> Iterator[FileIO]:
    """A file of the artifact, to read."""
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115
    except FileNotFoundError:
        raise StoreError(f"{path}: was removed while it was stored: store it again") from None
    with file:
        yield file


@contextmanager
def _flushed(file: FileIO) -> Iterator[Callable[[memoryview], None]]:
    """What writes to a file that is on the disk when the block ends.

    The disk is kept at work meanwhile by a thread of its own: left alone, a system with much memory would begin when
    everything has been hashed and written.
    """
    pieces: SimpleQueue[bool] = SimpleQueue()
    unflushed = 0

    def flush() -> None:
        while pieces.get():
            with suppress(OSError):  # what the disk refused, the last fsync says
                os.fdatasync(file.fileno())

    def write(buffer: memoryview) -> None:
        nonlocal unflushed
        unflushed += len(buffer)
        while buffer:  # a raw file may take less than it is given
            buffer = buffer[file.write(buffer) :]
        if unflushed >= FLUSHED and pieces.empty():
            unflushed = 0
            pieces.put(True)

    flusher = threading.Thread(target=flush, daemon=True)
    flusher.start()
    try:
        yield write
    finally:
        pieces.put(False)
        flusher.join()
    os.fsync(file.fileno())


def _sync(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return  # a collection has removed what was found in place; whoever writes the pin looks again
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
