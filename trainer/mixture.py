"""Which domain a row comes from.

The rows of a phase are taken in cycles of `CYCLE`. In a cycle every domain has as many rows as its weight says, to the
row, and a keyed permutation says which; the last cycle of a phase is as long as what is left. So it is known, without
counting, how often a domain was drawn before any row, and which row draws it for the n-th time. A domain's draws are
numbered through all phases: a phase goes on where the one before it stopped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from trainer.permutation import Ids, key, permute

CYCLE = 10_000
"""Rows of a cycle: weights of four decimals are kept exactly."""


def apportion(weights: Sequence[Fraction], rows: int) -> tuple[int, ...]:
    """Shares of `rows` as whole numbers: each rounded down, and what is left to the largest remainders (Hamilton)."""
    total = sum(weights)
    exact = [weight * rows / total for weight in weights]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda index: (counts[index] - exact[index], index))
    for index in by_remainder[: rows - sum(counts)]:
        counts[index] += 1
    return tuple(counts)


@dataclass(frozen=True)
class _Cycle:
    """Which row of a cycle is of which domain."""

    domain: Ids
    """(rows,)"""
    rank: Ids
    """(rows,): how many rows before it in the cycle are of its domain."""
    rows: Ids
    """(rows,): the rows of the first domain in order, then those of the second, ..."""
    first: Ids
    """(domains,): where in `rows` a domain begins."""


@lru_cache(maxsize=16)
def _cycle(seed: int, phase: int, number: int, counts: tuple[int, ...]) -> _Cycle:
    size = sum(counts)
    ends = np.cumsum(np.array(counts, np.int64))
    first: Ids = ends - np.array(counts, np.int64)
    chosen = permute(np.arange(size), size, key(seed, number, f"mixture {phase}"))
    domain = np.searchsorted(ends, chosen, side="right")
    rows = np.argsort(domain, kind="stable")
    rank = np.empty(size, np.int64)
    rank[rows] = np.arange(size) - first[domain[rows]]
    return _Cycle(domain, rank, rows, first)


class Mixture:
    """The domains of a training's rows, by the number of the row."""

    def __init__(self, seed: int, begins: Sequence[int], weights: Sequence[Mapping[str, float]], rows: int) -> None:
        """
        Args:
            begins: the first row of each phase; rising, from 0.
            weights: of each phase, by domain.
            rows: of the whole training.
        """
        self.seed = seed
        self.rows = rows
        self.names = tuple(sorted({name for phase in weights for name, weight in phase.items() if weight > 0}))
        self._begins = np.array([*begins, rows], np.int64)
        exact = [[Fraction(str(phase.get(name, 0.0))) for name in self.names] for phase in weights]
        self.whole = [apportion(shares, CYCLE) for shares in exact]
        """Rows of each domain in a whole cycle, by phase."""
        sizes = np.diff(self._begins).tolist()
        self._last = [apportion(shares, size % CYCLE) for shares, size in zip(exact, sizes, strict=True)]
        drawn = [
            np.array(whole) * (size // CYCLE) + last
            for whole, last, size in zip(self.whole, self._last, sizes, strict=True)
        ]
        self._before = np.cumsum([np.zeros(len(self.names), np.int64), *drawn], axis=0)
        """(phases + 1, domains): draws before each phase, and in all."""

    def draws(self, numbers: Ids) -> tuple[Ids, Ids]:
        """The domain of each row, and how often that was drawn before. numbers: (n,), from 0; returns (n,), (n,)."""
        if len(self.names) == 1:
            return np.zeros_like(numbers), numbers.astype(np.int64)
        domain, draw = np.empty_like(numbers), np.empty_like(numbers)
        phase = np.searchsorted(self._begins[1:-1], numbers, side="right")
        cycle, row = np.divmod(numbers - self._begins[phase], CYCLE)
        for one, number in set(zip(phase.tolist(), cycle.tolist(), strict=True)):
            chosen = np.flatnonzero((phase == one) & (cycle == number))
            table = self._table(one, number)
            domain[chosen] = of = table.domain[row[chosen]]
            draw[chosen] = self._before[one, of] + number * np.array(self.whole[one])[of] + table.rank[row[chosen]]
        return domain, draw

    def numbers(self, domain: int, draws: Ids) -> Ids:
        """The rows that draw a domain for the n-th time, counted from 0: the inverse of `draws`.

        draws: (n,), below `drawn(rows)` of the domain; returns (n,).
        """
        if len(self.names) == 1:
            return draws.astype(np.int64)
        numbers = np.empty_like(draws)
        phase = np.searchsorted(self._before[1:-1, domain], draws, side="right")
        within = draws - self._before[phase, domain]
        whole = np.array([counts[domain] for counts in self.whole], np.int64)[phase]
        cycles = (np.diff(self._begins) // CYCLE)[phase]
        # The cycle that a phase ends with may hold more of a domain than a whole one by no more than it can.
        cycle = np.minimum(np.where(whole > 0, within // np.maximum(whole, 1), cycles), cycles)
        rank = within - cycle * whole
        for one, number in set(zip(phase.tolist(), cycle.tolist(), strict=True)):
            chosen = np.flatnonzero((phase == one) & (cycle == number))
            table = self._table(one, number)
            row = table.rows[table.first[domain] + rank[chosen]]
            numbers[chosen] = self._begins[one] + number * CYCLE + row
        return numbers

    def drawn(self, rows: int) -> Ids:
        """How often each domain was drawn in the first rows: (domains,)."""
        if len(self.names) == 1:
            return np.array([rows], np.int64)
        phase = int(np.searchsorted(self._begins[1:-1], rows, side="right"))
        cycle, row = divmod(rows - int(self._begins[phase]), CYCLE)
        counts: Ids = self._before[phase] + cycle * np.array(self.whole[phase], np.int64)
        if row:
            counts = counts + np.bincount(self._table(phase, cycle).domain[:row], minlength=len(self.names))
        return counts

    def _table(self, phase: int, cycle: int) -> _Cycle:
        whole = cycle < int(self._begins[phase + 1] - self._begins[phase]) // CYCLE
        return _cycle(self.seed, phase, cycle, self.whole[phase] if whole else self._last[phase])
