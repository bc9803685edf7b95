"""How much of the machine a stage may use. Never part of the recipe: it changes speed, not bytes.

Read from the environment, so that every door (dvc, Kubeflow, the command line) can set it the same way.
"""

import os
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cairn.errors import RecipeError

PROFILE = "CAIRN_PROFILE"
ENGINE = "CAIRN_TOKENIZER_ENGINE"
ENGINES = ("gigatoken", "tiktoken", "tokenizers")
"""What may encode text, the fastest first."""


@dataclass(frozen=True)
class Resources:
    """What a stage may use on this machine."""

    workers: int
    """Data worker processes (`CAIRN_WORKERS`; default: the processors this process may use)."""
    processes: int
    """Training processes, the world size on this machine (`CAIRN_PROCESSES`; default 1)."""
    checkpoints: str | None = None
    """The folder or URL below which training keeps its checkpoints in progress, so that it goes on elsewhere when this
    machine is lost (`CAIRN_CHECKPOINTS`; default: in the work folder)."""
    cache: str | None = None
    """The folder that a stage on pins, such as a pod, keeps the files of large inputs in, which it then reads from the
    store as it needs them (`CAIRN_CACHE`; default: it fetches all inputs before its work)."""
    profile: tuple[int, int] | None = None
    """Steps of training that are traced, from the first up to the second (`CAIRN_PROFILE=100:110`; default: none)."""
    engine: str | None = None
    """What encodes text: one of `ENGINES` (`CAIRN_TOKENIZER_ENGINE`; default: the fastest that is installed and holds
    the tokenizer)."""

    grace: float = 25.0
    """Seconds that a trainer has from being asked to end (SIGTERM, Ctrl-C) to its end (`CAIRN_GRACE`; default 25). A
    pod's `terminationGracePeriodSeconds` should be at least 5 more."""
    restarts: int = 3
    """How often the training processes are started again after one was lost, or hung (`CAIRN_RESTARTS`; default 3)."""
    hang_after: float = 600.0
    """Seconds without progress that are a hang; 3 times as many until two steps are done (`CAIRN_HANG_AFTER`; default
    600)."""
    join_within: float = 600.0
    """Seconds until all training processes must have found each other (`CAIRN_JOIN_WITHIN`; default 600)."""

    @classmethod
    def from_environment(cls) -> "Resources":
        """Raises RecipeError when a variable is not what it must be."""
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(
            workers=_positive("CAIRN_WORKERS", processors),
            processes=_positive("CAIRN_PROCESSES", 1),
            checkpoints=os.environ.get("CAIRN_CHECKPOINTS") or None,
            cache=os.environ.get("CAIRN_CACHE") or None,
            grace=float(_positive("CAIRN_GRACE", 25)),
            restarts=_positive("CAIRN_RESTARTS", 3, least=0),
            hang_after=float(_positive("CAIRN_HANG_AFTER", 600)),
            join_within=float(_positive("CAIRN_JOIN_WITHIN", 600)),
            profile=_steps(PROFILE),
            engine=_one_of(ENGINE, ENGINES),
        )


def _steps(variable: str) -> tuple[int, int] | None:
    text = os.environ.get(variable, "")
    if not text:
        return None
    first, separator, stop = text.partition(":")
    if not separator or not (first.isdecimal() and stop.isdecimal()) or int(first) >= int(stop):
        raise RecipeError(f"environment variable {variable}={text!r}: must be FIRST:STOP, two steps such as 100:110")
    return int(first), int(stop)


def _one_of(variable: str, names: Sequence[str]) -> str | None:
    text = os.environ.get(variable, "")
    if text and text not in names:
        raise RecipeError(f"environment variable {variable}={text!r}: must be one of {', '.join(names)}")
    return text or None


def peak_rss() -> float:
    """Peak resident memory of this program in GiB."""
    try:
        # What `getrusage` says is of the process, and goes on from what its parent was when it was forked.
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 2**20
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _positive(variable: str, default: int, least: int = 1) -> int:
    text = os.environ.get(variable, "")
    if not text:
        return default
    if not text.isdecimal() or int(text) < least:
        raise RecipeError(f"environment variable {variable}={text!r}: must be a whole number from {least}")
    return int(text)
