"""The marker that stands in a store while what nothing needs is removed from it, and the trace that it leaves.

A `put` does not send an object that is there already, and a collection might remove just that object before the pin
that needs it is written. So the two go in opposite order. A collection writes the record `collecting`, THEN reads roots
and pins, THEN removes, THEN writes the record `collected` and removes the other. A `put` reads `collected`, looks for
objects and sends what is missing, writes its pin, THEN looks for `collecting`: if it is there, it waits until it is
gone. If it was there, or `collected` is not what it was (a put may take hours, and a collection seconds), the put looks
for every object again and sends what is missing. Whichever is first, one of them sees the other.

What is there already and is to be named again, as by a stage that is up to date, is held in the same way: its pin is
written anew, which makes it young.

A killed collection leaves its marker behind. It counts as over when its process is known to be dead, or when it was not
renewed for an hour; the next collection takes its place.
"""

import os
import socket
import sys
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cairn.errors import StoreError
from cairn.lineage.artifact import parsed, readable
from cairn.lineage.contents import Contents

if TYPE_CHECKING:  # `put` asks here, so a store may import this
    from cairn.lineage.store import Store

KEY = "collecting"
ENDED = "collected"
STALE_AFTER = 3600.0  # seconds without a sign of life
RENEWED_EVERY = 60.0
PATIENCE = 1800.0  # seconds that a `put` waits
LOOK_EVERY = 1.0


@dataclass
class Collection:
    """A collection that is going on. `renew` is cheap enough to be called for every batch."""

    store: "Store"
    holder: str
    began: float
    """Seconds since 1970 by the store's clock, which ages are measured by."""
    since: str
    """The same, to be read by people."""
    _next: float = field(default_factory=lambda: time.monotonic() + RENEWED_EVERY)

    def renew(self, always: bool = False) -> None:
        """Give a sign of life. Raises StoreError when another collection has taken this one's place."""
        if not always and time.monotonic() < self._next:
            return
        standing = _marker(self.store)
        if standing is None or standing.get("holder") != self.holder:
            raise StoreError(f"{self.store}/{KEY}: another collection took over: this one removes no more")
        self.store.write(KEY, _form(self.holder, self.since))
        self._next = time.monotonic() + RENEWED_EVERY


def begin(store: "Store") -> Collection:
    """Write the marker. Roots and pins that are read after this see every artifact whose `put` will not wait.

    Raises StoreError when another collection is going on.
    """
    holder, since = uuid.uuid4().hex, datetime.now(UTC).isoformat(timespec="seconds")
    if not store.create(KEY, _form(holder, since)):
        standing = _marker(store)
        if standing is not None and not _is_over(standing, store):
            raise StoreError(
                f"{store}/{KEY}: a collection is going on since {standing.get('since')} (process "
                f"{standing.get('process')} on {standing.get('machine')}): wait for it, or, if it is "
                "dead, remove this record"
            )
        # The removal of a dead marker is a race between two that take over; the create after it decides.
        print(f"{store}/{KEY}: left behind by a collection that was killed: taken over", file=sys.stderr)
        Contents(store.url).remove([KEY])
        if not store.create(KEY, _form(holder, since)):
            raise StoreError(f"{store}/{KEY}: another collection has begun just now: wait for it")
    standing, entry = _marker(store), Contents(store.url).entry(KEY)
    if standing is None or entry is None or standing.get("holder") != holder:
        raise StoreError(f"{store}/{KEY}: another collection has begun just now: wait for it")
    return Collection(store, holder, entry.modified, since)


def end(collection: Collection) -> None:
    """Leave the trace and remove the marker, if it is still this collection's."""
    standing = _marker(collection.store)
    if standing is not None and standing.get("holder") == collection.holder:
        collection.store.write(ENDED, readable({"holder": collection.holder, "since": collection.since}))
        Contents(collection.store.url).remove([KEY])


def last(store: "Store") -> bytes | None:
    """The trace of the collection that ended last: to be compared with a later one."""
    return store.read(ENDED)


def wait_until_over(store: "Store", before: bytes | None, patience: float | None = None) -> bool:
    """Called by `put` and `hold` when the pin is written: whether there was a collection meanwhile, so that objects
    must be looked for again. Returns when none is going on.

    Args:
        before: what `last` told before the objects were looked for.

    Raises StoreError when it is not over after `patience` seconds, half an hour unless said otherwise.
    """
    standing = _marker(store)
    if standing is None:
        return last(store) != before
    patience = PATIENCE if patience is None else patience
    began, told = time.monotonic(), False
    while standing is not None and not _is_over(standing, store):
        if time.monotonic() - began > patience:
            raise StoreError(
                f"{store}/{KEY}: a collection is going on for more than {patience / 60:.0f} minutes: if it is "
                "dead, remove this record and run again"
            )
        if not told:
            print(f"{store}: waiting for a collection to end", file=sys.stderr, flush=True)
            told = True
        time.sleep(LOOK_EVERY)
        standing = _marker(store)
    return True


def going_on(store: "Store") -> str | None:
    """One line about the marker that stands in a store; None when there is none."""
    standing = _marker(store)
    if standing is None:
        return None
    state = "left behind by a killed" if _is_over(standing, store) else "of a running"
    return f"{KEY}: {state} collection, begun {standing.get('since')}"


def _form(holder: str, since: str) -> bytes:
    return readable(
        {
            "holder": holder,
            "machine": socket.gethostname(),
            "processes": _process_namespace(),
            "process": os.getpid(),
            "since": since,
        }
    )


def _marker(store: "Store") -> dict[str, Any] | None:
    data = store.read(KEY)
    if data is None:
        return None
    said = parsed(data)
    return said if isinstance(said, dict) else {}  # cut short: it ends by its age


def _is_over(standing: dict[str, Any], store: "Store") -> bool:
    process = standing.get("process")
    ours = standing.get("processes") == _process_namespace()
    if ours and isinstance(process, int) and not _runs(process):
        return True
    entry = Contents(store.url).entry(KEY)
    return entry is None or time.time() - entry.modified > STALE_AFTER


def _process_namespace() -> str:
    """Where a number means one process. Not the name of the machine: pods on one node may share that."""
    try:
        booted = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{booted} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux, so no containers
        return socket.gethostname()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
