"""A folder of this machine, or one below any URL that fsspec opens: where checkpoints in progress lie."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from cairn.lineage.artifact import remove, written_aside
from cairn.lineage.filesystem import attempt, is_local, open_url, reaching, shown

CHUNK = 8 << 20


class Place:
    """Files by key. A file is there whole or not at all when `put` wrote it; `write` is for those that are counted
    only once another file names their digest."""

    def __init__(self, url: str) -> None:
        """Raises StoreError when the URL is of no known kind."""
        self.filesystem, self.root = open_url(url)
        self.local = Path(self.root) if is_local(self.filesystem) else None
        self.url = shown(url)

    def below(self, key: str) -> str:
        """The path of `key` on the file system."""
        return f"{self.root.rstrip('/')}/{key}"

    def folders(self) -> list[str]:
        """Names of the folders directly below, in order."""
        if self.local:
            return sorted(path.name for path in self.local.glob("*") if path.is_dir())

        def listed() -> list[str]:
            try:
                found = self.filesystem.ls(self.root, detail=True)
            except FileNotFoundError:
                return []
            return sorted(one["name"].rstrip("/").rpartition("/")[2] for one in found if one["type"] == "directory")

        return attempt(self.url, listed)

    def write(self, key: str, parts: Callable[[], Iterable[memoryview]]) -> dict[str, str | int]:
        """Write a file from its parts, which are asked for again when the network fails; its sha256 and size.

        Raises OSError (disk full) and StoreError.
        """
        return attempt(f"{self.url}/{key}", lambda: self._write(key, parts()))

    def _write(self, key: str, parts: Iterable[memoryview]) -> dict[str, str | int]:
        hashed, size, path = hashlib.sha256(), 0, self.below(key)
        if self.local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") if self.local else self.filesystem.open(path, "wb") as file:
            for part in parts:
                for start in range(0, len(part), CHUNK):
                    piece = part[start : start + CHUNK]
                    file.write(piece)
                    hashed.update(piece)
                size += len(part)
            if self.local:
                file.flush()
                os.fsync(file.fileno())
        return {"sha256": hashed.hexdigest(), "size": size}

    def put(self, key: str, data: bytes) -> None:
        """Write a small file: there is the whole of it, or what was there before."""
        if self.local:
            with written_aside(self.local / key) as aside:
                aside.write_bytes(data)
        else:
            attempt(f"{self.url}/{key}", lambda: self.filesystem.pipe_file(self.below(key), data))

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Bytes of a file. Raises FileNotFoundError, and StoreError when the place cannot be reached."""

        def data() -> bytes | None:
            try:
                return bytes(self.filesystem.cat_file(self.below(key), start=start, end=end))
            except (FileNotFoundError, NotADirectoryError):
                return None

        found = attempt(f"{self.url}/{key}", data)
        if found is None:
            raise FileNotFoundError(f"{self.url}/{key}")
        return found

    def copy(self, key: str, target: Path) -> None:
        """Copy a file to one of this machine. Raises FileNotFoundError, and StoreError as `read` does."""

        def copied() -> bool:
            try:
                with self.filesystem.open(self.below(key), "rb") as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file, CHUNK)
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True

        if not attempt(f"{self.url}/{key}", copied):
            raise FileNotFoundError(f"{self.url}/{key}")

    def fault(self, key: str, sha256: str, size: int) -> str | None:
        """What is wrong with a file that should have this digest and size; None when it is sound."""

        def read() -> str | None:
            try:
                there = int(self.filesystem.size(self.below(key)))
                if there != size:
                    return f"has {there} of {size} bytes"
                hashed = hashlib.sha256()
                with self.filesystem.open(self.below(key), "rb") as file:
                    while piece := file.read(CHUNK):
                        hashed.update(piece)
            except (FileNotFoundError, NotADirectoryError):
                return "is missing"
            return None if hashed.hexdigest() == sha256 else "holds other bytes than were saved"

        name = key.rpartition("/")[2]
        found = attempt(f"{self.url}/{key}", read)
        return found and f"{name} {found}"

    def drop(self, key: str) -> None:
        """Remove a file or folder, if it is there."""
        if self.local:
            remove(self.local / key)
            return
        with reaching(f"{self.url}/{key}"):
            try:
                self.filesystem.rm(self.below(key), recursive=True)
            except FileNotFoundError:
                return
