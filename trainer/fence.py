"""Who may write to a place of checkpoints: the trainer that came last.

The lease (lease.py) keeps two trainers of one machine apart; a place that several machines reach needs more, and no
lock: a machine that is gone cannot let go of one. So each trainer that begins takes the next number there, by
compare-and-swap, and whoever finds a higher number than its own has been fenced off and stops. A trainer that was
killed leaves nothing behind that anybody would wait for.

Between a look and the write that follows it another may come. What an old trainer writes then is half of a checkpoint,
or one whose digests do not fit, which is passed over like any damaged one (progress.py).
"""

import os
import socket
import uuid
from datetime import UTC, datetime

from cairn.errors import StageError, StoreError
from cairn.lineage.store import Store

NAME = "fence"


class Fence:
    """The number that one trainer took at one place."""

    def __init__(self, url: str) -> None:
        """Take the place over from whoever has it.

        Args:
            url: the folder or URL that the checkpoints of one run lie below.

        Raises StoreError when it cannot be reached.
        """
        self.store = Store(url)
        holder = {
            "trainer": uuid.uuid4().hex,  # hosts may be called alike
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": datetime.now(UTC).isoformat("T", "seconds"),
        }
        while True:
            version, _ = self.store.pointer(NAME)
            try:
                self.number = self.store.swap(NAME, version, holder)
                return
            except StoreError:
                if self.store.pointer(NAME)[0] == version:
                    raise  # nobody else moved it

    def check(self) -> None:
        """Raises StageError, naming the new holder, when another trainer took the place over; StoreError when the place
        cannot be reached."""
        number, holder = self.store.pointer(NAME)
        if number == self.number:
            return
        if number < self.number:
            raise StageError(f"{self.store}: was removed while training went on: run again to begin there anew")
        raise StageError(
            f"{self.store}: process {holder['process']} on {holder['host']} took these checkpoints over at "
            f"{holder['since']}: this run ends, and goes on there"
        )
