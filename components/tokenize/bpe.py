"""The tokenizer: a byte-level BPE trained on the train split, or one that is given."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from cairn.errors import SourceError, StageError, one_line
from components.ingest.documents import read_split
from components.tokenize.recipe import Tokenize

# GPT-2's pattern (Radford et al. 2019); llama.cpp knows it by the name "gpt-2".
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def train(section: Tokenize, documents: Path) -> str:
    """The `tokenizer.json` of a tokenizer trained on the train split.

    Raises:
        StageError: the text does not support a vocabulary of that size.
    """
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
        special_tokens=[section.end_of_text],
        # Every byte has a token, whether or not the sample has it: no text is ever unknown.
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sample(documents, section.train_bytes), trainer)
    size = tokenizer.get_vocab_size()
    if size < section.vocab_size:
        raise StageError(
            f"tokenize.vocab_size is {section.vocab_size}, but the train text supports only {size} tokens: "
            f"set it to {size} or less, or add text"
        )
    return tokenizer.to_str(pretty=True) + "\n"


def given(section: Tokenize) -> str:
    """The `tokenizer.json` that the recipe names.

    Raises:
        SourceError: it is missing, is no tokenizer, or is not the one that the recipe means.
    """
    path = Path(str(section.tokenizer))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"tokenize.tokenizer: {path}: cannot be read: {error.strerror}") from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != section.tokenizer_sha256:
        raise SourceError(f"tokenize.tokenizer: {path}: has sha256 {digest}, tokenize.tokenizer_sha256 says otherwise")
    return data.decode(errors="replace")


def load(text: str, end_of_text: str) -> tuple[Tokenizer, int]:
    """A tokenizer that takes every text as ordinary text, and the id of its end-of-text token.

    Raises SourceError when the text is no tokenizer or has no such token.
    """
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:
        raise SourceError(f"tokenizer.json: is not a tokenizer: {one_line(error)}") from None
    end = tokenizer.token_to_id(end_of_text)
    if end is None:
        raise SourceError(f"tokenizer.json: has no token {end_of_text!r}: set tokenize.end_of_text to the one it has")
    # A document that spells the end-of-text token is about it; it does not end there.
    tokenizer.encode_special_tokens = True
    return tokenizer, int(end)


def _sample(documents: Path, limit: int) -> Iterator[str]:
    total = sum(record["bytes"] for record in read_split(documents, "train"))
    due = taken = seen = 0.0
    for record in read_split(documents, "train"):
        seen += record["bytes"]
        due = min(1.0, limit / total) * seen
        if taken + record["bytes"] <= due or limit >= total:
            taken += record["bytes"]
            yield record["text"]
