"""The order of training: which window every row of every step is, as a pure function of seed, step and mixture.

Rows are numbered through the whole training. Of a row's number the mixture tells the domain, and how often that was
drawn before; that is an epoch of the domain and a place in it, and a keyed permutation, another for each epoch, makes
the place a window. Each part can be computed backwards. Nothing is kept but the recipe, so resuming is starting at
another step, and a process takes its own rows of the same batch. The formulas: docs/data-order.md.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from cairn.errors import StageError
from trainer.mixture import CYCLE, Mixture
from trainer.permutation import Ids, key, permute, unpermute
from trainer.recipe import Training
from trainer.tokens import ALL, Runs

MANY_EPOCHS = 4
"""Epochs up to which repeated text is worth about as much as new text (arXiv 2305.16264)."""
BLOCK = 1 << 20  # windows that are looked at together, so that memory is bounded


@dataclass(frozen=True)
class Drawn:
    """How much of a domain a training draws."""

    tokens: int
    """In an epoch: whole windows."""
    rows: int
    share: float
    """Of all rows."""
    epochs: float


class Order:
    """The order of one training."""

    def __init__(self, training: Training, streams: Mapping[str, Runs]) -> None:
        """
        Args:
            streams: what is drawn from, see `Split.streams`.

        Raises:
            StageError: the mixture names a domain that is not there, one that has not a sequence, or one with so small
                a weight that it never gets a row.
        """
        lengths = {name: len(runs) for name, runs in streams.items()}
        self.context = training.model.context
        self.seed = training.seed
        self.steps = training.steps
        self.rows = training.rows_before(training.steps)
        """In the whole training."""
        self.overlap = 1 if training.model.causal else 0
        """Tokens that a row takes beyond its window: the last target of next-token prediction."""
        self._training = training
        begins = [training.rows_before(round(phase.begin * training.steps)) for phase in training.mixture]
        weights = [phase.weights for phase in training.mixture]
        self._mixture = Mixture(self.seed, begins or [0], weights or [{ALL: 1.0}], self.rows)
        self.domains = self._mixture.names
        """What domain numbers mean."""
        if training.mixture:
            self._check_names(lengths, {name for phase in weights for name in phase})
        self.windows = np.array([(lengths[name] - self.overlap) // self.context for name in self.domains], np.int64)
        """Windows in an epoch of each domain. The last, incomplete one is left out."""
        for name, windows in zip(self.domains, self.windows.tolist(), strict=True):
            if windows < 1:
                where = f"the domain {name} of the mixture" if training.mixture else "the train split"
                raise StageError(
                    f"{where} has {lengths[name]} tokens, a sequence needs {self.context + self.overlap}: add text, or "
                    "lower pretrain.model.context"
                )

    def number(self, step: int, row: int) -> int:
        """The number of a row of a step, counted through the training; steps and rows are counted from 0."""
        return self._training.rows_before(step) + row

    def step_of(self, number: int) -> tuple[int, int]:
        """The step that a numbered row is of, and which of its rows it is."""
        begun, rows = 0, 0
        for ramp in self._training.batch_ramp:
            here = ramp.batch * (ramp.until - begun)
            if number < rows + here:
                step, row = divmod(number - rows, ramp.batch)
                return begun + step, row
            begun, rows = ramp.until, rows + here
        step, row = divmod(number - rows, self._training.batch)
        return begun + step, row

    def of(self, numbers: Ids) -> tuple[Ids, Ids]:
        """The domain and the window of each numbered row. numbers: (n,); returns (n,), (n,)."""
        domain, draw = self._mixture.draws(numbers)
        epoch, place = np.divmod(draw, self.windows[domain])
        # A step is mostly of one epoch of each domain: these are few.
        group = epoch * len(self.domains) + domain
        groups = [int(group[0])] if len(group) and (group == group[0]).all() else np.unique(group).tolist()
        window = np.empty_like(draw)
        for each in groups:
            turn, one = divmod(each, len(self.domains))
            chosen = np.flatnonzero(group == each)
            window[chosen] = permute(place[chosen], int(self.windows[one]), self._key(one, turn))
        return domain, window

    def rows_of(self, domain: int, windows: Ids) -> Ids:
        """The numbers of all rows that take one of these windows of a domain, in order: the inverse of `of`."""
        size = int(self.windows[domain])
        drawn = int(self._mixture.drawn(self.rows)[domain])
        found = []
        for turn in range(math.ceil(drawn / size)):
            draw = unpermute(windows, size, self._key(domain, turn)) + turn * size
            found.append(self._mixture.numbers(domain, draw[draw < drawn]))
        return np.sort(np.concatenate(found)) if found else np.empty(0, np.int64)

    def epochs(self, domain: int) -> tuple[int, int]:
        """How many whole epochs of a domain the training takes, and how many windows of the one that follows."""
        whole, rest = divmod(int(self._mixture.drawn(self.rows)[domain]), int(self.windows[domain]))
        return whole, rest

    def begun(self, domain: int) -> Iterator[Ids]:
        """The windows of a domain that its last epoch takes, where that is not finished; a block of them at a time."""
        epoch, rest = self.epochs(domain)
        for first in range(0, rest, BLOCK):
            places = np.arange(first, min(first + BLOCK, rest))
            yield permute(places, int(self.windows[domain]), self._key(domain, epoch))

    def drawn(self, step: int) -> dict[str, Drawn]:
        """What the steps before this one draw, by domain."""
        rows = self._training.rows_before(step)
        counts = self._mixture.drawn(rows).tolist()
        return {
            name: Drawn(windows * self.context, count, count / max(rows, 1), count / windows)
            for name, windows, count in zip(self.domains, self.windows.tolist(), counts, strict=True)
        }

    def _key(self, domain: int, epoch: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
        return key(self.seed, epoch, f"domain {self.domains[domain]}")

    def _check_names(self, lengths: Mapping[str, int], named: Collection[str]) -> None:
        for name in sorted(named):
            if name not in lengths:
                close = get_close_matches(name, lengths, 1)
                way_out = f"did you mean {close[0]}?" if close else f"there are: {', '.join(sorted(lengths))}"
                raise StageError(f"pretrain.mixture: the train split has no domain {name}: {way_out}")
        for phase, counts in enumerate(self._mixture.whole):
            for name, count in zip(self.domains, counts, strict=True):
                if not count and self._training.mixture[phase].weights.get(name, 0) > 0:
                    raise StageError(
                        f"pretrain.mixture: the weight of {name} is less than one sequence in {CYCLE:,}: raise it, or "
                        "leave the domain out"
                    )


def told(drawn: Mapping[str, Drawn]) -> list[str]:
    """The lines that tell a person what a training is going to draw; the second is a warning, where there is need."""
    parts = [
        f"{name}: {each.tokens:,} tokens, {each.share:.1%} of the sequences, {each.epochs:.2f} epochs"
        for name, each in drawn.items()
    ]
    lines = [f"train text of {'; '.join(parts)}"]
    often = [f"{name} {each.epochs:.1f} times" for name, each in drawn.items() if each.epochs > MANY_EPOCHS]
    if often:
        lines.append(
            f"warning: repeats {', '.join(often)}: text that is seen more than {MANY_EPOCHS} times is worth less each "
            "time (arXiv 2305.16264)"
        )
    return lines
