"""Optimizers whose parameters are spread over processes, against those of one process."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from tests.trainer.processes import in_processes
from trainer.model import Transformer
from trainer.optim import Optimizers, clip
from trainer.recipe import ModelShape, Optimizer
from trainer.sharded import as_part_of

# Three blocks: groups of three, six and three matrices, which two processes cannot share out evenly; 15 rows neither.
SHAPE = ModelShape(layers=3, width=12, heads=2, kv_heads=1, head_dim=6, mlp_width=15, context=8)
STEPS = 3


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, wherever its parts are."""
    full: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().clone()


def trained(model: Transformer, matrices: str) -> dict[str, Any]:
    """Everything after a few steps from drawn gradients, the last of which is not accepted."""
    optimizers = Optimizers(Optimizer.model_validate({"matrices": matrices}), model)
    norms = []
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            grad = torch.randn(parameter.shape, generator=generator)
            if isinstance(parameter, DTensor):
                shape, offset = compute_local_shape_and_global_offset(
                    parameter.shape, parameter.device_mesh, parameter.placements
                )
                within = tuple(slice(first, first + size) for first, size in zip(offset, shape, strict=True))
                grad = as_part_of(parameter, grad[within].contiguous())
            parameter.grad = grad
        norm, divisor = clip(model.parameters(), 1.0, torch.tensor(2.0))
        norms.append(norm)
        optimizers.step(1.0, torch.tensor(step < STEPS - 1), divisor)
    # A state that was taken is taken up again, by another optimizer, where the parameters are spread alike.
    resumed = Optimizers(Optimizer.model_validate({"matrices": matrices}), model)
    resumed.load(optimizers.state())
    state = {name: whole(tensor) for name, tensor in resumed.state().items()}
    return {
        "norms": torch.stack(norms),
        **{f"model.{name}": whole(parameter) for name, parameter in model.named_parameters()},
        **state,
    }


def new_model() -> Transformer:
    model = Transformer(SHAPE, 20)
    model.initialize(0)
    return model


def spread(layout: str) -> dict[str, dict[str, Any]]:
    """What one process of several gets, with a real `fully_shard`."""
    dist.init_process_group("gloo")
    size = dist.get_world_size()
    found = {}
    for matrices in ("muon", "adamw"):
        model = new_model()
        if layout == "shard":
            fully_shard(model, mesh=init_device_mesh("cpu", (size,), mesh_dim_names=("shard",)))
        elif layout == "replicate":
            fully_shard(model, mesh=init_device_mesh("cpu", (2, size // 2), mesh_dim_names=("replicate", "shard")))
        else:
            mesh = init_device_mesh("cpu", (size // 2, 2), mesh_dim_names=("shard", "tensor"))
            for module in model.modules():
                for name, parameter in list(module.named_parameters(recurse=False)):
                    if parameter.dim() == 2:
                        part = distribute_tensor(parameter.detach(), mesh["tensor"], [Shard(len(name) % 2)])
                        module.register_parameter(name, torch.nn.Parameter(part))
            fully_shard(model, mesh=mesh["shard"])
        assert any(isinstance(parameter, DTensor) for parameter in model.parameters())
        found[matrices] = trained(model, matrices)
    dist.destroy_process_group()
    return found


def check(size: int, layout: str) -> None:
    alone = {matrices: trained(new_model(), matrices) for matrices in ("muon", "adamw")}
    for answer in in_processes(size, spread, layout):
        for matrices, values in answer.items():
            assert values.keys() == alone[matrices].keys()
            for name, value in values.items():
                # The norm is summed in another order, so what Muon rounds to bf16 may fall to the other side: an update
                # moves a weight by 0.002, of which this is a twentieth.
                loose = 1e-4 if name.startswith("model.blocks.") and matrices == "muon" else 1e-6
                torch.testing.assert_close(value, alone[matrices][name], rtol=1e-5, atol=loose, msg=name)


def test_parameters_in_parts_are_updated_as_whole_ones_are() -> None:
    check(2, "shard")


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["shard", "replicate", "tensor"])
def test_four_processes_update_as_one_does(layout: str) -> None:
    check(4, layout)
