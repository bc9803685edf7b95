"""What lies in a store, key by key, on any fsspec URL: list, read, move and remove objects, whatever pins say of them.

A key is a path below the store's URL, such as `files/md5/ab/cdef…`. Listings are taken folder by folder, so that no
more than one 256th of the objects is in memory at once, and nothing is taken from a listing that fsspec remembers.
"""

import glob
import json
import os
import posixpath
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from cairn.lineage.artifact import Artifact
from cairn.lineage.filesystem import open_url, reaching
from cairn.lineage.pins import directory_address
from cairn.lineage.transfers import SMALL_AT_ONCE

OBJECTS = "files/md5"
AHEAD = 256  # items
REMOVED_AT_ONCE = 500  # object stores take up to 1,000 names in one request
A = TypeVar("A")
B = TypeVar("B")
_OBJECT = re.compile(r"files/md5/([0-9a-f]{2})/([0-9a-f]{30}(?:\.dir)?)")
# Files on their way to their address: ours, DVC's, and what a store that cannot rename is given first.
_ON_ITS_WAY = re.compile(r"(?:^|/)(?:\.[^/]+\.[0-9a-f]{12}(?:\.old)?|[^/]*\.[\w-]{22}\.tmp)$|^tmp/")


@dataclass(frozen=True)
class Entry:
    """One object of a store."""

    key: str
    size: int
    """Bytes."""
    modified: float
    """Seconds since 1970, by the store's clock."""

    @property
    def address(self) -> str | None:
        """The md5 that it lies under, with `.dir` behind it for the listing of a directory; None of anything else."""
        found = _OBJECT.fullmatch(self.key)
        return found[1] + found[2] if found else None

    @property
    def is_leftover(self) -> bool:
        """Whether it is what a killed upload leaves behind."""
        return bool(_ON_ITS_WAY.search(self.key))


def top_address(artifact: Artifact) -> str:
    """What `dvc.lock` calls an artifact: the address of its `.dir` object, or of its one file."""
    return directory_address(artifact) if artifact.is_directory else artifact.members[0].md5


def addresses(artifact: Artifact) -> Iterator[str]:
    """Every object that an artifact needs, its `.dir` object first."""
    if artifact.is_directory:
        yield top_address(artifact)
    yield from (member.md5 for member in artifact.members)


def listed_members(data: bytes) -> list[tuple[str, str]]:
    """Path and md5 of every file that a `.dir` object names. Raises ValueError when the bytes are no such listing."""
    try:
        entries = [(str(entry["relpath"]), str(entry["md5"])) for entry in json.loads(data)]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("is not the listing of a directory") from None
    if not all(re.fullmatch("[0-9a-f]{32}", md5) for _, md5 in entries):
        raise ValueError("names what is no address")
    return entries


