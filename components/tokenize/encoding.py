"""A tokenizer at work: every text is ordinary text, and a text of any size takes little memory."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from cairn.errors import SourceError, one_line

Ids = npt.NDArray[np.uint32]
# Characters that are encoded at once: the library needs some 130 bytes for each.
PIECE = 1 << 18
# Every pattern in use splits between a word and white space after it, so the ids are those of the uncut text. A newline
# is second choice: some patterns keep it with what stands before, though not with letters.
_CUTS = (re.compile(r"(?<=\w) "), re.compile(r"(?<=\w)\n"))


def load(data: bytes, end_of_text: str, name: str) -> tuple[Tokenizer, int]:
    """A tokenizer that takes every text as ordinary and whole, and the id of its end-of-text token.

    Args:
        data: the bytes of a `tokenizer.json`.
        name: what messages call it.

    Raises:
        SourceError: it is no tokenizer, or has no token that ends documents and that no text can spell.
    """
    tokenizer = ordinary(data, name)
    end = tokenizer.token_to_id(end_of_text)
    if end is None:
        raise SourceError(f"{name}: has no token {end_of_text!r}: set tokenize.end_of_text to the one that it has")
    if end in encode(tokenizer, end_of_text):
        raise SourceError(
            f"{name}: a text that spells {end_of_text!r} would end a document there: set tokenize.end_of_text to a "
            "token that the tokenizer lists as special and that is no word"
        )
    return tokenizer, int(end)


def mask_of(tokenizer: Tokenizer, mask_token: str, name: str) -> int:
    """The id of the token that stands for a masked one.

    Raises:
        SourceError: the tokenizer has no such token, or text can spell it.
    """
    mask = tokenizer.token_to_id(mask_token)
    if mask is None:
        raise SourceError(
            f"{name}: has no token {mask_token!r}: set tokenize.mask_token to the one that it has, or let tokenize "
            "train a tokenizer (tokenizer: null)"
        )
    if mask in encode(tokenizer, mask_token):
        raise SourceError(
            f"{name}: a text that spells {mask_token!r} would be masked there: set tokenize.mask_token to a token that "
            "the tokenizer lists as special and that is no word"
        )
    return int(mask)


def ordinary(data: bytes, name: str) -> Tokenizer:
    """The tokenizer in the bytes of a `tokenizer.json`. Raises SourceError when it is none."""
    try:
        tokenizer = Tokenizer.from_str(data.decode())
    except Exception as error:
        raise SourceError(f"{name}: is not a tokenizer: {one_line(error)[:200]}") from None
    # A document that spells a special token is about it; it is not that token.
    tokenizer.encode_special_tokens = True
    # Settings for batches of prompts, which many published files carry along.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> Ids:
    """The ids of a text, no token added."""
    parts = [np.array(_encoded(tokenizer, piece).ids, np.uint32) for piece in pieces(text)]
    return np.concatenate(parts) if parts else np.empty(0, np.uint32)


def gives_back(tokenizer: Tokenizer, text: str, ids: Ids) -> bool:
    """Whether the ids decode to exactly this text."""
    return bool(tokenizer.decode(ids.tolist(), skip_special_tokens=False) == text)


def pieces(text: str) -> Iterator[str]:
    """A text in pieces of `PIECE` to `2 * PIECE` characters, cut where it makes no difference to the ids.

    A stretch without a word and a space after it for so long, such as a file in base64, is cut where it is.
    """
    start = 0
    while len(text) - start > 2 * PIECE:
        first, last = start + PIECE, start + 2 * PIECE
        found = next((cut for pattern in _CUTS if (cut := pattern.search(text, first, last))), None)
        stop = found.start() if found else last
        yield text[start:stop]
        start = stop
    if start < len(text):
        yield text[start:]


def _encoded(tokenizer: Tokenizer, text: str) -> Any:
    # The batch call is the one that leaves out offsets: twice as fast.
    return tokenizer.encode_batch_fast([text], add_special_tokens=False)[0]
