"""File systems by URL, through fsspec.

What they raise is said in one line that names the place and never a password; what passes by itself, such as a
connection that was cut, is tried again first.
"""

import errno
import posixpath
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

import fsspec
from fsspec.implementations.local import LocalFileSystem

from cairn.errors import FULL_DISK, StoreError, one_line, written_at

ATTEMPTS = 4
FIRST_PAUSE = 0.2  # seconds before the second attempt; twice as long before each that follows
# What a network or a busy server raises and an hour later would not.
_PASSING = {
    errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED,
    errno.EPIPE, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.ESTALE,
}  # fmt: skip
# By name, for libraries that are not imported here: aiohttp, botocore, urllib3, http.client.
_PASSING_NAMES = {
    "ServerDisconnectedError", "ClientPayloadError", "ClientOSError", "ReadTimeoutError", "ConnectTimeoutError",
    "EndpointConnectionError", "ResponseStreamingError", "IncompleteReadError", "IncompleteRead", "ProtocolError",
    "HTTPClientError", "ConnectionClosedError",
}  # fmt: skip

_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]*@")
_QUERY = re.compile(r"(?<=://)([^\s?]*)\?[^\s:]+")

T = TypeVar("T")


def shown(url: str) -> str:
    """A URL, or text that holds some, as it may be printed: without user, password and query, which may be a token."""
    return _QUERY.sub(r"\1?…", _CREDENTIALS.sub("", url))


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Say of whatever a file system raises, at which store. What the caller expects, it catches inside the block."""
    try:
        with written_at(shown(url)):
            yield
    except Exception as error:  # Every file system raises what its library does.
        if isinstance(error, StoreError) or (isinstance(error, OSError) and error.errno in FULL_DISK):
            raise  # of a full disk, `guard` knows the way out
        raise StoreError(f"{shown(url)}: cannot be reached: {_reason(url, error)}") from error


def attempt(url: str, work: Callable[[], T]) -> T:
    """What `work` returns, tried again a few times, ever more slowly, while what it raises may pass.

    `work` must be safe to repeat. Raises as `reaching` does.
    """
    with reaching(url):
        for tried in range(1, ATTEMPTS + 1):
            try:
                return work()
            except Exception as error:
                if tried == ATTEMPTS or not passing(error):
                    raise
                pause(tried)
        raise AssertionError("the last attempt returns or raises")


def passing(error: BaseException) -> bool:
    """Whether an error may be gone at the next attempt."""
    if isinstance(error, TimeoutError | ConnectionError) or type(error).__name__ in _PASSING_NAMES:
        return True
    status = getattr(error, "status", None) or getattr(error, "code", None)
    return (isinstance(error, OSError) and error.errno in _PASSING) or status in (429, 500, 502, 503, 504)


def pause(tried: int) -> None:
    """Wait before the next attempt."""
    time.sleep(FIRST_PAUSE * 2 ** (tried - 1))


def open_url(url: str, key: str = "") -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a store, and the path of a key on it. Raises StoreError when there is no such kind."""
    with reaching(url):
        try:
            # A remembered listing shows objects that another process has removed since.
            filesystem, path = fsspec.core.url_to_fs(posixpath.join(url, key) if key else url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise StoreError(f"{shown(url)}: not a store that can be opened: {_reason(url, error)}") from None
        return filesystem, str(path)


def is_local(filesystem: fsspec.AbstractFileSystem) -> bool:
    """Whether paths of the file system are paths of this machine."""
    return isinstance(filesystem, LocalFileSystem)


def bucket_exists(filesystem: fsspec.AbstractFileSystem, path: str) -> bool:
    """Whether there is a bucket for `path`; one that may not be listed is taken for there."""
    # Over HTTP there are no buckets, and a path is the whole URL.
    bucket = path if "://" in path else path.lstrip("/").partition("/")[0]
    try:
        filesystem.ls(bucket, detail=False)
    except FileNotFoundError:
        return False
    except PermissionError:
        pass  # it is there, for others to list; reading and writing say more
    return True


def aside_of(path: str) -> Path:
    """A unique path of this machine beside `path`, whose folder is made."""
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    return final.with_name(f".{final.name}.{uuid.uuid4().hex[:12]}")


def size_of(filesystem: fsspec.AbstractFileSystem, path: str) -> int | None:
    """Bytes of the object at `path`; None when there is none."""
    try:
        return int(filesystem.info(path)["size"])
    except FileNotFoundError:
        return None


def _reason(url: str, error: BaseException) -> str:
    """What an error says, without the credentials that the URL holds, however they are spelt in it."""
    text = shown(one_line(error)) or type(error).__name__
    for held in _CREDENTIALS.findall(url):
        for secret in (held[:-1], held[:-1].partition(":")[2]):
            for spelt in filter(None, (secret, unquote(secret))):
                text = text.replace(spelt, "…")
    return text
