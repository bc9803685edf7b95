"""Continue a text with a model: token by token, as they come, and the same for the same seed.

Once the context is full, its older half is forgotten: the model then sees the rest as it saw beginnings in training,
and goes on in long strides rather than reading everything again for every token.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from torch import Tensor

from cairn.errors import ArtifactError
from components.evaluate.bits import Scorer
from components.evaluate.filling import Filling
from components.evaluate.masked import mask_token
from trainer.checkpoint import load_checkpoint
from trainer.model import Transformer
from trainer.recipe import ModelShape

COLDEST = (
    1e-300  # temperature below which a logit divided by it may overflow; the likeliest token is certain long before
)


class Model(Protocol):
    """Something that has read tokens and expects a next one."""

    def next(self, ids: Sequence[int]) -> Tensor:
        """Logits, fp32, (vocabulary,), of the token after `ids`, which are one to `context` tokens."""


@dataclass(frozen=True)
class Continuation:
    """A model and its tokenizer."""

    model: Model
    tokenizer: Tokenizer
    context: int
    end_of_text: int
    """The token before a document, and after it."""

    def encode(self, prompt: str) -> list[int]:
        """Ids of a text, after the end-of-text token that precedes every document."""
        return [self.end_of_text, *self.tokenizer.encode(prompt, add_special_tokens=False).ids]

    def stream(
        self, prompt: str, *, tokens: int, temperature: float, top_k: int | None, seed: int
    ) -> Iterator[tuple[int, str]]:
        """The next tokens, at most so many: each id with the text that it completes, which may be none.

        It ends before an end-of-text token.

        Args:
            temperature: logits are divided by it; 0 takes the likeliest token.
            top_k: only so many of the likeliest tokens are drawn from; None for all.
            seed: of the draws.
        """
        generator = torch.Generator().manual_seed(seed)
        text = DecodeStream(skip_special_tokens=True)
        window = self.encode(prompt)[-self.context :]
        for _ in range(tokens):
            token = _draw(self.model.next(window), temperature, top_k, generator)
            if token == self.end_of_text:
                return
            yield token, text.step(self.tokenizer, token) or ""
            window.append(token)
            if len(window) > self.context:
                window = window[-max(1, self.context // 2) :]


def load(folder: Path, threads: int) -> Continuation | Filling:
    """Load a checkpoint artifact (the tokenizer is beside it, as in a project), or any Hugging Face directory; a model
    that guesses masked tokens can only fill them in.

    Raises ArtifactError when it is neither, or damaged.
    """
    if not (folder / "checkpoint.json").exists():
        scorer = Scorer(folder, threads)
        if scorer.masked:
            mask = mask_token(folder, scorer.tokenizer)
            exported: Any = scorer.model
            return Filling(
                lambda ids: exported(ids).logits.float(), scorer.tokenizer, scorer.context, scorer.end_of_text, mask
            )
        return Continuation(_Exported(scorer.model), scorer.tokenizer, scorer.context, scorer.end_of_text)
    torch.set_num_threads(threads)
    manifest, weights = load_checkpoint(folder)
    shape = ModelShape.model_validate_json(json.dumps(manifest["model"]))
    model = Transformer(shape, manifest["vocab_size"])
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise ArtifactError(f"{folder}: its weights are not those of the model that it describes") from None
    tokenizer = _tokenizer(folder.parent / "tokenizer" / "tokenizer.json", manifest)
    if not shape.causal:
        return Filling(
            lambda ids: model.logits(model.hidden(ids)),
            tokenizer,
            shape.context,
            manifest["end_of_text"],
            manifest["mask"],
        )
    return Continuation(_Trained(model), tokenizer, shape.context, manifest["end_of_text"])


class _Exported:
    """A Hugging Face model. What it read is kept where its class can (not GPT-1), so the next token costs one token."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.read: list[int] = []
        self.cache: Any = None

    @torch.no_grad()
    def next(self, ids: Sequence[int]) -> Tensor:
        known = len(self.read)
        if self.cache is None or list(ids[:known]) != self.read or len(ids) == known:
            known, self.cache = 0, None
        said = self.model(torch.tensor([ids[known:]]), past_key_values=self.cache, use_cache=True)
        self.read, self.cache = list(ids), getattr(said, "past_key_values", None)
        logits: Tensor = said.logits[0, -1].float()
        return logits


class _Trained:
    """The trainer's own model. It keeps nothing: training never needs to."""

    def __init__(self, model: Transformer) -> None:
        self.model = model

    @torch.no_grad()
    def next(self, ids: Sequence[int]) -> Tensor:
        hidden = self.model.hidden(torch.tensor([ids]))[0, -1]
        return F.linear(hidden, self.model.head_weight()).float()


def _draw(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> int:
    if temperature < COLDEST:
        return int(logits.argmax())
    likeliest = logits.double().topk(min(top_k or len(logits), len(logits)))
    chances = torch.softmax(likeliest.values / temperature, 0)
    return int(likeliest.indices[torch.multinomial(chances, 1, generator=generator)])


def _tokenizer(path: Path, manifest: dict[str, Any]) -> Tokenizer:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file: a checkpoint is used with the tokenizer beside it") from None
    if hashlib.sha256(data).hexdigest() != manifest["tokenizer"]:
        raise ArtifactError(f"{path}: is not the tokenizer that the checkpoint was trained with")
    tokenizer = Tokenizer.from_str(data.decode())
    tokenizer.encode_special_tokens = True  # a prompt that spells a special token is about it
    return tokenizer
