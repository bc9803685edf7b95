"""What processes under one layout do, for test_layouts.py: a few steps of a tiny model, from the same rows and first
weights always; and checkpoints of a whole state, saved under one layout and loaded under another."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.checkpoint import weights_of
from trainer.guard import Guard
from trainer.loss import Examples, loss, totals
from trainer.masked_loss import masked_losses
from trainer.masking import Vocabulary
from trainer.model import Transformer
from trainer.optim import Optimizers, clip
from trainer.parallel import Parallel
from trainer.place import Place
from trainer.progress import InProgress
from trainer.recipe import Skip, Training
from trainer.sharded import part_of
from trainer.spread import exchange, fill, full, gathered, let_go, place

VOCABULARY = 96
STEPS = 2
MODEL = {
    "layers": 2,
    "width": 64,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 16,
    "mlp_width": 128,
    "context": 32,
}
DEVELOPMENT = {
    name: [np.random.default_rng(size).integers(2, VOCABULARY, size) for size in sizes]
    for name, sizes in {"short": (7, 5, 3), "long": (71, 32, 90)}.items()
}
"""Documents by domain, of lengths that no number of processes divides."""


@dataclass(frozen=True)
class Case:
    """One layout of one model."""

    layout: dict[str, Any]
    model: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    compile: bool = False
    z_loss: float = 0.0
    loss_chunk: int | None = None

    @property
    def training(self) -> Training:
        """The recipe: 4 micro-batches of 2 rows."""
        return Training.model_validate(
            {
                "model": {**MODEL, **self.model},
                "layout": self.layout,
                "precision": self.precision,
                "compile": self.compile,
                "z_loss": self.z_loss,
                "loss_chunk": self.loss_chunk,
                "mode": "fast",
                "steps": STEPS,
                "batch": 8,
                "micro_batch": 2,
            }
        )


def train(case: Case, parallel: Parallel) -> dict[str, Tensor]:
    """Loss and gradient norm of every step, the gradients of the first, and the weights after the last, all whole; of a
    masked model what it loses on development text then."""
    training = case.training
    dtype = torch.bfloat16 if case.precision == "bf16" else torch.float32
    with parallel.built_on:
        model = Transformer(training.model, VOCABULARY, dtype)
    parallel.apply(model, training)
    fill(model, lively(model))
    named = dict(model.named_parameters())
    parameters = list(named.values())
    share = training.batch // parallel.data_size
    found: dict[str, Tensor] = {}
    for step in range(STEPS):
        own = rows(training, step).rows(parallel.data_rank * share, (parallel.data_rank + 1) * share)
        sums = torch.zeros(2)
        for start in range(0, share, training.micro_batch):
            exchange(model, last=start + training.micro_batch == share)
            losses = loss(model, own.rows(start, start + training.micro_batch), training.z_loss, training.loss_chunk)
            losses.total.backward()  # type: ignore[no-untyped-call]
            sums += totals(losses)
        sums, _ = parallel.combine(parameters, sums, stop=False)
        found[f"loss.{step}"] = sums[0] / sums[1]
        if step == 0:
            grads = {f"gradient.{name}": p.grad / sums[1] for name, p in named.items() if p.grad is not None}
            found |= {name: grad.clone() for name, grad in gathered(grads, keep=True).items()}
        norm, divisor = clip(parameters, 1.0, sums[1])
        found[f"norm.{step}"] = full(norm)
        with torch.no_grad():
            for parameter in parameters:
                assert parameter.grad is not None
                part_of(parameter).sub_(part_of(parameter.grad) / divisor, alpha=0.3)
                parameter.grad = None
    if not training.model.causal:
        told = masked_losses(model, DEVELOPMENT, Vocabulary(VOCABULARY, 0, 1), trained=0.3)
        found |= {name: torch.tensor(value) for name, value in told.items()}
        let_go(model)
    return found | gathered({f"weight.{name}": parameter for name, parameter in named.items()}, keep=True)


def lively(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """The first weights, and noise: with matrices of zeros most gradients would be zero."""
    generator = torch.Generator().manual_seed(1)
    for name, value in model.drawn(seed=0):
        yield name, value + 0.1 * torch.randn(value.shape, generator=generator)


def rows(training: Training, step: int) -> Examples:
    """The rows of a step: two documents each, and some targets that are not learned."""
    shape = (training.batch, training.model.context)
    generator = torch.Generator().manual_seed(100 + step)
    tokens = torch.randint(0, VOCABULARY, shape, generator=generator)
    document = (torch.arange(shape[1]) >= 20).long().expand(shape)
    if training.model.causal:
        targets = torch.randint(0, VOCABULARY, shape, generator=generator)
        targets[:3, :5] = -100  # so that processes differ in how many they have
        return Examples(tokens, targets, document=document)
    at = torch.rand(shape, generator=generator).argsort(1)[:, :9]
    targets = tokens.gather(1, at)
    targets[:3, :5] = -100
    return Examples(tokens, targets, at, document)


class State:
    """All that a checkpoint in progress holds, spread as a layout says."""

    def __init__(self, layout: dict[str, Any], parallel: Parallel) -> None:
        training = Case(layout).training
        with parallel.built_on:
            self.model = Transformer(training.model, VOCABULARY, torch.float32)
        parallel.apply(self.model, training)
        fill(self.model, self.model.drawn(seed=0))
        self.optimizers = Optimizers(training.optimizer, self.model)
        self.guard = Guard(Skip(window=4), parallel.device)
        self.parallel = parallel

    def tensors(self) -> dict[str, Tensor]:
        """By name, as `Trainer.state` gives them."""
        weights = {f"model.{name}": tensor for name, tensor in weights_of(self.model).items()}
        return weights | self.optimizers.state() | self.guard.state()

    def draw(self) -> dict[str, Tensor]:
        """Give every tensor values of its own; they, whole."""
        drawn = {}
        for number, (name, tensor) in enumerate(self.tensors().items()):
            generator = torch.Generator().manual_seed(number)
            drawn[name] = (100 * torch.rand(tensor.shape, generator=generator)).to(tensor.dtype)
            place(tensor, drawn[name])
        return drawn

    def save(self, folder: Path) -> None:
        """Write a checkpoint."""
        checkpoints = self._checkpoints(folder)
        checkpoints.save(7, self.tensors(), b"", {})
        checkpoints.wait()

    def load(self, folder: Path) -> dict[str, Tensor]:
        """Take up the checkpoint; what is there then, whole, in the first process."""
        found = self._checkpoints(folder).load(self.tensors(), lambda _: None)
        assert found is not None
        self.optimizers.load(found[1])
        self.guard.load(found[1])
        return gathered(self.tensors(), keep=self.parallel.rank == 0)

    def _checkpoints(self, folder: Path) -> InProgress:
        return InProgress(Place(str(folder)), {}, 2, self.parallel.rank, self.parallel.size)


@dataclass(frozen=True)
class Task:
    """What a set of processes is to do."""

    cases: dict[str, Case] = field(default_factory=dict)
    saves: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Layouts under which a drawn state is saved, by the name of the folder."""
    loads: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Layouts under which a saved state is loaded, by the name of the folder."""


def take_part(rank: int, size: int, port: int, task: Task, folder: Path, answer: Connection | None) -> None:
    """One process of `size`: all of the task, one after another; the first process answers with what it found."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))

    def tell(name: str, found: dict[str, Tensor]) -> None:
        if answer:
            answer.send((name, {key: value.numpy() for key, value in found.items()}))

    for name, case in task.cases.items():
        parallel = Parallel(False, case.training.layout)
        tell(name, train(case, parallel))
    for name, layout in task.saves.items():
        state = State(layout, Parallel(False, Case(layout).training.layout))
        tell(f"drawn: {name}", state.draw())
        state.save(folder / name)
    for name, layout in task.loads.items():
        tell(f"loaded: {name}", State(layout, Parallel(False, Case(layout).training.layout)).load(folder / name))
    torch.distributed.destroy_process_group()
