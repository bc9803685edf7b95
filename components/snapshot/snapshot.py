"""Resolve the sources to a lock file. This is the one stage that looks at the world, so it is run by its own rules.

A lock file that fits the recipe, and whose objects are in the store, is up to date, whatever is upstream by now. Each
object is read once; finished ones are kept when a run is killed.
"""

import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import BinaryIO

from cairn.errors import SourceError, StoreError
from cairn.lineage.artifact import CHUNK, read_artifact, readable, remove, written_aside
from cairn.lineage.attempts import Launch, begin, failure_noted
from cairn.lineage.record import record
from cairn.lineage.stage import Component, Outcome, only_one, trusted
from cairn.lineage.store import Store, identity
from cairn.progress import duration, progress
from cairn.resources import Resources
from components.snapshot.lock import Lock, LockedObject, LockedSource, parse_lock, read_lock
from components.snapshot.objects import Found, find, mark_of, open_version, unreadable, version_of
from components.snapshot.recipe import Snapshot

READS = 8  # objects in flight at once


def snapshot(
    section: Snapshot,
    output: Path,
    *,
    refresh: bool,
    component: Component,
    store: Store,
    resources: Resources,
    home: Path = Path(".cairn"),
) -> Outcome:
    """Make sure that `output` is a lock file of the sources of `section`, and that the store holds their objects.

    Args:
        refresh: look at the sources again even if the lock file is up to date.

    Returns:
        UP_TO_DATE when nothing was read, or a refresh found nothing new; RESTORED when the lock file or its objects
        were brought back; RAN when the sources are not what they were.

    Raises:
        SourceError: a source is missing, empty, unreadable or changes while it is read; or the store has lost the
            objects of a lock file and upstream no longer has them.
    """
    recipe = identity(section.model_dump(mode="json"))
    locked = read_lock(output) if output.exists() and not refresh else None
    standing = locked if locked is not None and locked.recipe == recipe else None
    if standing is not None and (standing.tree is None or store.has(standing.tree)):
        if not _is_kept(store, output):  # a run that is pinned takes the lock file from the store
            store.put(output)
        return Outcome.UP_TO_DATE
    existed = output.exists()
    with _looked(section, component, resources, home) as look:
        if standing is not None and look.lock != standing:
            raise SourceError(_gone(output, standing, look.lock, store))
        outcome = _keep(section, look, component, store, resources)
        with written_aside(output) as aside:
            aside.write_bytes(look.lock.bytes())
    if standing is not None:
        _say(f"the store had lost source objects: they were read again, and {store} has them")
    elif outcome is Outcome.UP_TO_DATE and not existed:
        _say(f"{output} was written again: the sources are what they were")
    else:
        return outcome
    return Outcome.RESTORED


def snapshot_pinned(
    section: Snapshot,
    locked: str | None,
    *,
    component: Component,
    store: Store,
    resources: Resources,
    home: Path = Path(".cairn"),
) -> tuple[Outcome, dict[str, str]]:
    """Make sure that the store holds a lock file of the sources of `section`, and their objects.

    Args:
        locked: the digest of the lock file to use; None to look at the sources as they are now.

    Returns:
        RAN when the sources are not what they were, else UP_TO_DATE; and the digest of the lock file.

    Raises:
        SourceError: as `snapshot` does, or the lock file of that digest is of other sources.
    """
    if locked is None:
        with _looked(section, component, resources, home) as look:
            return _keep(section, look, component, store, resources), {"sources": _digest(look.lock)}
    lock = parse_lock(store.read_member(locked, ""), f"sources {locked}")
    if lock.recipe != identity(section.model_dump(mode="json")):
        raise SourceError(f"sources {locked}: is the lock file of another snapshot section: run `cairn snapshot`")
    if lock.tree is not None and not store.hold(lock.tree):
        raise SourceError(f"sources {locked}: the store {store} does not hold its objects ({lock.tree})")
    return Outcome.UP_TO_DATE, {"sources": locked}


