"""How well a bidirectional model fills in masked tokens of held-out documents, from the files a user would load.

In each document the same tokens are masked every time: which, follows from the document's id and the seed, and those of
a lower rate are among those of a higher. The mask token stands for all of them, whatever training puts there. What is
found is no compression: it says how many bits a masked token needs given all others, not how many the text needs.
"""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cairn.errors import ArtifactError, StageError
from cairn.progress import progress
from components.evaluate.bits import Scorer
from components.tokenize.encoding import Ids
from trainer.masking import drawn, key, places

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """What a model made of the masked tokens of one document, at one rate."""

    tokens: int
    bytes: int
    """UTF-8 bytes that the masked tokens stand for."""
    bits: float
    hits: int
    """Tokens that the model held for the likeliest."""


@dataclass(frozen=True)
class Window:
    """A stretch of one document that goes through the model at once."""

    document: int
    start: int
    stop: int
    first: int
    """Masked tokens from here on"""
    last: int
    """up to here are scored; the others are context."""


class MaskedScorer:
    """A model directory of a bidirectional model."""

    def __init__(self, scorer: Scorer, folder: Path) -> None:
        """Raises ArtifactError when the directory does not tell a mask token."""
        self.scorer = scorer
        self.mask = mask_token(folder, scorer.tokenizer)
        self._bytes = bytes_of_tokens(scorer.tokenizer)

    def places(self, identity: str, length: int, rate: float, seed: int) -> Places:
        """The masked places of an encoded document of so many tokens, the end-of-text token before it included."""
        count = length - 1
        if not count:
            return np.empty(0, np.int64)
        stream = np.random.Philox(key=np.array(key("heldout", seed, identity), np.uint64))
        chosen: Places = drawn(stream.random_raw(count)[None], np.ones((1, count), bool), places(rate, count))[0]
        return chosen + 1

    def score(self, documents: Sequence[Ids], at: Sequence[Places], stride: int) -> list[Found]:
        """What the model makes of the masked places of each document, encoded with `Scorer.encode`."""
        self._check_bytes(documents)
        windows = [window for index, ids in enumerate(documents) for window in self.windows(index, len(ids), stride)]
        order = sorted(range(len(windows)), key=lambda i: (windows[i].start - windows[i].stop, i))
        bits, hits = [0.0] * len(windows), [0] * len(windows)
        with progress("evaluate", len(windows), "windows") as shown:
            first = 0
            while first < len(order):
                longest = windows[order[first]].stop - windows[order[first]].start
                batch = order[first : first + max(1, self.scorer.batch // longest)]
                for index, (nats, right) in zip(
                    batch, self._score(documents, at, [windows[i] for i in batch]), strict=True
                ):
                    bits[index], hits[index] = nats / math.log(2), right
                shown.advance(len(batch))
                first += len(batch)
        found = [[0.0, 0] for _ in documents]
        for window, more, right in zip(windows, bits, hits, strict=True):
            found[window.document][0] += more
            found[window.document][1] += right
        return [
            Found(len(chosen), int(self._bytes[ids[chosen]].sum()), float(total), int(right))
            for ids, chosen, (total, right) in zip(documents, at, found, strict=True)
        ]

    def windows(self, document: int, length: int, stride: int) -> list[Window]:
        """Cover a document; each place is scored once, in the window that reaches furthest on its nearer side."""
        context = self.scorer.context
        last = max(0, length - context)
        starts = [*range(0, last, stride), last]
        edges = [0, *((one + other + context) // 2 for one, other in itertools.pairwise(starts)), length]
        return [
            Window(document, start, min(start + context, length), edges[index], edges[index + 1])
            for index, start in enumerate(starts)
        ]

    @torch.no_grad()
    def filled(self, ids: Ids, at: Places) -> list[dict[str, str]]:
        """A text within the context, encoded, in pieces: text that is shown, and for each masked place what was there
        and the likeliest token."""
        tokens = ids.astype(np.int64)
        tokens[at] = self.mask
        guesses = self.scorer.model(torch.from_numpy(tokens)[None]).logits[0, at].argmax(-1).tolist()
        pieces: list[dict[str, str]] = []
        start = 1
        for place, guess in zip(at.tolist(), guesses, strict=True):
            if place > start:
                pieces.append({"text": self._text(ids[start:place].tolist())})
            pieces.append({"was": self._text([int(ids[place])]), "guess": self._text([guess])})
            start = place + 1
        return [*pieces, {"text": self._text(ids[start:].tolist())}] if start < len(ids) else pieces

    def _text(self, ids: list[int]) -> str:
        return str(self.scorer.tokenizer.decode(ids, skip_special_tokens=False))

    @torch.no_grad()
    def _score(
        self, documents: Sequence[Ids], at: Sequence[Places], windows: Sequence[Window]
    ) -> list[tuple[float, int]]:
        longest = max(window.stop - window.start for window in windows)
        ids = np.full((len(windows), longest), self.scorer.end_of_text, np.int64)
        there = np.zeros_like(ids)
        rows, columns, targets = [], [], []
        for row, window in enumerate(windows):
            size = window.stop - window.start
            text, chosen = documents[window.document], at[window.document]
            ids[row, :size], there[row, :size] = text[window.start : window.stop], 1
            ids[row, chosen[(chosen >= window.start) & (chosen < window.stop)] - window.start] = self.mask
            asked = chosen[(chosen >= window.first) & (chosen < window.last)]
            rows.append(np.full(len(asked), row))
            columns.append(asked - window.start)
            targets.append(text[asked].astype(np.int64))
        logits = self.scorer.model(torch.from_numpy(ids), attention_mask=torch.from_numpy(there)).logits
        chosen_logits = logits[np.concatenate(rows), np.concatenate(columns)].float()
        wanted = torch.from_numpy(np.concatenate(targets))
        nats = torch.nn.functional.cross_entropy(chosen_logits, wanted, reduction="none").double().numpy()
        right = (chosen_logits.argmax(-1) == wanted).numpy()
        ends = np.cumsum([len(one) for one in rows])
        parts = zip(np.split(nats, ends[:-1]), np.split(right, ends[:-1]), strict=True)
        return [(float(part.sum()), int(hit.sum())) for part, hit in parts]

    def _check_bytes(self, documents: Sequence[Ids]) -> None:
        for ids in documents:
            text = self.scorer.tokenizer.decode(ids[1:].tolist(), skip_special_tokens=False)
            if int(self._bytes[ids[1:]].sum()) != len(text.encode()):
                raise StageError(
                    "the tokens of this tokenizer do not add up to the bytes of the text, so that masked tokens have "
                    "no size: use a byte-level tokenizer (tokenize.tokenizer)"
                )


def mask_token(folder: Path, tokenizer: Any) -> int:
    """The id of the mask token that a model directory tells. Raises ArtifactError when it tells none."""
    path = folder / "tokenizer_config.json"
    try:
        said = json.loads(path.read_bytes()).get("mask_token")
    except (OSError, ValueError, AttributeError):
        said = None
    text = said.get("content") if isinstance(said, dict) else said
    found = tokenizer.token_to_id(text) if isinstance(text, str) else None
    if found is None:
        raise ArtifactError(f"{path}: tells no mask token of its tokenizer, with which the model could be asked")
    return int(found)


def bytes_of_tokens(tokenizer: Any) -> npt.NDArray[np.int64]:
    """Bytes of text that each token of a byte-level tokenizer stands for: it spells each byte as one character."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    sizes = np.zeros(max(vocabulary.values()) + 1, np.int64)
    for token, identity in vocabulary.items():
        sizes[identity] = len(token)
    return sizes
