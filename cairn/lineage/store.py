"""The content-addressed store, on any fsspec URL, in the layout of a DVC remote.

    files/md5/ab/cdef…       bytes; the listing of a directory ends in `.dir` and is written last
    pins/<sha256>.json       what an artifact holds and where its bytes lie: the only map from sha256 to md5
    attestations/<sha256>/…  signed statements about the artifact of that digest
    stages/<stage key>/…     which attestations were made under that key
    models/<name>/current/…  pointers that move by compare-and-swap

`dvc push` and `dvc pull` work on the same URL. md5 is only an address: what is read back is checked by sha256.
"""

import hashlib
import json
import os
import posixpath
import uuid
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from cairn.errors import StoreError
from cairn.lineage.artifact import (
    CHUNK,
    Artifact,
    Member,
    canonical,
    move_into_place,
    read_artifact,
    readable,
    remove,
)
from cairn.lineage.filesystem import aside_of, bucket_exists, open_url, reaching, size_of
from cairn.lineage.pins import address, directory_address, directory_listing, pin_of, read_pin
from cairn.lineage.remote import default_remote

TRANSFERS = 8  # files in flight at once


@dataclass(frozen=True)
class Store:
    """A store at `url`; `mirrors` are further places with the same `files/` layout, read when `url` lacks an object.

    Every method raises StoreError, naming `url`, when the store cannot be reached.
    """

    url: str
    mirrors: tuple[str, ...] = field(default=())

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
        local = isinstance(filesystem, LocalFileSystem)
        with reaching(self.url):
            there = os.path.isdir(path) if local else bucket_exists(filesystem, path)
        if not there:
            raise StoreError(f"{self.url}: no such {'folder' if local else 'bucket'}: make it, or name the right one")

    # Artifacts

    def put(self, path: Path) -> Artifact:
        """Store the file or directory at `path` and pin it. Objects that are there already are not sent again."""
        artifact = read_artifact(path)

        def send(member: Member) -> None:
            source = path / member.path if artifact.is_directory else path
            self._send(source, address(member.md5), member.size)

        with ThreadPoolExecutor(TRANSFERS) as threads:
            list(threads.map(send, artifact.members))
        if artifact.is_directory:
            self.write(address(directory_address(artifact)), directory_listing(artifact))
        self.write_pin(artifact)
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
            raise StoreError(
                f"{self.url}/pins/{digest}.json: does not describe this artifact: it was changed or cut short"
            )
        return artifact

    def has(self, digest: str) -> bool:
        """Whether the artifact is pinned and every object of it is in this store, at its size."""
        artifact = self.pin(digest)
        if artifact is None:
            return False
        with ThreadPoolExecutor(TRANSFERS) as threads:
            return all(threads.map(lambda member: self.locate(member) is not None, artifact.members))

    def get(self, digest: str, destination: Path, only: Collection[str] | None = None) -> None:
        """Put the artifact of this digest at `destination`, written aside and checked by sha256.

        Args:
            only: the paths in a directory that are wanted; None is all of it.

        Raises StoreError when it is not pinned, an object is missing, or bytes are not what the digest says.
        """
        artifact = self.pin(digest)
        if artifact is None:
            raise StoreError(f"{self.url}: holds no pin for {digest}")
        members = [member for member in artifact.members if only is None or member.path in only]
        if only is not None and len(members) != len(set(only)):
            missing = sorted(set(only) - {member.path for member in members})
            raise StoreError(f"{self.url}: artifact {digest} holds no {', '.join(missing)}")
        aside = destination.with_name(f".{destination.name}.{uuid.uuid4().hex[:12]}")

        def fetch(member: Member) -> None:
            target = aside / member.path if artifact.is_directory else aside
            target.parent.mkdir(parents=True, exist_ok=True)
            sha256 = hashlib.sha256()
            with open(target, "wb") as copy:
                for chunk in self._chunks(member):
                    sha256.update(chunk)
                    copy.write(chunk)
            if sha256.hexdigest() != member.sha256:
                raise StoreError(f"{self.url}/{address(member.md5)}: holds other bytes than {member.path} of {digest}")

        try:
            with ThreadPoolExecutor(TRANSFERS) as threads:
                list(threads.map(fetch, members))
            move_into_place(aside, destination, aside.with_name(aside.name + ".old"))
        finally:
            remove(aside)

    def open(self, member: Member) -> BinaryIO:
        """Open one file of a pinned artifact for reading. The reader checks its sha256.

        Raises StoreError when neither the store nor a mirror has it.
        """
        url = self.locate(member)
        if url is None:
            raise StoreError(f"{self.url}/{address(member.md5)}: {member.path} is missing from the store")
        with reaching(self.url):
            return cast(BinaryIO, fsspec.open(url, "rb").open())

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
            raise StoreError(f"{self.url}: holds no pin for {path} of {digest}")
        data = b"".join(self._chunks(member))
        if hashlib.sha256(data).hexdigest() != member.sha256:
            raise StoreError(f"{self.url}/{address(member.md5)}: holds other bytes than {path} of {digest}")
        return data

    def locate(self, member: Member) -> str | None:
        """The URL of one file of a pinned artifact, in the store or a mirror; None when neither has it at its size."""
        for root in (self.url, *self.mirrors):
            filesystem, path = open_url(root, address(member.md5))
            with reaching(root):
                if size_of(filesystem, path) == member.size:
                    return posixpath.join(root, address(member.md5))
        return None

    # Small records

    def read(self, key: str) -> bytes | None:
        """The bytes of a small record, or None when there is none."""
        filesystem, path = self._at(key)
        with reaching(self.url):
            try:
                return cast(bytes, filesystem.cat_file(path))
            except FileNotFoundError:
                return None

    def write(self, key: str, data: bytes) -> None:
        """Write a small record whole: readers see the old bytes or the new ones."""
        filesystem, path = self._at(key)
        with reaching(self.url):
            if isinstance(filesystem, LocalFileSystem):
                aside = aside_of(path)
                aside.write_bytes(data)
                os.replace(aside, path)
            else:
                filesystem.pipe_file(path, data)

    def create(self, key: str, data: bytes) -> bool:
        """Write a small record only if there is none; False when there is. Atomic where the store can do it
        (local file systems, S3, GCS)."""
        filesystem, path = self._at(key)
        with reaching(self.url):
            try:
                if isinstance(filesystem, LocalFileSystem):
                    aside = aside_of(path)
                    aside.write_bytes(data)
                    try:
                        os.link(aside, path)
                    finally:
                        aside.unlink()
                else:
                    filesystem.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
            return True

    def list(self, key: str) -> list[str]:
        """Names of the records directly under `key`, sorted; none when there is no such folder."""
        filesystem, path = self._at(key)
        with reaching(self.url):
            try:
                filesystem.invalidate_cache()
                found = filesystem.ls(path, detail=False)
            except FileNotFoundError:
                return []
        names = (posixpath.basename(name.rstrip("/")) for name in found)
        return sorted(name for name in names if name and not name.startswith("."))

    # Pointers

    def pointer(self, name: str) -> tuple[int, Any]:
        """The version and value of a pointer; (0, None) before it was first set."""
        versions = [int(record) for record in self.list(name) if record.isdecimal()]
        if not versions:
            return 0, None
        data = self.read(f"{name}/{max(versions):08d}")
        return max(versions), json.loads(data or b"null")

    def swap(self, name: str, version: int, value: Any) -> int:
        """Set a pointer, provided that it is still at `version`; return its new version.

        Every value stays as a record of its own, so a pointer has a history and an update needs no more from the store
        than create-if-absent. Raises StoreError when somebody else moved it.
        """
        current = self.pointer(name)[0]
        if current != version or not self.create(f"{name}/{version + 1:08d}", readable(value)):
            raise StoreError(f"{self.url}/{name}: was moved by somebody else since version {version}: read it again")
        return version + 1

    # Below: where things lie

    def _send(self, source: Path, key: str, size: int) -> None:
        filesystem, path = self._at(key)
        with reaching(self.url):
            if size_of(filesystem, path) == size:
                return
            if isinstance(filesystem, LocalFileSystem):
                aside = aside_of(path)
                try:
                    filesystem.put_file(str(source), str(aside))
                    os.replace(aside, path)
                finally:
                    aside.unlink(missing_ok=True)
            else:
                filesystem.put_file(str(source), path)
            sent = size_of(filesystem, path)
        if sent != size:
            raise StoreError(f"{self.url}/{key}: the upload of {source} was cut short or the file changed meanwhile")

    def _chunks(self, member: Member) -> Iterator[bytes]:
        """The bytes of one file of a pinned artifact."""
        with self.open(member) as source:
            while True:
                with reaching(self.url):
                    chunk = source.read(CHUNK)
                if not chunk:
                    return
                yield chunk

    def _at(self, key: str) -> tuple[fsspec.AbstractFileSystem, str]:
        return open_url(self.url, key)


def records(store: Store, key: str) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every record directly under `key`."""
    for name in store.list(key):
        data = store.read(f"{key}/{name}")
        if data is not None:
            yield name, data


def identity(value: Any) -> str:
    """sha256 of the canonical JSON of `value`: how records and stage keys are named."""
    return hashlib.sha256(canonical(value)).hexdigest()
