"""Fill in the mask tokens of a text: what a bidirectional model expects at each, all seen at once."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from cairn.errors import SourceError


@dataclass(frozen=True)
class Guess:
    """A token that may stand for a mask token."""

    token: int
    text: str
    probability: float


@dataclass(frozen=True)
class Filling:
    """A bidirectional model and its tokenizer."""

    logits: Callable[[Tensor], Tensor]
    """(1, tokens) int64 to fp32, (1, tokens, vocabulary)."""
    tokenizer: Tokenizer
    context: int
    end_of_text: int
    """The token before a document."""
    mask: int

    @property
    def written(self) -> str:
        """How a prompt spells the mask token."""
        return str(self.tokenizer.id_to_token(self.mask))

    def around(self, prompt: str) -> list[str]:
        """The text before, between and behind the mask tokens of a prompt. In "a <mask>" the mask token takes the
        space, as a token holds the space before its word: so does the tokenizer, and so it learned."""
        *before, last = prompt.split(self.written)
        return [*(part.removesuffix(" ") for part in before), last]

    @torch.no_grad()
    def fill(self, prompt: str, top_k: int) -> list[list[Guess]]:
        """For each mask token of the prompt the likeliest tokens, likeliest first, at most so many.

        Raises SourceError when the prompt has no mask token, or is longer than the context.
        """
        parts = self.around(prompt)
        ids, at = [self.end_of_text], []
        for number, part in enumerate(parts):
            if number:
                at.append(len(ids))
                ids.append(self.mask)
            ids += self.tokenizer.encode(part, add_special_tokens=False).ids
        if not at:
            raise SourceError(f"the prompt: has no {self.written}: write it where the model is to fill in a token")
        if len(ids) > self.context:
            raise SourceError(f"the prompt: has {len(ids)} tokens, the model sees {self.context}: shorten it")
        likeliest = torch.softmax(self.logits(torch.tensor([ids]))[0, at].double(), -1)
        best = likeliest.topk(min(top_k, likeliest.shape[-1]))
        return [
            [
                Guess(token, self.tokenizer.decode([token], skip_special_tokens=False), probability)
                for token, probability in zip(tokens, probabilities, strict=True)
            ]
            for tokens, probabilities in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
