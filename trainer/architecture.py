"""Which class of Hugging Face holds a shape, so that what is trained can be loaded without remote code.

Asked when a recipe is read: a shape that no class holds is refused before anything is trained. No torch here.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.recipe import ModelShape

CLASSES = {
    "Qwen3ForCausalLM": {
        "causal": True,
        "norm": "rmsnorm",
        "norm_placement": "pre",
        "positions": "rope",
        "qk_norm": "head",
        "gated": True,
        "bias": False,
    },
    "LlamaForCausalLM": {
        "causal": True,
        "norm": "rmsnorm",
        "norm_placement": "pre",
        "positions": "rope",
        "qk_norm": "none",
        "gated": True,
        "heads": "divisor of width",
    },
    "Olmo2ForCausalLM": {
        "causal": True,
        "norm": "rmsnorm",
        "norm_placement": "output",
        "positions": "rope",
        "qk_norm": "width",
        "gated": True,
        "bias": False,
    },
    "GPT2LMHeadModel": {
        "causal": True,
        "norm": "layernorm",
        "norm_placement": "pre",
        "positions": "learned",
        "qk_norm": "none",
        "gated": False,
        "bias": True,
        "kv_heads": "heads",
        "head_dim": "width / heads",
    },
    "OpenAIGPTLMHeadModel": {
        "causal": True,
        "norm": "layernorm",
        "norm_placement": "post",
        "positions": "learned",
        "qk_norm": "none",
        "activation": ("gelu-tanh", "silu"),
        "gated": False,
        "bias": True,
        "kv_heads": "heads",
        "head_dim": "width / heads",
        "mlp_width": "4 × width",
    },
    "ModernBertForMaskedLM": {
        "causal": False,
        "norm": "layernorm",
        "norm_placement": "pre",
        "positions": "rope",
        "qk_norm": "none",
        "gated": True,
        "kv_heads": "heads",
        "head_dim": "width / heads",
    },
    "BertForMaskedLM": {
        "causal": False,
        "norm": "layernorm",
        "norm_placement": "post",
        "positions": "learned",
        "qk_norm": "none",
        "gated": False,
        "bias": True,
        "tied": True,
        "kv_heads": "heads",
        "head_dim": "width / heads",
    },
}
"""For each class, what a shape must be, or one of what it must be; what is not named is free."""


def class_of(shape: "ModelShape") -> str:
    """The name of the class that holds a shape.

    Raises ValueError when none does; the text names the nearest classes and what keeps the shape from them.
    """
    likely = [name for name, wanted in CLASSES.items() if wanted["causal"] == shape.causal]
    faults = {name: list(_faults(shape, name)) for name in likely}
    least = min(map(len, faults.values()))
    nearest = [name for name, found in faults.items() if len(found) == least]
    if least:
        ways = "; or ".join(f"for {name}, set {', '.join(faults[name])}" for name in nearest)
        raise ValueError(f"no class of Hugging Face holds this model, so that it could not be exported: {ways}")
    return nearest[0]


def _faults(shape: "ModelShape", name: str) -> Iterator[str]:
    """What to set so that the class holds the shape."""
    for key, wanted in CLASSES[name].items():
        said = getattr(shape, key)
        if wanted == "divisor of width":
            if shape.width % said:
                yield f"{key} to a divisor of width ({shape.width})"
        elif isinstance(wanted, tuple):
            if said not in wanted:
                yield f"{key}: {' or '.join(wanted)}"
        elif said != (asked := _asked(shape, wanted)):
            yield f"{key}: {json.dumps(asked)}".replace('"', "")


def _asked(shape: "ModelShape", wanted: object) -> object:
    """A value that is given in words, as a number; any other as it is."""
    if wanted == "width / heads":
        return shape.width / shape.heads if shape.width % shape.heads else shape.width // shape.heads
    return (
        {"heads": shape.heads, "4 × width": 4 * shape.width}.get(wanted, wanted) if isinstance(wanted, str) else wanted
    )
