"""Bits of held-out documents under an exported model, from the files a user would load.

A document's bits are the sum of -log2 p over all its tokens, the first given the end-of-text token alone. Where the
document ends is not predicted, as a compressor's text has no ends either. Bytes are those of its UTF-8 text.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from cairn.errors import ArtifactError, one_line
from cairn.progress import progress

BATCH_TOKENS = 8192


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
        torch.set_num_threads(threads)
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, trust_remote_code=False, attn_implementation="sdpa"
            )
            self.model = loaded.eval()
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:
            raise ArtifactError(f"{folder}: does not load as a model: {one_line(error)[:200]}") from None
        self.tokenizer.encode_special_tokens = True
        self.context = int(self.model.config.max_position_embeddings)
        self.end_of_text = int(self.model.config.bos_token_id)

    def encode(self, text: str) -> list[int]:
        """Ids of a document, after the end-of-text token that precedes it."""
        return [self.end_of_text, *self.tokenizer.encode(text, add_special_tokens=False).ids]

    def bits(self, texts: Sequence[str], stride: int) -> list[float]:
        """Bits of each document."""
        documents = [self.encode(text) for text in texts]
        windows = [window for index, ids in enumerate(documents) for window in self.windows(index, len(ids), stride)]
        # Windows of like length share a batch; a document's bits are summed in its own order whatever the batches were.
        order = sorted(range(len(windows)), key=lambda i: (windows[i].start - windows[i].stop, i))
        found = [0.0] * len(windows)
        with progress("evaluate", len(windows), "windows") as shown:
            first = 0
            while first < len(order):
                longest = windows[order[first]].stop - windows[order[first]].start
                batch = order[first : first + max(1, BATCH_TOKENS // longest)]
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
    def _score(self, documents: Sequence[list[int]], windows: Sequence[Window]) -> list[float]:
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
    def continuation(self, text: str, prompt: int, length: int) -> tuple[str, str]:
        """The first `prompt` tokens of a text, and how the model goes on, greedily."""
        ids = self.encode(text)[: prompt + 1]
        room = max(1, min(length, self.context - len(ids)))
        settings = {"do_sample": False, "max_new_tokens": room, "pad_token_id": self.end_of_text}
        made = self.model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), **settings)[0]
        return self.tokenizer.decode(ids[1:]), self.tokenizer.decode(made[len(ids) :].tolist())
