"""GPT-1 and GPT-2: matrices as (columns, rows), and one for queries, keys and values."""

from typing import Any

from trainer.huggingface.family import ACTIVATIONS, OF_ACTIVATION, Family
from trainer.recipe import ModelShape

BLOCK = {
    "attention_norm": "transformer.h.{}.ln_1",
    "attention.query attention.key attention.value": "transformer.h.{}.attn.c_attn",
    "attention.output": "transformer.h.{}.attn.c_proj",
    "mlp_norm": "transformer.h.{}.ln_2",
    "mlp.up": "transformer.h.{}.mlp.c_fc",
    "mlp.down": "transformer.h.{}.mlp.c_proj",
}
TURNED = frozenset({"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"})


def config(shape: ModelShape) -> dict[str, Any]:
    """What the two have in common; no dropout, as in training."""
    return {
        "n_embd": shape.width,
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "n_positions": shape.context,
        "layer_norm_epsilon": shape.norm_eps,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "summary_first_dropout": 0.0,
        "tie_word_embeddings": shape.tied,
    }


def shape(said: Any) -> dict[str, Any]:
    """What the two have in common."""
    return {
        "layers": said.n_layer,
        "width": said.n_embd,
        "heads": said.n_head,
        "kv_heads": said.n_head,
        "head_dim": said.n_embd // said.n_head,
        "mlp_width": 4 * said.n_embd,
        "context": said.n_positions,
        "norm": "layernorm",
        "norm_eps": said.layer_norm_epsilon,
        "positions": "learned",
        "qk_norm": "none",
        "gated": False,
        "bias": True,
        "tied": said.tie_word_embeddings,
    }


def _gpt2_config(of: ModelShape) -> dict[str, Any]:
    # The name that this class always had for the approximation: other programs that read it know no other.
    activation = {**ACTIVATIONS, "gelu-tanh": "gelu_new"}[of.activation]
    return {**config(of), "n_inner": of.mlp_width, "activation_function": activation}


def _gpt2_shape(said: Any) -> dict[str, Any]:
    activation = OF_ACTIVATION.get(said.activation_function, said.activation_function)
    return {**shape(said), "mlp_width": said.n_inner or 4 * said.n_embd, "activation": activation}


GPT2 = Family(
    "gpt2",
    _gpt2_config,
    _gpt2_shape,
    {
        "embedding": "transformer.wte",
        "positions": "transformer.wpe",
        "norm": "transformer.ln_f",
        "head": "lm_head",
    },
    BLOCK,
    TURNED,
)
GPT1 = Family(
    "openai-gpt",
    # What this class calls gelu is the approximation.
    lambda of: {**config(of), "afn": {"gelu-tanh": "gelu", "silu": "silu"}[of.activation]},
    lambda said: {
        **shape(said),
        "norm_placement": "post",
        "activation": {"gelu": "gelu-tanh", "swish": "silu"}.get(said.afn, said.afn),
    },
    {"embedding": "transformer.tokens_embed", "positions": "transformer.positions_embed", "head": "lm_head"},
    BLOCK,
    TURNED,
)
