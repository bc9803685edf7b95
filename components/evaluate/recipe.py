"""What a person decides about evaluation."""

from typing import Annotated

from pydantic import Field

from cairn.recipe import Section

MB = 1_000_000


class Evaluate(Section):
    """How the exported model is scored."""

    stride: int | None = Field(default=None, gt=0)
    """Tokens by which the scoring window moves on; null is half the model's context. Every token but those at the
    beginning of a document is predicted from at least `context - stride` tokens before it."""
    leak_threshold: float = Field(default=0.2, ge=0, le=1)
    """The filtered scores leave out documents of which at least this share of word 8-grams occurs in train."""
    threads: int = Field(default=2, gt=0)
    """Compute threads. Part of the recipe because the last digits of a sum follow their number."""
    resamples: int = Field(default=2000, gt=0)
    """Bootstrap resamples of documents for the 95 % intervals."""
    seed: int = Field(default=0, ge=0)
    """Of the bootstrap, and of which tokens are masked."""
    mask_rates: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(default=(0.15, 0.3), min_length=1)
    """Of a masked model: shares of the tokens that are masked, each scored by itself; the first is the headline."""
    ppmd_orders: tuple[Annotated[int, Field(ge=2, le=64)], ...] = (5, 6, 8, 12)
    """PPMd compressors to compare with (Shkarin 2002, variant H), primed with the train text. A masked model is not
    compared with compressors: it needs no bits for what it is shown."""
    zstd_dictionaries: tuple[Annotated[int, Field(gt=0, multiple_of=1024)], ...] = (112_640, 1_048_576)
    """Sizes in bytes of the zstd dictionaries to compare with, level 19, trained on the train text."""
    prime_bytes: int = Field(default=64 * MB, gt=0)
    """Compressors are primed with at most this much train text: its end, which they remember best."""
    prompts: int = Field(default=2, ge=0)
    """Held-out documents of each domain whose beginning is continued greedily, or, by a masked model, filled in."""
    prompt_tokens: int = Field(default=48, gt=0)
    """Tokens of such a beginning."""
    continuation_tokens: int = Field(default=64, gt=0)
    """Tokens to go on for, at most; a masked model gets them with the beginning."""
