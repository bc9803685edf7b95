"""Sending bytes to a store: hashed while they are read, and under their address only when they are whole.

On this machine a file is read once: hashed while it is written aside in the store, then renamed to its address. To a
store elsewhere it is hashed first, so that what is there is not sent again; what is then read for sending is hashed
once more and must be the same. A stream, which can be read only once, goes to `tmp/` there and is copied by the store.
"""

import hashlib
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
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
            hashes = _write_object(filesystem, path, source, 0, md5=True, accept=lambda _: True)
        member = _member(name, hashes)
        _move(url, filesystem, path, open_url(url, address(member.md5))[1])
        _check_size(url, filesystem, member, name)
    finally:
        _forget(filesystem, path)
    return member


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
        with open(file.path, "rb", buffering=0) as source:
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
            with open(aside.path, "wb", buffering=0) as copy:
                hashes = hash_while(source, lambda buffer: _write_all(copy, buffer), meter=meter)
                # Not left for later: the disk works while the next file is hashed.
                os.fsync(copy.fileno())
            member = _member(name, hashes)
            final = self.root / address(member.md5)
            aside.move(final)
        self.written.append(final)
        return member

    def sync(self) -> None:
        """Wait until the disk has what was written, names included."""
        with reaching(self.url):
            on_threads(SYNCS, _sync, self.written)
            on_threads(SYNCS, _sync, sorted({path.parent for path in self.written}))
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
            data = file.path.read_bytes()
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
        self._upload(file.path, member)
        _check_size(self.url, self.filesystem, member, file.path)
        return member

    def _upload(self, source: Path, member: Member) -> None:
        final = self._path(member)
        # An object store shows an object when it is whole; of another file system nobody knows.
        direct = bool(self.filesystem.async_impl)
        path = final if direct else open_url(self.url, f"tmp/{uuid.uuid4().hex}")[1]

        def same(hashes: Hashes) -> bool:
            return (hashes.sha256, hashes.size) == (member.sha256, member.size)

        def once() -> None:
            with open(source, "rb", buffering=0) as file:
                hashes = _write_object(self.filesystem, path, file, member.size, md5=False, accept=same)
            if not same(hashes):
                raise StoreError(f"{source}: was changed while it was sent to {shown(self.url)}: send it again")

        try:
            attempt(self.url, once)
            self.meter(member.size)
            if not direct:
                _move(self.url, self.filesystem, path, final)
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
    md5: bool,
    accept: Callable[[Hashes], bool],
) -> Hashes:
    """Write a stream as an object. It appears when it is whole and `accept` takes it, else not at all."""
    target: Any = filesystem.open(path, "wb", block_size=max(PART, size // 9000))
    try:
        hashes = hash_while(source, lambda buffer: target.write(bytes(buffer)), md5=md5)
        accepted = accept(hashes)
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


def _write_all(file: Any, buffer: memoryview) -> None:
    while buffer:  # a raw file may take less than it is given
        buffer = buffer[file.write(buffer) :]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
