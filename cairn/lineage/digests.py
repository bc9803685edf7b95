"""Digests that are remembered, so that looking at a project twice does not read it twice.

For showing only: a file is taken for unchanged when its size, inode and time are. What decides whether a stage runs
always reads the bytes.
"""

import json
from pathlib import Path

from cairn.lineage.artifact import digest_of, readable, written_aside
from cairn.lineage.store import identity


class Digests:
    """Digests of the artifacts of the project at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.memo = root / ".cairn" / "digests.json"
        self.used: dict[str, list[str]] = {}
        try:
            self.known: dict[str, list[str]] = dict(json.loads(self.memo.read_bytes()))
        except (OSError, ValueError, TypeError):
            self.known = {}

    def of(self, path: Path) -> str | None:
        """The digest of the artifact at a place of the project, or None when nothing is there."""
        place = self.root / path
        if not place.exists():
            return None
        mark = _mark(place)
        remembered = self.known.get(str(path))
        if remembered is None or remembered[0] != mark:
            remembered = [mark, digest_of(place) or ""]
        self.used[str(path)] = remembered
        return remembered[1]

    def keep(self) -> None:
        """Remember what was asked for."""
        if self.used != self.known and (self.root / ".cairn").is_dir():
            with written_aside(self.memo) as aside:
                aside.write_bytes(readable(self.used))


def _mark(path: Path) -> str:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(str(file.relative_to(path)), file.lstat()) for file in files]
    return identity([[name, stat.st_size, stat.st_mtime_ns, stat.st_ino] for name, stat in stats])
