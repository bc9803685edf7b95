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
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from trainer.layout import mesh_of
from trainer.model import Transformer
from trainer.recipe import Layout, Training
from trainer.sharded import part_of
from trainer.spread import spread

TIMEOUT = timedelta(minutes=30)


class Parallel:
    """This process among all. With one process no communication takes place."""

    def __init__(self, strict: bool, layout: Layout | None = None) -> None:
        """Join the others.

        Args:
            layout: how the model is spread; None keeps the whole of it in every process.
        """
        layout = layout or Layout()
        self.strict = strict
        self.layout = layout
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.device = _device(strict)
        self.data_size = self.size // layout.tensor
        """Processes, or groups of them that share every matrix product, with rows of their own."""
        self.data_rank = self.rank // layout.tensor
        """Which rows are of this process: the share `data_rank` of `data_size` of every step."""
        self.mesh: DeviceMesh | None = None
        """Of all processes, (replicate, shard, tensor); None where the whole model is in every process."""
        if self.size > 1 and not dist.is_initialized():
            backend = "gloo" if self.device.type == "cpu" else "cpu:gloo,cuda:nccl"
            dist.init_process_group(backend, timeout=TIMEOUT)
        dimensions = mesh_of(layout, self.size)
        if "shard" in dimensions:
            sizes, names = tuple(dimensions.values()), tuple(dimensions)
            self.mesh = init_device_mesh(self.device.type, sizes, mesh_dim_names=names)

    @property
    def built_on(self) -> torch.device:
        """Where to build a model for `apply`: one that is spread is never whole anywhere."""
        return self.device if self.mesh is None else torch.device("meta")

    def apply(self, model: Transformer, training: Training) -> None:
        """Make a model what the layout says; where it is spread, its weights are made here and hold nothing yet."""
        spread(model, training, self.mesh, self.device)

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1:
            dist.destroy_process_group()

    def any(self, said: bool) -> bool:
        """Whether any process says so."""
        if self.size > 1:
            flag = torch.tensor(int(said), device=self.device)
            dist.all_reduce(flag, dist.ReduceOp.MAX)
            return bool(flag)
        return said

    def combine(self, parameters: Sequence[nn.Parameter], totals: Tensor, stop: bool) -> tuple[Tensor, bool]:
        """Make every gradient the sum over all targets of the step.

        Args:
            parameters: their gradients hold the sums over this process' micro-batches.
            totals: (n,) fp32, the sums over this process' micro-batches of whatever is counted; the second is the
                number of targets.
            stop: whether this process was asked to stop.

        Returns:
            The totals of all processes, and whether any of them was asked to stop. They travel with the gradients.
        """
        grads = [part_of(parameter.grad) for parameter in parameters if parameter.grad is not None]
        if self.size > 1:
            # Gradients of a model that is spread were summed on the way backward.
            summed = [] if self.mesh else grads
            # Those that share products share their rows too: one of them counts.
            counted = totals if self.rank % self.layout.tensor == 0 else torch.zeros_like(totals)
            flat = torch.cat([*(grad.flatten() for grad in summed), counted, totals.new_tensor([float(stop)])])
            flat = self._sum(flat)
            offset = 0
            for grad in summed:
                grad.copy_(flat[offset : offset + grad.numel()].view_as(grad))
                offset += grad.numel()
            totals, stop = flat[offset:-1], bool(flat[-1] > 0)
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


def _device(strict: bool) -> torch.device:
    """The GPU of this process, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if strict:
        # cuBLAS reads it when it is first used, and repeats its bits only with workspaces of a fixed size.
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.backends.cuda.enable_cudnn_sdp(False)  # its backward pass adds up in no fixed order
    torch.set_float32_matmul_precision("highest" if strict else "high")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


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
