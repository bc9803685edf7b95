"""Files of an artifact that lies elsewhere, fetched once into a folder of this machine and verified before use.

In the folder a file is called after its sha256, so runs and processes share it, whatever it is called where it lies. A
lock for each file lets one process fetch what others wait for. Each process hashes a file before it uses it for the
first time: what was damaged in the folder is fetched again, and what is damaged elsewhere is refused.
"""

import fcntl
import hashlib
import json
import posixpath
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from cairn.errors import FULL_DISK, ArtifactError, StoreError
from cairn.lineage.artifact import written_aside
from cairn.lineage.filesystem import attempt, open_url, shown
from cairn.lineage.hashing import hash_file
from cairn.lineage.pins import address
from cairn.lineage.store import Store

CHUNK = 8 << 20  # bytes that are asked for at once
SUFFIXES = (".bin", ".ends", ".parquet")


@dataclass(frozen=True)
class Remote:
    """A file elsewhere."""

    url: str
    sha256: str
    name: str
    """What messages call it."""


@dataclass(frozen=True)
class Stored:
    """A tokens artifact in a store, which is read from there. Plain values: launchers hand it on as JSON."""

    store: str
    """URL."""
    digest: str
    """The artifact's."""
    folder: str
    """Where its files are kept on this machine, beside those of others."""


@dataclass(frozen=True)
class Cache:
    """The files of one artifact, by their names in it."""

    folder: Path
    manifest: bytes
    """Its tokens.json."""
    files: Mapping[str, Remote]
    _sound: dict[str, Path] = field(default_factory=dict)
    """What this process has verified."""

    @classmethod
    def of_url(cls, url: str, folder: Path) -> "Cache":
        """The tokens artifact at a URL; its tokens.json, which is small, is fetched at once.

        Raises:
            ArtifactError: there is none, or one whose shards cannot be verified.
            StoreError: the URL cannot be reached.
        """
        url = url.rstrip("/")
        text = _read(f"{url}/tokens.json")
        known = digests(text, shown(url))
        files = {name: Remote(f"{url}/{name}", sha256, shown(f"{url}/{name}")) for name, sha256 in known.items()}
        return cls(folder, text, files)

    @classmethod
    def of_store(cls, stored: Stored) -> "Cache":
        """The tokens artifact of a digest. Its pin, which the digest proves, tells the sha256 of every file.

        Raises StoreError when it is not in the store, or the store cannot be reached.
        """
        store = Store(stored.store)
        artifact = store.pin(stored.digest)
        if artifact is None:
            raise StoreError(f"{store}: holds no pin for {stored.digest}")
        files = {}
        for member in artifact.members:
            url = posixpath.join(stored.store, address(member.md5))
            files[member.path] = Remote(url, member.sha256, f"{shown(url)} ({member.path} of {stored.digest})")
        return cls(Path(stored.folder), store.read_member(stored.digest, "tokens.json"), files)

    def path(self, name: str) -> Path:
        """Where a file of the artifact is on this machine, whole and verified.

        Raises:
            ArtifactError: the artifact has no such file, or what lies there is not what its digest says.
            StoreError: it cannot be fetched.
        """
        known = self._sound.get(name)
        if known is not None:
            return known
        remote = self.files.get(name)
        if remote is None:
            raise ArtifactError(f"tokens.json: knows no file {name}: the tokens artifact is incomplete")
        path = self.folder / remote.sha256[:2] / f"{remote.sha256}{PurePosixPath(name).suffix}"
        try:
            with _alone(path):
                if path.exists() and hash_file(path, md5=False).sha256 != remote.sha256:
                    print(f"{path}: was damaged, {remote.name} is fetched again", file=sys.stderr, flush=True)
                    path.unlink()
                if not path.exists():
                    _fetch(remote, path)
        except OSError as error:
            if error.errno in FULL_DISK:
                raise
            said = f"{error.filename or path}: {error.strerror}"
            raise ArtifactError(f"{said}: name another folder for the cache of tokens, or remove this one") from None
        self._sound[name] = path
        return path


def digests(manifest: bytes, name: str) -> dict[str, str]:
    """The sha256 of every file that a tokens.json names. Raises ArtifactError when it does not say them."""
    try:
        splits = json.loads(manifest)["splits"].values()
        shards = [shard for split in splits for shard in split["shards"]]
        return {f"{shard['name']}{suffix}": str(shard["sha256"][suffix]) for shard in shards for suffix in SUFFIXES}
    except KeyError as error:
        if error.args == ("sha256",):
            raise ArtifactError(
                f"{name}: its tokens.json holds no digests of its shards, so what is fetched could not be verified: "
                "make the tokens again with this version of tokenize, or copy them here"
            ) from None
        raise ArtifactError(f"{name}/tokens.json: is not a tokens manifest ({error!r})") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{name}/tokens.json: is not a tokens manifest ({error!r})") from None


def _fetch(remote: Remote, path: Path) -> None:
    """Bring a file; what comes damaged is asked for once more, for it may have been damaged on the way."""
    for last in (False, True):
        try:
            with written_aside(path) as aside:
                found = attempt(remote.url, partial(_download, remote, aside))
                if found != remote.sha256:
                    raise ArtifactError(f"{remote.name}: has sha256 {found}, not {remote.sha256}: it is damaged there")
            return
        except ArtifactError:
            if last:
                raise


def _download(remote: Remote, to: Path) -> str:
    filesystem, at = open_url(remote.url)
    digest = hashlib.sha256()
    try:
        with filesystem.open(at, "rb", block_size=CHUNK) as source, open(to, "wb") as target:
            while data := source.read(CHUNK):
                digest.update(data)
                target.write(data)
    except FileNotFoundError:
        raise StoreError(f"{remote.name}: no such file: the tokens artifact is incomplete there") from None
    return digest.hexdigest()


def _read(url: str) -> bytes:
    def read() -> bytes:
        filesystem, at = open_url(url)
        try:
            return bytes(filesystem.cat_file(at))
        except FileNotFoundError:
            raise StoreError(f"{shown(url)}: no such file: run the tokenize stage first, or correct the URL") from None

    return attempt(url, read)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Be the only one at a file of the folder. The lock is let go by the system when a process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".{path.name}.lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
