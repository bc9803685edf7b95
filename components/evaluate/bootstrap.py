"""Intervals by resampling documents."""

from collections.abc import Sequence

import numpy as np


def interval(bits: Sequence[float], sizes: Sequence[int], resamples: int, seed: int) -> tuple[float, float]:
    """The 95 % percentile interval of bits per byte (Efron 1979), documents drawn with replacement.

    It covers the choice of held-out documents, not the seed of training.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    b, s = np.asarray(bits, np.float64), np.asarray(sizes, np.float64)
    rates = np.empty(resamples)
    for index in range(resamples):
        drawn = generator.integers(0, len(b), len(b))
        rates[index] = b[drawn].sum() / s[drawn].sum()
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)
