"""The named errors of Cairn. Each is something a person can put right.

`str(error)` is one line: the file, field or line, what is wrong, and the way out. It is raised where the fact is known
and printed once, by a door (`guard`), with exit code 2. Whatever else escapes is a defect and keeps its traceback.
With `CAIRN_DEBUG` set, an error shows its traceback too.
"""

import errno
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# A file where a folder should be, or one that may not be written: the person's to put right, wherever it is met.
WRONG_PLACE = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip
AT_ONCE = 1.0  # seconds within which a second Ctrl-C is the first one, which came by two ways
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM


class CairnError(Exception):
    """A fault in the input, the recipe or the machine, not in Cairn. Its text is one line."""


class RecipeError(CairnError):
    """The recipe is not valid: names the file, the line and the key."""


class SourceError(CairnError):
    """A source or document cannot be read: names the object, and the place in it where known."""


class ArtifactError(CairnError):
    """An artifact is missing, incomplete or not what its digest says."""


class StoreError(CairnError):
    """The store cannot be reached, or holds something other than its addresses say."""


class AttestationError(CairnError):
    """An attestation or a key cannot be read, or does not verify."""


class StageError(CairnError):
    """A stage cannot run: what it needs is missing, busy or too small."""


class GitError(CairnError):
    """There is no Git repository, or Git refuses."""


class PipelineError(CairnError):
    """A compiled pipeline holds what it should not, or is none."""


def one_line(text: object) -> str:
    """`text` with every run of white space made one space."""
    return " ".join(str(text).split())


@contextmanager
def written_at(place: object) -> Iterator[None]:
    """Have a full disk that is met in the block say that it was met at `place`: a write knows no name by itself."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK and error.filename is None:
            error.filename = str(place)
        raise


def guard(door: Callable[[], int | None]) -> int:
    """Run a door; print what a person can put right as one line and return the exit code.

    Returns the door's own code (None is 0), 2 for a `CairnError`, a full disk or a place that cannot be written, 130
    for Ctrl-C, 143 for SIGTERM. SIGTERM is turned into `SystemExit` so that `finally` blocks run. A Ctrl-C that a
    library swallows, as some do while they are imported, does not stop the door, but what would follow it.
    """
    interrupted = float("-inf")

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        before, interrupted = interrupted, time.monotonic()
        if interrupted - before > AT_ONCE:
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # in the background a shell has it ignored
        signal.signal(signal.SIGINT, interrupt)
    try:
        code = door() or 0
        if interrupted > 0 and not code:
            raise KeyboardInterrupt
        return code
    except CairnError as error:
        if os.environ.get("CAIRN_DEBUG"):
            traceback.print_exc()
        print(f"error: {one_line(error)}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except OSError as error:
        number = error.errno or 0
        if number not in FULL_DISK | WRONG_PLACE:
            raise
        if os.environ.get("CAIRN_DEBUG"):
            traceback.print_exc()
        where = error.filename2 or error.filename or "a disk that was written to"
        way_out = "free some disk" if number in FULL_DISK else "move it away, or make it writable,"
        print(f"error: {where}: {os.strerror(number)}: {way_out} and run again", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted: finished work is kept; run again to go on", file=sys.stderr)
        return EXIT_INTERRUPTED
