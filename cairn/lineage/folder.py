"""Objects of a store on this machine: hashed while they are written aside, then moved to their address and synced."""

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from queue import SimpleQueue

from cairn.lineage.artifact import File, Member
from cairn.lineage.filesystem import reaching
from cairn.lineage.hashing import (
    LARGE,
    Hashes,
    Meter,
    Readable,
    go_on,
    hash_bytes,
    hash_while,
    on_threads,
    processors,
    together,
)
from cairn.lineage.pins import address
from cairn.lineage.transfers import Opened, all_of, are, member_of, source_file

SYNCS = 16  # at once: a journal takes many in one go
FLUSHED = 64 << 20
"""Bytes after which the disk is told to begin."""


@dataclass(frozen=True)
class Folder:
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
        with source_file(file.path) as source:
            if file.size >= LARGE:
                with reaching(self.url):
                    return self.write(file.name, source, meter)
            data = source.readall()
        meter(len(data))
        member = member_of(file.name, hash_bytes(data))
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
            member = member_of(name, aside.write(source, meter))
            final = self.root / address(member.md5)
            aside.move(final)
        self.written.append(final)
        return member

    def receive(self, member: Member, opened: Opened, meter: Meter) -> bool:
        with opened() as source, reaching(self.url), self._aside() as aside:
            if member.size < LARGE:
                data = all_of(source, member.size)
                hashes = hash_bytes(data)
                meter(len(data))
            else:
                hashes = aside.write(source, meter)
            if not are(hashes, member):
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


def _holds_already(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False


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
