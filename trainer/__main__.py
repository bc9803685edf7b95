"""The program that torchrun starts in every process: `python -m trainer RUN.json LAUNCH`."""

import os
import sys
from contextlib import suppress
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from cairn.errors import FULL_DISK, CairnError, one_line
from trainer import lease
from trainer.train import Run, Trainer, tell


@record
def main() -> int:
    """Train; the exit code says little (torchrun makes it 1), the status file says what happened."""
    run = Run.read(Path(sys.argv[1]))
    # Not in the file: a trainer that starts after its launcher was killed may find there what the next one asks for.
    watch = lease.Watch(run.work / "lease", sys.argv[2])
    first = os.environ.get("RANK", "0") == "0"
    # A trainer of a killed launcher may be ahead of us; it ends when it finds that the lease is no longer its own.
    writer = lease.wait(run.work / "writer", lease.ORPHAN_PATIENCE, watch.superseded) if first else None
    if watch.superseded():
        return 1  # without a word: the status file is the next trainer's
    if first and writer is None:
        message = "another trainer is still writing to this work folder: stop it and run again"
        tell(run.work, {"outcome": "failed", "message": message})
        return 1
    trainer = None
    try:
        trainer = Trainer(run, watch)
        finished = trainer.fit()
        if not finished and first:
            tell(run.work, {"outcome": "stopped", "step": trainer.step})
        trainer.parallel.close()
    except CairnError as error:
        tell(run.work, {"outcome": "failed", "message": one_line(error)})
        return 1
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        # The disk may be too full even for these few bytes: the launcher then finds no word, and looks at the disk.
        with suppress(OSError):
            tell(
                run.work,
                {
                    "outcome": "failed",
                    "message": f"{error.filename or run.work}: the disk is full: free some and run again",
                },
            )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
