"""The tokenizer: a byte-level BPE trained on the train split, or one that is given."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from cairn.errors import SourceError, StageError
from components.ingest.documents import read_split
from components.tokenize.encoding import load, mask_of
from components.tokenize.recipe import Tokenize

# GPT-2's pattern (Radford et al. 2019); llama.cpp knows it by the name "gpt-2".
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_DRAW = 5  # hexadecimal digits of a document's id that decide whether it is in the sample


def train(section: Tokenize, documents: Path) -> bytes:
    """The `tokenizer.json` of a tokenizer trained on the train split.

    Raises:
        StageError: the text does not support a vocabulary of that size, or none of it may be used.
        SourceError: the end-of-text token, or the mask token, is one that ordinary text spells.
    """
    texts, size = sample(documents, section.train_bytes)
    print(f"tokenize: training a tokenizer on {size / 1e6:.1f} MB", file=sys.stderr, flush=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=section.vocab_size,
        special_tokens=[section.end_of_text, *_mask(section)],
        # Every byte has a token, whether or not the sample has it: no text is ever unknown.
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    supported = tokenizer.get_vocab_size()
    if supported < section.vocab_size:
        raise StageError(
            f"tokenize.vocab_size is {section.vocab_size}, but {size:,} bytes of train text support only {supported} "
            f"tokens: set it to {supported} or less, or add text"
        )
    data = f"{tokenizer.to_str(pretty=True)}\n".encode()
    _check(section, data, "the trained tokenizer")
    return data


def given(section: Tokenize) -> bytes:
    """The `tokenizer.json` that the recipe names.

    Raises:
        SourceError: it is missing, is no tokenizer, is not the one that the recipe means, or lacks the end-of-text
            token or the mask token.
    """
    path = Path(str(section.tokenizer))
    name = f"tokenize.tokenizer: {path}"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{name}: cannot be read: {error.strerror}") from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != section.tokenizer_sha256:
        raise SourceError(f"{name}: has sha256 {digest}, tokenize.tokenizer_sha256 says otherwise")
    _check(section, data, name)
    return data


def sample(documents: Path, limit: int) -> tuple[Iterator[str], int]:
    """Documents of the train split that together have at most `limit` bytes, and how many they have.

    A document is drawn by the beginning of its id, which is a sha256: neither its place nor its size decides, so every
    domain is there with the share that it has in the whole.

    Raises:
        StageError: no document is small enough.
    """
    sizes = np.zeros(16**_DRAW, np.int64)
    for record in read_split(documents, "train"):
        sizes[_draw(record)] += record["bytes"]
    total = np.cumsum(sizes)
    chosen = int(np.searchsorted(total, limit, side="right"))
    size = int(total[chosen - 1]) if chosen else 0
    if not size and total[-1]:
        raise StageError(f"tokenize.train_bytes is {limit}, less than one document has: raise it")
    return (record["text"] for record in read_split(documents, "train") if _draw(record) < chosen), size


def _mask(section: Tokenize) -> list[AddedToken]:
    # A token holds the space before its word, and the mask stands for the token: in "a <|mask|>" it takes the space.
    return [] if section.mask_token is None else [AddedToken(section.mask_token, special=True, lstrip=True)]


def _check(section: Tokenize, data: bytes, name: str) -> None:
    tokenizer, _ = load(data, section.end_of_text, name)
    if section.mask_token is not None:
        mask_of(tokenizer, section.mask_token, name)


def _draw(record: dict[str, Any]) -> int:
    return int(record["id"][:_DRAW], 16)
