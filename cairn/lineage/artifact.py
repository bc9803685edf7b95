"""Artifacts: a file or directory named by the sha256 digest of its content, written aside and moved into place whole.

The digest of a directory is the sha256 of its listing: one canonical JSON line `{"path","sha256","size"}` for each
file, sorted by the UTF-8 bytes of the path. Links and empty directories have no place in an artifact.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cairn.errors import FULL_DISK, ArtifactError, one_line, written_at
from cairn.lineage.hashing import hash_files

CHUNK = 8 << 20


@dataclass(frozen=True)
class Member:
    """One file of an artifact."""

    path: str
    """Relative to the artifact, with `/`; for an artifact that is one file, its name."""
    sha256: str
    md5: str
    """Where a store in DVC's layout keeps it; empty where it was not asked for. Never a proof: md5 collides."""
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Artifact:
    """What an artifact holds, as it was read and hashed."""

    members: tuple[Member, ...]
    is_directory: bool

    @cached_property
    def digest(self) -> str:
        """sha256 of the file, or of the listing of the directory; 64 hexadecimal digits."""
        if not self.is_directory:
            return self.members[0].sha256
        lines = (canonical({"path": m.path, "sha256": m.sha256, "size": m.size}) + b"\n" for m in self.members)
        return hashlib.sha256(b"".join(lines)).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all members."""
        return sum(member.size for member in self.members)


def read_artifact(path: Path, address: bool = True) -> Artifact:
    """Hash the file or directory at `path`.

    Args:
        address: also take the md5 that a store addresses files by; without it a processor reads three times as fast.

    Raises:
        ArtifactError: nothing is there, or it holds a link or something that is no plain file.
    """
    found = files_of(path)
    read = hash_files([(file.path, file.size) for file in found], md5=address)
    members = (Member(file.name, one.sha256, one.md5, one.size) for file, one in zip(found, read, strict=True))
    return Artifact(tuple(members), is_directory=path.is_dir())


@dataclass(frozen=True)
class File:
    """A file that belongs to an artifact on disk."""

    path: Path
    name: str
    """As `Member.path`."""
    size: int
    """Bytes, when it was found."""


def files_of(path: Path) -> list[File]:
    """The files of the artifact at `path`, in the order of its listing. Raises ArtifactError as `read_artifact`."""
    if path.is_symlink() or not path.exists():
        raise ArtifactError(f"{path}: {'is a link' if path.is_symlink() else 'no such artifact'}")
    if path.is_file():
        _check_name(path.parent, path.name)
        return [File(path, path.name, path.stat().st_size)]
    return sorted(_walk(path, ""), key=lambda file: file.name.encode())


def can_be_a_path(name: str) -> bool:
    """Whether a member may be called so: it leads nowhere else, on any system, and everybody can spell it."""
    inside = not {"", ".", ".."} & set(name.split("/")) and "\\" not in name and "\0" not in name
    return inside and not any("\ud800" <= character <= "\udfff" for character in name)


def digest_of(path: Path) -> str | None:
    """The digest of the artifact at `path`, or None when nothing is there."""
    return read_artifact(path, address=False).digest if path.exists() else None


def canonical(value: Any) -> bytes:
    """The one JSON form that digests are taken of: sorted keys, no white space, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parsed(data: bytes) -> Any:
    """The JSON value that `data` holds, whoever wrote it; None when it holds none, or one nested too deeply."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def readable(value: Any) -> bytes:
    """JSON for files that people read too, as deterministic as `canonical`: sorted keys, indented, a final newline."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file at; it takes its place when the block ends without an error.

    The name is unique, so two processes that write the same file do not write into each other's.

    Raises ArtifactError when no file can be written at `path`; of a full disk, OSError.
    """
    if not path.name or path.is_dir():
        raise ArtifactError(f"{path}: cannot be written: is a folder: name a file")
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    with _writing(path, aside):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield aside
            with open(aside, "rb") as written:
                os.fsync(written.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


def check_place(final: Path, beside: Path) -> None:
    """Make sure that what is made in the folder `beside` can be moved to `final`: better told before the work than
    after it. Leaves nothing behind. Raises ArtifactError."""
    missing = [folder for folder in final.parents if not folder.exists()]
    with _writing(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        same, writable = final.parent.stat().st_dev == beside.stat().st_dev, os.access(final.parent, os.W_OK)
        for folder in missing:
            with suppress(OSError):  # somebody else has put something there by now
                folder.rmdir()
    if not same:
        raise ArtifactError(f"{final}: is on another file system than {beside}: only on one can it appear whole")
    if not writable:
        raise ArtifactError(f"{final}: cannot be written: {final.parent} may not be written to: name another place")


def move_into_place(staged: Path, final: Path, trash: Path) -> None:
    """Put the finished file or directory `staged` at `final`; what was there goes to `trash` and is removed.

    All three lie on one file system. A kill in between leaves `final` absent or whole, never half.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    remove(trash)
    if final.is_dir() and not final.is_symlink():
        os.rename(final, trash)
    os.rename(staged, final)
    remove(trash)


def remove(path: Path) -> None:
    """Remove the file, link or directory at `path`, if any."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path, *others: Path) -> Iterator[None]:
    """Say of what the system refuses that `path` cannot be written. Other files' errors are not ours to explain."""
    try:
        with written_at(path):
            yield
    except OSError as error:
        ours = {str(one) for one in (path, *path.parents, *others)}
        if error.errno in FULL_DISK or str(error.filename) not in ours:
            raise
        reason = one_line(error.strerror)
        raise ArtifactError(f"{path}: cannot be written: {error.filename}: {reason}: name another place") from error


def _walk(folder: Path, prefix: str) -> Iterator[File]:
    for entry in os.scandir(folder):
        relative = f"{prefix}{entry.name}"
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise ArtifactError(f"{folder / entry.name}: an artifact holds plain files only, no links")
        _check_name(folder, entry.name)
        if entry.is_dir():
            yield from _walk(Path(entry.path), relative + "/")
        else:
            yield File(Path(entry.path), relative, entry.stat().st_size)


def _check_name(folder: Path, name: str) -> None:
    if not can_be_a_path(name):
        raise ArtifactError(f"{folder}: {name!a}: holds a backslash, or is not UTF-8: give it another name")
