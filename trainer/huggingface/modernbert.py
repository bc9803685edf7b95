"""ModernBERT, with full attention in every block."""

from typing import Any

from trainer.huggingface.family import ACTIVATIONS, OF_ACTIVATION, Family
from trainer.recipe import ModelShape


def config(shape: ModelShape) -> dict[str, Any]:
    """No dropout, as in training."""
    rope = {"rope_type": "default", "rope_theta": shape.rope_theta}
    return {
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp_width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "hidden_activation": ACTIVATIONS[shape.activation],
        "classifier_activation": ACTIVATIONS[shape.activation],
        "norm_eps": shape.norm_eps,
        "max_position_embeddings": shape.context,
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
        "tie_word_embeddings": shape.tied,
    }


def shape(said: Any) -> dict[str, Any]:
    """What follows from the class, and what is said."""
    return {
        "layers": said.num_hidden_layers,
        "width": said.hidden_size,
        "heads": said.num_attention_heads,
        "kv_heads": said.num_attention_heads,
        "head_dim": said.hidden_size // said.num_attention_heads,
        "mlp_width": said.intermediate_size,
        "context": said.max_position_embeddings,
        "causal": False,
        "norm": "layernorm",
        "norm_eps": said.norm_eps,
        "rope_theta": float(said.rope_parameters["full_attention"]["rope_theta"]),
        "qk_norm": "none",
        "activation": OF_ACTIVATION.get(said.hidden_activation, said.hidden_activation),
        "bias": said.norm_bias,
        "tied": said.tie_word_embeddings,
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
