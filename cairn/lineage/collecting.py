"""What a writer does about a collection of the store that is under way.

A collection writes the record `collecting`, then reads what must be kept, then removes the rest, then removes the
record. A writer that found an object in place, and so did not send it, may have pinned it after the collection had read
the pins: it waits until the record is gone, and looks again.
"""

import json
import time
from typing import Protocol

from cairn.errors import StoreError
from cairn.progress import duration, progress

COLLECTING = "collecting"
LONGEST = 30 * 60.0
"""Seconds that a collection may take. One that takes longer has probably been killed."""
EVERY = 2.0  # seconds between two looks


class Records(Protocol):
    """What of a store is needed here."""

    def read(self, key: str) -> bytes | None:
        """The bytes of a record, or None when there is none."""


def wait_for_collection(store: Records) -> bool:
    """Wait until no collection of the store is under way; whether one was.

    Raises StoreError when it does not end, saying how to remove a record that was left behind.
    """
    record = store.read(COLLECTING)
    if record is None:
        return False
    began = time.monotonic()
    with progress(f"waiting for the collection of {store}", LONGEST, "s") as counter:
        while record is not None:
            waited = time.monotonic() - began
            if waited > LONGEST:
                raise StoreError(
                    f"{store}: {_who(record)} has been collecting for more than {duration(LONGEST)}: if it is not "
                    f"running any more, remove {store}/{COLLECTING} and run this again"
                )
            time.sleep(EVERY)
            counter.advance(time.monotonic() - began - counter.done)
            record = store.read(COLLECTING)
    return True


def _who(record: bytes) -> str:
    try:
        return str(json.loads(record)["who"])
    except (ValueError, TypeError, KeyError):
        return "somebody"