@dataclass(frozen=True)
class _Look:
    """The sources as they were found."""

    lock: Lock
    work: Path
    """Holds copies of the objects until they are kept."""
    launch: Launch
    started: float


@contextmanager
def _looked(section: Snapshot, component: Component, resources: Resources, home: Path) -> Iterator[_Look]:
    """Look at the sources; the work folder goes when the block ends without an error."""
    recipe = identity(section.model_dump(mode="json"))
    work = home / "work" / f"snapshot-{recipe}"
    with only_one(home, component, f"snapshot-{recipe}"):
        started = time.monotonic()
        _check_dates(section)
        found = [find(source, f"snapshot.sources[{index}]") for index, source in enumerate(section.sources)]
        launch = begin(work, component.package_versions(), resources)  # now there is work that may be gone on with
        with failure_noted(work):
            yield _Look(_resolve(section, found, recipe, work), work, launch, started)
        remove(work)


def _check_dates(section: Snapshot) -> None:
    """Nobody has looked on a day that is to come. Only whoever looks at the world may ask what day it is: a recipe that
    was valid stays so."""
    latest = datetime.now(UTC).date() + timedelta(days=1)  # it is tomorrow already where the sun rises first
    for index, source in enumerate(section.sources):
        if source.opt_out is not None and source.opt_out.checked > latest:
            raise SourceError(
                f"snapshot.sources[{index}].opt_out.checked: {source.opt_out.checked} is to come: write the day on "
                "which somebody looked"
            )


def _keep(section: Snapshot, look: _Look, component: Component, store: Store, resources: Resources) -> Outcome:
    """See to it that the store holds the lock file and its objects, attested: UP_TO_DATE when it does already."""
    lock = look.lock
    objects, digest = lock.objects(), _digest(lock)
    key = component.key(section, {uri: locked.sha256 for uri, locked in objects.items()})
    attested = any(found.outputs == {"sources": digest} for found in trusted(store, key, component.name))
    if attested and store.hold(digest) and (lock.tree is None or store.hold(lock.tree)):
        return Outcome.UP_TO_DATE
    if lock.tree is not None:
        store.put(look.work / "objects")
    written = look.work / "sources.lock.json"
    written.write_bytes(lock.bytes())
    sources = store.put(written)
    record(
        component,
        section,
        key,
        dependencies=lock.resources(),
        outputs={"sources": sources},
        facts={"tree": lock.tree},
        launch=look.launch,
        store=store,
        resources=resources,
        sources=lock.described(),
    )
    size = sum(locked.size for locked in objects.values())
    took = duration(time.monotonic() - look.started)
    summary = f"{len(objects)} objects, {size / 1e6:.1f} MB, sources {digest[:12]} ({took})"
    _say(summary)
    return Outcome.RAN


def _say(line: str) -> None:
    print(f"snapshot: {line}", file=sys.stderr, flush=True)


def _is_kept(store: Store, output: Path) -> bool:
    try:
        return store.has(read_artifact(output, address=False).digest)
    except StoreError:  # its pin is damaged
        return False


def _digest(lock: Lock) -> str:
    return hashlib.sha256(lock.bytes()).hexdigest()


def _resolve(section: Snapshot, found: Sequence[Sequence[Found]], recipe: str, work: Path) -> Lock:
    """Read every object once, into `work/objects` unless its own store pins it."""
    # The same object in two sources is one object: read once, kept once.
    distinct = {one.uri: one for ones in found for one in ones}
    reader = _Reader(work / "objects", work / "read", Event())
    locked: dict[str, LockedObject] = {}
    with progress("snapshot", len(distinct), "objects") as shown, ThreadPoolExecutor(READS) as threads:
        try:
            for one in threads.map(reader.read, distinct.values()):
                locked[one.uri] = one
                shown.advance()
        finally:
            # On Ctrl-C or an error the user wants the prompt back, not the end of every object that was begun.
            reader.stop.set()
    copied = {one.path for one in locked.values() if one.path is not None}
    for path in reader.tree.rglob("*"):
        # An earlier run that was killed may have left objects that are no longer wanted, or half of one.
        if path.is_file() and path.relative_to(reader.tree).as_posix() not in copied:
            path.unlink()
    return Lock(
        format="cairn-sources-v1",
        recipe=recipe,
        tree=read_artifact(reader.tree, address=False).digest if copied else None,
        sources=tuple(
            LockedSource(**dict(source), objects=tuple(locked[one.uri] for one in ones))
            for source, ones in zip(section.sources, found, strict=True)
        ),
    )


