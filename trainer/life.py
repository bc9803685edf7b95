"""The life of one process of a run: it waits for its place, trains, and leaves word of how that ended."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from cairn.errors import EXIT_BAD_INPUT, FULL_DISK, CairnError, one_line
from trainer import lease
from trainer.stop import Stop
from trainer.train import Run, Trainer, tell

LOST = ("gloo/transport", "Connection closed by peer", "Connection reset by peer", "NCCL")
"""What torch.distributed says of an exchange whose other side is gone; it has no exception of its own for it."""


def live(path: Path, watch: lease.Watch, stop: Stop) -> int:
    """Train as the launcher's file at `path` says; the exit code."""
    run = Run.read(path)
    first = os.environ.get("RANK", "0") == "0"
    trainer: Trainer | None = None

    def last_word() -> None:
        if first and not watch.superseded():
            step = trainer.checkpoints.newest if trainer else None
            said = "before the first checkpoint" if step is None else f"at the last checkpoint, step {step}"
            tell(run.work, {"outcome": "stopped", "step": step or 0, "message": f"stopped {said}"})
        if first and not stop.signalled and _in_group():
            _end_group()  # torchrun does not know that the launcher is gone, and would start it again

    stop.last_word = last_word
    # A trainer of a killed launcher may be ahead of us; it ends when it finds that the lease is no longer its own.
    writer = lease.wait(run.work / "writer", lease.ORPHAN_PATIENCE, watch.superseded) if first else None
    if watch.superseded():
        return 1  # without a word: the status file is the next trainer's
    if first and writer is None:
        return _failed(run, "another trainer is still writing to this work folder: stop it and run again")
    try:
        trainer = Trainer(run, stop)
        if not trainer.fit() and first:
            message = f"stopped at step {trainer.step}, checkpoint written"
            tell(run.work, {"outcome": "stopped", "step": trainer.step, "message": message})
        trainer.close()
    except CairnError as error:
        return _failed(run, one_line(error))
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        return _failed(run, f"{error.filename or run.work}: the disk is full: free some and run again")
    except RuntimeError as error:
        if not any(word in str(error) for word in LOST):
            raise
        # torchrun starts all again, and says which one it lost: a traceback would only hide that.
        print(f"lost another process: {one_line(error)}", flush=True)
        return 1
    return 0


def _failed(run: Run, message: str) -> int:
    """Leave word of what a person has to put right, and see to it that nobody tries the same again."""
    # The disk may be too full even for these few bytes: the launcher then finds no word, and looks at the disk.
    with suppress(OSError):
        tell(run.work, {"outcome": "failed", "message": message})
    print(f"error: {message}", file=sys.stderr, flush=True)
    if _in_group():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end_group()
    return EXIT_BAD_INPUT


def _in_group() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _end_group() -> None:
    """torchrun starts a group again, whatever it ended of. Asked to end, it ends the group."""
    os.kill(os.getppid(), signal.SIGTERM)
