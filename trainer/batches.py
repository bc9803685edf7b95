"""The rows of every step, read: what `Order` says, from the shards."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.order import Order
from trainer.permutation import Ids
from trainer.recipe import Training
from trainer.tokens import Runs, Split


@dataclass(frozen=True)
class Rows:
    """Sequences of one step, n of them. The width is that of `tokens`."""

    tokens: Tensor
    """(n, context + 1) of a causal model, whose targets are the inputs moved by one; (n, context) of a masked one.
    int64."""
    document: Tensor | None
    """(n, context) int32: the number in the row of the document that a position belongs to; the end-of-text token
    before a document belongs to it. None where there is no document mask."""
    domain: Tensor
    """(n, width) int16: the domain of each token, an index into `Batches.domains`."""
    number: Tensor
    """(n,) int64: the number of each row, counted through the training."""

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, start: int, stop: int) -> "Rows":
        """Rows from `start` up to `stop`, not copied."""
        document = None if self.document is None else self.document[start:stop]
        return Rows(self.tokens[start:stop], document, self.domain[start:stop], self.number[start:stop])


class Batches:
    """The rows of a training, from the train split."""

    def __init__(self, training: Training, split: Split, end_of_text: int) -> None:
        """Raises StageError or ArtifactError as `Order` and `Split.domains` do."""
        self.split = split
        self.end_of_text = end_of_text
        self.context = training.model.context
        streams = split.streams(mixed=bool(training.mixture))
        self.order = Order(training, streams)
        self.width = self.context + self.order.overlap
        self.domains = tuple(split.domains)
        """What domain numbers in `Rows` mean."""
        self._mask = training.document_mask
        self._runs = [streams[name] for name in self.order.domains]
        self._edges, self._domain_after = _edges(split)

    def rows(self, step: int, first: int, count: int) -> Rows:
        """`count` rows of a step from row `first`, both counted from 0; on the CPU.

        Raises ArtifactError when a shard is cut short or cannot be read.
        """
        numbers = np.arange(count) + self.order.number(step, first)
        raw = np.empty((count, self.width), self.split.dtype)
        return self.finish(numbers, raw, self.fill(numbers, raw))

    def fill(self, numbers: Ids, out: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.int16]:
        """Read the tokens of numbered rows into (n, width), in the dtype of the shards; the domain of each token."""
        domain, window = self.order.of(numbers)
        domains = np.empty((len(numbers), self.width), np.int16)
        for one in np.unique(domain).tolist():
            chosen = np.flatnonzero(domain == one)
            which, column, start, length = self._runs[one].pieces(window[chosen] * self.context, self.width)
            which = chosen[which]
            self.split.gather((which, column, start, length), out)
            self._tell_domains(which, column, start, length, domains)
        return domains

    def finish(self, numbers: Ids, raw: npt.NDArray[np.unsignedinteger], domains: npt.NDArray[np.int16]) -> Rows:
        """What `fill` made, as tensors."""
        tokens = torch.from_numpy(raw.astype(np.int64))
        document = torch.from_numpy(self.documents(raw)) if self._mask else None
        return Rows(tokens, document, torch.from_numpy(domains), torch.from_numpy(numbers))

    def documents(self, raw: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.int32]:
        """See `Rows.document`. raw: (n, width)."""
        return np.cumsum(raw[:, : self.context] == self.end_of_text, axis=1, dtype=np.int32)

    def position(self, step: int, row: int, at: int = 0) -> tuple[int, int]:
        """Where the token `at` of a row comes from: the number of its document in the train split, and the offset.

        `Split.document_id` tells the document's id. All are counted from 0; `row` is of the whole batch of the step.
        """
        domain, window = self.order.of(np.array([self.order.number(step, row)]))
        runs = self._runs[int(domain[0])]
        _, _, start, _ = runs.pieces(window * self.context + at, 1)
        return self.split.document_at(int(start[0]))

    def occurrences(self, document: int, offset: int | None = None) -> list[tuple[int, int, int]]:
        """Every step, row and place in it where a token of a document is an input: the inverse of `position`.

        Without an offset: every row that takes some of the document's tokens, with the place of the first of them.
        In the order of training. Raises IndexError when there is no such document or token.
        """
        start, stop = self.split.document(document)
        if offset is not None:
            if not 0 <= offset < stop - start:
                raise IndexError(f"document {document} has {stop - start} tokens, none of them at offset {offset}")
            start, stop = start + offset, start + offset + 1
        found = []
        for domain, runs in enumerate(self._runs):
            places = runs.place(np.arange(start, stop))
            places = places[(places >= 0) & (places < self.order.windows[domain] * self.context)]
            windows, first = np.unique(places // self.context, return_index=True)
            for window, place in zip(windows, places[first].tolist(), strict=True):
                for number in self.order.rows_of(domain, window[None]).tolist():
                    found.append((*self.order.step_of(number), place % self.context))
        return sorted(found)

    def documents_of(self, step: int, first: int, count: int) -> list[str]:
        """The ids of all documents that rows of a step take tokens from, in order of appearance: for a message."""
        domain, window = self.order.of(np.arange(count) + self.order.number(step, first))
        found: dict[int, None] = {}
        for one, at in zip(domain.tolist(), (window * self.context).tolist(), strict=True):
            _, _, starts, lengths = self._runs[one].pieces(np.array([at]), self.width)
            for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
                last = self.split.document_at(start + length - 1)[0]
                found.update(dict.fromkeys(range(self.split.document_at(start)[0], last + 1)))
        return [self.split.document_id(number) for number in found]

    def _tell_domains(self, which: Ids, column: Ids, start: Ids, length: Ids, domains: npt.NDArray[np.int16]) -> None:
        """Write the domain of every token of these pieces."""
        first = np.searchsorted(self._edges, start, side="right") - 1
        last = np.searchsorted(self._edges, start + length - 1, side="right") - 1
        whole = (first == last) & (length == self.width)
        domains[which[whole]] = self._domain_after[first[whole], None]
        for piece in np.flatnonzero(~whole).tolist():
            run = slice(int(first[piece]), int(last[piece]) + 1)
            edges = np.append(self._edges[run], start[piece] + length[piece])
            edges[0] = start[piece]
            row = domains[which[piece], column[piece] : column[piece] + length[piece]]
            row[:] = np.repeat(self._domain_after[run], np.diff(edges))


def _edges(split: Split) -> tuple[Ids, npt.NDArray[np.int16]]:
    """Where in the split a run of a domain begins, in order, and which domain's."""
    runs: list[Runs] = list(split.domains.values())
    if not runs:
        return np.empty(0, np.int64), np.empty(0, np.int16)
    starts = np.concatenate([each.starts for each in runs])
    domains = np.repeat(np.arange(len(runs), dtype=np.int16), [len(each.starts) for each in runs])
    order = np.argsort(starts, kind="stable")
    return starts[order], domains[order]
