"""Optimizers and schedule."""

import math
from collections.abc import Callable

import pytest
import torch

from trainer.model import Transformer
from trainer.optim import Optimizers, orthogonalize
from trainer.recipe import ModelShape, Optimizer, Schedule
from trainer.schedule import rate

SHAPE = ModelShape(layers=1, width=16, heads=2, kv_heads=1, head_dim=8, mlp_width=32, context=8)


def test_the_schedule_rises_stays_and_falls() -> None:
    schedule = Schedule(warmup=0.1, decay=0.5)
    rates = [rate(schedule, step, 20) for step in range(20)]
    assert rates[0] == 0.5
    assert rates[1:11] == [1.0] * 10
    assert rates[11:] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert rate(Schedule(warmup=0, decay=0), 19, 20) == 1.0
    assert rate(Schedule(warmup=0, decay=1, final=0.1), 10, 20) == pytest.approx(0.55)


def test_newton_schulz_brings_singular_values_near_one() -> None:
    matrices = torch.randn(3, 16, 40, generator=torch.Generator().manual_seed(0))
    before = torch.linalg.svdvals(matrices * torch.logspace(0, -2, 16)[:, None])
    values = torch.linalg.svdvals(orthogonalize(matrices * torch.logspace(0, -2, 16)[:, None]).float())
    assert before.max() / before.min() > 100
    assert 0.3 < values.min() < values.max() < 2.6


def step(optimizers: Optimizers, model: Transformer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizers.step(1.0)


@pytest.mark.parametrize("matrices", ["muon", "adamw"])
def test_a_state_that_was_saved_goes_on_to_the_same_bits(matrices: str) -> None:
    section = Optimizer.model_validate({"matrices": matrices})
    models = []
    for resumed in (False, True):
        model = Transformer(SHAPE, 20)
        model.initialize(0)
        optimizers = Optimizers(section, model)
        step(optimizers, model, 1)
        if resumed:
            state = {name: tensor.clone() for name, tensor in optimizers.state().items()}
            optimizers = Optimizers(section, model)
            optimizers.load(state)
        step(optimizers, model, 2)
        models.append(model)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_embeddings_and_norms_are_not_decayed_and_matrices_are() -> None:
    model = Transformer(SHAPE, 20)
    model.initialize(0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizers = Optimizers(Optimizer(weight_decay=0.5, muon_lr=0.1), model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers.step(1.0)
    for name, parameter in model.named_parameters():
        kept = 0.95 if name.startswith("blocks.") and parameter.dim() == 2 else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * kept)


SHAPES = {
    "qwen3": SHAPE,
    "untied": SHAPE.model_copy(update={"tied": False}),
    "gpt2": ModelShape.model_validate({"named": "gpt2-124m", "layers": 1, "context": 8}),
    "gpt1": ModelShape.model_validate({"named": "gpt1", "layers": 1, "context": 8}),
    "bert": ModelShape.model_validate({"named": "bert-base", "layers": 1, "context": 8}),
}
MATRICES = {"query", "key", "value", "output", "gate", "up", "down"}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("matrices", ["muon", "adamw"])
def test_only_the_matrices_of_the_blocks_are_decayed_and_only_they_are_muons(name: str, matrices: str) -> None:
    with torch.device("meta"):
        model = Transformer(SHAPES[name], 20)
    wanted = {
        parameter
        for parameter in dict(model.named_parameters())
        if parameter.startswith("blocks.") and parameter.split(".")[-2] in MATRICES and parameter.endswith(".weight")
    }
    optimizers = Optimizers(Optimizer.model_validate({"matrices": matrices}), model)
    muons = set(optimizers.muon.matrices) if optimizers.muon else set()
    assert muons == (wanted if matrices == "muon" else set())
    parts = {id(part): parameter for parameter, part in optimizers.parts.items()}
    decayed = {
        parts[id(part)] for group in optimizers.adamw.param_groups for part in group["params"] if group["weight_decay"]
    }
    assert decayed == (wanted if matrices == "adamw" else set())
    assert muons | set(optimizers.parts) == set(dict(model.named_parameters()))


@pytest.mark.parametrize("matrices", ["muon", "adamw"])
def test_a_step_that_is_not_accepted_changes_no_bit(matrices: str) -> None:
    model = Transformer(SHAPE, 20)
    model.initialize(0)
    optimizers = Optimizers(Optimizer.model_validate({"matrices": matrices}), model)
    step(optimizers, model, 1)

    def everything() -> dict[str, torch.Tensor]:
        weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
        return {name: tensor.clone() for name, tensor in {**weights, **optimizers.state()}.items()}

    before = everything()
    for accepted in (False, True):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizers.step(1.0, torch.tensor(accepted))
        after = everything()
        assert all(torch.equal(before[name], after[name]) is not accepted for name in before)


def test_an_accepted_step_has_the_bits_of_a_step_that_nobody_judged() -> None:
    models = []
    for accepted in (None, torch.tensor(True)):
        model = Transformer(SHAPE, 20)
        model.initialize(0)
        optimizers = Optimizers(Optimizer(), model)
        for seed in (1, 2):
            generator = torch.Generator().manual_seed(seed)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizers.step(1.0, accepted)
        models.append(model)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("said", "fallen"),
    [
        ({"kind": "wsd", "decay": 0.5}, lambda f: 1 - f),
        ({"kind": "wsd", "decay": 0.5, "shape": "sqrt"}, lambda f: 1 - math.sqrt(f)),
        ({"kind": "cosine"}, lambda f: 0.5 * (1 + math.cos(math.pi * f))),
        ({"kind": "linear"}, lambda f: 1 - f),
    ],
)
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_every_schedule_is_its_closed_form(
    said: dict[str, object], fallen: Callable[[float], float], final: float
) -> None:
    schedule = Schedule.model_validate({"warmup": 0.1, "final": final, **said})
    # The launcher and attestations write it down in full, and it is read again.
    assert Schedule.model_validate(schedule.model_dump()) == schedule
    begin = 50 if schedule.kind == "wsd" else 10
    for step in range(100):
        if step < 10:
            expected = (step + 1) / 10
        elif step < begin:
            expected = 1.0
        else:
            expected = final + (1 - final) * fallen((step - begin) / (100 - begin))
        assert rate(schedule, step, 100) == pytest.approx(expected), step
