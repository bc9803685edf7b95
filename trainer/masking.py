"""Which tokens a bidirectional model has to guess, and what stands in their place.

Masks are a pure function of (seed, step, row of the global batch), whatever the number of processes and the size of a
micro-batch: the bits of a row come from a counter that begins at the row's own place (Philox 4x64-10: Salmon et al.
2011, "Parallel random numbers: as easy as 1, 2, 3"), under a key that follows from seed and step.

Every row has the same number of masked places, so that shapes do not change. The end-of-text token is never masked; a
row that holds fewer other tokens than are to be masked fills its places with tokens that are left as they are and are
not learned.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.recipe import Masking

Ids = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint64]
IGNORED = -100
"""The target of a place where nothing is learned; PyTorch's own convention."""
REPLACED, RANDOM = 0.8, 0.1  # arXiv 1810.04805; the rest stays as it is


@dataclass(frozen=True)
class Masked:
    """Rows in which tokens are masked."""

    inputs: Ids
    """(rows, context): what the model sees."""
    at: Ids
    """(rows, k), ascending: the masked places."""
    targets: Ids
    """(rows, k): the tokens that were there, or `IGNORED`."""


@dataclass(frozen=True)
class Vocabulary:
    """What masking has to know of the tokens."""

    size: int
    end_of_text: int
    mask: int


def places(rate: float, context: int) -> int:
    """Masked tokens in a row of `context` tokens."""
    return max(1, round(rate * context))


def mask(masking: Masking, vocabulary: Vocabulary, seed: int, step: int, first: int, rows: Ids) -> Masked:
    """Mask rows of a step.

    Args:
        first: number of the first of them in the global batch.
        rows: (rows, context) int64.
    """
    count, context = rows.shape
    k = places(masking.rate, context)
    bits = _bits(seed, step, first, count, context + 2 * k)
    at = drawn(bits[:, :context], rows != vocabulary.end_of_text, k)
    was = np.take_along_axis(rows, at, 1)
    learned = was != vocabulary.end_of_text
    now = np.full_like(was, vocabulary.mask)
    if masking.replacement == "bert":
        chance = (bits[:, context : context + k] >> np.uint64(11)).astype(np.float64) * 2.0**-53
        other = _ordinary(bits[:, context + k : context + 2 * k], vocabulary)
        now = np.where(chance < REPLACED, now, np.where(chance < REPLACED + RANDOM, other, was))
    inputs = rows.copy()
    np.put_along_axis(inputs, at, np.where(learned, now, was), 1)
    return Masked(inputs, at, np.where(learned, was, IGNORED))


def drawn(bits: Bits, allowed: npt.NDArray[np.bool_], k: int) -> Ids:
    """`k` places of each row, ascending, each allowed one as likely as another; others only where those do not suffice.

    Args:
        bits: (rows, context), a random number for each place.
        allowed: (rows, context).
    """
    context = bits.shape[1]
    # The place is in the low bits of its number: no two are alike, and the smallest k are the same on every machine.
    low = np.uint64((1 << (context - 1).bit_length()) - 1)
    keys = np.where(allowed, bits >> np.uint64(1), ~np.uint64(0)) & ~low | np.arange(context, dtype=np.uint64)
    chosen = np.partition(keys, k - 1, axis=1)[:, :k] & low
    return np.sort(chosen.astype(np.int64), axis=1)


def key(*words: object) -> Sequence[int]:
    """The key of a stream of random bits that has a name: two words of 64 bits."""
    digest = hashlib.sha256(" ".join(map(str, ("cairn-mask", *words))).encode()).digest()
    return [int.from_bytes(digest[start : start + 8], "little") for start in (0, 8)]


def _bits(seed: int, step: int, first: int, rows: int, each: int) -> Bits:
    """(rows, each) random numbers, for rows from `first` of a step."""
    blocks = -(-each // 4)  # a count of the counter gives four
    stream = np.random.Philox(key=np.array(key(seed, step), np.uint64), counter=[first * blocks, 0, 0, 0])
    raw: Bits = stream.random_raw(rows * blocks * 4).reshape(rows, blocks * 4)
    return raw[:, :each]


def _ordinary(bits: Bits, vocabulary: Vocabulary) -> Ids:
    """A token for each number, of all but the special two: an end-of-text token would part the text anew."""
    low, high = sorted((vocabulary.end_of_text, vocabulary.mask))
    token = ((bits >> np.uint64(32)) * np.uint64(vocabulary.size - 2) >> np.uint64(32)).astype(np.int64)
    token += token >= low
    return token + (token >= high)
