"""A byte-level BPE, read from a `tokenizer.json` in a form that other engines than Hugging Face's can be given.

The form is narrow on purpose: whoever encodes by it must get, for every text, the ids that `tokenizers` gives. What
does not fit is refused with the reason, and `tokenizers` encodes it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, models

Ids = npt.NDArray[np.uint32]

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""Radford et al. 2019."""
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
"""Of GPT-4, and of Llama 3."""
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Of GPT-4o."""
_SPELLINGS = {one: one for one in (GPT2, CL100K, O200K)} | {
    # As tiktoken writes them: the same matches, found without going back.
    CL100K.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?i:[sdmt]|ll|ve|re)"): CL100K,
    GPT2.replace("'s|'t|'re|'ve|'m|'ll|'d", "'(?:[sdmt]|ll|ve|re)"): GPT2,
}
_PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]
_OTHERS = [byte for byte in range(256) if byte not in set(_PRINTED)]
LETTERS = {**{byte: chr(byte) for byte in _PRINTED}, **{byte: chr(256 + n) for n, byte in enumerate(_OTHERS)}}
"""How a `tokenizer.json` writes each byte (GPT-2's `bytes_to_unicode`)."""
BYTES = {letter: byte for byte, letter in LETTERS.items()}


class NotByteLevelError(ValueError):
    """The tokenizer is none that this form holds exactly; the text says why."""


@dataclass(frozen=True)
class ByteLevel:
    """The bytes of every token that a text can give, in the order in which they are merged."""

    pattern: str
    """What cuts a text before merges: `GPT2`, `CL100K` or `O200K`."""
    tokens: tuple[bytes, ...]
    """By rank: the 256 bytes, then what each merge makes."""
    merges: tuple[tuple[str, str], ...]
    """As the file has them, in `LETTERS`."""
    ids: Ids
    """Rank to id."""

    @classmethod
    def read(cls, data: bytes) -> "ByteLevel":
        """Of the bytes of a `tokenizer.json`. Raises NotByteLevelError when it does not fit."""
        content = json.loads(data)
        pattern = _pattern(content)
        model = content["model"]
        vocabulary: dict[str, int] = model["vocab"]
        merges = tuple(_pair(merge) for merge in model["merges"])
        made = [LETTERS[byte] for byte in range(256)]
        lacking = [letter for letter in made if letter not in vocabulary]
        if lacking:
            raise NotByteLevelError(f"{len(lacking)} of the 256 bytes have no token")
        known = set(made)
        for left, right in merges:
            joined = left + right
            if left not in known or right not in known:
                raise NotByteLevelError(f"the merge {left!r} {right!r} comes before what it merges")
            if joined in known and joined != made[-1]:
                raise NotByteLevelError(f"the token {joined!r} is made by merges at several places")
            if joined not in vocabulary:
                raise NotByteLevelError(f"the merge {left!r} {right!r} makes no token")
            if joined != made[-1]:
                made.append(joined)
                known.add(joined)
        if len({vocabulary[token] for token in made}) < len(made):
            raise NotByteLevelError("two of its tokens have one id")
        _reached(made, vocabulary, merges)
        others = vocabulary.keys() - known
        # A whole word that is in the vocabulary is one token then, with or without merges that make it.
        if model.get("ignore_merges") and others:
            raise NotByteLevelError(f"it ignores merges, and no merge makes the token {min(others)!r}")
        tokens = tuple(bytes(BYTES[letter] for letter in token) for token in made)
        return cls(pattern, tokens, merges, np.array([vocabulary[token] for token in made], np.uint32))

    def by_id(self) -> npt.NDArray[np.object_]:
        """Id to the bytes of the token; None where no text gives it."""
        table = np.full(int(self.ids.max()) + 1, None, object)
        table[self.ids] = self.tokens
        return table


def _pattern(content: Mapping[str, Any]) -> str:
    """The pattern that cuts a text. Raises NotByteLevelError when anything but it and merges touches the text."""
    model = content["model"]
    if model.get("type") != "BPE":
        raise NotByteLevelError(f"its model is {model.get('type')}, not BPE")
    if content.get("normalizer") is not None:
        raise NotByteLevelError(f"it has a normalizer, {content['normalizer'].get('type')}")
    taken = [token["content"] for token in content.get("added_tokens", ()) if not token["special"]]
    if taken:
        raise NotByteLevelError(f"text can spell its added token {taken[0]!r}, which is not special")
    odd = [name for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(name)]
    odd += ["byte_fallback"] if model.get("byte_fallback") else []
    if odd:
        raise NotByteLevelError(f"its model has {odd[0]}")
    if (content.get("decoder") or {}).get("type") != "ByteLevel":
        raise NotByteLevelError("its decoder is not ByteLevel")
    before = content.get("pre_tokenizer") or {}
    steps = before.get("pretokenizers", ()) if before.get("type") == "Sequence" else (before,)
    if not steps or steps[-1].get("type") != "ByteLevel" or steps[-1].get("add_prefix_space", True):
        raise NotByteLevelError("it does not end its pre-tokenizer with ByteLevel, or adds a space")
    if len(steps) == 1 and steps[0].get("use_regex", True):
        return GPT2
    split = steps[0]
    regex = split.get("pattern", {}).get("Regex") if len(steps) == 2 and split.get("type") == "Split" else None
    plain = split.get("behavior") == "Isolated" and not split.get("invert") and not steps[-1].get("use_regex", True)
    if regex is None or not plain or regex not in _SPELLINGS:
        raise NotByteLevelError("its pre-tokenizer cuts text in a way that is not known")
    return _SPELLINGS[regex]


def _pair(merge: Any) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return str(left), str(right)


def _reached(made: list[str], vocabulary: Mapping[str, int], merges: tuple[tuple[str, str], ...]) -> None:
    """Refuse a token that its own bytes do not give.

    An engine that knows tokens by rank merges any two that make one up; `tokenizers` only the two of its list. They are
    the same two where a token, standing alone, is merged from them, and every part has a lower rank than the whole:
    what happens within a token's bytes does not depend on what stands around it.
    """
    alone = Tokenizer(models.BPE(vocab=dict(vocabulary), merges=list(merges)))
    for token, encoded in zip(made, alone.encode_batch_fast(made, add_special_tokens=False), strict=True):
        if encoded.ids != [vocabulary[token]]:
            raise NotByteLevelError(f"merges do not give the token {token!r}")
