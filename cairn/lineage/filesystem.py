"""File systems by URL, through fsspec: what they raise is said in one line that names the place."""

import posixpath
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec

from cairn.errors import FULL_DISK, StoreError, one_line


def bucket_exists(filesystem: fsspec.AbstractFileSystem, path: str) -> bool:
    bucket = path.lstrip("/").partition("/")[0]
    try:
        filesystem.ls(bucket, detail=False)
    except FileNotFoundError:
        return False
    except PermissionError:
        pass  # it is there, for others to list; reading and writing say more
    return True


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Say of whatever a file system raises, at which store. What the caller expects, it catches inside the block."""
    try:
        yield
    except Exception as error:  # Every file system raises what its library does.
        if isinstance(error, StoreError) or (isinstance(error, OSError) and error.errno in FULL_DISK):
            raise  # of a full disk, `guard` knows the way out
        raise StoreError(f"{url}: cannot be reached: {one_line(error) or type(error).__name__}") from error


def open_url(url: str, key: str = "") -> tuple[fsspec.AbstractFileSystem, str]:
    with reaching(url):
        try:
            filesystem, path = fsspec.core.url_to_fs(posixpath.join(url, key) if key else url)
        except (ValueError, ImportError) as error:
            raise StoreError(f"{url}: not a store that can be opened: {one_line(error)}") from None
        return filesystem, str(path)


def aside_of(path: str) -> Path:
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    return final.with_name(f".{final.name}.{uuid.uuid4().hex[:12]}")


def size_of(filesystem: fsspec.AbstractFileSystem, path: str) -> int | None:
    try:
        return int(filesystem.info(path)["size"])
    except FileNotFoundError:
        return None
