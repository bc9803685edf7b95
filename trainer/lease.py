"""Who may write to a work folder. The launcher holds the lease; a trainer whose launcher is gone checkpoints and ends.

Both are file locks, which the kernel lets go of when a process ends, however it ends.
"""

import fcntl
import time
from pathlib import Path
from typing import IO

CHECK_EVERY = 0.2  # seconds


def hold(path: Path) -> IO[str] | None:
    """Take the lock at `path` and keep it as long as the returned file is open; None when somebody holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a")  # noqa: SIM115 - held open on purpose
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def wait(path: Path, seconds: float) -> IO[str] | None:
    """`hold`, trying for some seconds."""
    deadline = time.monotonic() + seconds
    while (file := hold(path)) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return file


class Watch:
    """Looks now and then whether the launcher still holds its lease."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.next = 0.0

    def stale(self) -> bool:
        """Whether the launcher is gone. Cheap enough to ask in every step."""
        now = time.monotonic()
        if now < self.next:
            return False
        self.next = now + CHECK_EVERY
        file = hold(self.path)
        if file is None:
            return False
        file.close()
        return True
