"""ModernBERT, with full attention in every block."""

from typing import Any

from trainer.huggingface.family import ACTIVATIONS, OF_ACTIVATION, Family, of_sizes, sizes
from trainer.recipe import ModelShape


def config(shape: ModelShape) -> dict[str, Any]:
    """No dropout, as in training."""
    rope = {"rope_type": "default", "rope_theta": shape.rope_theta}
    return {
        **sizes(shape),
        "hidden_activation": ACTIVATIONS[shape.activation],
        "classifier_activation": ACTIVATIONS[shape.activation],
        "norm_eps": shape.norm_eps,
        "layer_types": ["full_attention"] * shape.layers,
        "rope_parameters": {"full_attention": rope, "sliding_attention": rope},
        # transformers 4 reads these three.
        "global_attn_every_n_layers": 1,
        "global_rope_theta": shape.rope_theta,
        "local_rope_theta": shape.rope_theta,
        "norm_bias": shape.bias,
        "attention_bias": shape.bias,
        "mlp_bias": shape.bias,
        "classifier_bias": shape.bias,
        "decoder_bias": True,
    }


def shape(said: Any) -> dict[str, Any]:
    """What follows from the class, and what is said."""
    return {
        **of_sizes(said),
        "causal": False,
        "norm": "layernorm",
        "norm_eps": said.norm_eps,
        "rope_theta": float(said.rope_parameters["full_attention"]["rope_theta"]),
        "qk_norm": "none",
        "activation": OF_ACTIVATION.get(said.hidden_activation, said.hidden_activation),
        "bias": said.norm_bias,
    }


MODERNBERT = Family(
    "modernbert",
    config,
    shape,
    {
        "embedding": "model.embeddings.tok_embeddings",
        "embedding_norm": "model.embeddings.norm",
        "norm": "model.final_norm",
        "transform.dense": "head.dense",
        "transform.norm": "head.norm",
        "head": "decoder",
    },
    {
        "attention_norm": "model.layers.{}.attn_norm",
        "attention.query attention.key attention.value": "model.layers.{}.attn.Wqkv",
        "attention.output": "model.layers.{}.attn.Wo",
        "mlp_norm": "model.layers.{}.mlp_norm",
        "mlp.gate mlp.up": "model.layers.{}.mlp.Wi",
        "mlp.down": "model.layers.{}.mlp.Wo",
    },
)
