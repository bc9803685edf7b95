"""The rows of one process, read while the step before them is computed."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch

from trainer.batches import Batches, Rows
from trainer.recipe import Training


class Share(Protocol):
    """Which rows of every step are wanted; `Parallel` says it."""

    device: torch.device
    data_rank: int
    """Which share,"""
    data_size: int
    """of how many."""


class Loader:
    """Hands out this process' rows of one step after another.

    A thread reads the next step's rows meanwhile. Rows are a pure function of the step, so it has no state to keep, and
    any step may be asked for; what it could not read is raised when that step is asked for.
    """

    def __init__(self, batches: Batches, training: Training, share: Share) -> None:
        self._batches = batches
        self._training = training
        self._of = share
        self._thread = ThreadPoolExecutor(1, "rows")
        self._ahead: tuple[int, Future[Rows]] | None = None

    def take(self, step: int) -> Rows:
        """The rows of a step, on the device; and the next ones are begun.

        Raises ArtifactError when a shard is cut short, damaged or cannot be read, and StoreError when it cannot be
        fetched.
        """
        ahead, self._ahead = self._ahead, None
        rows = ahead[1].result() if ahead is not None and ahead[0] == step else self._read(step)
        if step + 1 < self._training.steps:
            self._ahead = step + 1, self._thread.submit(self._read, step + 1)
        return rows.to(self._of.device)

    def close(self) -> None:
        """End the thread; what it was reading is dropped."""
        self._thread.shutdown(cancel_futures=True)

    def _read(self, step: int) -> Rows:
        share = self._training.batch_at(step) // self._of.data_size
        if self._of.device.type == "cpu":
            return self._batches.rows(step, self._of.data_rank * share, share)
        return self._batches.raw(step, self._of.data_rank * share, share).pin()
