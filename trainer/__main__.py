"""The program that torchrun starts in every process: `python -m trainer RUN.json LAUNCH`."""

import json
import os
import sys
from pathlib import Path

from trainer import lease
from trainer.stop import Stop


def main() -> int:
    """Train; the exit code says little (torchrun makes it 1), the status file says what happened."""
    run = Path(sys.argv[1])
    asked = json.loads(run.read_text())
    # Not in the file: a trainer that starts after its launcher was killed may find there what the next one asks for.
    watch = lease.Watch(Path(asked["work"]) / "lease", sys.argv[2])
    first = os.environ.get("RANK", "0") == "0"
    stop = Stop(asked["grace"], watch.stale if first else lambda: False)

    from torch.distributed.elastic.multiprocessing.errors import record

    from trainer.life import live

    return record(live)(run, watch, stop) or 0


if __name__ == "__main__":
    sys.exit(main())
