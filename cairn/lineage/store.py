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
import re
import uuid
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from cairn.errors import FULL_DISK, ArtifactError, StoreError, one_line
from cairn.lineage.artifact import (
    CHUNK,
    Artifact,
    Member,
    canonical,
    move_into_place,
    read_artifact,
    readable,
    remove,
    written_aside,
)

_MD5, _SHA256 = re.compile("[0-9a-f]{32}"), re.compile("[0-9a-f]{64}")
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
        filesystem, path = _open_url(self.url)
        local = isinstance(filesystem, LocalFileSystem)
        with _reaching(self.url):
            there = os.path.isdir(path) if local else _bucket_exists(filesystem, path)
        if not there:
            raise StoreError(f"{self.url}: no such {'folder' if local else 'bucket'}: make it, or name the right one")

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
        self.write(f"pins/{artifact.digest}.json", readable(_pin(artifact)))

    def pin(self, digest: str) -> Artifact | None:
        """What the artifact of this digest holds, or None when it was never pinned here.

        Raises StoreError when the pin does not describe an artifact of this digest.
        """
        data = self.read(f"pins/{digest}.json")
        if data is None:
            return None
        artifact = _pinned(data)
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
                raise StoreError(f"{self.url}/{_address(member.md5)}: holds other bytes than {member.path} of {digest}")

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
            raise StoreError(f"{self.url}/{_address(member.md5)}: {member.path} is missing from the store")
        with _reaching(self.url):
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
            raise StoreError(f"{self.url}/{_address(member.md5)}: holds other bytes than {path} of {digest}")
        return data

    def locate(self, member: Member) -> str | None:
        """The URL of one file of a pinned artifact, in the store or a mirror; None when neither has it at its size."""
        for root in (self.url, *self.mirrors):
            filesystem, path = _open_url(root, _address(member.md5))
            with _reaching(root):
                if _size(filesystem, path) == member.size:
                    return posixpath.join(root, _address(member.md5))
        return None

    # Small records

    def read(self, key: str) -> bytes | None:
        """The bytes of a small record, or None when there is none."""
        filesystem, path = self._at(key)
        with _reaching(self.url):
            try:
                return cast(bytes, filesystem.cat_file(path))
            except FileNotFoundError:
                return None

    def write(self, key: str, data: bytes) -> None:
        """Write a small record whole: readers see the old bytes or the new ones."""
        filesystem, path = self._at(key)
        with _reaching(self.url):
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
        with _reaching(self.url):
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
        with _reaching(self.url):
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
        with _reaching(self.url):
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
            sent = _size(filesystem, path)
        if sent != size:
            raise StoreError(f"{self.url}/{key}: the upload of {source} was cut short or the file changed meanwhile")

    def _chunks(self, member: Member) -> Iterator[bytes]:
        """The bytes of one file of a pinned artifact."""
        with self.open(member) as source:
            while True:
                with _reaching(self.url):
                    chunk = source.read(CHUNK)
                if not chunk:
                    return
                yield chunk

    def _at(self, key: str) -> tuple[fsspec.AbstractFileSystem, str]:
        return _open_url(self.url, key)


def write_pin_file(path: Path, artifact: Artifact) -> None:
    """Write a pin as a file of its own: what a store keeps under `pins/`, and the digest that it is kept under."""
    with written_aside(path) as aside:
        aside.write_bytes(readable({"digest": artifact.digest, **_pin(artifact)}))


def read_pin_file(path: Path) -> Artifact:
    """The artifact that a pin file describes. Raises ArtifactError when the file is missing or no sound pin."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from None
    artifact = _pinned(data)
    if artifact is None or json.loads(data).get("digest") != artifact.digest:
        raise ArtifactError(f"{path}: is not a pin, or was changed or cut short: run the stage that writes it again")
    return artifact


def _pin(artifact: Artifact) -> dict[str, Any]:
    return {
        "directory": artifact.is_directory,
        "md5": _directory_address(artifact) if artifact.is_directory else artifact.members[0].md5,
        "size": artifact.size,
        "members": [asdict(member) for member in artifact.members],
    }


def _pinned(data: bytes) -> Artifact | None:
    """The artifact that the bytes of a pin describe, or None when they are no pin."""
    try:
        pin = json.loads(data)
        artifact = Artifact(tuple(Member(**member) for member in pin["members"]), bool(pin["directory"]))
        return artifact if artifact.digest and all(map(_is_sound, artifact.members)) else None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def _is_sound(member: Member) -> bool:
    """Whether a member can be asked for: a pin may come from anybody, and its paths are written to."""
    parts = member.path.split("/")
    inside = not {"", ".", ".."} & set(parts) and "\\" not in member.path and "\0" not in member.path
    return inside and bool(_MD5.fullmatch(member.md5) and _SHA256.fullmatch(member.sha256)) and member.size >= 0


def _bucket_exists(filesystem: fsspec.AbstractFileSystem, path: str) -> bool:
    bucket = path.lstrip("/").partition("/")[0]
    try:
        filesystem.ls(bucket, detail=False)
    except FileNotFoundError:
        return False
    except PermissionError:
        pass  # it is there, for others to list; reading and writing say more
    return True


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Say of whatever a file system raises, at which store. What the caller expects, it catches inside the block."""
    try:
        yield
    except Exception as error:  # Every file system raises what its library does.
        if isinstance(error, StoreError) or (isinstance(error, OSError) and error.errno in FULL_DISK):
            raise  # of a full disk, `guard` knows the way out
        raise StoreError(f"{url}: cannot be reached: {one_line(error) or type(error).__name__}") from error


def _open_url(url: str, key: str = "") -> tuple[fsspec.AbstractFileSystem, str]:
    with _reaching(url):
        try:
            filesystem, path = fsspec.core.url_to_fs(posixpath.join(url, key) if key else url)
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


@dataclass(frozen=True)
class Remote:
    """A DVC remote."""

    name: str
    url: str
    """As DVC means it: a relative path is taken from where the program runs."""
    verify: bool
    """Whether DVC compares what it fetches with its address."""


def default_remote(root: Path) -> Remote | None:
    """The project's default DVC remote. Read without dvc, which takes a second to import."""
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read([root / ".dvc" / "config", root / ".dvc" / "config.local"])
    except configparser.Error as error:
        raise StoreError(f"{root / '.dvc' / 'config'}: cannot be read: {one_line(error)}") from None
    name = config.get("core", "remote", fallback=None)
    section = f"'remote \"{name}\"'"
    url = config.get(section, "url", fallback=None)
    if name is None or url is None:
        return None
    if "://" not in url:
        # DVC takes a relative path from the folder of its configuration.
        url = os.path.relpath(root / ".dvc" / url, Path())
    return Remote(name, url, config.get(section, "verify", fallback="false").lower() in ("true", "1", "yes", "on"))


def records(store: Store, key: str) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every record directly under `key`."""
    for name in store.list(key):
        data = store.read(f"{key}/{name}")
        if data is not None:
            yield name, data


def identity(value: Any) -> str:
    """sha256 of the canonical JSON of `value`: how records and stage keys are named."""
    return hashlib.sha256(canonical(value)).hexdigest()
