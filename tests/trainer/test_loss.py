"""The summed loss and its hand-written gradient, against plain autograd."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.kernels import head_loss
from trainer.loss import Examples, loss, next_token, totals
from trainer.masking import IGNORED
from trainer.model import Transformer
from trainer.recipe import ModelShape

TARGETS = torch.tensor([0, 10, 3, IGNORED, 7, 1, IGNORED])
SHAPE = ModelShape(layers=1, width=32, heads=4, kv_heads=2, head_dim=8, mlp_width=64, context=24)


def draw(*shape: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(math.prod(shape))
    return (torch.randn(shape, generator=generator) * scale).requires_grad_()


def plain(hidden: Tensor, head: Tensor, bias: Tensor | None, z_loss: float) -> tuple[Tensor, Tensor]:
    logits = F.linear(hidden, head, bias).float()
    nats = F.cross_entropy(logits, TARGETS, reduction="none", ignore_index=IGNORED)
    squares = logits.logsumexp(-1).square()[TARGETS != IGNORED]
    return nats.sum() + z_loss * squares.sum(), nats.detach()


@pytest.mark.parametrize("chunk", [None, 1, 3, 7, 100])
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("biased", [False, True])
def test_value_and_gradient_are_those_of_autograd(biased: bool, z_loss: float, chunk: int | None) -> None:
    hidden, head = draw(7, 8), draw(11, 8)
    bias = draw(11) if biased else None
    arguments = [hidden, head, *([] if bias is None else [bias])]
    total, nats = head_loss(hidden, head, TARGETS, bias, z_loss, chunk)
    expected, each = plain(hidden, head, bias, z_loss)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(nats, each)
    assert not nats.requires_grad
    ours, theirs = torch.autograd.grad(total, arguments), torch.autograd.grad(expected, arguments)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk", [None, 3])
def test_in_bf16_it_is_as_near_as_bf16_allows(chunk: int | None) -> None:
    hidden, head = draw(7, 8), draw(11, 8)
    rounded = [tensor.detach().bfloat16().requires_grad_() for tensor in (hidden, head)]
    total, _ = head_loss(rounded[0], rounded[1], TARGETS, None, 0.01, chunk)
    expected, _ = plain(rounded[0].float(), rounded[1].float(), None, 0.01)
    torch.testing.assert_close(total, expected, rtol=1e-2, atol=0)
    for mine, other in zip(torch.autograd.grad(total, rounded), torch.autograd.grad(expected, rounded), strict=True):
        assert (mine - other).float().norm() < 0.01 * other.float().norm()


def test_a_target_that_is_almost_certain_still_has_an_exact_gradient() -> None:
    hidden = torch.tensor([[1.0]], requires_grad=True)
    head = torch.tensor([[20.0], [0.0]])
    total, _ = head_loss(hidden, head, torch.tensor([0]))
    total.backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    assert hidden.grad.item() == pytest.approx(-20 * math.exp(-20), rel=1e-4)


def test_what_is_ignored_moves_nothing_whatever_stands_there() -> None:
    head = draw(11, 8)
    gradients = []
    for scale in (1.0, 50.0):
        hidden = draw(7, 8).detach()
        hidden[TARGETS == IGNORED] *= scale
        hidden.requires_grad_()
        total, _ = head_loss(hidden, head, TARGETS, z_loss=0.1)
        gradients.append((total, *torch.autograd.grad(total, (hidden, head))))
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)
    assert not gradients[0][1][TARGETS == IGNORED].any()


@contextmanager
def largest_result() -> Iterator[list[int]]:
    """The bytes of the largest tensor that any operation makes."""
    seen = [0]

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            for tensor in torch.utils._pytree.tree_leaves(result):
                if isinstance(tensor, Tensor):
                    seen[0] = max(seen[0], tensor.untyped_storage().nbytes())
            return result

    with Watch():  # type: ignore[no-untyped-call]
        yield seen


def test_no_more_logits_are_held_than_a_chunk_of_them() -> None:
    hidden, head = draw(512, 4), draw(1000, 4)
    targets = torch.arange(512)
    for chunk, positions in ((None, 512), (512, 512), (64, 64)):
        with largest_result() as seen:
            head_loss(hidden, head, targets, z_loss=0.1, chunk=chunk)
        assert seen[0] == positions * 1000 * 4


def model() -> Transformer:
    made = Transformer(SHAPE, 50)
    made.initialize(seed=3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return made


def test_every_target_weighs_the_same_however_rows_are_dealt_to_micro_batches() -> None:
    windows = torch.randint(0, 50, (4, 25), generator=torch.Generator().manual_seed(0))
    examples = next_token(windows, 0)
    targets = examples.targets.clone()
    targets[0, 3:] = IGNORED  # the first micro-batch has fewer targets than the second
    examples = examples._replace(targets=targets)
    gradients = []
    for size in (4, 2):
        net = model()
        sums = torch.zeros(2)
        for start in range(0, 4, size):
            losses = loss(net, examples.rows(start, start + size))
            losses.total.backward()  # type: ignore[no-untyped-call]
            sums += totals(losses)
        assert sums[1] == 3 * 24 + 3
        gradients.append([sums[0], *(parameter.grad for parameter in net.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_only_the_positions_that_are_asked_about_go_through_the_head() -> None:
    tokens = torch.randint(0, 50, (2, 24), generator=torch.Generator().manual_seed(0))
    at = torch.tensor([[0, 5, 23], [2, 3, 0]])
    answers = torch.tensor([[1, 2, 3], [4, 5, IGNORED]])
    everywhere = torch.full((2, 24), IGNORED).scatter(1, at, answers)
    net = model()
    few, all_ = loss(net, Examples(tokens, answers, at)), loss(net, Examples(tokens, everywhere))
    torch.testing.assert_close(few.total, all_.total)
    torch.testing.assert_close(few.nats, all_.nats.gather(1, at))
    assert few.counted == all_.counted == 5
