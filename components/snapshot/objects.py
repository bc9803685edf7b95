"""The objects behind a source: which ones there are, what tells their versions apart, and how one is opened.

Every URI here is one that can be written down: a path as the recipe has it, a URL, or `python://stdlib/…`, which is the
standard library of the running interpreter.
"""

import logging
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from textwrap import shorten
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from cairn.errors import FULL_DISK, SourceError
from components.snapshot.formats import format_of, readable_suffixes
from components.snapshot.recipe import Source

STDLIB = "python://stdlib"
# Tests, and what others install beside the library. `config-3.x` and `_sysconfigdata` hold the paths and compiler flags
# of the machine that built this Python; `sitecustomize` is the machine's owner's.
_NOT_LIBRARY = ("test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "config-*")
_NOT_LIBRARY_FILES = ("_sysconfigdata*", "sitecustomize.py", "usercustomize.py")
# It logs the traceback of every error that it then raises.
logging.getLogger("gcsfs").addHandler(logging.NullHandler())
_SPECIAL = re.compile(r"[*?[]")  # in a glob


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
        SourceError: nothing is there, or nothing that can be read, or an object has a name that cannot be written down.
    """
    named = f"{field}.uri"
    listed = _standard_library if source.uri.startswith("python://") else _list
    found = sorted(listed(source.uri, named), key=lambda one: os.fsencode(one.uri))
    known = [one for one in found if format_of(one.uri, source.read)]
    if not known:
        suffixes = f"that can be read ({readable_suffixes(source.read)})"
        if len(found) == 1:
            raise SourceError(f"{named}: {_shown(found[0].uri)}: has no suffix {suffixes}")
        held = f"holds {len(found)} files, but none" if found else "holds no file"
        raise SourceError(f"{named}: {source.uri}: {held} {suffixes}")
    for one in known:
        if _shown(one.uri) != one.uri:
            raise SourceError(f"{named}: {_shown(one.uri)}: the name is not UTF-8: rename the file")
    if len(known) < len(found):
        others = [one.uri for one in found if not format_of(one.uri, source.read)]
        _say_left_out(named, others, f"what is read: {readable_suffixes(source.read)}")
    return known


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
        raise SourceError(f"{uri}: version {version} cannot be read: {_told(error)}") from None


def unreadable(field: str, uri: str, error: Exception) -> Exception:
    """The error to raise for `error`. File systems raise what their libraries do, so there is no common base."""
    if isinstance(error, SourceError) or (isinstance(error, OSError) and error.errno in FULL_DISK):
        return error
    if isinstance(error, FileNotFoundError):
        return SourceError(f"{field}: {uri}: no such file, folder or object")
    if isinstance(error, PermissionError):
        return SourceError(f"{field}: {uri}: may not be read: permission denied")
    return SourceError(f"{field}: {uri}: cannot be read: {_told(error)}")


def _list(uri: str, field: str) -> Iterator[Found]:
    try:
        filesystem, path = fsspec.core.url_to_fs(os.path.expanduser(uri))
    except ImportError as error:
        raise SourceError(f"{field}: {uri}: {_told(error)}") from None
    except ValueError as error:
        if "://" in uri and uri.partition("://")[0] not in fsspec.available_protocols():
            raise SourceError(f"{field}: {uri}: no file system has the scheme {uri.partition('://')[0]!r}") from None
        raise unreadable(field, uri, error) from None
    except Exception as error:
        raise unreadable(field, uri, error) from None
    try:
        if filesystem.isdir(path):
            names = {n: i for n, i in filesystem.find(path, detail=True).items() if not _hidden(n, path)}
        elif filesystem.exists(path):
            names = {path: filesystem.info(path)}
        elif special := _SPECIAL.search(path):
            names = _match(filesystem, path, special.start())
            if not names:
                raise SourceError(f"{field}: {uri}: no file or object matches")
        else:
            raise FileNotFoundError
        # What a listing remembers is what was; each object is asked for again when it is read.
        filesystem.invalidate_cache()
    except Exception as error:
        raise unreadable(field, uri, error) from None
    # A link to a file is that file. Pipes, sockets and devices are not read, nor are links to folders, which can lead
    # round in a circle.
    files = {n: i["type"] == "file" or bool(i.get("islink") and os.path.isfile(n)) for n, i in names.items()}
    others = [n for n, is_file in files.items() if not is_file and names[n]["type"] != "directory"]
    _say_left_out(field, others, "a link to a folder, a broken link, a pipe or a device")
    for name, is_file in files.items():
        if is_file:
            yield Found(_written(uri, filesystem, name), filesystem, name, field)


def _match(filesystem: fsspec.AbstractFileSystem, pattern: str, start: int) -> dict[str, dict[str, Any]]:
    """What a glob matches, its first special character being at `start`. As in a shell, a star stands for no name that
    begins with a dot."""
    found: dict[str, dict[str, Any]] = filesystem.glob(pattern, detail=True)
    folder = pattern[:start].rpartition("/")[0]
    if "/." in f"/{pattern[len(folder) :]}":
        return found
    return {name: info for name, info in found.items() if not _hidden(name, folder)}


def _say_left_out(field: str, names: Sequence[str], what: str) -> None:
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        print(f"{field}: left out: {_shown(min(names))}{more} ({what})", file=sys.stderr)


def _told(error: Exception) -> str:
    """What an error says, in one line of bearable length."""
    return shorten(str(error), 300, placeholder=" …") or type(error).__name__


def _shown(name: str) -> str:
    """A name as it can be written down: as bytes where it is not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return repr(os.fsencode(name))
    return name


def _hidden(name: str, folder: str) -> bool:
    """Whether a part of the name below the folder starts with a dot, as `.git` does."""
    return any(part.startswith(".") for part in name[len(folder.rstrip("/")) :].split("/"))


def _written(uri: str, filesystem: fsspec.AbstractFileSystem, name: str) -> str:
    """The name of an object in the form in which the recipe named its source."""
    if not isinstance(filesystem, LocalFileSystem):
        return str(filesystem.unstrip_protocol(name))
    if uri.startswith("~"):
        return f"~/{os.path.relpath(name, Path.home())}"
    if "://" in uri:
        return f"file://{name}"
    return name if os.path.isabs(uri) else os.path.relpath(name)


def _standard_library(uri: str, field: str) -> Iterator[Found]:
    if uri.rstrip("/") != STDLIB and not uri.startswith(f"{STDLIB}/"):
        raise SourceError(f"{field}: {uri}: {STDLIB} is the only one of its kind")
    root, local = Path(sysconfig.get_path("stdlib")), LocalFileSystem()
    wanted = PurePosixPath(uri.removeprefix(STDLIB).strip("/"))
    for folder, folders, files in os.walk(root):
        # What is cut off here is not walked: `site-packages` may hold a hundred times the library.
        folders[:] = [name for name in folders if not _matches(name, _NOT_LIBRARY)]
        for name in files:
            path = Path(folder, name)
            relative = PurePosixPath(path.relative_to(root).as_posix())
            if path.suffix == ".py" and not _matches(name, _NOT_LIBRARY_FILES) and relative.is_relative_to(wanted):
                yield Found(f"{STDLIB}/{relative}", local, str(path), field)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
