"""The content-addressed store, on any fsspec URL, in the layout of a DVC remote.

    files/md5/ab/cdef…       bytes; the listing of a directory ends in `.dir` and is written last
    pins/<sha256>.json       what an artifact holds and where its bytes lie: the only map from sha256 to md5
    attestations/<sha256>/…  signed statements about the artifact of that digest
    stages/<stage key>/…     which attestations were made under that key
    models/<name>/current/…  pointers that move by compare-and-swap

`dvc push` and `dvc pull` work on the same URL. md5 is only an address: what is read back is checked by sha256.
"""

import configparser
import hashlib
import json
import os
import posixpath
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from cairn.errors import StoreError, one_line
from cairn.lineage.artifact import CHUNK, Artifact, Member, canonical, move_into_place, read_artifact, readable, remove

TRANSFERS = 8  # files in flight at once


@dataclass(frozen=True)
class Store:
    """A store at `url`; `mirrors` are further places with the same `files/` layout, read when `url` lacks an object."""

    url: str
    mirrors: tuple[str, ...] = field(default=())

    @classmethod
    def default(cls, root: Path = Path()) -> "Store":
        """`CAIRN_STORE`, else the default DVC remote of the project at `root`, else its `.cairn/store`.

        The project's DVC cache is a mirror: it has the layout and, after `dvc repro`, the bytes.
        """
        url = os.environ.get("CAIRN_STORE") or _default_remote(root) or str(root / ".cairn" / "store")
        return cls(url, mirrors=(str(root / ".dvc" / "cache"),))

    # Artifacts

    def put(self, path: Path) -> Artifact:
        """Store the file or directory at `path` and pin it. Objects that are there already are not sent again."""
        artifact = read_artifact(path)

        def send(member: Member) -> None:
            source = path / member.path if artifact.is_directory else path
            self._send(source, _address(member.md5), member.size)

        with ThreadPoolExecutor(TRANSFERS) as threads:
            list(threads.map(send, artifact.members))
        if artifact.is_directory:
            self.write(_address(_directory_address(artifact)), _directory_listing(artifact))
        self.write_pin(artifact)
        return artifact

    def write_pin(self, artifact: Artifact) -> None:
        """Write down what an artifact holds, whether or not its bytes are in this store."""
        address = _directory_address(artifact) if artifact.is_directory else artifact.members[0].md5
        pin = {
            "directory": artifact.is_directory,
            "md5": address,
            "size": artifact.size,
            "members": [asdict(member) for member in artifact.members],
        }
        self.write(f"pins/{artifact.digest}.json", readable(pin))

    def pin(self, digest: str) -> Artifact | None:
        """What the artifact of this digest holds, or None when it was never pinned here.

        Raises StoreError when the pin does not describe an artifact of this digest.
        """
        data = self.read(f"pins/{digest}.json")
        if data is None:
            return None
        try:
            pin = json.loads(data)
            artifact = Artifact(tuple(Member(**member) for member in pin["members"]), bool(pin["directory"]))
            true = artifact.digest == digest
        except (ValueError, KeyError, TypeError, IndexError):
            true = False
        if not true:
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

    def get(self, digest: str, destination: Path) -> None:
        """Put the artifact of this digest at `destination`, written aside and checked by sha256.

        Raises StoreError when it is not pinned, an object is missing, or bytes are not what the digest says.
        """
        artifact = self.pin(digest)
        if artifact is None:
            raise StoreError(f"{self.url}: holds no pin for {digest}")
        aside = destination.with_name(f".{destination.name}.{uuid.uuid4().hex[:12]}")

        def fetch(member: Member) -> None:
            target = aside / member.path if artifact.is_directory else aside
            target.parent.mkdir(parents=True, exist_ok=True)
            sha256 = hashlib.sha256()
            with self.open(member) as source, open(target, "wb") as copy:
                while chunk := source.read(CHUNK):
                    sha256.update(chunk)
                    copy.write(chunk)
            if sha256.hexdigest() != member.sha256:
                raise StoreError(f"{self.url}/{_address(member.md5)}: holds other bytes than {member.path} of {digest}")

        try:
            with ThreadPoolExecutor(TRANSFERS) as threads:
                list(threads.map(fetch, artifact.members))
            move_into_place(aside, destination, aside.with_name(aside.name + ".old"))
        finally:
            remove(aside)

    def open(self, member: Member) -> BinaryIO:
        """Open one file of a pinned artifact for reading. The reader checks its sha256.

        Raises StoreError when neither the store nor a mirror has it.
        """
        url = self.locate(member)
        if url is None:
            raise StoreError(f"{self.url}/{_address(member.md5)}: {member.path} is missing from the store")
        return cast(BinaryIO, fsspec.open(url, "rb").open())

    def locate(self, member: Member) -> str | None:
        """The URL of one file of a pinned artifact, in the store or a mirror; None when neither has it at its size."""
        for root in (self.url, *self.mirrors):
            url = posixpath.join(root, _address(member.md5))
            filesystem, path = _open_url(url)
            if _size(filesystem, path) == member.size:
                return url
        return None

    # Small records

    def read(self, key: str) -> bytes | None:
        """The bytes of a small record, or None when there is none."""
        filesystem, path = self._at(key)
        try:
            return cast(bytes, filesystem.cat_file(path))
        except FileNotFoundError:
            return None

    def write(self, key: str, data: bytes) -> None:
        """Write a small record whole: readers see the old bytes or the new ones."""
        filesystem, path = self._at(key)
        if isinstance(filesystem, LocalFileSystem):
            aside = _aside(path)
            aside.write_bytes(data)
            os.replace(aside, path)
        else:
            filesystem.pipe_file(path, data)

    def create(self, key: str, data: bytes) -> bool:
        """Write a small record only if there is none; False when there is. Atomic where the store can do it
        (local file systems, S3, GCS)."""
        filesystem, path = self._at(key)
        try:
            if isinstance(filesystem, LocalFileSystem):
                aside = _aside(path)
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
        if _size(filesystem, path) == size:
            return
        if isinstance(filesystem, LocalFileSystem):
            aside = _aside(path)
            try:
                filesystem.put_file(str(source), str(aside))
                os.replace(aside, path)
            finally:
                aside.unlink(missing_ok=True)
        else:
            filesystem.put_file(str(source), path)
        if _size(filesystem, path) != size:
            raise StoreError(f"{self.url}/{key}: the upload of {source} was cut short or the file changed meanwhile")

    def _at(self, key: str) -> tuple[fsspec.AbstractFileSystem, str]:
        return _open_url(posixpath.join(self.url, key))


