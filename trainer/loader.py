"""The rows of one process, read while the step before them is computed."""

from concurrent.futures import Future, ThreadPoolExecutor

import torch

from trainer.batches import Batches, Rows
from trainer.recipe import Training


class Loader:
    """Hands out this process' rows of one step after another.

    A thread reads the next step's rows meanwhile. Rows are a pure function of the step, so it has no state to keep, and
    any step may be asked for; what it could not read is raised when that step is asked for.
    """

    def __init__(
        self, batches: Batches, training: Training, device: torch.device, data_rank: int, data_size: int
    ) -> None:
        """
        Args:
            data_rank, data_size: which share of every step's rows is taken, of how many.
        """
        self._batches = batches
        self._training = training
        self._device = device
        self._rank, self._size = data_rank, data_size
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
        return rows.to(self._device)

    def close(self) -> None:
        """End the thread; what it was reading is dropped."""
        self._thread.shutdown(cancel_futures=True)

    def _read(self, step: int) -> Rows:
        share = self._training.batch_at(step) // self._size
        if self._device.type == "cpu":
            return self._batches.rows(step, self._rank * share, share)
        return self._batches.raw(step, self._rank * share, share).pin()
