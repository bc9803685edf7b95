"""The model and its hand-written derivatives, against plain autograd."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer import kernels
from trainer.loss import Examples, loss, next_token
from trainer.model import Transformer
from trainer.recipe import ModelShape

SHAPE = ModelShape(layers=2, width=32, heads=4, kv_heads=2, head_dim=8, mlp_width=64, context=24)


def same(ours: Tensor, theirs: Tensor, *arguments: Tensor) -> None:
    """Equal values, and equal gradients of a weighted sum with respect to each argument."""
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    for mine, plain in zip(
        torch.autograd.grad((ours * weights).sum(), arguments, retain_graph=True),
        torch.autograd.grad((theirs * weights).sum(), arguments),
        strict=True,
    ):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-5)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(math.prod(shape)), requires_grad=True)


@pytest.mark.parametrize("weight_shape", [(8,), (4, 8)])
def test_rms_norm(weight_shape: tuple[int, ...]) -> None:
    x, weight = draw(2, 3, 4, 8), draw(*weight_shape)
    plain = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight
    same(kernels.rms_norm(x, weight, 1e-6), plain, x, weight)


def test_swiglu() -> None:
    x = draw(2, 3, 16)
    same(kernels.swiglu(x), F.silu(x[..., :8]) * x[..., 8:], x)


def test_rotate() -> None:
    x, angle = draw(2, 5, 3, 8), torch.rand(5, 1, 4)
    a, b = x[..., :4], x[..., 4:]
    plain = torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)
    same(kernels.rotate(x, angle.cos(), angle.sin()), plain, x)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("time", [5, 300])
def test_attention_over_one_and_over_several_blocks(time: int, masked: bool, causal: bool) -> None:
    query, key, value = draw(2, time, 4, 8), draw(2, time, 2, 8), draw(2, time, 2, 8)
    document = (torch.arange(time) // 3).expand(2, time) if masked else None
    mask = torch.ones(time, time, dtype=torch.bool)
    mask = mask.tril() if causal else mask
    if document is not None:
        mask = mask & (document[0][:, None] == document[0][None, :])
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    plain = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True, scale=1.0)
    plain = plain.transpose(1, 2).reshape(2, time, 32)
    seen = kernels.reach(document, causal, time, query)
    same(kernels.attend(query, key, value, seen, causal), plain, query, key, value)


@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"qk_norm": "none"}, {"kv_heads": 4}, {"causal": False}])
def test_the_loss_is_the_cross_entropy_of_the_logits(changes: dict[str, object]) -> None:
    model = Transformer(SHAPE.model_copy(update=changes), 50)
    model.initialize(seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    tokens = torch.randint(0, 50, (2, 25), generator=torch.Generator().manual_seed(0))
    logits = model(tokens[:, :-1])
    expected = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    losses = loss(model, next_token(tokens, None))
    torch.testing.assert_close(losses.total / losses.counted, expected)


def test_a_bidirectional_model_sees_both_sides_of_its_own_document() -> None:
    model = Transformer(SHAPE.model_copy(update={"causal": False, "norm": "layernorm", "qk_norm": "none"}), 50)
    model.initialize(seed=3)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    tokens = torch.randint(0, 50, (1, 24), generator=torch.Generator().manual_seed(0))
    document = (torch.arange(24) >= 12).long()[None]
    before = model.hidden(tokens, document)
    tokens[0, 18] = (tokens[0, 18] + 1) % 50
    changed = (model.hidden(tokens, document)[0] != before[0]).any(-1)
    assert changed.tolist() == [False] * 12 + [True] * 12


def test_a_position_sees_neither_what_follows_nor_another_document() -> None:
    model = Transformer(SHAPE, 50)
    model.initialize(seed=3)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    tokens = torch.randint(1, 50, (1, 24), generator=torch.Generator().manual_seed(0))
    document = (torch.arange(24) >= 12).long()[None]
    before = model.hidden(tokens, document)
    later, earlier = tokens.clone(), tokens.clone()
    later[0, 20] += 1 if later[0, 20] < 49 else -1
    earlier[0, 3] += 1 if earlier[0, 3] < 49 else -1
    assert torch.equal(model.hidden(later, document)[0, :20], before[0, :20])
    assert not torch.equal(model.hidden(later, document)[0, 20:], before[0, 20:])
    assert torch.equal(model.hidden(earlier, document)[0, 12:], before[0, 12:])
    assert not torch.equal(model.hidden(earlier)[0, 12:], model.hidden(tokens)[0, 12:])


@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"qk_norm": "none"}, {"kv_heads": 1}])
def test_the_number_of_parameters_is_known_without_building_the_model(changes: dict[str, object]) -> None:
    shape = SHAPE.model_copy(update=changes)
    assert shape.parameters(50) == sum(parameter.numel() for parameter in Transformer(shape, 50).parameters())


def test_a_new_model_knows_nothing() -> None:
    model = Transformer(SHAPE.model_copy(update={"tied": False}), 50)
    model.initialize(seed=1)
    tokens = torch.arange(24)[None]
    assert loss(model, Examples(tokens, tokens)).nats.mean().item() == pytest.approx(math.log(50), abs=1e-4)