def _open_url(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise StoreError(f"{url}: not a store that can be opened: {one_line(error)}") from None
    return filesystem, str(path)


def _aside(path: str) -> Path:
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    return final.with_name(f".{final.name}.{uuid.uuid4().hex[:12]}")


def _size(filesystem: fsspec.AbstractFileSystem, path: str) -> int | None:
    try:
        return int(filesystem.info(path)["size"])
    except FileNotFoundError:
        return None


def _address(md5: str) -> str:
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def _directory_listing(artifact: Artifact) -> bytes:
    # The bytes that dvc_data.hashfile.tree.Tree.as_bytes makes; the address is their md5, so they must be equal.
    entries = sorted(({"md5": m.md5, "relpath": m.path} for m in artifact.members), key=lambda entry: entry["relpath"])
    return json.dumps(entries, sort_keys=True).encode()


def _directory_address(artifact: Artifact) -> str:
    return hashlib.md5(_directory_listing(artifact), usedforsecurity=False).hexdigest() + ".dir"


def _default_remote(root: Path) -> str | None:
    """The URL of the project's default DVC remote. Read without dvc, which takes a second to import."""
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read([root / ".dvc" / "config", root / ".dvc" / "config.local"])
    except configparser.Error as error:
        raise StoreError(f"{root / '.dvc' / 'config'}: cannot be read: {one_line(error)}") from None
    name = config.get("core", "remote", fallback=None)
    url = config.get(f"'remote \"{name}\"'", "url", fallback=None)
    if url is None or "://" in url:
        return url
    # DVC takes a relative path from the folder of its configuration.
    return os.path.relpath(root / ".dvc" / url, Path())


def records(store: Store, key: str) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every record directly under `key`."""
    for name in store.list(key):
        data = store.read(f"{key}/{name}")
        if data is not None:
            yield name, data


def identity(value: Any) -> str:
    """sha256 of the canonical JSON of `value`: how records and stage keys are named."""
    return hashlib.sha256(canonical(value)).hexdigest()
