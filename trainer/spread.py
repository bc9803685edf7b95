"""The model over a mesh of processes: sharded weights, recomputed activations, compiled blocks; its state put together.

Sharded by FSDP2, block by block (arXiv 2304.11277): a process keeps its part of the weights, their gradients and the
optimizer's state, gathers a block before it is used and lets go of it after. Weights stay fp32; where matrices are
multiplied in bf16 they are gathered as bf16, and gradients are summed in fp32 all the same.
"""

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from trainer.model import Transformer
from trainer.recipe import Training
from trainer.tensor import split

# It advises against putting parts of parts together in two steps; there is no other way, and it is not done often.
logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
aten = torch.ops.aten
# What selective checkpointing keeps: products with weights. Scores of attention are products too, but larger than what
# they are made of.
PRODUCTS = [aten.mm.default, aten.addmm.default]


def spread(model: Transformer, training: Training, mesh: DeviceMesh | None, device: torch.device) -> None:
    """Make the model what the layout of the recipe says.

    Args:
        model: on the meta device where there is a mesh; its weights are then made here, and hold nothing yet.
        mesh: of all processes, (replicate, shard, tensor); None leaves the weights whole.
    """
    if mesh is not None and training.layout.tensor > 1:
        split(model, mesh["tensor"])
    for block in model.blocks:
        if training.layout.activation_checkpointing != "none":
            _recompute(block, selective=training.layout.activation_checkpointing == "selective")
        if training.compile:
            block.forward = torch.compile(block.forward)
    if mesh is not None:
        _shard(model, mesh["replicate", "shard"], model.dtype)
        model.to_empty(device=device)


def _recompute(block: nn.Module, selective: bool) -> None:
    """Let the backward pass compute a block again. Nothing in it is random."""
    forward = block.forward
    keeping: dict[str, Any] = {}
    if selective:
        keeping["context_fn"] = partial(create_selective_checkpoint_contexts, PRODUCTS)

    def recomputed(*args: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **keeping)

    block.forward = recomputed


def _shard(model: Transformer, mesh: DeviceMesh, dtype: torch.dtype) -> None:
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for block in model.blocks:
        # Where one process has all of a block there is nothing to let go of.
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=mesh["shard"].size() > 1)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for module in (model, *model.blocks):
        # Sums: they are divided once, by the targets of the whole step.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    register_fsdp_forward_method(model, "hidden")


def exchange(model: nn.Module, last: bool) -> None:
    """Before a backward pass: replicas exchange their sums with the last micro-batch of a step, and not before."""
    if isinstance(model, FSDPModule):
        model.set_requires_all_reduce(last)


def let_go(model: nn.Module) -> None:
    """After a use of the model without a backward pass: keep this process' part of the weights only."""
    if isinstance(model, FSDPModule):
        model.reshard()


def fill(model: nn.Module, values: Iterable[tuple[str, Tensor]]) -> None:
    """Give parameters their values by name, each process its part; a value is whole, and on the CPU."""
    named = dict(model.named_parameters())
    for name, value in values:
        place(named[name], value)


@torch.no_grad()
def place(target: Tensor, value: Tensor) -> None:
    """Copy this process' part of a whole value into a tensor that may be spread."""
    value = value.to(target.device)
    if isinstance(target, DTensor):
        value = distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(value)


def full(part: Tensor) -> Tensor:
    """The whole of a tensor that may be spread. All processes must ask together."""
    return part.full_tensor().detach() if isinstance(part, DTensor) else part.detach()


def gathered(state: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """A state put together on the CPU, one tensor after another. All processes must ask together.

    Args:
        keep: whether this process wants it; others get nothing, and hold no more than one tensor at a time.
    """
    whole = {}
    for name, part in state.items():
        value = full(part)
        if keep:
            whole[name] = value.cpu()
    return whole
