"""Shapes that no class of Hugging Face holds are refused when a recipe is read, with what to set."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cairn.errors import RecipeError
from cairn.recipe import load
from trainer.architecture import class_of
from trainer.recipe import ModelShape

SMALL: dict[str, Any] = {
    "layers": 2,
    "width": 32,
    "heads": 4,
    "kv_heads": 4,
    "head_dim": 8,
    "mlp_width": 128,
    "context": 24,
}


def refused(tmp_path: Path, **changes: Any) -> str:
    """What is said of a recipe of this shape."""
    path = tmp_path / "model.yaml"
    path.write_text(json.dumps(SMALL | changes))
    with pytest.raises(RecipeError) as raised:
        load(ModelShape, path)
    told = str(raised.value)
    assert "\n" not in told
    return told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"norm": "layernorm"}, "for Qwen3ForCausalLM, set norm: rmsnorm"),
        ({"bias": True}, "for Qwen3ForCausalLM, set bias: false; or for LlamaForCausalLM, set qk_norm: none"),
        ({"positions": "learned"}, "for Qwen3ForCausalLM, set positions: rope"),
        ({"gated": False}, "for Qwen3ForCausalLM, set gated: true"),
        ({"norm_placement": "output"}, "for Olmo2ForCausalLM, set qk_norm: width"),
        ({"qk_norm": "width", "norm_placement": "output", "bias": True}, "for Olmo2ForCausalLM, set bias: false"),
        (
            {"qk_norm": "none", "width": 30, "head_dim": 10},
            "for Qwen3ForCausalLM, set qk_norm: head; or for LlamaForCausalLM, set heads to a divisor of width (30)",
        ),
        ({"named": "gpt2-124m", "kv_heads": 2}, "for GPT2LMHeadModel, set kv_heads: 4"),
        ({"named": "gpt2-124m", "head_dim": 16}, "for GPT2LMHeadModel, set head_dim: 8"),
        ({"named": "gpt1", "activation": "relu2"}, "or for OpenAIGPTLMHeadModel, set activation: gelu-tanh or silu"),
        ({"named": "gpt1", "mlp_width": 64}, "or for OpenAIGPTLMHeadModel, set mlp_width: 128"),
        ({"named": "bert-base", "tied": False}, "for BertForMaskedLM, set tied: true"),
        ({"named": "bert-base", "gated": True}, "for BertForMaskedLM, set gated: false"),
        ({"causal": False}, "for ModernBertForMaskedLM, set norm: layernorm, qk_norm: none"),
    ],
)
def test_a_shape_that_could_not_be_exported_is_refused_with_what_to_set(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    assert told in refused(tmp_path, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "layernorm"},
        {"bias": True},
        {"norm_placement": "output"},
        {"named": "gpt2-124m", "kv_heads": 2, "head_dim": 16},
        {"named": "bert-base", "gated": True, "tied": False},
        {"causal": False},
        {"causal": False, "kv_heads": 2, "norm_placement": "post"},
    ],
)
def test_what_is_told_to_be_set_makes_a_shape_that_is_accepted(tmp_path: Path, changes: dict[str, Any]) -> None:
    told = refused(tmp_path, **changes).partition(": for ")[2]
    for way in told.split("; or for "):
        name, keys = re.match(r"(\w+), set (.*)$", way).groups()  # type: ignore[union-attr]
        asked = {key: json.loads(value) if value[0] in "tf0123456789" else value for key, value in pairs(keys)}
        assert class_of(ModelShape.model_validate(SMALL | changes | asked)) == name


def pairs(keys: str) -> list[tuple[str, str]]:
    """`a: b, c: d`, taken apart."""
    return [(key, value) for key, _, value in (one.partition(": ") for one in keys.split(", "))]
