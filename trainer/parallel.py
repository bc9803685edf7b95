"""Processes that share out the micro-batches of a step, and how their gradients become one.

`strict`: sums are taken in pairs, as a binary tree over the micro-batches of the whole step. A process holds a whole
subtree, so the tree, and with it every bit of the sum, is the same for 1, 2, 4 ... processes.
"""

import os
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

TIMEOUT = timedelta(minutes=30)


class Parallel:
    """This process among all. With one process no communication takes place."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        if self.size > 1:
            dist.init_process_group("gloo", timeout=TIMEOUT)

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1:
            dist.destroy_process_group()

    def combine(self, parameters: Sequence[nn.Parameter], totals: Tensor, stop: bool) -> tuple[Tensor, bool]:
        """Make every gradient the mean over all targets of the step.

        Args:
            parameters: their gradients hold the sums over this process' micro-batches.
            totals: (n,) fp32, the sums over this process' micro-batches of whatever is counted; the second is the
                number of targets.
            stop: whether this process was asked to stop.

        Returns:
            The totals of all processes, and whether any of them was asked to stop. They travel with the gradients.
        """
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.size > 1:
            flat = torch.cat([*(grad.flatten() for grad in grads), totals, torch.tensor([float(stop)])])
            flat = self._sum(flat)
            offset = 0
            for grad in grads:
                grad.copy_(flat[offset : offset + grad.numel()].view_as(grad))
                offset += grad.numel()
            totals, stop = flat[offset:-1], bool(flat[-1] > 0)
        torch._foreach_div_(grads, totals[1])
        return totals, stop

    def _sum(self, flat: Tensor) -> Tensor:
        if not self.strict:
            dist.all_reduce(flat)
            return flat
        parts = [torch.empty_like(flat) for _ in range(self.size)]
        dist.all_gather(parts, flat)
        while len(parts) > 1:
            parts = [parts[index] + parts[index + 1] for index in range(0, len(parts), 2)]
        return parts[0]


class TreeSum:
    """Sums lists of tensors that arrive one after another, in pairs: like the carries of a binary counter."""

    def __init__(self) -> None:
        self.levels: list[list[Tensor] | None] = []

    def add(self, tensors: list[Tensor]) -> None:
        """Take the next list; its tensors may be changed."""
        for level, waiting in enumerate(self.levels):
            if waiting is None:
                self.levels[level] = tensors
                return
            # The earlier one on the left: the order of a sum is part of its bits.
            tensors = [earlier.add_(later) for earlier, later in zip(waiting, tensors, strict=True)]
            self.levels[level] = None
        self.levels.append(tensors)

    def total(self) -> list[Tensor]:
        """The sum of all lists."""
        waiting = [level for level in self.levels if level is not None]
        total = waiting[0]
        for higher in waiting[1:]:
            total = [earlier.add_(later) for earlier, later in zip(higher, total, strict=True)]
        return total
