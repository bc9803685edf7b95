"""Bits of held-out documents under an exported model, from the files a user would load.

A document's bits are the sum of -log2 p over all its tokens, the first given the end-of-text token alone. Where the
document ends is not predicted, as a compressor's text has no ends either. Bytes are those of its UTF-8 text.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cairn.errors import ArtifactError, SourceError
from cairn.progress import progress
from components.evaluate.recipe import Evaluate
from components.export.loading import is_masked, load_model
from components.tokenize.encoding import Ids, encode, ordinary

BATCH_TOKENS = 8192  # that go through the model at once
BATCH_LOGITS = 1 << 28  # fp32 numbers that come out of it, at most


def stride_of(section: Evaluate, scorer: "Scorer") -> int:
    """Tokens by which windows move on."""
    return min(section.stride or max(1, scorer.context // 2), scorer.context)


@dataclass(frozen=True)
class Window:
    """A stretch of one document that goes through the model at once."""

    document: int
    start: int
    stop: int
    scored: int
    """Tokens from here on are scored; those before are context that an earlier window scored."""


class Scorer:
    """A model directory, loaded in fp32."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Raises ArtifactError when the directory does not hold a whole model with its tokenizer."""
        torch.set_num_threads(threads)
        self.model: Any = load_model(folder)
        said = self.model.config
        for key in ("max_position_embeddings", "bos_token_id", "vocab_size"):
            if not isinstance(getattr(said, key, None), int):
                raise ArtifactError(f"{folder}: its config.json does not say {key}, without which it cannot be scored")
        try:
            self.tokenizer = ordinary((folder / "tokenizer.json").read_bytes(), f"{folder}: tokenizer.json")
        except OSError as error:
            raise ArtifactError(f"{folder}: tokenizer.json: cannot be read: {error.strerror}") from None
        except SourceError as error:
            raise ArtifactError(str(error)) from None
        self.context, self.end_of_text = int(said.max_position_embeddings), int(said.bos_token_id)
        vocabulary, known = int(said.vocab_size), self.tokenizer.get_vocab(with_added_tokens=True)
        if max(known.values()) >= vocabulary:
            raise ArtifactError(f"{folder}: its tokenizer has ids beyond the model's vocabulary of {vocabulary}")
        self.batch = min(BATCH_TOKENS, BATCH_LOGITS // vocabulary)
        self.masked = is_masked(folder)
        """Whether the model guesses masked tokens, rather than the next: `MaskedScorer` scores it."""

    def encode(self, text: str) -> Ids:
        """Ids of a document, after the end-of-text token that precedes it."""
        return np.concatenate(([np.uint32(self.end_of_text)], encode(self.tokenizer, text)))

    def bits(self, documents: Sequence[Ids], stride: int) -> list[float]:
        """Bits of each document, encoded with `encode`."""
        windows = [window for index, ids in enumerate(documents) for window in self.windows(index, len(ids), stride)]
        # Windows of like length share a batch; a document's bits are summed in its own order whatever the batches were.
        order = sorted(range(len(windows)), key=lambda i: (windows[i].start - windows[i].stop, i))
        found = [0.0] * len(windows)
        with progress("evaluate", len(windows), "windows") as shown:
            first = 0
            while first < len(order):
                longest = windows[order[first]].stop - windows[order[first]].start
                batch = order[first : first + max(1, self.batch // longest)]
                for index, nats in zip(batch, self._score(documents, [windows[i] for i in batch]), strict=True):
                    found[index] = nats
                shown.advance(len(batch))
                first += len(batch)
        bits = [0.0] * len(documents)
        for window, nats in zip(windows, found, strict=True):
            bits[window.document] += nats / math.log(2)
        return bits

    def windows(self, document: int, length: int, stride: int) -> list[Window]:
        """Cover the `length - 1` predicted tokens of a document, each scored once."""
        windows = []
        start, scored = 0, 1
        while scored < length:
            stop = min(start + self.context + 1, length)
            windows.append(Window(document, start, stop, scored))
            scored = stop
            start += stride
        return windows

    @torch.no_grad()
    def _score(self, documents: Sequence[Ids], windows: Sequence[Window]) -> list[float]:
        longest = max(window.stop - window.start for window in windows)
        ids = np.full((len(windows), longest), self.end_of_text, np.int64)
        for row, window in enumerate(windows):
            ids[row, : window.stop - window.start] = documents[window.document][window.start : window.stop]
        tokens = torch.from_numpy(ids)
        logits = self.model(tokens[:, :-1]).logits
        nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        rows = nats.view(len(windows), -1).double().numpy()
        return [
            float(row[window.scored - window.start - 1 : window.stop - window.start - 1].sum())
            for row, window in zip(rows, windows, strict=True)
        ]

    @torch.no_grad()
    def continuation(self, document: Ids, prompt: int, length: int) -> tuple[str, str]:
        """The first `prompt` tokens of an encoded document, and how the model goes on, greedily; both within the
        context, of which a prompt leaves at least one token free."""
        ids = document[: min(prompt + 1, self.context - 1)].tolist()
        settings = {"do_sample": False, "max_new_tokens": min(length, self.context - len(ids))}
        made = self.model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), pad_token_id=self.end_of_text, **settings
        )[0]
        return self.tokenizer.decode(ids[1:]), self.tokenizer.decode(made[len(ids) :].tolist())
