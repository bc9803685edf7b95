"""The objects behind a source: which ones there are, what tells their versions apart, and how one is opened.

Every URI here is one that can be written down: a path as the recipe has it, a URL, or `python://stdlib/…`, which is the
standard library of the running interpreter.
"""

import glob
import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from cairn.errors import FULL_DISK, SourceError, one_line
from components.snapshot.formats import format_of, readable_suffixes
from components.snapshot.recipe import Source

STDLIB = "python://stdlib"
# Tests, and what others install beside the library. `config-3.x` and `_sysconfigdata` hold the paths and compiler flags
# of the machine that built this Python; `sitecustomize` is the machine's owner's.
_NOT_LIBRARY = ("test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "config-*")
_NOT_LIBRARY_FILES = ("_sysconfigdata*", "sitecustomize.py", "usercustomize.py")


@dataclass(frozen=True)
class Found:
    """One object, as a listing named it."""

    uri: str
    filesystem: fsspec.AbstractFileSystem
    path: str
    """Its name in the file system."""
    field: str
    """The recipe field that named it, for messages."""

    def info(self) -> dict[str, Any]:
        """What the file system says of it now. Raises SourceError."""
        try:
            return dict(self.filesystem.info(self.path))
        except Exception as error:
            raise unreadable(self.field, self.uri, error) from None


def find(source: Source, field: str) -> list[Found]:
    """The objects of a source that can be read, sorted by URI.

    Args:
        field: where the source stands in the recipe, such as `snapshot.sources[0]`.

    Raises:
        SourceError: nothing is there, or nothing that can be read.
    """
    named = f"{field}.uri"
    if source.uri.startswith("python://"):
        found = list(_standard_library(source.uri, named))
    else:
        found = list(_list(source.uri, named))
    exact = len(found) == 1 and found[0].uri == source.uri
    known = [one for one in found if format_of(one.uri, source.read)]
    if not known:
        suffixes = readable_suffixes(source.read)
        if exact:
            raise SourceError(f"{named}: {source.uri}: its suffix is not one that can be read: {suffixes}")
        held = f"holds {len(found)} files, but none" if found else "holds no file"
        raise SourceError(f"{named}: {source.uri}: {held} that can be read ({suffixes})")
    if len(known) < len(found):
        other = min(one.uri for one in found if not format_of(one.uri, source.read))
        left = len(found) - len(known)
        print(f"{named}: {left} files with other suffixes are left out, such as {other}", file=sys.stderr)
    return sorted(known, key=lambda one: one.uri.encode())


def version_of(uri: str, info: dict[str, Any]) -> str | None:
    """The version id (S3) or generation (Google Cloud Storage) under which the object's store keeps these bytes."""
    if uri.startswith(("gs://", "gcs://")):
        generation = info.get("generation")
        return str(generation) if generation else None
    if uri.startswith(("s3://", "s3a://")):
        version = info.get("VersionId")
        # A bucket without versioning calls every version "null" and overwrites it.
        return str(version) if version and version != "null" else None
    return None


def mark_of(info: dict[str, Any]) -> str | None:
    """What changes when an object is written to, as far as its store tells; None when it tells nothing."""
    names = ("mtime", "ino", "modified", "ETag", "etag", "LastModified", "last_modified", "generation", "md5Hash")
    marks = {name: str(info[name]) for name in names if info.get(name)}
    return repr((info.get("size"), sorted(marks.items()))) if marks else None


def open_version(uri: str, version: str) -> BinaryIO:
    """Open the bytes that an object store keeps under `version`. Raises SourceError when it no longer has them."""
    pinned = f"{uri}#{version}" if uri.startswith(("gs://", "gcs://")) else f"{uri}?versionId={version}"
    try:
        return cast(BinaryIO, fsspec.open(pinned, "rb").open())
    except Exception as error:
        raise SourceError(
            f"{uri}: version {version} cannot be read: {one_line(error) or type(error).__name__}"
        ) from None


def unreadable(field: str, uri: str, error: Exception) -> Exception:
    """The error to raise for `error`. File systems raise what their libraries do, so there is no common base."""
    if isinstance(error, SourceError) or (isinstance(error, OSError) and error.errno in FULL_DISK):
        return error
    if isinstance(error, FileNotFoundError):
        return SourceError(f"{field}: {uri}: no such file, folder or object")
    if isinstance(error, PermissionError):
        return SourceError(f"{field}: {uri}: may not be read: permission denied")
    return SourceError(f"{field}: {uri}: cannot be read: {one_line(error) or type(error).__name__}")


def _list(uri: str, field: str) -> Iterator[Found]:
    try:
        filesystem, path = fsspec.core.url_to_fs(os.path.expanduser(uri))
    except ImportError as error:
        raise SourceError(f"{field}: {uri}: {one_line(error)}") from None
    except ValueError:
        raise SourceError(
            f"{field}: {uri}: unknown scheme {uri.partition('://')[0]!r}: no file system has it"
        ) from None
    try:
        if filesystem.isdir(path):
            names = {n: i for n, i in filesystem.find(path, detail=True).items() if not _hidden(n, path)}
        elif filesystem.exists(path):
            names = {path: filesystem.info(path)}
        elif glob.has_magic(path):
            names = filesystem.glob(path, detail=True)
            if not names:
                raise SourceError(f"{field}: {uri}: no file or object matches")
        else:
            raise FileNotFoundError
        # What a listing remembers is what was; each object is asked for again when it is read.
        filesystem.invalidate_cache()
    except Exception as error:
        raise unreadable(field, uri, error) from None
    for name, info in names.items():
        # A link to a file is that file; pipes, sockets and devices are not read.
        if info["type"] == "file" or (info.get("islink") and os.path.isfile(name)):
            yield Found(_written(uri, filesystem, name, field), filesystem, name, field)


def _hidden(name: str, folder: str) -> bool:
    """Whether a part of the name below the folder starts with a dot, as `.git` does."""
    return any(part.startswith(".") for part in name[len(folder.rstrip("/")) :].split("/"))


def _written(uri: str, filesystem: fsspec.AbstractFileSystem, name: str, field: str) -> str:
    """The name of an object in the form in which the recipe named its source."""
    if not isinstance(filesystem, LocalFileSystem):
        written = str(filesystem.unstrip_protocol(name))
    elif uri.startswith("~"):
        written = f"~/{os.path.relpath(name, Path.home())}"
    elif "://" in uri:
        written = f"file://{name}"
    else:
        written = name if os.path.isabs(uri) else os.path.relpath(name)
    try:
        written.encode()
    except UnicodeEncodeError:
        raise SourceError(f"{field}: {os.fsencode(written)!r}: the name is not UTF-8: rename the file") from None
    return written


def _standard_library(uri: str, field: str) -> Iterator[Found]:
    root = Path(sysconfig.get_path("stdlib"))
    if uri.rstrip("/") != STDLIB and not uri.startswith(f"{STDLIB}/"):
        raise SourceError(f"{field}: {uri}: {STDLIB} is the only one of its kind")
    local = LocalFileSystem()
    wanted = PurePosixPath(uri.removeprefix(STDLIB).strip("/"))
    for path in sorted(root.rglob("*.py")):
        relative = PurePosixPath(path.relative_to(root).as_posix())
        skipped = any(PurePosixPath(part).match(rule) for part in relative.parts[:-1] for rule in _NOT_LIBRARY)
        skipped = skipped or any(PurePosixPath(relative.name).match(rule) for rule in _NOT_LIBRARY_FILES)
        if not skipped and relative.is_relative_to(wanted):
            yield Found(f"{STDLIB}/{relative}", local, str(path), field)
