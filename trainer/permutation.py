"""A keyed permutation of range(size) that is computed, not stored, both ways, for many indices at once.

A Feistel network over the numbers of a rectangle that just holds the range: an index is a row and a column, and each
round turns one of them by a number that is drawn with the other. What lands outside the range goes through again until
it is inside ("cycle walking"; both are Black and Rogaway 2002, "Ciphers with arbitrary finite domains", sections 4 and
5). The rectangle has fewer cells too many than it has columns, so hardly anything walks. The draw is the finaliser of
SplitMix64 (Steele, Lea and Flood 2014, doi 10.1145/2660193.2660195; Stafford's variant 13). It shuffles; it keeps no
secret.
"""

import hashlib
import math

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
ROUNDS = 6  # four make the permutation a good one where the draw is; two more, because this draw is a cheap one
LARGEST = 1 << 62


def key(seed: int, turn: int, stream: str) -> Words:
    """The key of a permutation: (ROUNDS,) uint64. `turn` is an epoch or a cycle, `stream` what is permuted."""
    digest = hashlib.sha512(f"cairn-order {seed} {turn} {stream}".encode()).digest()
    return np.frombuffer(digest, "<u8")[:ROUNDS].astype(np.uint64)


def permute(index: Ids, size: int, key: Words) -> Ids:
    """Where each index goes. index: (n,), from 0 up to `size`; returns (n,), a permutation of range(size)."""
    return _walk(index, size, key, forward=True)


def unpermute(image: Ids, size: int, key: Words) -> Ids:
    """Where each index came from: the inverse of `permute`."""
    return _walk(image, size, key, forward=False)


def _walk(index: Ids, size: int, key: Words, forward: bool) -> Ids:
    if not 0 < size < LARGEST:
        raise ValueError(f"a permutation of {size} numbers: from 1 up to 2^62")
    columns = math.isqrt(size - 1) + 1
    sides = (np.int64(-(-size // columns)), np.int64(columns))
    order = range(ROUNDS) if forward else range(ROUNDS - 1, -1, -1)
    found = index.astype(np.int64)
    outside = np.arange(len(found))
    while len(outside):
        row, column = np.divmod(found[outside], sides[1])
        parts = [row, column]
        for number in order:
            turned, by = number % 2, 1 - number % 2
            side = sides[turned]
            # In place of a remainder, which would take longer than all the rest.
            draw = _draw(parts[by], key[number], side)
            if forward:
                part = parts[turned] + draw
                part -= side * (part >= side)
            else:
                part = parts[turned] - draw
                part += side * (part < 0)
            parts[turned] = part
        walked = parts[0] * sides[1] + parts[1]
        found[outside] = walked
        outside = outside[walked >= size]
    return found


def _draw(part: Ids, word: np.uint64, side: np.int64) -> Ids:
    """A number below `side` (at most 2^31) for each of `part`."""
    mixed = part.view(np.uint64) + word
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    mixed >>= np.uint64(32)
    mixed *= np.uint64(side)
    mixed >>= np.uint64(32)
    return mixed.view(np.int64)
