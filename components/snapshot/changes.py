"""What a new look at the sources would change in the lock file. Nothing is copied and nothing is written."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from cairn.lineage.artifact import CHUNK
from cairn.progress import progress
from components.snapshot.lock import Lock, LockedObject
from components.snapshot.objects import Found, find, unreadable, version_of
from components.snapshot.recipe import Snapshot

READS = 8  # objects in flight at once


@dataclass(frozen=True)
class Change:
    """One object that is not as the lock file has it."""

    kind: Literal["added", "removed", "changed"]
    uri: str
    then: int | None
    """Bytes; None where it was not there."""
    now: int | None


def changes(section: Snapshot, lock: Lock | None) -> tuple[list[Change], int]:
    """Objects of the sources of `section` that differ from `lock`, by URI; and the number of those that do not.

    An object is read only when neither its store's version nor its size tells it apart.

    Raises SourceError when a source is missing, empty or unreadable.
    """
    locked: Mapping[str, LockedObject] = lock.objects() if lock else {}
    listed = [one for index, source in enumerate(section.sources) for one in find(source, f"snapshot.sources[{index}]")]
    found = {one.uri: one for one in listed}
    gone = [Change("removed", uri, said.size, None) for uri, said in locked.items() if uri not in found]
    with progress("snapshot", len(found), "objects") as shown, ThreadPoolExecutor(READS) as threads:
        looked: list[Change | None] = []
        for change in threads.map(lambda one: _change(one, locked.get(one.uri)), found.values()):
            looked.append(change)
            shown.advance()
    changed = [change for change in looked if change is not None]
    return sorted([*gone, *changed], key=lambda change: change.uri.encode()), len(looked) - len(changed)


def _change(found: Found, locked: LockedObject | None) -> Change | None:
    info = found.info()
    size = info.get("size")
    now = int(size) if size is not None else None
    if locked is None:
        return Change("added", found.uri, None, now)
    if locked.version is not None:
        same = locked.version == version_of(found.uri, info)
    else:
        same = (now is None or now == locked.size) and _sha256(found) == locked.sha256
    return None if same else Change("changed", found.uri, locked.size, now)


def _sha256(found: Found) -> str:
    sha256 = hashlib.sha256()
    try:
        with found.filesystem.open(found.path, "rb") as source:
            while chunk := source.read(CHUNK):
                sha256.update(chunk)
    except Exception as error:
        raise unreadable(found.field, found.uri, error) from None
    return sha256.hexdigest()
