"""Work in progress, seen from outside: who runs a stage, how far it is, and how fast it goes."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cairn.lineage.attempts import FAILED

TAIL = 1 << 16  # bytes of a log that are read for its last line


@dataclass(frozen=True)
class Work:
    """What lies in a work folder, and the process that is at it."""

    key: str
    """The stage key, or the name that snapshot takes in its place."""
    process: int | None
    """None when the work was stopped."""
    done: float | None = None
    total: float | None = None
    unit: str = ""
    rate: float | None = None
    """Units in a second."""
    note: str = ""
    failed: str = ""
    """Why it failed, in one line; empty where it did not."""

    @property
    def left(self) -> float | None:
        """Seconds to the end at this rate."""
        if self.done is None or self.total is None or not self.rate:
            return None
        return max(0.0, (self.total - self.done) / self.rate)


def work_of(stage: str, key: str | None, home: Path) -> Work | None:
    """What is going on in a stage, whatever recipe it was started with; else what was stopped under `key`.

    Args:
        key: the stage key of the recipe in force; None when it is not known.
        home: the project's `.cairn`.
    """
    for held, process, started in _holders(home / "locks", stage):
        return _progress(stage, Work(held, process), started, home / "work" / held / "scratch")
    if key is not None and (home / "work" / key).exists():
        work = Work(key, None, failed=_failure(home / "work" / key / FAILED))
        return _progress(stage, work, time.time(), home / "work" / key / "scratch")
    return None


def _progress(stage: str, work: Work, since: float, scratch: Path) -> Work:
    if stage == "pretrain":
        return _training(scratch, work)
    total = _number(scratch / "done" / "total")
    if total is None:
        return work
    finished = [path.stat().st_mtime for path in (scratch / "done").glob("*.json")]
    recent = sum(moment >= since for moment in finished)
    rate = recent / (time.time() - since) if recent else None
    return replace(work, done=len(finished), total=total, unit="shards", rate=rate)


def _training(scratch: Path, work: Work) -> Work:
    """Step, rate and loss, from the trainer's own files."""
    try:
        training = json.loads((scratch / "run.json").read_bytes())["training"]
    except (OSError, ValueError, KeyError):
        return work
    logged, speed = _last_line(scratch / "training.jsonl"), _last_line(scratch / "speed.jsonl")
    step = logged["step"] if logged else 0
    said = [f"{speed['tokens_per_second']:,.0f} tokens/s"] if speed and work.process else []
    said += [f"loss {logged['loss']:.3f}"] if logged else []
    tokens = training["batch"] * training["model"]["context"]  # in a step
    rate = speed["tokens_per_second"] / tokens if speed and work.process else None
    return replace(work, done=step, total=training["steps"], unit="steps", rate=rate, note=", ".join(said))


def _last_line(path: Path) -> dict[str, Any] | None:
    """The last whole line of a log of JSON lines."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            lines = file.read().split(b"\n")[:-1]
        line = json.loads(lines[-1])
    except (OSError, IndexError, ValueError):
        return None
    return line if isinstance(line, dict) else None


def _failure(note: Path) -> str:
    try:
        return note.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _holders(locks: Path, stage: str) -> Iterator[tuple[str, int, float]]:
    """Stage key, process and start (seconds since the epoch) of every run of `stage` that is going on.

    The lock is not tried: a run that begins at that moment would find it taken. The process that is written down in it
    and has it open holds it.
    """
    import psutil

    for lock in sorted(locks.glob("*")):
        number = _number(lock)
        if number is None:
            continue
        try:
            process = psutil.Process(number)
            is_door = f"components.{stage}" in process.cmdline()
            if is_door and any(os.path.realpath(file.path) == os.path.realpath(lock) for file in process.open_files()):
                yield lock.name, number, process.create_time()
        except psutil.Error:
            continue
