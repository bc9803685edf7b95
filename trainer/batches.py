"""The rows of every step: what `Order` says, read from the shards, and masked for a model that is to guess."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.loss import Examples
from trainer.masking import mask
from trainer.order import Order
from trainer.permutation import Ids
from trainer.recipe import Training
from trainer.tokens import Runs, Split, Tokens


@dataclass(frozen=True)
class Rows:
    """Sequences of one step, n of them. The width is that of `tokens`."""

    tokens: Tensor
    """(n, context + 1) int64 of a causal model, whose targets are the inputs moved by one; (n, context) of a masked
    one, masked already."""
    document: Tensor | None
    """(n, context) int32: the number in the row of the document that a position belongs to; the end-of-text token
    before a document belongs to it. None where there is no document mask."""
    domain: Tensor
    """(n, width) int16: the domain of each token, an index into `Batches.domains`."""
    number: Tensor
    """(n,) int64: the number of each row, counted through the training."""
    at: Tensor | None = None
    """(n, k) int64: the masked places of each row; None of a causal model."""
    targets: Tensor | None = None
    """(n, k) int64: the tokens that were there."""

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, start: int, stop: int) -> "Rows":
        """Rows from `start` up to `stop`, not copied."""
        return self._each(lambda tensor: tensor[start:stop])

    def to(self, device: torch.device) -> "Rows":
        """On a device, tokens as int64; pinned memory is copied without waiting for it."""
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=True))
        return replace(moved, tokens=moved.tokens.long())

    def pin(self) -> "Rows":
        """In memory that a GPU reads by itself."""
        return self._each(lambda tensor: tensor.pin_memory())

    def examples(self) -> Examples:
        """What the model is asked about these rows."""
        if self.at is not None and self.targets is not None:
            return Examples(self.tokens, self.targets, self.at, self.document)
        return Examples(self.tokens[:, :-1], self.tokens[:, 1:], None, self.document)

    def domain_of_targets(self) -> Tensor:
        """The domain of every target, in the shape of `Examples.targets`."""
        return self.domain[:, 1:] if self.at is None else self.domain.gather(1, self.at)

    def _each(self, work: Callable[[Tensor], Tensor]) -> "Rows":
        changed = {name: work(tensor) for name, tensor in vars(self).items() if tensor is not None}
        return replace(self, **changed)


class Batches:
    """The rows of a training, from the train split."""

    def __init__(self, training: Training, tokens: Tokens) -> None:
        """Raises StageError or ArtifactError as `Order` and `Split.domains` do."""
        self.split = split = tokens.train
        self.context = training.model.context
        streams = split.streams(mixed=bool(training.mixture))
        self.order = Order(training, streams)
        self.width = self.context + self.order.overlap
        self.domains = tuple(split.domains)
        """What domain numbers in `Rows` mean."""
        self._training = training
        self._tokens = tokens
        self._runs = [streams[name] for name in self.order.domains]
        self._edges, self._domain_after = _edges(split)

    def rows(self, step: int, first: int, count: int) -> Rows:
        """`count` rows of a step from row `first`, both counted from 0; on the CPU.

        Raises ArtifactError when a shard is cut short or cannot be read.
        """
        rows = self.raw(step, first, count)
        return replace(rows, tokens=rows.tokens.long())

    def raw(self, step: int, first: int, count: int) -> Rows:
        """As `rows`, with the tokens in the dtype of the shards, which makes them a quarter as large."""
        numbers = np.arange(count) + self.order.number(step, first)
        tokens = np.empty((count, self.width), self.split.dtype)
        domain = torch.from_numpy(self.fill(numbers, tokens))
        document = torch.from_numpy(self.documents(tokens)) if self._training.document_mask else None
        number, masking = torch.from_numpy(numbers), self._training.masked
        if masking is None:
            return Rows(torch.from_numpy(tokens), document, domain, number)
        vocabulary = self._tokens.vocabulary
        assert vocabulary is not None, "refused by `preflight.check`"
        masked = mask(masking, vocabulary, self._training.seed, step, first, tokens.astype(np.int64))
        inputs = torch.from_numpy(masked.inputs)
        return Rows(inputs, document, domain, number, torch.from_numpy(masked.at), torch.from_numpy(masked.targets))

    def fill(self, numbers: Ids, out: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.int16]:
        """Read the tokens of numbered rows into (n, width), in the dtype of the shards; the domain of each token."""
        domain, window = self.order.of(numbers)
        domains = np.empty((len(numbers), self.width), np.int16)
        for one in range(len(self._runs)):
            chosen = np.flatnonzero(domain == one)
            if not len(chosen):
                continue
            which, column, start, length = self._runs[one].pieces(window[chosen] * self.context, self.width)
            self.split.gather((chosen[which], column, start, length), out)
            if self._training.mixture:
                domains[chosen] = self.domains.index(self.order.domains[one])
            else:
                self._tell_domains(window * self.context, domains)
        return domains

    def documents(self, raw: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.int32]:
        """See `Rows.document`. raw: (n, width)."""
        return np.cumsum(raw[:, : self.context] == self._tokens.end_of_text, axis=1, dtype=np.int32)

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

    def _tell_domains(self, start: Ids, domains: npt.NDArray[np.int16]) -> None:
        """The domain of every token of rows that begin at these positions of the split, where there is no mixture."""
        first = np.searchsorted(self._edges, start, side="right") - 1
        last = np.searchsorted(self._edges, start + (self.width - 1), side="right") - 1
        domains[:] = self._domain_after[first, None]
        for row in np.flatnonzero(first != last).tolist():
            for run in range(int(first[row]) + 1, int(last[row]) + 1):
                domains[row, int(self._edges[run] - start[row]) :] = self._domain_after[run]


def _edges(split: Split) -> tuple[Ids, npt.NDArray[np.int16]]:
    """Where in the split a run of a domain begins, in order, and which domain's."""
    runs: list[Runs] = list(split.domains.values())
    if not runs:
        return np.empty(0, np.int64), np.empty(0, np.int16)
    starts = np.concatenate([each.starts for each in runs])
    domains = np.repeat(np.arange(len(runs), dtype=np.int16), [len(each.starts) for each in runs])
    order = np.argsort(starts, kind="stable")
    return starts[order], domains[order]
