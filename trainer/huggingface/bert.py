"""BERT. Token types, which tell the two parts of a pair, are zero: packed text has none."""

from typing import Any

from trainer.huggingface.family import ACTIVATIONS, OF_ACTIVATION, Family, of_sizes, sizes
from trainer.recipe import ModelShape

TYPES = 2


def config(shape: ModelShape) -> dict[str, Any]:
    """No dropout, as in training."""
    return {
        **sizes(shape),
        "hidden_act": ACTIVATIONS[shape.activation],
        "layer_norm_eps": shape.norm_eps,
        "type_vocab_size": TYPES,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def shape(said: Any) -> dict[str, Any]:
    """What follows from the class, and what is said."""
    return {
        **of_sizes(said),
        "causal": False,
        "norm": "layernorm",
        "norm_placement": "post",
        "norm_eps": said.layer_norm_eps,
        "positions": "learned",
        "qk_norm": "none",
        "activation": OF_ACTIVATION.get(said.hidden_act, said.hidden_act),
        "gated": False,
        "bias": True,
    }


BERT = Family(
    "bert",
    config,
    shape,
    {
        "embedding": "bert.embeddings.word_embeddings",
        "positions": "bert.embeddings.position_embeddings",
        "embedding_norm": "bert.embeddings.LayerNorm",
        "transform.dense": "cls.predictions.transform.dense",
        "transform.norm": "cls.predictions.transform.LayerNorm",
        "head": "cls.predictions",
    },
    {
        "attention.query": "bert.encoder.layer.{}.attention.self.query",
        "attention.key": "bert.encoder.layer.{}.attention.self.key",
        "attention.value": "bert.encoder.layer.{}.attention.self.value",
        "attention.output": "bert.encoder.layer.{}.attention.output.dense",
        "attention_norm": "bert.encoder.layer.{}.attention.output.LayerNorm",
        "mlp.up": "bert.encoder.layer.{}.intermediate.dense",
        "mlp.down": "bert.encoder.layer.{}.output.dense",
        "mlp_norm": "bert.encoder.layer.{}.output.LayerNorm",
    },
    zeros=lambda of: {"bert.embeddings.token_type_embeddings.weight": (TYPES, of.width)},
)
