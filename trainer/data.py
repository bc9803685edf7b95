"""Token shards, and which of their tokens make up a batch.

A batch is a pure function of (seed, step): the train tokens are cut into windows of `context` tokens, a permutation
that is computed, not stored, puts the windows of each epoch into an order, and a step takes the next `batch` of them.
So there is no loader state: resuming is starting at another step, and a process takes its rows of the same batch.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cairn.errors import ArtifactError, StageError
from trainer.recipe import Training

Ids = npt.NDArray[np.int64]
FORMAT = "cairn-tokens-v1"


class Split:
    """One split of a tokens artifact: its shards, mapped into memory and read as one stream."""

    def __init__(self, root: Path, name: str, dtype: np.dtype[Any], shards: list[dict[str, Any]]) -> None:
        self.tokens: list[npt.NDArray[Any]] = []
        self.ends: list[npt.NDArray[np.uint64]] = []
        for shard in shards:
            tokens = _mapped(root / f"{shard['name']}.bin", dtype, shard["tokens"])
            ends = _mapped(root / f"{shard['name']}.ends", np.dtype("<u8"), shard["documents"])
            if len(ends) and int(ends[-1]) != len(tokens):
                raise ArtifactError(
                    f"{root / shard['name']}.ends: does not end where its tokens end: the shard is corrupt"
                )
            self.tokens.append(tokens)
            self.ends.append(ends)
        self.name = name
        self.starts = np.concatenate(([0], np.cumsum([len(tokens) for tokens in self.tokens]))).astype(np.int64)

    def __len__(self) -> int:
        """Number of tokens."""
        return int(self.starts[-1])

    def read(self, start: int, stop: int) -> Ids:
        """Tokens [start, stop) of the stream, as int64."""
        parts = []
        shard = int(np.searchsorted(self.starts, start, side="right")) - 1
        while start < stop:
            base = int(self.starts[shard])
            part = self.tokens[shard][start - base : stop - base]
            parts.append(part)
            start += len(part)
            shard += 1
        return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)

    @cached_property
    def document_ends(self) -> Ids:
        """The end of every document in the stream, its end-of-text token included."""
        pairs = zip(self.starts, self.ends, strict=False)
        parts = [ends.astype(np.int64) + base for base, ends in pairs]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


@dataclass(frozen=True)
class Tokens:
    """A tokens artifact."""

    train: Split
    development: Split
    vocab_size: int
    end_of_text: int
    mask: int | None
    """The token that stands for a masked one; None where the tokenizer has none."""
    tokenizer: str
    """sha256 of the tokenizer.json that made it."""
    manifest: str
    """sha256 of tokens.json."""

    @classmethod
    def open(cls, root: Path) -> "Tokens":
        """Map the shards. Raises ArtifactError when one is missing, cut short or not what tokens.json says."""
        path = root / "tokens.json"
        try:
            text = path.read_bytes()
            said = json.loads(text)
            if said["format"] != FORMAT:
                raise ArtifactError(f"{path}: is of format {said['format']!r}; this trainer reads {FORMAT}")
            dtype = np.dtype({"uint16": "<u2", "uint32": "<u4"}[said["dtype"]])
            splits = {
                name: Split(root, name, dtype, said["splits"][name]["shards"]) for name in ("train", "development")
            }
            vocab_size, end_of_text, mask = int(said["vocab_size"]), int(said["end_of_text"]), said.get("mask")
            beyond = [one for one in (end_of_text, mask) if one is not None and not 0 <= one < vocab_size]
            if beyond:
                raise ArtifactError(f"{path}: a special token has id {beyond[0]}, beyond vocab_size {vocab_size}")
            return cls(
                **splits,
                vocab_size=vocab_size,
                end_of_text=end_of_text,
                mask=mask,
                tokenizer=str(said["tokenizer"]),
                manifest=hashlib.sha256(text).hexdigest(),
            )
        except FileNotFoundError:
            raise ArtifactError(f"{path}: no such file: run the tokenize stage first") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: is not a tokens manifest ({error!r})") from None


@dataclass(frozen=True)
class Batches:
    """The order of training."""

    split: Split
    context: int
    batch: int
    seed: int

    @property
    def windows(self) -> int:
        """Windows in an epoch. The last, incomplete one is left out."""
        return (len(self.split) - 1) // self.context

    def position(self, step: int, row: int) -> int:
        """Where in the stream of train tokens row `row` of step `step` begins."""
        epoch, index = divmod(step * self.batch + row, self.windows)
        return permute(index, self.windows, key(self.seed, epoch)) * self.context

    def rows(self, step: int, first: int, count: int) -> tuple[Ids, Ids]:
        """Inputs and targets, each (count, context) int64, of `count` rows of a step from row `first`."""
        starts = [self.position(step, row) for row in range(first, first + count)]
        windows = np.stack([self.split.read(start, start + self.context + 1) for start in starts])
        return np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])


def key(seed: int, epoch: int) -> bytes:
    """The key of one epoch's permutation."""
    return hashlib.sha256(f"cairn-order {seed} {epoch}".encode()).digest()


def permute(index: int, size: int, key: bytes) -> int:
    """The image of `index` under a keyed permutation of range(size).

    A four-round Feistel network over the next even number of bits, walked until it lands inside the range (Black and
    Rogaway 2002, "Ciphers with arbitrary finite domains"): on average fewer than four rounds of walking.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for turn in range(4):
            digest = hashlib.blake2b(right.to_bytes(8, "little"), key=key, digest_size=8, salt=bytes([turn])).digest()
            left, right = right, left ^ (int.from_bytes(digest, "little") & mask)
        index = left << half | right
        if index < size:
            return index


def check(training: Training, tokens: Tokens, processes: int) -> None:
    """Refuse a run that cannot work, before anything is started.

    Raises:
        StageError: too few tokens for a batch, no mask token where tokens are to be masked, processes that cannot share
            a step, or no C++ compiler to compile with.
    """
    if training.masked is not None and tokens.mask is None:
        raise StageError(
            "the tokens have no mask token, with which a bidirectional model learns: set tokenize.mask_token, such as "
            "to <|mask|>, or pretrain.model.causal: true"
        )
    context = training.model.context
    needed = training.batch * context + 1
    if len(tokens.train) < needed:
        raise StageError(
            f"the train split has {len(tokens.train)} tokens, a batch needs {needed} "
            f"({training.batch} sequences of {context}): add text, or lower pretrain.batch or pretrain.model.context"
        )
    try:
        training.check_processes(processes, tokens.vocab_size)
    except ValueError as error:
        raise StageError(str(error)) from None
    if training.compile and not any(map(shutil.which, (os.environ.get("CXX") or "g++", "c++", "clang++"))):
        raise StageError("pretrain.compile needs a C++ compiler and none is on PATH: install g++, or set it to false")


def _mapped(path: Path, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
    """A file of `count` numbers, mapped read-only. Raises ArtifactError when its size is another."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file: the tokens artifact is incomplete") from None
    if size != count * dtype.itemsize:
        raise ArtifactError(
            f"{path}: has {size} bytes, tokens.json says {count * dtype.itemsize}: the shard is corrupt"
        )
    return np.memmap(path, dtype, "r") if count else np.empty(0, dtype)
