"""What is to be known of a class of Hugging Face."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainer.recipe import ModelShape


@dataclass(frozen=True)
class Family:
    """One class: how a shape is told in its config.json, and what its modules are called."""

    model_type: str
    """What config.json calls it."""
    config: Callable[[ModelShape], dict[str, Any]]
    """The keys of config.json that follow from a shape."""
    shape: Callable[[Any], dict[str, Any]]
    """The keys of a shape, from a configuration object of the class."""
    outside: dict[str, str]
    """Modules outside the blocks: our name, and the class' own."""
    block: dict[str, str]
    """Modules of a block: our name, and the class' own, with {} for the number of the block. Several of ours, with
    spaces between them, are one of theirs, row after row."""
    turned: frozenset[str] = frozenset()
    """Matrices that the class keeps as (columns, rows): what it calls them within a block."""
    zeros: Callable[[ModelShape], dict[str, tuple[int, ...]]] = lambda _: {}
    """Weights of the class that a shape lacks, which change nothing where they are zero."""


ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu-tanh": "gelu_pytorch_tanh", "relu2": "relu2"}
"""What the library calls the activations."""
OF_ACTIVATION = {**{theirs: ours for ours, theirs in ACTIVATIONS.items()}, "gelu_new": "gelu-tanh", "swish": "silu"}
"""And the other way."""


def sizes(shape: ModelShape) -> dict[str, Any]:
    """The keys of config.json that most classes have."""
    return {
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp_width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": shape.context,
        "tie_word_embeddings": shape.tied,
    }


def of_sizes(said: Any) -> dict[str, Any]:
    """The keys of a shape that are said by `sizes`; as many heads of keys as of queries."""
    return {
        "layers": said.num_hidden_layers,
        "width": said.hidden_size,
        "heads": said.num_attention_heads,
        "kv_heads": said.num_attention_heads,
        "head_dim": said.hidden_size // said.num_attention_heads,
        "mlp_width": said.intermediate_size,
        "context": said.max_position_embeddings,
        "tied": said.tie_word_embeddings,
    }
