"""What a model is asked, and how far off its answers are.

Sums and counts are kept apart: a gradient is divided once, by the number of targets in the whole step, so that every
target weighs the same, whichever micro-batch, row or process it is in.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from trainer.masking import IGNORED
from trainer.model import Transformer


class Examples(NamedTuple):
    """Rows of tokens, and what is to be guessed about them."""

    tokens: Tensor
    """(batch, time) int64: what the model sees."""
    targets: Tensor
    """(batch, time) int64, or (batch, k) beside `at`: what should come out; `IGNORED` where nothing is learned."""
    at: Tensor | None = None
    """(batch, k) int64: the positions that the targets are of, where not every position has one."""
    document: Tensor | None = None
    """(batch, time) int64: numbers the documents of a row; no position looks into another document. None: one."""

    def rows(self, first: int, stop: int) -> "Examples":
        """Some of the rows."""
        return Examples(*(None if part is None else part[first:stop] for part in self))  # type: ignore[arg-type]

    def to(self, device: torch.device) -> "Examples":
        """The same on another device."""
        return Examples(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


class Losses(NamedTuple):
    """How far off the answers are, in nats."""

    total: Tensor
    """fp32 scalar, to be differentiated: the sum over all targets, z-loss included."""
    nats: Tensor
    """fp32, the shape of the targets, detached: the cross-entropy of each, without z-loss; 0 where ignored."""
    counted: Tensor
    """int64 scalar: targets that are not ignored."""


def next_token(windows: Tensor, end_of_text: int | None) -> Examples:
    """Every position learns the token after it.

    windows: (batch, time + 1) int64.

    Args:
        end_of_text: the token that documents begin with, where positions look only at their own document.
    """
    tokens, targets = windows[:, :-1], windows[:, 1:]
    return Examples(tokens, targets, document=None if end_of_text is None else documents(tokens, end_of_text))


def documents(tokens: Tensor, end_of_text: int) -> Tensor:
    """Numbers the documents of every row, (batch, time) int64: an end-of-text token belongs to what follows it."""
    return (tokens == end_of_text).cumsum(1)


def loss(model: Transformer, examples: Examples, z_loss: float = 0.0, chunk: int | None = None) -> Losses:
    """The model's losses on examples.

    Args:
        z_loss: weight of the squared logarithm of the softmax's normaliser.
        chunk: positions whose logits are held at once; None holds all.
    """
    hidden = model.hidden(examples.tokens, examples.document)
    if examples.at is not None:
        hidden = hidden.gather(1, examples.at[..., None].expand(-1, -1, hidden.shape[-1]))
    hidden, targets = model.predictor(hidden).flatten(0, 1), examples.targets
    total, nats = model.head_loss(hidden, model.head_weight(), targets.flatten(), model.head_bias(), z_loss, chunk)
    return Losses(total, nats.view_as(targets), (targets != IGNORED).sum())


def totals(losses: Losses) -> Tensor:
    """What is summed over micro-batches and processes: (2,) fp32, the cross-entropy and the number of targets."""
    return torch.stack((losses.nats.sum(), losses.counted.float()))
