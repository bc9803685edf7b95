"""Who may write to a work folder. The launcher holds the lease; a trainer whose launcher is gone checkpoints and ends.

Both are file locks, which the kernel lets go of when a process ends, however it ends. In the lease stands which launch
holds it: else a trainer that a killed launcher had only just started would take the next launcher for its own.
"""

import fcntl
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO

ORPHAN_PATIENCE = 120.0  # seconds that a trainer whose launcher was killed may take to write its checkpoint


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


def wait(path: Path, seconds: float, give_up: Callable[[], bool] = lambda: False) -> IO[str] | None:
    """`hold`, trying for some seconds, or until there is no more use in it."""
    deadline = time.monotonic() + seconds
    while (file := hold(path)) is None and time.monotonic() < deadline and not give_up():
        time.sleep(0.1)
    return file


def sign(held: IO[str]) -> str:
    """Write into a lease that was taken what no launch before it was called, and return it."""
    launch = uuid.uuid4().hex
    held.truncate(0)
    held.write(launch)
    held.flush()
    return launch


class Watch:
    """Looks now and then whether the launcher still holds its lease."""

    def __init__(self, path: Path, launch: str) -> None:
        """`launch`: what `sign` gave the launcher."""
        self.path = path
        self.launch = launch

    def superseded(self) -> bool:
        """Whether another launcher came after ours, or somebody took the lease away."""
        try:
            return self.path.read_text() != self.launch
        except FileNotFoundError:
            return True

    def stale(self) -> bool:
        """Whether the launcher is gone."""
        if self.superseded():
            return True
        file = hold(self.path)
        if file is None:
            return False
        file.close()
        return True
