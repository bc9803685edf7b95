"""The content-addressed store, on any fsspec URL, in the layout of a DVC remote.

    files/md5/ab/cdef…       bytes; the listing of a directory ends in `.dir` and is written last
    tmp/…                    what is on its way to its address; what a kill leaves there, the collection sweeps
    pins/<sha256>.json       what an artifact holds and where its bytes lie: the only map from sha256 to md5
    attestations/<sha256>/…  signed statements about the artifact of that digest
    stages/<stage key>/…     which attestations were made under that key
    models/<name>/current/…  pointers that move by compare-and-swap

`dvc push` and `dvc pull` work on the same URL. md5 is only an address: what is read back is checked by sha256.
"""

import hashlib
import os
import posixpath
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from cairn.errors import StoreError
from cairn.lineage.artifact import Artifact, Member, canonical, files_of, parsed, readable
from cairn.lineage.collecting import last, wait_until_over
from cairn.lineage.fetching import fetch, holds, read
from cairn.lineage.filesystem import aside_of, attempt, bucket_exists, is_local, open_url, reaching, shown, size_of
from cairn.lineage.hashing import on_threads
from cairn.lineage.pins import address, directory_address, directory_listing, pin_of, read_pin
from cairn.lineage.remote import default_remote
from cairn.lineage.sending import send
from cairn.lineage.transfers import SMALL_AT_ONCE, measured


