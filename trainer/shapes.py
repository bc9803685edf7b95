"""Shapes that have a name. No torch here: every door reads recipes."""

from types import MappingProxyType
from typing import Any

GPT: dict[str, Any] = {
    "layers": 12,
    "width": 768,
    "heads": 12,
    "kv_heads": 12,
    "head_dim": 64,
    "mlp_width": 3072,
    "norm": "layernorm",
    "norm_eps": 1e-5,
    "positions": "learned",
    "qk_norm": "none",
    "activation": "gelu-tanh",
    "gated": False,
    "bias": True,
}
NAMED = MappingProxyType(
    {
        "tiny": {
            "layers": 2,
            "width": 256,
            "heads": 4,
            "kv_heads": 4,
            "head_dim": 64,
            "mlp_width": 704,
            "context": 256,
        },
        "gpt1": {**GPT, "context": 512, "norm_placement": "post"},
        "gpt2-124m": {**GPT, "context": 1024},
        "bert-base": {
            **GPT,
            "context": 512,
            "causal": False,
            "norm_placement": "post",
            "norm_eps": 1e-12,
            "activation": "gelu",
        },
        "llama-1b": {
            "layers": 16,
            "width": 2048,
            "heads": 32,
            "kv_heads": 8,
            "head_dim": 64,
            "mlp_width": 8192,
            "context": 4096,
            "qk_norm": "none",
            "rope_theta": 500_000.0,
            "norm_eps": 1e-5,
        },
    }
)
"""Radford et al. 2018 and 2019, Devlin et al. 2018 (arXiv 1810.04805), Llama 3.2 1B (arXiv 2407.21783)."""


def from_depth(depth: int) -> dict[str, Any]:
    """One number for a whole family: 64 of width and one head for every layer, a gated MLP of 8/3 of the width."""
    width = 64 * depth
    return {
        "layers": depth,
        "width": width,
        "heads": depth,
        "kv_heads": depth,
        "head_dim": 64,
        "mlp_width": (width * 8 // 3 + 63) // 64 * 64,
        "context": 1024,
    }
