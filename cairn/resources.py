"""How much of the machine a stage may use. Never part of the recipe: it changes speed, not bytes.

Read from the environment, so that every door (dvc, Kubeflow, the command line) can set it the same way.
"""

import os
from dataclasses import dataclass

from cairn.errors import RecipeError

PROFILE = "CAIRN_PROFILE"


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
    profile: tuple[int, int] | None = None
    """Steps of training that are traced, from the first up to the second (`CAIRN_PROFILE=100:110`; default: none)."""

    @classmethod
    def from_environment(cls) -> "Resources":
        """Raises RecipeError when a variable is not a positive whole number."""
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(
            workers=_positive("CAIRN_WORKERS", processors),
            processes=_positive("CAIRN_PROCESSES", 1),
            checkpoints=os.environ.get("CAIRN_CHECKPOINTS") or None,
            profile=_steps(PROFILE),
        )


def _steps(variable: str) -> tuple[int, int] | None:
    text = os.environ.get(variable, "")
    if not text:
        return None
    first, separator, stop = text.partition(":")
    if not separator or not (first.isdecimal() and stop.isdecimal()) or int(first) >= int(stop):
        raise RecipeError(f"environment variable {variable}={text!r}: must be FIRST:STOP, two steps such as 100:110")
    return int(first), int(stop)


def _positive(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if not text:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise RecipeError(f"environment variable {variable}={text!r}: must be a whole number from 1")
    return int(text)