def in_parallel(work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """What `work` makes of each item, in order; no more than a window of items is ahead of what was taken."""
    rest = iter(items)
    with ThreadPoolExecutor(SMALL_AT_ONCE) as threads:
        ahead = deque(threads.submit(work, item) for item in islice(rest, AHEAD))
        try:
            while ahead:
                yield ahead.popleft().result()
                ahead.extend(threads.submit(work, item) for item in islice(rest, 1))
        finally:
            for one in ahead:
                one.cancel()


@dataclass(frozen=True)
class Contents:
    """The objects at `url`. Every method raises StoreError, naming `url`, when the store cannot be reached."""

    url: str

    def walk(self, folder: str = "") -> Iterator[Entry]:
        """Every object below a folder, each once, in no order that is promised."""
        filesystem, root = self._open()
        start = posixpath.join(root, folder) if folder else root
        with self._reaching():
            if isinstance(filesystem, LocalFileSystem):
                yield from _scan(start, len(root.rstrip("/")) + 1)
                return
            filesystem.invalidate_cache()
        yield from self._walk_remote(filesystem, root, start)

    def objects(self) -> Iterator[Entry]:
        """Every object under `files/md5`, strangers among them too."""
        filesystem, root = self._open()
        if isinstance(filesystem, LocalFileSystem):
            yield from self.walk(OBJECTS)
            return
        with self._reaching():
            filesystem.invalidate_cache()
            try:
                found = filesystem.ls(posixpath.join(root, OBJECTS), detail=True)
            except FileNotFoundError:
                return
        folders = [one["name"].rstrip("/") for one in found if one["type"] == "directory"]
        yield from (_entry(filesystem, one, root) for one in found if one["type"] != "directory")

        def list_folder(folder: str) -> list[Entry]:
            return list(self._walk_remote(filesystem, root, folder))

        for start in range(0, len(folders), SMALL_AT_ONCE):  # few at a time: each may hold many
            for entries in in_parallel(list_folder, folders[start : start + SMALL_AT_ONCE]):
                yield from entries

    def entry(self, key: str) -> Entry | None:
        """One object as it is now, whatever a listing said; None when it is not there."""
        filesystem, path = self._open(key)
        with self._reaching():
            try:
                filesystem.invalidate_cache()
                found = filesystem.info(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
            if found["type"] == "directory":
                return None
            return Entry(key, int(found["size"]), _modified(filesystem, found))

    def read(self, key: str) -> bytes:
        """All bytes of a small object. Raises FileNotFoundError when it is not there."""
        filesystem, path = self._open(key)
        with self._reaching(FileNotFoundError):
            return cast(bytes, filesystem.cat_file(path))

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects, in batches where the store takes them. One that is gone already is no error."""
        wanted = list(keys)
        filesystem, root = self._open()
        paths = [posixpath.join(root, key) for key in wanted]
        with self._reaching():
            if isinstance(filesystem, LocalFileSystem):
                for path in paths:
                    Path(path).unlink(missing_ok=True)
                return
            # In a batch `*` would stand for every name.
            plain = [path for path in paths if not glob.has_magic(path)]
            for path in set(paths) - set(plain):
                if filesystem.exists(path):
                    filesystem.rm_file(path)
            for start in range(0, len(plain), REMOVED_AT_ONCE):
                batch = plain[start : start + REMOVED_AT_ONCE]
                try:
                    filesystem.rm(batch)
                except FileNotFoundError:
                    # One name that is gone lets some file systems refuse the whole batch.
                    for path in batch:
                        if filesystem.exists(path):
                            filesystem.rm_file(path)

    def move(self, key: str, to: str) -> None:
        """Move an object to another key, whole."""
        filesystem, path = self._open(key)
        target = self._open(to)[1]
        with self._reaching():
            if isinstance(filesystem, LocalFileSystem):
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
            else:
                filesystem.cp_file(path, target)
                filesystem.rm_file(path)

    def _walk_remote(self, filesystem: Any, root: str, start: str) -> Iterator[Entry]:
        with self._reaching():
            try:
                found = filesystem.find(start, detail=True)
            except FileNotFoundError:
                return
        for one in found.values():
            if one["type"] != "directory":
                yield _entry(filesystem, one, root)

    def _open(self, key: str = "") -> tuple[fsspec.AbstractFileSystem, str]:
        return open_url(self.url, key)

    @contextmanager
    def _reaching(self, *expected: type[Exception]) -> Iterator[None]:
        """Say of what is raised, at which store; what is expected goes through as it is."""
        came = None
        with reaching(self.url):
            try:
                yield
            except expected as error:
                came = error
        if came is not None:
            raise came


def _scan(folder: str, skipped: int) -> Iterator[Entry]:
    """Every file below a local folder; one that goes meanwhile was not there."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _scan(entry.path, skipped)
            continue
        try:
            found = entry.stat()
        except FileNotFoundError:
            continue
        yield Entry(entry.path[skipped:].replace(os.sep, "/"), found.st_size, found.st_mtime)


def _entry(filesystem: Any, found: dict[str, Any], root: str) -> Entry:
    key = found["name"][len(root.rstrip("/")) :].lstrip("/")
    return Entry(key, int(found["size"]), _modified(filesystem, found))


def _modified(filesystem: Any, found: dict[str, Any]) -> float:
    """File systems call it by many names; of one that does not tell, everything is as young as can be, and is kept."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        said = found.get(name)
        if isinstance(said, (int, float)):
            return float(said)
        if isinstance(said, str):
            said = datetime.fromisoformat(said.replace("Z", "+00:00"))
        if isinstance(said, datetime):
            return (said if said.tzinfo else said.replace(tzinfo=UTC)).timestamp()
    return float("inf")
