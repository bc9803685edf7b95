"""Recipes and domains for tests of the order of training."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.recipe import ModelShape, Training
from trainer.tokens import Runs


def training(context: int = 16, steps: int = 12, batch: int = 4, causal: bool = True, **rest: Any) -> Training:
    """A recipe whose model is of no account."""
    shape: dict[str, Any] = {"layers": 1, "width": 8, "heads": 1, "kv_heads": 1, "head_dim": 8, "mlp_width": 8}
    if not causal:
        shape |= {"causal": False, "norm": "layernorm", "qk_norm": "none", "activation": "gelu"}
    return Training(**{"micro_batch": 1, **rest}, model=ModelShape(context=context, **shape), steps=steps, batch=batch)


def domains_from(lengths: Sequence[int]) -> dict[str, Runs]:
    """Documents of these lengths, one after another, that are of two domains in turn."""
    stops = np.cumsum(np.array(lengths, np.int64))
    starts = stops - np.array(lengths)
    return {name: Runs.of(starts[first::2], stops[first::2]) for first, name in enumerate(("even", "odd"))}
