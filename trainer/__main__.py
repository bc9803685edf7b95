"""The program that torchrun starts in every process: `python -m trainer RUN.json`."""

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
    first = os.environ.get("RANK", "0") == "0"
    writer = lease.hold(run.work / "writer") if first else None
    if first and writer is None:
        tell(run.work, {"outcome": "failed", "message": "another trainer is still writing to this work folder"})
        return 1
    trainer = None
    try:
        trainer = Trainer(run)
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
                {"outcome": "failed", "message": f"{error.filename}: the disk is full: free some and run again"},
            )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
