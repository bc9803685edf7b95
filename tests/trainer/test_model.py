"""The model and its hand-written derivatives, against plain autograd."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer import kernels
from trainer.architecture import class_of
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


@pytest.mark.parametrize("angles", [(5, 1, 4), (3, 5, 1, 4)])
@pytest.mark.parametrize("cache", [1, 1 << 20])
def test_rms_norm_rotate(monkeypatch: pytest.MonkeyPatch, cache: int, angles: tuple[int, ...]) -> None:
    monkeypatch.setattr(kernels, "CACHE", cache)  # one row at a time, and all at once
    x, weight, angle = draw(3, 5, 4, 8), draw(4, 8), torch.rand(angles)
    plain = kernels.rotate(kernels.rms_norm(x, weight, 1e-6), angle.cos(), angle.sin())
    same(kernels.rms_norm_rotate(x, weight, 1e-6, angle.cos(), angle.sin()), plain, x, weight)


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


SMALL = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 4, "head_dim": 8, "mlp_width": 128, "context": 24}
CLASSES: dict[str, dict[str, object]] = {
    "Qwen3": {"kv_heads": 2},
    "Llama": {"qk_norm": "none", "bias": True},
    "Olmo2": {"norm_placement": "output", "qk_norm": "width", "tied": False},
    "GPT2": {"named": "gpt2-124m"},
    "OpenAIGPT": {"named": "gpt1"},
    "ModernBert": {"causal": False, "norm": "layernorm", "qk_norm": "none", "activation": "gelu"},
    "Bert": {"named": "bert-base"},
}


def scattered(shape: ModelShape) -> Transformer:
    """A model with nothing at zero or one."""
    model = Transformer(shape, 50)
    model.initialize(seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return model


@pytest.mark.parametrize("name", CLASSES)
def test_a_position_sees_its_document_and_if_causal_nothing_that_follows(name: str) -> None:
    """One token of the second of three documents is another: which positions notice?"""
    shape = ModelShape.model_validate({**SMALL, **CLASSES[name]})
    assert class_of(shape).startswith(name)
    model = scattered(shape)
    tokens = torch.randint(0, 50, (1, 24), generator=torch.Generator().manual_seed(0))
    document = ((torch.arange(24) >= 6).long() + (torch.arange(24) >= 18).long())[None]
    other = tokens.clone()
    other[0, 10] = (other[0, 10] + 1) % 50
    with torch.no_grad():
        within = (model(tokens, document) != model(other, document)).any(-1)[0].nonzero().flatten()
        without = (model(tokens) != model(other)).any(-1)[0].nonzero().flatten()
    assert within.tolist() == list(range(10 if shape.causal else 6, 18))
    assert without.tolist() == list(range(10 if shape.causal else 0, 24))


@pytest.mark.parametrize("name", CLASSES)
def test_a_model_is_built_on_the_meta_device_and_filled_later(name: str) -> None:
    shape = ModelShape.model_validate({**SMALL, **CLASSES[name]})
    with torch.device("meta"):
        empty = Transformer(shape, 50)
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert not list(empty.buffers())
    filled = empty.to_empty(device="cpu")
    filled.initialize(seed=7)
    plain = Transformer(shape, 50)
    plain.initialize(seed=7)
    tokens = torch.arange(24)[None]
    assert torch.equal(filled(tokens), plain(tokens))


@pytest.mark.parametrize("name", CLASSES)
def test_positions_that_are_told_count_from_there(name: str) -> None:
    """Rotary positions are relative, learned ones are not; two rows may have positions of their own."""
    shape = ModelShape.model_validate({**SMALL, **CLASSES[name]})
    model = scattered(shape)
    tokens = torch.randint(0, 50, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = model.hidden(tokens)
        torch.testing.assert_close(model.hidden(tokens, positions=torch.arange(12).expand(2, 12)), plain)
        later = model.hidden(tokens, positions=torch.stack((torch.arange(12), torch.arange(12) + 9)))
    torch.testing.assert_close(later[0], plain[0])
    moved = float((later[1] - plain[1]).abs().max())
    assert moved < 1e-4 if shape.positions == "rope" else moved > 1e-2


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("masked", [False, True])
def test_the_attention_of_a_gpu_gives_what_that_of_a_cpu_gives(causal: bool, masked: bool) -> None:
    """The same operations, as they stand: the kernels that a GPU makes of them cannot run here."""
    query, key, value = (draw(2, 200, heads, 16).detach() for heads in (4, 2, 2))  # no derivative on a CPU
    document = torch.randint(0, 2, (2, 200), generator=torch.Generator().manual_seed(0)).cumsum(1) // 20
    seen = kernels.block_mask(document, causal) if masked else None
    plain = kernels.reach(document if masked else None, causal, 200, query)
    expected = kernels.attend(query, key, value, plain, causal)
    torch.testing.assert_close(kernels.attend_fused(query, key, value, seen, causal), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shifted", [True, False])
def test_layer_norm_finds_the_gradient_of_its_weight_in_fp32(dtype: torch.dtype, shifted: bool) -> None:
    x = draw(500, 16).detach().to(dtype).requires_grad_()
    weight, bias = draw(16), draw(16) if shifted else None
    ours = kernels.layer_norm(x, weight, bias, 1e-5)
    assert ours.dtype == dtype
    exact = [one.detach().double().requires_grad_() for one in (x, weight)]
    plain = (exact[0] - exact[0].mean(-1, keepdim=True)) * (exact[0].var(-1, correction=0, keepdim=True) + 1e-5).rsqrt()
    plain = plain * exact[1] + (0 if bias is None else bias.detach().double())
    rough = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(ours.double(), plain, rtol=rough, atol=rough)
    (of_weight,) = torch.autograd.grad(ours.sum(), weight)
    torch.testing.assert_close(of_weight.double(), *torch.autograd.grad(plain.sum(), exact[1]), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"qk_norm": "none"}, {"kv_heads": 1}])
def test_the_number_of_parameters_is_known_without_building_the_model(changes: dict[str, object]) -> None:
    shape = SHAPE.model_copy(update=changes)
    assert shape.parameters(50) == sum(parameter.numel() for parameter in Transformer(shape, 50).parameters())


def test_a_new_model_knows_nothing() -> None:
    model = Transformer(SHAPE.model_copy(update={"tied": False}), 50)
    model.initialize(seed=1)
    tokens = torch.arange(24)[None]
    assert loss(model, Examples(tokens, tokens)).nats.mean().item() == pytest.approx(math.log(50), abs=1e-4)


@pytest.mark.parametrize("name", CLASSES)
def test_a_new_model_of_every_class_guesses_evenly_and_learns_from_its_first_step(name: str) -> None:
    model = Transformer(ModelShape.model_validate({**SMALL, **CLASSES[name]}), 50)
    model.initialize(seed=1)
    tokens = torch.randint(0, 50, (4, 24), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    losses = []
    for _ in range(12):
        said = loss(model, Examples(tokens[:, :-1], tokens[:, 1:]))
        (said.total / said.counted).backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
        losses.append(float(said.nats.mean()))
        optimizer.step()
        optimizer.zero_grad()
    assert losses[0] == pytest.approx(math.log(50), abs=0.1)
    assert losses[-1] < losses[0] - 0.3


def test_flops_are_those_of_the_appendix_of_palm() -> None:
    """gpt2-124m: 85M weights of matrices in the blocks, the head, and attention over 1024 positions."""
    shape = ModelShape.model_validate({"named": "gpt2-124m"})
    blocks = 12 * (4 * 768 * 768 + 2 * 768 * 3072)
    assert shape.flops_per_token(50_257) == 6 * (blocks + 50_257 * 768) + 12 * 12 * 768 * 1024
    masked = ModelShape.model_validate({"named": "bert-base"})
    head = 30_522 * 768 + 768 * 768
    assert masked.flops_per_token(30_522, predicted=0.25) == 6 * (blocks + 0.25 * head) + 12 * 12 * 768 * 512


@pytest.mark.parametrize(
    ("name", "vocab_size", "parameters"),
    [("gpt1", 40_478, 116_534_784), ("gpt2-124m", 50_257, 124_439_808), ("bert-base", 30_522, 109_514_298 - 2 * 768)],
)
def test_named_shapes_have_the_size_of_their_models(name: str, vocab_size: int, parameters: int) -> None:
    """As the published checkpoints count; BERT's two token types are no part of ours."""
    assert ModelShape.model_validate({"named": name}).parameters(vocab_size) == parameters
