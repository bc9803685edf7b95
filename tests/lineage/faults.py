"""A file system in memory that fails when a test says so, in the ways that networks and object stores fail."""

import errno
import io
import random
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import fsspec

Plan = Callable[[str], str]
"""The fault of one operation, given its name; empty for none."""

BEFORE = ["reset", "timeout", "busy", "io"]
"""Faults that come before anything was done."""
WRITES = [*BEFORE, "lost", "cut"]
"""`lost`: the work is done, the answer never comes. `cut`: the connection is reset half way, and what had
come is there, but for an object store, which shows no object that is not whole."""
READS = [*BEFORE, "short"]
LISTINGS = [*BEFORE, "stale"]

_ERRORS: dict[str, Callable[[], Exception]] = {
    "reset": lambda: ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    "timeout": lambda: TimeoutError("timed out"),
    "busy": lambda: OSError(errno.EBUSY, "Please reduce your request rate"),
    "io": lambda: OSError(errno.EIO, "Internal error"),
    "denied": lambda: PermissionError("Forbidden"),
}


def no_fault(operation: str) -> str:
    """The plan of a good day."""
    return ""


def seeded(seed: int, rate: float) -> Plan:
    """A plan under which every operation fails with probability `rate`."""
    chance, lock = random.Random(seed), threading.Lock()
    kinds = {"read": READS, "list": LISTINGS, "info": BEFORE, "write": WRITES, "copy": WRITES, "remove": BEFORE}

    def plan(operation: str) -> str:
        with lock:
            return chance.choice(kinds[operation]) if chance.random() < rate else ""

    return plan


class FaultyFileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """`faulty://`. Files are whole bytes; what is opened for writing appears when it is closed."""

    protocol = "faulty"
    cachable = False
    objects: ClassVar[dict[str, bytes]] = {}
    history: ClassVar[list[frozenset[str]]] = [frozenset()]
    plan: ClassVar[Plan] = staticmethod(no_fault)
    read_bytes: ClassVar[int] = 0
    """Bytes that were handed out so far."""
    asked: ClassVar[list[tuple[str, str]]] = []
    """Operations and paths so far."""

    @classmethod
    def reset(cls, object_store: bool = True) -> None:
        """An empty file system without faults."""
        cls.objects, cls.history, cls.asked, cls.read_bytes = {}, [frozenset()], [], 0
        cls.plan = staticmethod(no_fault)
        # What tells an object store, where a file appears when it is whole, from a file system.
        cls.async_impl = object_store

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("faulty://").strip("/")

    def _fault(self, operation: str, path: str) -> str:
        type(self).asked.append((operation, path))
        fault = type(self).plan(operation)
        if fault in _ERRORS:
            raise _ERRORS[fault]()
        return fault

    def _set(self, operation: str, path: str, data: bytes) -> None:
        fault = self._fault(operation, path)
        if not (fault == "cut" and self.async_impl):
            self.objects[path] = data[: len(data) // 2] if fault == "cut" else data
            self.history.append(frozenset(self.objects))
        if fault in ("cut", "lost"):
            raise _ERRORS["reset"]()

    def _get(self, path: str) -> bytes:
        try:
            return self.objects[self._strip_protocol(path)]
        except KeyError:
            raise FileNotFoundError(path) from None

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        self._fault("info", path)
        return {"name": path, "size": len(self._get(path)), "type": "file"}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        stale = self._fault("list", path) == "stale"
        names = self.history[len(self.history) // 2] if stale else frozenset(self.objects)
        prefix = path + "/"
        found = sorted({prefix + name[len(prefix) :].split("/")[0] for name in names if name.startswith(prefix)})
        if not found:
            raise FileNotFoundError(path)
        return [{"name": name} for name in found] if detail else found

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        fault = self._fault("read", self._strip_protocol(path))
        data = self._get(path)[start:end]
        data = data[: len(data) // 2] if fault == "short" else data
        type(self).read_bytes += len(data)
        return data

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        path = self._strip_protocol(path)
        if mode == "create" and path in self.objects:
            raise FileExistsError(path)
        self._set("write", path, bytes(value))

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        self._set("copy", self._strip_protocol(path2), self._get(path1))

    def rm_file(self, path: str) -> None:
        path = self._strip_protocol(path)
        self._fault("remove", path)
        self._get(path)
        del self.objects[path]
        self.history.append(frozenset(self.objects))

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        path = self._strip_protocol(path)
        return io.BytesIO(self.cat_file(path)) if mode == "rb" else _Written(self, path)


class _Written(io.BytesIO):
    def __init__(self, filesystem: FaultyFileSystem, path: str) -> None:
        super().__init__()
        self._filesystem, self._path, self._given_up = filesystem, path, False

    def write(self, data: Any) -> int:
        if self._filesystem._fault("write", self._path):
            raise _ERRORS["reset"]()
        return super().write(data)

    def discard(self) -> None:
        self._given_up = True

    def close(self) -> None:
        if not self.closed and not self._given_up:
            self._given_up = True
            self._filesystem._set("write", self._path, self.getvalue())
        super().close()


fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