@dataclass(frozen=True)
class Store:
    """A store at `url`; `mirrors` are further places with the same `files/` layout, read when `url` lacks an object.

    Every method raises StoreError, naming `url`, when the store cannot be reached.
    """

    url: str = field(repr=False)
    """May hold credentials: what is shown is `str(store)`."""
    mirrors: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def default(cls, root: Path = Path()) -> "Store":
        """`CAIRN_STORE`, else the default DVC remote of the project at `root`, else its `.cairn/store`.

        The project's DVC cache is a mirror: it has the layout and, after `dvc repro`, the bytes.
        """
        remote = default_remote(root)
        url = os.environ.get("CAIRN_STORE") or (remote.url if remote else str(root / ".cairn" / "store"))
        return cls(url, mirrors=(str(root / ".dvc" / "cache"),))

    def check(self) -> None:
        """Raises StoreError when nothing can be kept at `url`: no such folder or bucket, no network, no credentials.

        A bucket that may be read and not listed is taken as it is.
        """
        filesystem, path = open_url(self.url)
        local = is_local(filesystem)
        there = attempt(self.url, lambda: os.path.isdir(path) if local else bucket_exists(filesystem, path))
        if not there:
            raise StoreError(f"{self}: no such {'folder' if local else 'bucket'}: make it, or name the right one")

    # Artifacts

    def put(self, path: Path, verify: bool = False) -> Artifact:
        """Store the file or directory at `path` and pin it. What a put that was cut short had sent is not sent again.

        On this machine every file is read once: it is hashed while it is written. An object that is cut short is
        replaced; on this machine a damaged one is too.

        Args:
            verify: read what a store elsewhere has already, and replace what is damaged.

        Raises:
            ArtifactError: nothing is at `path`, or it holds a link.
            StoreError: a file changed meanwhile, or a collection of the store does not end.
        """
        before = last(self)
        artifact = self._send(path, verify)
        self.write_pin(artifact)
        # A collection that began before the pin was there may have removed objects that were found in place.
        if wait_until_over(self, before) and not self._whole(artifact) and self._send(path, verify) != artifact:
            raise StoreError(f"{path}: was changed while it was sent to {self}: send it again")
        return artifact

    def write_pin(self, artifact: Artifact) -> None:
        """Write down what an artifact holds, whether or not its bytes are in this store."""
        self.write(f"pins/{artifact.digest}.json", readable(pin_of(artifact)))

    def pin(self, digest: str) -> Artifact | None:
        """What the artifact of this digest holds, or None when it was never pinned here.

        Raises StoreError when the pin does not describe an artifact of this digest.
        """
        data = self.read(f"pins/{digest}.json")
        if data is None:
            return None
        artifact = read_pin(data)
        if artifact is None or artifact.digest != digest:
            raise StoreError(f"{self}/pins/{digest}.json: does not describe this artifact: it was changed or cut short")
        return artifact

    def has(self, digest: str) -> bool:
        """Whether the artifact is pinned and every file of it is in this store or a mirror, at its size.

        The listing of a directory is not asked for: the pin says all that it does, and whoever puts or holds the
        artifact writes it.
        """
        artifact = self.pin(digest)
        return artifact is not None and all(self._located(artifact))

    def hold(self, digest: str) -> bool:
        """Whether the store has the artifact, as `has` means it, and goes on having it: what is about to be named as
        the output of a stage is held first, or put.

        Its pin is written anew, so that collections that begin from now on take it for young; one that is going on is
        waited for. What DVC needs besides its files is written if it is missing.

        Raises StoreError when a collection of the store does not end.
        """
        before = last(self)
        artifact = self.pin(digest)
        if artifact is None or not all(self._located(artifact)):
            return False
        self.write_pin(artifact)
        if wait_until_over(self, before) and not all(self._located(artifact)):
            return False
        alone = Store(self.url)
        if not alone._is_listed(artifact) and all(alone._located(artifact)):
            self._write_listing(artifact)
        return True

    def get(self, digest: str, destination: Path, only: Collection[str] | None = None) -> None:
        """Put the artifact of this digest at `destination`, written aside and checked by sha256.

        What a get of it to the same place that was cut short had fetched is not fetched again. Where an object of the
        store is missing or damaged, a mirror's is taken; a damaged one is named on stderr.

        Args:
            only: the paths in a directory that are wanted; None is all of it.

        Raises StoreError when it is not pinned, or an object is missing or damaged everywhere.
        """
        artifact = self.pin(digest)
        if artifact is None:
            raise StoreError(f"{self}: holds no pin for {digest}")
        members = [member for member in artifact.members if only is None or member.path in only]
        if only is not None and len(members) != len(set(only)):
            missing = sorted(set(only) - {member.path for member in members})
            raise StoreError(f"{self}: artifact {digest} holds no {', '.join(missing)}")
        with measured(f"fetching {destination.name}", sum(member.size for member in members)) as meter:
            fetch((self.url, *self.mirrors), artifact, members, destination, meter)

    def open(self, member: Member) -> BinaryIO:
        """Open one file of a pinned artifact for reading. The reader checks its sha256.

        A reader cannot begin anew with another copy. So where there are several, one is read before it is chosen, one
        on this machine if possible; a damaged one is named on stderr.

        Raises StoreError when neither the store nor a mirror has it.
        """
        key = address(member.md5)
        roots = sorted(self._roots_of(member), key=lambda one: not is_local(open_url(one)[0]))
        if not roots:
            raise StoreError(f"{self}/{key}: {member.path} is missing from the store")
        *others, root = roots
        for other in others:
            if holds(other, member):
                root = other
                break
            print(f"{shown(other)}/{key}: holds other bytes than {member.path}: passed over", file=sys.stderr)
        filesystem, path = open_url(root, key)
        return attempt(root, lambda: cast(BinaryIO, filesystem.open(path, "rb")))

    def read_member(self, digest: str, path: str) -> bytes:
        """The bytes of one small file of a pinned artifact, checked by sha256.

        Args:
            path: the file's, in a directory; of an artifact that is one file, that file is read.

        Raises StoreError when the artifact is not pinned, has no such file, or the bytes are not that file's.
        """
        artifact = self.pin(digest)
        members = artifact.members if artifact else ()
        member = next((one for one in members if one.path == path or not (artifact and artifact.is_directory)), None)
        if member is None:
            raise StoreError(f"{self}: holds no pin for {path} of {digest}")
        return read((self.url, *self.mirrors), member, digest)

    def locate(self, member: Member) -> str | None:
        """The URL of one file of a pinned artifact, in the store or a mirror; None when neither has it at its size."""
        root = next(self._roots_of(member), None)
        return None if root is None else posixpath.join(root, address(member.md5))

    def _roots_of(self, member: Member) -> Iterator[str]:
        """The store and the mirrors, as far as they have the object of a member at its size."""
        for root in (self.url, *self.mirrors):
            filesystem, path = open_url(root, address(member.md5))
            if attempt(root, lambda: size_of(filesystem, path)) == member.size:  # noqa: B023
                yield root

    # Small records

    def read(self, key: str) -> bytes | None:
        """The bytes of a small record, or None when there is none."""
        filesystem, path = self._at(key)

        def once() -> bytes | None:
            try:
                return cast(bytes, filesystem.cat_file(path))
            except FileNotFoundError:
                return None

        return attempt(self.url, once)

    def write(self, key: str, data: bytes) -> None:
        """Write a small record whole: readers see the old bytes or the new ones."""
        filesystem, path = self._at(key)
        if is_local(filesystem):
            with reaching(self.url), _written(path, data) as aside:
                os.replace(aside, path)
        else:
            attempt(self.url, lambda: _pipe(filesystem, path, data))

    def create(self, key: str, data: bytes) -> bool:
        """Write a small record only if there is none; False when there is. Atomic where the store can do it
        (local file systems, S3, GCS)."""
        filesystem, path = self._at(key)
        tried = 0

        def once() -> bool:
            nonlocal tried
            tried += 1
            try:
                filesystem.pipe_file(path, data, mode="create")
            except FileExistsError:
                # After an answer that was lost, what is there may be ours, and it may be cut.
                there = self.read(key) if tried > 1 else None
                if there is None or not data.startswith(there):
                    return False
                if there != data:
                    _pipe(filesystem, path, data)
            return True

        if not is_local(filesystem):
            return attempt(self.url, once)
        with reaching(self.url), _written(path, data) as aside:
            try:
                os.link(aside, path)
            except FileExistsError:
                return False
        return True

    def list(self, key: str) -> list[str]:
        """Names of the records directly under `key`, sorted; none when there is no such folder."""
        filesystem, path = self._at(key)

        def once() -> list[str]:
            try:
                return cast("list[str]", filesystem.ls(path, detail=False))
            except FileNotFoundError:
                return []

        names = (posixpath.basename(name.rstrip("/")) for name in attempt(self.url, once))
        return sorted(name for name in names if name and not name.startswith("."))

    # Pointers

    def pointer(self, name: str) -> tuple[int, Any]:
        """The version and value of a pointer; (0, None) before it was first set.

        Raises StoreError when the record of its value is not what was written.
        """
        version = max((int(record) for record in self.list(name) if record.isdecimal()), default=0)
        data = self.read(_version(name, version)) if version else None
        if version and data is None:
            raise StoreError(f"{self}/{_version(name, version)}: is listed and not there: it was removed: try again")
        # A listing may be older than the last value.
        while (newer := self.read(_version(name, version + 1))) is not None:
            version, data = version + 1, newer
        return (version, self._value(name, version, data)) if data is not None else (0, None)

    def value(self, name: str, version: int) -> Any:
        """What a pointer was set to as its `version`, from 1.

        Raises StoreError when there was no such version, or its record is not what was written.
        """
        data = self.read(_version(name, version))
        if data is None:
            raise StoreError(f"{self}/{_version(name, version)}: no such version of the pointer")
        return self._value(name, version, data)

    def swap(self, name: str, version: int, value: Any) -> int:
        """Set a pointer, provided that it is still at `version`; return its new version.

        Every value stays as a record of its own, with its sha256, so a pointer has a history, a changed one is noticed,
        and an update needs no more from the store than create-if-absent. Raises StoreError when somebody else moved it.
        """
        current = self.pointer(name)[0]
        record = readable({"sha256": identity(value), "value": value})
        if current != version or not self.create(_version(name, version + 1), record):
            raise StoreError(f"{self}/{name}: was moved by somebody else since version {version}: read it again")
        return version + 1

    def _value(self, name: str, version: int, data: bytes) -> Any:
        record = parsed(data)
        if isinstance(record, dict) and set(record) == {"sha256", "value"}:
            with suppress(ValueError, RecursionError):  # NaN has no digest
                if identity(record["value"]) == record["sha256"]:
                    return record["value"]
        raise StoreError(
            f"{self}/{_version(name, version)}: is not the value that was written: it was changed or cut short: remove "
            "it to go back to the one before"
        )

    # Below: where things lie

    def __str__(self) -> str:
        """The URL as it may be shown: without credentials."""
        return shown(self.url)

    def _send(self, path: Path, verify: bool) -> Artifact:
        """Bring the objects of an artifact into the store, the listing of a directory last."""
        found = files_of(path)
        with measured(f"storing {path.name}", sum(file.size for file in found)) as meter:
            artifact = Artifact(tuple(send(self.url, found, verify, meter)), path.is_dir())
        if artifact.is_directory:
            self._write_listing(artifact)
        return artifact

    def _write_listing(self, artifact: Artifact) -> None:
        self.write(address(directory_address(artifact)), directory_listing(artifact))

    def _is_listed(self, artifact: Artifact) -> bool:
        return not artifact.is_directory or self.read(address(directory_address(artifact))) is not None

    def _whole(self, artifact: Artifact) -> bool:
        """Whether this store has every object of an artifact at its size, mirrors aside."""
        alone = Store(self.url)
        return alone._is_listed(artifact) and all(alone._located(artifact))

    def _located(self, artifact: Artifact) -> Sequence[bool]:
        return on_threads(SMALL_AT_ONCE, lambda member: self.locate(member) is not None, artifact.members)

    def _at(self, key: str) -> tuple[fsspec.AbstractFileSystem, str]:
        return open_url(self.url, key)


@contextmanager
def _written(path: str, data: bytes) -> Iterator[Path]:
    """A record beside its place, on the disk; gone when the block ends, unless it was moved."""
    aside = aside_of(path)
    try:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield aside
    finally:
        aside.unlink(missing_ok=True)


def _pipe(filesystem: fsspec.AbstractFileSystem, path: str, data: bytes) -> None:
    filesystem.pipe_file(path, data)
    if size_of(filesystem, path) != len(data):
        raise ConnectionError("what was written was cut short")


def _version(name: str, version: int) -> str:
    return f"{name}/{version:08d}"


def records(store: Store, key: str) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every record directly under `key`."""
    for name in store.list(key):
        data = store.read(f"{key}/{name}")
        if data is not None:
            yield name, data


def identity(value: Any) -> str:
    """sha256 of the canonical JSON of `value`: how records and stage keys are named."""
    return hashlib.sha256(canonical(value)).hexdigest()
