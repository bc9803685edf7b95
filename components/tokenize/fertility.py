"""How much text a token stands for: documents, bytes, words and tokens, by domain and by source."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

UNITS = ("documents", "bytes", "words", "tokens")
GROUPS = {"domains": "domain", "sources": "source"}
"""What tokens.json calls a grouping, and the column that it goes by."""
Counts = dict[str, dict[str, int]]
"""Name of a domain or source to `UNITS`. Tokens are with those that end documents, of which there is one for each."""


def words(text: bytes) -> int:
    """Stretches without ASCII white space or control characters in between.

    That is what English calls words. A language that writes none, such as Chinese, has few and long ones.
    """
    letters = np.frombuffer(text, np.uint8) > 32
    return int(np.count_nonzero(letters[1:] & ~letters[:-1])) + int(letters[:1].sum())


def counted(rows: Iterable[Mapping[str, Any]]) -> dict[str, Counts]:
    """The counts of some documents, as rows of a token shard's table tell of them."""
    return {group: _counted(rows, column) for group, column in GROUPS.items()}


def added(parts: Sequence[Mapping[str, Counts]]) -> dict[str, Counts]:
    """The counts of several token shards as those of one, in alphabetical order."""
    return {group: _added([part[group] for part in parts]) for group in GROUPS}


def per_token(counts: Mapping[str, int]) -> float:
    """Bytes that a token of text stands for, without the tokens that end documents; 0 where there are none."""
    tokens = counts["tokens"] - counts["documents"]
    return counts["bytes"] / tokens if tokens else 0.0


def per_word(counts: Mapping[str, int]) -> float:
    """Tokens that a word takes, without those that end documents; 0 where there are no words."""
    return (counts["tokens"] - counts["documents"]) / counts["words"] if counts["words"] else 0.0


def _counted(rows: Iterable[Mapping[str, Any]], column: str) -> Counts:
    found: Counts = {}
    for row in rows:
        counts = found.setdefault(str(row[column]), dict.fromkeys(UNITS, 0))
        counts["documents"] += 1
        counts["bytes"] += row["bytes"]
        counts["words"] += row["words"]
        counts["tokens"] += row["length"]
    return found


def _added(parts: Sequence[Counts]) -> Counts:
    found: dict[str, Counter[str]] = {}
    for part in parts:
        for name, counts in part.items():
            found.setdefault(name, Counter(dict.fromkeys(UNITS, 0))).update(counts)
    return {name: dict(found[name]) for name in sorted(found)}