@dataclass(frozen=True)
class _Reader:
    """Reads objects into a tree in which each lies under its own sha256."""

    tree: Path
    notes: Path
    """What was read before a kill: one note for each object, named by its URI and the mark of its version."""
    stop: Event
    """Set when nobody waits for what is being read any more."""

    def read(self, found: Found) -> LockedObject:
        info = found.info()
        mark, version = mark_of(info), version_of(found.uri, info)
        note = self.notes / f"{identity([found.uri, mark])}.json"
        if mark is not None and note.exists():
            locked = LockedObject.model_validate_json(note.read_bytes())
            if locked.path is None or (self.tree / locked.path).exists():
                return locked
        locked = self._hash(found, version) if version is not None else self._copy(found, mark)
        with written_aside(note) as aside:
            aside.write_bytes(readable(locked.model_dump(mode="json")))
        return locked

    def _hash(self, found: Found, version: str) -> LockedObject:
        """Read an object that its store pins, for its sha256."""
        sha256, size = hashlib.sha256(), 0
        with open_version(found.uri, version) as source:
            while chunk := self._chunk(found, source):
                sha256.update(chunk)
                size += len(chunk)
        return LockedObject(uri=found.uri, path=None, version=version, size=size, sha256=sha256.hexdigest())

    def _copy(self, found: Found, mark: str | None) -> LockedObject:
        sha256, size = hashlib.sha256(), 0
        aside = self.tree / f".{identity(found.uri)}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            source = found.filesystem.open(found.path, "rb")
        except Exception as error:
            raise unreadable(found.field, found.uri, error) from None
        with source, open(aside, "wb") as copy:
            while chunk := self._chunk(found, source):
                sha256.update(chunk)
                size += len(chunk)
                copy.write(chunk)
            # A note must not outlive the bytes that it vouches for.
            copy.flush()
            os.fsync(copy.fileno())
        info = found.info()
        said = info.get("size")
        if mark_of(info) != mark or (said is not None and said != size):
            raise SourceError(f"{found.field}: {found.uri}: changed while it was read: try again when it is at rest")
        digest = sha256.hexdigest()
        path = f"{digest[:2]}/{digest[2:]}"
        (self.tree / path).parent.mkdir(exist_ok=True)
        os.replace(aside, self.tree / path)
        return LockedObject(uri=found.uri, path=path, version=None, size=size, sha256=digest)

    def _chunk(self, found: Found, source: BinaryIO) -> bytes:
        if self.stop.is_set():
            raise SourceError(f"{found.field}: {found.uri}: was not read to its end")
        try:
            return source.read(CHUNK)
        except Exception as error:
            raise unreadable(found.field, found.uri, error) from None


def _gone(output: Path, standing: Lock, now: Lock, store: Store) -> str:
    before, after = standing.objects(), now.objects()
    changed = sorted(uri for uri in before.keys() | after.keys() if before.get(uri) != after.get(uri))
    which = f"{len(changed)} objects changed since, such as {changed[0]}" if changed else "the sources changed since"
    return (
        f"{output}: the store {store} does not hold its objects ({standing.tree}), and {which}: "
        "point CAIRN_STORE to a store that has them, or take the sources as they are now with `cairn snapshot`"
    )
