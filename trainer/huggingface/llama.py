"""Qwen3, Llama and OLMo 2: one layout of the weights; they part in norms and biases."""

from typing import Any

from trainer.huggingface.family import ACTIVATIONS, OF_ACTIVATION, Family, of_sizes, sizes
from trainer.recipe import ModelShape

OUTSIDE = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
BLOCK = {
    "attention_norm": "model.layers.{}.input_layernorm",
    "attention.query": "model.layers.{}.self_attn.q_proj",
    "attention.key": "model.layers.{}.self_attn.k_proj",
    "attention.value": "model.layers.{}.self_attn.v_proj",
    "attention.output": "model.layers.{}.self_attn.o_proj",
    "attention.query_norm": "model.layers.{}.self_attn.q_norm",
    "attention.key_norm": "model.layers.{}.self_attn.k_norm",
    "mlp_norm": "model.layers.{}.post_attention_layernorm",
    "mlp.gate": "model.layers.{}.mlp.gate_proj",
    "mlp.up": "model.layers.{}.mlp.up_proj",
    "mlp.down": "model.layers.{}.mlp.down_proj",
}


def config(shape: ModelShape) -> dict[str, Any]:
    """What the three have in common."""
    return {
        **sizes(shape),
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": ACTIVATIONS[shape.activation],
        "rms_norm_eps": shape.norm_eps,
        # transformers 5 reads the second and 4 the first; with only the second, 4 silently takes 10000.
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "attention_bias": shape.bias,
        "attention_dropout": 0.0,
    }


def shape(said: Any) -> dict[str, Any]:
    """What the three have in common."""
    return {
        **of_sizes(said),
        "kv_heads": said.num_key_value_heads,
        "head_dim": getattr(said, "head_dim", None) or said.hidden_size // said.num_attention_heads,
        "norm_eps": said.rms_norm_eps,
        "rope_theta": float(said.rope_parameters["rope_theta"]),
        "activation": OF_ACTIVATION.get(said.hidden_act, said.hidden_act),
    }


QWEN3 = Family("qwen3", config, lambda said: {**shape(said), "qk_norm": "head"}, OUTSIDE, BLOCK)
LLAMA = Family(
    "llama",
    lambda of: {**config(of), "mlp_bias": of.bias},
    lambda said: {**shape(said), "qk_norm": "none", "bias": said.attention_bias},
    OUTSIDE,
    BLOCK,
)
OLMO2 = Family(
    "olmo2",
    config,
    lambda said: {**shape(said), "qk_norm": "width", "norm_placement": "output"},
    OUTSIDE,
    {
        **BLOCK,
        "attention_norm": "model.layers.{}.post_attention_layernorm",
        "mlp_norm": "model.layers.{}.post_feedforward_layernorm",
    },
)
