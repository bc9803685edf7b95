"""Finds a run that hangs, and the process that it hangs in.

The loop says where it is. A thread of every process tells that to the others through the store of the group, and the
first two look whether anybody gets on: the second for the case that the first is the one that hangs. When nobody did
for long enough, the one that is behind is named and the watching process ends; torchrun then ends the others and
starts them again, from the last checkpoint. By then each has written its stacks: by a thread that needs no GIL.
"""

import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PHASES = ("start", "data", "forward and backward", "gather", "optimizer", "evaluate", "scored", "save", "end")
"""In the order of a step; all but the first process may have nothing to evaluate, and wait for it in `scored`."""
FIRST_STEP = 3  # times as long as later: kernels are compiled in it, and all files are cold


class Store(Protocol):
    """What is used of a store of torch.distributed."""

    def set(self, key: str, value: str) -> None:
        """Write a value."""

    def get(self, key: str) -> bytes:
        """Read a value, waiting for it."""

    def check(self, keys: list[str]) -> bool:
        """Whether all are there."""


@dataclass(frozen=True)
class Beat:
    """Where a process was when it last told."""

    step: int = 0
    phase: int = 0
    moves: int = 0
    """How often it got on."""
    ticks: int = 0
    """How often its thread told."""


class Heart:
    """One process' place in the run, and its look at the others."""

    def __init__(self, rank: int, size: int, after: float, stacks: Path, store: Store | None) -> None:
        """
        Args:
            after: seconds without any progress that are a hang.
            stacks: the folder for `rank-N.txt`.
            store: shared by all processes, and this thread's own; None where there is one process.
        """
        self.rank, self.size, self.after, self.store = rank, size, after, store
        self.step = self.phase = self.moves = self.ticks = 0
        self.steps = 0
        stacks.mkdir(parents=True, exist_ok=True)
        self.stacks = stacks
        self.file = open(stacks / f"rank-{rank}.txt", "w")  # noqa: SIM115 - must be open when the stacks are written
        self.every = min(1.0, after / 8)
        self.began = time.monotonic()
        self.seen = [(Beat(), self.began, self.began)] * size
        """Of each process: its last beat, when it last got on, and when it last told."""
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="heart", daemon=True)

    def start(self) -> "Heart":
        """Begin to watch."""
        self.thread.start()
        return self

    def at(self, phase: str, step: int | None = None) -> None:
        """Say where the loop is, in which step (from 0): what follows a step is part of it. Costs two attributes."""
        self.steps += phase == "optimizer"
        self.step = self.step if step is None else step
        self.phase = PHASES.index(phase)
        self.moves += 1

    def end(self) -> None:
        """Stop watching; without stacks that were written there is no file."""
        self.over.set()
        faulthandler.cancel_dump_traceback_later()
        self.thread.join(2 * self.every)
        if not self.file.tell() and not os.fstat(self.file.fileno()).st_size:
            (self.stacks / f"rank-{self.rank}.txt").unlink(missing_ok=True)

    @property
    def patience(self) -> float:
        """Seconds without progress that are a hang, now."""
        return self.after * (1 if self.steps > 1 else FIRST_STEP)

    def _watch(self) -> None:
        moved = -1
        while not self.over.wait(self.every):
            if self.moves != moved:
                moved = self.moves
                faulthandler.dump_traceback_later(self.patience, file=self.file)
            self.ticks += 1
            self._exchange()
            # The second looks later: when the first can tell, it does.
            patience = self.patience + 2 * self.every * (1 + self.rank)
            if self.rank < 2 and time.monotonic() - max(got_on for _, got_on, _ in self.seen) > patience:
                print(f"pretrain: {self.told()}", file=sys.stderr, flush=True)
                os._exit(1)

    def _exchange(self) -> None:
        """Tell where this process is; the first two read where the others are."""
        own = Beat(self.step, self.phase, self.moves, self.ticks)
        beats: list[Beat | None] = [None] * self.size
        try:
            if self.store is not None:
                self.store.set(f"heart/{self.rank}", json.dumps([own.step, own.phase, own.moves, own.ticks]))
                for rank in range(self.size) if self.rank < 2 else ():
                    if rank != self.rank and self.store.check([f"heart/{rank}"]):
                        beats[rank] = Beat(*json.loads(self.store.get(f"heart/{rank}")))
        except RuntimeError:
            pass  # whoever holds the store does not answer: seen by what it no longer tells
        beats[self.rank] = own
        now = time.monotonic()
        for rank, beat in enumerate(beats):
            before, got_on, _ = self.seen[rank]
            if beat is not None and beat.ticks != before.ticks:
                self.seen[rank] = (beat, got_on if beat.moves == before.moves else now, now)

    def told(self) -> str:
        """The hang in one line."""
        seconds = f"{self.patience:g} s"
        quiet = max(4 * self.every, 2.0)
        silent = [rank for rank, (_, _, told) in enumerate(self.seen) if time.monotonic() - told > quiet]
        beats = [beat for beat, _, _ in self.seen]
        behind: Sequence[int] = silent
        if not silent:
            furthest = min((beat.step, beat.phase) for beat in beats)
            behind = [rank for rank, beat in enumerate(beats) if (beat.step, beat.phase) == furthest]
        first = beats[behind[0]]
        place = f"{PHASES[first.phase]} of step {first.step + 1}"
        names = "the only process" if self.size == 1 else f"rank{'s' * (len(behind) > 1)} {', '.join(map(str, behind))}"
        are = "are" if len(behind) > 1 else "is"
        if len(behind) == self.size > 1:
            said = f"all ranks are in {place}"
        else:
            said = f"{names} {are} behind, in {place}" + (", and does not answer" if silent else "")
        return f"hangs: nobody got on for {seconds}: {said}; stacks of those that answer: {self.stacks}"
