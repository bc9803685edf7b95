"""Who turns text into ids: gigatoken, tiktoken or Hugging Face's `tokenizers`, which decides what is right.

The ids are the same, so the engine is no part of a recipe. A faster one encodes only a tokenizer that it holds exactly
(`byte_level.py`) and only text whose letters all engines know alike; a sample of every shard is encoded by `tokenizers`
too, and must not differ.
"""

import json
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from cairn.errors import StageError, one_line
from cairn.resources import ENGINE, ENGINES
from components.tokenize.byte_level import CL100K, GPT2, LETTERS, O200K, ByteLevel, NotByteLevelError
from components.tokenize.encoding import Ids, encode, gives_back, load, pieces

REFERENCE = ENGINES[-1]
WAY_OUT = f"set {ENGINE}={REFERENCE}"
Ranks = Callable[[str], Ids]
"""Text to the ranks of its tokens."""

_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
# The same matches as the patterns of `byte_level.py`, in tiktoken's own spelling, which does not go back.
_POSSESSIVE = {
    GPT2: r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    CL100K: r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
    r"|\s*[\r\n]|\s+(?!\S)|\s",
    O200K: O200K,
}


@dataclass(frozen=True)
class Choice:
    """The engine that encodes."""

    engine: str
    why: str = ""
    """Why none that is faster does; empty where the fastest does."""

    @property
    def version(self) -> str:
        """Of the engine."""
        return metadata.version(self.engine)

    def __str__(self) -> str:
        said = f"{self.engine} {self.version}"
        return f"{said} ({self.why})" if self.why else said


def choose(data: bytes, asked: str | None) -> Choice:
    """The fastest engine that is installed and holds a tokenizer, or the one that is asked for, if it holds it.

    Args:
        data: the bytes of its `tokenizer.json`.
        asked: an engine; None leaves it open.

    Raises StageError when the engine that is asked for is not installed.
    """
    if asked is not None and not installed(asked):
        raise StageError(
            f"environment variable {ENGINE}={asked!r}: {asked} is not installed: `pip install {asked}`, or leave it out"
        )
    wanted = [asked] if asked is not None else list(ENGINES)
    lacking = [engine for engine in wanted if not installed(engine)]
    found = next(engine for engine in wanted if engine not in lacking)
    if found == REFERENCE:
        return Choice(found, f"faster with `pip install {lacking[0]}`" if lacking else "")
    try:
        _ranks(found, ByteLevel.read(data))
    except NotByteLevelError as error:
        return Choice(REFERENCE, f"{found} cannot hold this tokenizer: {error}")
    return Choice(found)


def installed(engine: str) -> bool:
    """Whether an engine is there."""
    return find_spec(engine) is not None


@lru_cache(maxsize=1)
def encoder(data: bytes, end_of_text: str, engine: str) -> "Encoder":
    """The encoder of a tokenizer, which a process keeps for the next shard.

    Raises:
        SourceError: it is no tokenizer, or has no such token to end documents.
        NotByteLevelError: the engine cannot hold it: `choose` asks before.
    """
    return Encoder(data, end_of_text, engine)


class Encoder:
    """A tokenizer at work with an engine."""

    def __init__(self, data: bytes, end_of_text: str, engine: str) -> None:
        self.engine = engine
        self._tokenizer, self.end = load(data, end_of_text, "tokenizer.json")
        self._fast: _Fast | None = None
        if engine != REFERENCE:
            level = ByteLevel.read(data)
            self._fast = _Fast(_ranks(engine, level), level.ids, level.by_id())

    def encode(self, text: str) -> Ids:
        """The ids of a text, no token added. Raises StageError when a fast engine fails at it."""
        if self._fast is None or not _known(text):
            return encode(self._tokenizer, text)
        try:
            parts = [self._fast.ranks(piece) for piece in pieces(text)]
        except BaseException as error:
            # What panics in Rust is no Exception.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise StageError(f"{self.engine} fails: {one_line(error)[:200]}: {WAY_OUT}") from None
        return self._fast.ids[np.concatenate(parts)] if parts else np.empty(0, np.uint32)

    def gives_back(self, text: str, ids: Ids) -> bool:
        """Whether the ids are of exactly this text."""
        if self._fast is None:
            return gives_back(self._tokenizer, text, ids)
        return self._fast.bytes_of(ids) == text.encode()

    def difference(self, text: str, ids: Ids) -> str | None:
        """What `tokenizers` gives else for a text, or for its first piece where it has several."""
        if self._fast is None:
            return None
        piece = next(pieces(text), "")
        other = encode(self._tokenizer, piece)
        own = ids if piece == text else ids[: len(other)]
        if np.array_equal(own, other):
            return None
        shorter = min(len(own), len(other))
        at = next((i for i in range(shorter) if own[i] != other[i]), shorter)
        character = len(self._fast.bytes_of(own[:at]).decode(errors="ignore"))
        told = [str(ids[at]) if at < len(ids) else "the end" for ids in (own, other)]
        ours, theirs = Choice(self.engine), Choice(REFERENCE)
        return f"token {at}, at character {character}, is {told[0]} with {ours} and {told[1]} with {theirs}: {WAY_OUT}"


@dataclass(frozen=True)
class _Fast:
    ranks: Ranks
    ids: Ids
    """Rank to id."""
    by_id: npt.NDArray[np.object_]
    """Id to bytes."""

    def bytes_of(self, ids: Ids) -> bytes:
        return b"".join(self.by_id[ids].tolist())


def _ranks(engine: str, level: ByteLevel) -> Ranks:
    return {"gigatoken": _gigatoken, "tiktoken": _tiktoken}[engine](level)


def _tiktoken(level: ByteLevel) -> Ranks:
    from tiktoken import Encoding

    ranks = {token: rank for rank, token in enumerate(level.tokens)}
    encoding = Encoding("cairn", pat_str=_POSSESSIVE[level.pattern], mergeable_ranks=ranks, special_tokens={})

    def encoded(text: str) -> Ids:
        ids: Ids = encoding.encode_to_numpy(text, disallowed_special=())
        return ids

    return encoded


def _gigatoken(level: ByteLevel) -> Ranks:
    from gigatoken.gigatoken_rs import load_hf_json

    regex = {"type": "Split", "pattern": {"Regex": level.pattern}, "behavior": "Isolated", "invert": False}
    before = (
        {**_LEVEL, "use_regex": True}
        if level.pattern == GPT2
        else {"type": "Sequence", "pretokenizers": [regex, _LEVEL]}
    )
    vocabulary = {"".join(LETTERS[byte] for byte in token): rank for rank, token in enumerate(level.tokens)}
    # Added tokens are left out: it takes every one that text spells.
    content: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": before,
        "post_processor": None,
        "decoder": {**_LEVEL, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": level.merges},
    }
    try:
        encode_text: Ranks = load_hf_json(json.dumps(content)).encode
    except Exception as error:
        raise NotByteLevelError(one_line(error)[:200]) from None
    return encode_text


def _known(text: str) -> bool:
    """Whether all engines take every letter of a text for the same kind of letter.

    Each has Unicode tables of its own, and they differ by what the newest versions added: so a text with a code point
    that Python's tables, the oldest of all, do not know is left to `tokenizers`.
    """
    if text.isascii():
        return True
    return bool(_assigned()[np.frombuffer(text.encode("utf-32-le"), np.uint32)].all())


@cache
def _assigned() -> npt.NDArray[np.bool_]:
    """Code point to whether Python's Unicode tables know it."""
    return np.array([unicodedata.category(chr(code)) != "Cn" for code in range(sys.maxunicode + 1)])
