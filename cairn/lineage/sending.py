"""Sending bytes to a store: hashed while they are read, and under their address only when they are whole.

On this machine a file is read once: hashed while it is written aside in the store, then renamed to its address. To a
store elsewhere it is hashed first, so that what is there is not sent again; what is then read for sending is hashed
once more and must be the same. Where bytes could not be taken back, they go to `tmp/` there, and the store copies them.
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from cairn.errors import StoreError
from cairn.lineage.artifact import File, Member
from cairn.lineage.fetching import holds
from cairn.lineage.filesystem import attempt, is_local, open_url, shown, size_of
from cairn.lineage.folder import Folder
from cairn.lineage.hashing import (
    LARGE,
    Hashes,
    Meter,
    Readable,
    hash_bytes,
    hash_file,
    hash_while,
)
from cairn.lineage.pins import address
from cairn.lineage.transfers import Opened, all_of, are, member_of, side_by_side, source_file

PART = 32 << 20
"""Bytes of one part of an upload. An upload may have 10,000 parts: of what is larger, the parts are."""

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
        return Folder(url, Path(root)).keep(files, meter)
    uploads = _Uploads(url, filesystem, verify, meter)
    return side_by_side(uploads.send, files, [file.size for file in files])


@contextmanager
def receiving(url: str, meter: Meter) -> Iterator[Receive]:
    """Gives what brings a member that was hashed before to its address; what it brought is on the disk at the end.

    It is told how the member is opened, which it may do again. It returns False, and nothing is changed, when the bytes
    are not that member's; of a member whose sha256 is empty only the md5 is known, and compared. Raises what opening
    raises, and StoreError.
    """
    filesystem, root = open_url(url)
    if is_local(filesystem):
        folder = Folder(url, Path(root))
        yield lambda member, opened: folder.receive(member, opened, meter)
        folder.sync()
    else:
        yield _Uploads(url, filesystem, False, meter).receive


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
            with source_file(file.path) as source:
                data = source.readall()
            member = member_of(file.name, hash_bytes(data))
            if not self._there(member):
                path = self._path(member)
                attempt(self.url, lambda: self.filesystem.pipe_file(path, data))
                _check_size(self.url, self.filesystem, member, file.path)
            self.meter(member.size)
            return member
        member = member_of(file.name, hash_file(file.path, md5=True))
        if self._there(member):
            self.meter(member.size)
            return member
        if not self._upload(lambda: source_file(file.path), member, md5=False):
            raise StoreError(f"{file.path}: was changed while it was sent to {shown(self.url)}: send it again")
        _check_size(self.url, self.filesystem, member, file.path)
        return member

    def receive(self, member: Member, opened: Opened) -> bool:
        if member.size >= LARGE:
            if not self._upload(opened, member, md5=True):
                return False
        else:
            with opened() as source:
                data = all_of(source, member.size)
            if not are(hash_bytes(data), member):
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
            return are(hashes, member)

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
