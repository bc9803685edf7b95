"""Word 8-grams as 64-bit numbers: which of those in held-out documents occur in the training split too.

A word is a run of letters, digits and underscores, or one other character that is not white space, so that code counts
its brackets. Memory follows the 8-grams of the held-out and development documents, not the corpus.
"""

import re
from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
N = 8
_WORD = re.compile(r"\w+|[^\w\s]")
_PIECE = 1 << 20  # words held at once
_KNOWN = 1 << 20  # words whose hash is remembered
_WEIGHTS = [np.uint64(pow(0x9E3779B97F4A7C15, k, 1 << 64)) for k in range(N)]


class Hasher:
    """Hashes the 8-grams of documents; remembers the hashes of words, since most come again.

    A word is hashed by blake2b, an 8-gram is a polynomial of its words modulo 2**64: the same on every machine.
    """

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def hashes(self, text: str) -> Iterator[Hashes]:
        """The hash of every 8-gram of the text, in order, a piece at a time. None when it has fewer than 8 words."""
        found = (match.group() for match in _WORD.finditer(text))
        carried = np.empty(0, np.uint64)
        while piece := list(islice(found, _PIECE)):
            if len(self._known) > _KNOWN:
                self._known.clear()
            known = self._known
            for word in set(piece).difference(known):
                known[word] = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")
            words = np.concatenate([carried, np.fromiter(map(known.__getitem__, piece), np.uint64, len(piece))])
            carried = words[-(N - 1) :]
            count = len(words) - N + 1
            if count > 0:
                total = np.zeros(count, np.uint64)
                for k, weight in enumerate(_WEIGHTS):
                    total += words[k : k + count] * weight
                yield total


def occurring(wanted: Hashes, hashes: Hashes) -> npt.NDArray[np.intp]:
    """Positions in `wanted` (sorted, each once) of those hashes that are in it."""
    if not len(wanted):
        return np.empty(0, np.intp)
    places = np.searchsorted(wanted, hashes)
    places[places == len(wanted)] = 0
    found: npt.NDArray[np.intp] = places[wanted[places] == hashes]
    return found
