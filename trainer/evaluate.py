"""Bits per byte on the development split while training runs. A guide for tuning; what is reported is scored elsewhere,
from the exported files and on the held-out split."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
import torch

from trainer.model import Transformer
from trainer.permutation import Ids
from trainer.tokens import Split


class CutShortError(Exception):
    """Somebody asked to stop while scores were taken."""


@dataclass(frozen=True)
class Development:
    """A fixed sample of development documents, by domain."""

    documents: dict[str, list[Ids]]
    """Token ids of each document, from the end-of-text token before it to its last token."""
    bytes: dict[str, int]

    @classmethod
    def sample(cls, split: Split, end_of_text: int, tokens: int) -> "Development":
        """Take documents from all over each domain until it has about `tokens` tokens."""
        columns = ["domain", "length", "bytes"]
        tables = [pq.read_table(path, columns=columns) for path in split.sidecars()]
        domains = np.array([domain for table in tables for domain in table["domain"].to_pylist()])
        sizes = np.concatenate([table["bytes"].to_numpy() for table in tables]) if tables else np.empty(0, np.int64)
        ends = split.document_ends
        starts = np.concatenate(([0], ends[:-1]))
        documents: dict[str, list[Ids]] = {}
        counted: dict[str, int] = {}
        for domain in sorted(set(domains.tolist())):
            mine = np.flatnonzero(domains == domain)
            stride = max(1, int((ends[mine] - starts[mine]).sum()) // tokens)
            documents[domain] = []
            counted[domain] = 0
            for index in mine[::stride]:
                ids = split.read(int(starts[index]), int(ends[index]) - 1)
                documents[domain].append(np.concatenate(([end_of_text], ids)))
                counted[domain] += int(sizes[index])
        return cls(documents, counted)

    @torch.no_grad()
    def bits_per_byte(self, model: Transformer, asked: Callable[[], bool] = lambda: False) -> dict[str, float]:
        """Bits per UTF-8 byte for each domain. Documents are cut into windows of the context; each begins cold.

        Raises CutShortError when `asked`, before every batch, says that somebody wants to stop.
        """
        return {
            domain: _bits(model, documents, asked) / self.bytes[domain] for domain, documents in self.documents.items()
        }


def _bits(model: Transformer, documents: list[Ids], asked: Callable[[], bool]) -> float:
    context = model.shape.context
    windows = [ids[start : start + context + 1] for ids in documents for start in range(0, len(ids) - 1, context)]
    windows.sort(key=len)  # windows of like length share a batch, with little padding
    nats = 0.0
    for first in range(0, len(windows), 16):
        if asked():
            raise CutShortError
        group = windows[first : first + 16]
        longest = max(len(window) for window in group)
        padded = np.zeros((len(group), longest), np.int64)
        valid = np.zeros((len(group), longest - 1), bool)
        for row, window in enumerate(group):
            padded[row, : len(window)] = window
            valid[row, : len(window) - 1] = True
        tokens, learned = (torch.from_numpy(part).to(model.device) for part in (padded, valid))
        logits = model.logits(model.hidden(tokens[:, :-1])[learned])
        nats += float(torch.nn.functional.cross_entropy(logits, tokens[:, 1:][learned], reduction="sum"))
    return nats / math.log(2)
