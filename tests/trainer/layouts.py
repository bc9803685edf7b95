"""A few steps of a tiny model under one layout, for test_layouts.py: the same rows and first weights always."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from trainer.loss import Examples, loss, totals
from trainer.model import Transformer
from trainer.optim import clip
from trainer.parallel import Parallel
from trainer.recipe import Training
from trainer.spread import exchange, fill, full, gathered

VOCABULARY = 96
MODEL = {
    "layers": 2,
    "width": 64,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 16,
    "mlp_width": 128,
    "context": 32,
}


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
                "steps": 3,
                "batch": 8,
                "micro_batch": 2,
            }
        )


def train(case: Case, parallel: Parallel) -> dict[str, Tensor]:
    """Loss and gradient norm of three steps, the gradients of the first, and the weights after the last, all whole."""
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
    for step in range(3):
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
                parameter.sub_(parameter.grad / divisor, alpha=0.3)
                parameter.grad = None
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


def take_part(rank: int, size: int, port: int, cases: dict[str, Case], answer: Connection | None) -> None:
    """One process of `size`: all cases, one after another; the first process answers with what it found."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    for name, case in cases.items():
        parallel = Parallel(False, case.training.layout)
        found = train(case, parallel)
        if answer:
            answer.send((name, {key: value.numpy() for key, value in found.items()}))
    parallel.close()
