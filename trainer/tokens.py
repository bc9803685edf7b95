"""Token shards: a split's tokens as one stream, where its documents are in it, and of which domain.

Tokens are read with `pread` into memory that the caller has, not mapped: what was cut short or cannot be read is then
an error with a name and not a SIGBUS, and the shards are no part of a process' memory.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cairn.errors import ArtifactError, one_line
from trainer.cache import Cache, Stored
from trainer.masking import Vocabulary
from trainer.permutation import Ids

FORMAT = "cairn-tokens-v1"
SPLITS = ("train", "development")
DTYPES = {"uint16": "<u2", "uint32": "<u4"}
ALL = "all"
"""What the one stream is called where there is no mixture."""
MOST_OPEN = 256  # files; a process may have some 1,000
Locate = Callable[[str], Path]
"""Where on this machine a file of the artifact is, by its name in it: a remote one is fetched then."""


@dataclass(frozen=True)
class Runs:
    """Stretches of a split that are read one after another, as a stream of their own.

    They are in the order of the split, none is empty, and none goes over the edge of a shard.
    """

    starts: Ids
    """(n,): where in the split each begins."""
    begins: Ids
    """(n + 1,): where in the stream each begins; the last is the stream's length."""

    @classmethod
    def of(cls, starts: Ids, stops: Ids) -> "Runs":
        """Of stretches from and up to."""
        return cls(starts, np.concatenate(([0], np.cumsum(stops - starts))).astype(np.int64))

    def __len__(self) -> int:
        """Tokens in the stream."""
        return int(self.begins[-1])

    def pieces(self, at: Ids, width: int) -> tuple[Ids, Ids, Ids, Ids]:
        """What parts of the split make up stretches of the stream.

        Args:
            at: (n,), where in the stream each stretch begins.
            width: tokens in each; none goes beyond the end.

        Returns:
            For each piece, in order: which stretch it is of, where in that it begins, where in the split, and how long
            it is.
        """
        first = np.searchsorted(self.begins, at, side="right") - 1
        last = np.searchsorted(self.begins, at + (width - 1), side="right") - 1
        if np.array_equal(first, last):
            return np.arange(len(at)), np.zeros_like(at), self.starts[first] + at - self.begins[first], at * 0 + width
        counts = last - first + 1
        which = np.repeat(np.arange(len(at)), counts)
        run = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts) + first[which]
        begin = np.maximum(self.begins[run], at[which])
        end = np.minimum(self.begins[run + 1], at[which] + width)
        return which, begin - at[which], self.starts[run] + begin - self.begins[run], end - begin

    def place(self, position: Ids) -> Ids:
        """Where in the stream a position of the split is; -1 where the stream does not have it."""
        run = np.maximum(np.searchsorted(self.starts, position, side="right") - 1, 0)
        within = position - self.starts[run]
        inside = (within >= 0) & (within < np.diff(self.begins)[run])
        found: Ids = np.where(inside, self.begins[run] + within, -1)
        return found

    def overlap(self, stretches: Ids) -> Ids:
        """What of stretches of the split is in the stream, told in its positions.

        stretches: (n, 2), from and up to, in order, none over another; returns (m, 2), likewise.
        """
        stops = self.starts + np.diff(self.begins)
        first = np.searchsorted(stops, stretches[:, 0], side="right")
        counts = np.maximum(np.searchsorted(self.starts, stretches[:, 1], side="left") - first, 0)
        which = np.repeat(np.arange(len(stretches)), counts)
        run = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts) + first[which]
        inside = np.stack(
            [np.maximum(self.starts[run], stretches[which, 0]), np.minimum(stops[run], stretches[which, 1])], axis=1
        )
        found: Ids = inside + (self.begins[run] - self.starts[run])[:, None]
        return found


class Split:
    """One split of a tokens artifact: its shards, read as one stream."""

    def __init__(
        self, locate: Locate, name: str, dtype: np.dtype[Any], shards: Sequence[dict[str, Any]], vocab_size: int
    ) -> None:
        self.name = name
        self.dtype = dtype
        self._vocab_size = vocab_size
        self.shards = tuple(str(shard["name"]) for shard in shards)
        self._locate = locate
        sizes = [(int(shard["tokens"]), int(shard["documents"])) for shard in shards]
        self.starts, self._documents = (
            np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
            for counts in (zip(*sizes, strict=True) if sizes else ((), ()))
        )
        self._open = lru_cache(maxsize=MOST_OPEN)(self._opened)
        self._ends = lru_cache(maxsize=16)(self._read_ends)

    def check(self) -> None:
        """Refuse shards that are missing or cut short, without reading them. Raises ArtifactError."""
        for index, shard in enumerate(self.shards):
            tokens, documents = self._sizes(index)
            _check_size(self._locate(f"{shard}.bin"), tokens * self.dtype.itemsize)
            ends = self._locate(f"{shard}.ends")
            _check_size(ends, documents * 8)
            if documents and int(np.fromfile(ends, "<u8", 1, offset=(documents - 1) * 8)[0]) != tokens:
                raise ArtifactError(f"{ends}: does not end where its tokens end: the shard is corrupt")

    def __len__(self) -> int:
        """Number of tokens."""
        return int(self.starts[-1])

    def gather(self, pieces: tuple[Ids, Ids, Ids, Ids], out: npt.NDArray[Any]) -> None:
        """Read what `Runs.pieces` tells into (n, width), in the dtype of the shards.

        Raises ArtifactError when a shard is cut short, cannot be read or holds ids beyond the vocabulary.
        """
        which, column, start, length = pieces
        shard = np.searchsorted(self.starts, start, side="right") - 1
        size = self.dtype.itemsize
        at = ((which * out.shape[1] + column) * size).tolist()
        offset = ((start - self.starts[shard]) * size).tolist()
        memory = memoryview(out).cast("B")  # type: ignore[arg-type]  # numpy's own stubs leave this out
        # A microsecond for each piece decides the speed of all this: nothing is looked up twice in here.
        read, current, file = os.preadv, -1, None
        for to, index, begin, wanted in zip(at, shard.tolist(), offset, (length * size).tolist(), strict=True):
            if index != current or file is None:
                current, file = index, self._open(index)
            part = memory[to : to + wanted]
            try:
                got = read(file.number, (part,), begin)
            except OSError as error:
                raise ArtifactError(f"{file.path}: cannot be read: {error.strerror}") from None
            if got != wanted:
                self._go_on(file, part, begin, got)
        filled = np.zeros(len(out), bool)
        filled[which] = True
        if int((out if filled.all() else out[filled]).max(initial=0)) >= self._vocab_size:
            raise self._beyond(pieces, out)

    def read(self, start: int, stop: int) -> Ids:
        """Tokens [start, stop) of the stream, as int64."""
        out = np.empty((1, stop - start), self.dtype)
        if stop > start:
            self.gather(self.whole.pieces(np.array([start]), stop - start), out)
        ids: Ids = out[0].astype(np.int64)
        return ids

    @cached_property
    def whole(self) -> Runs:
        """The split as it comes."""
        return whole(np.diff(self.starts))

    @cached_property
    def domains(self) -> dict[str, Runs]:
        """Where the documents of each domain are; neighbours are one run. Raises ArtifactError."""
        return domains_of(self.sidecars(), np.diff(self.starts))

    def sidecars(self) -> list[Path]:
        """The tables beside the shards, on this machine."""
        return [self._locate(f"{shard}.parquet") for shard in self.shards]

    def streams(self, mixed: bool) -> dict[str, Runs]:
        """What is drawn from: each domain, or, where there is no mixture, the one stream of all."""
        return self.domains if mixed else {ALL: self.whole}

    @cached_property
    def document_ends(self) -> Ids:
        """The end of every document in the stream, its end-of-text token included."""
        parts = [self._ends(index).astype(np.int64) + self.starts[index] for index in range(len(self.shards))]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def document_at(self, position: int) -> tuple[int, int]:
        """The document that a token of the stream belongs to, by its number in the split, and the offset in it."""
        shard = int(np.searchsorted(self.starts, position, side="right")) - 1
        within = position - int(self.starts[shard])
        ends = self._ends(shard)
        index = int(np.searchsorted(ends, within, side="right"))
        return int(self._documents[shard]) + index, within - (int(ends[index - 1]) if index else 0)

    def document(self, number: int) -> tuple[int, int]:
        """From where up to where in the stream a document is, its end-of-text token included.

        Raises IndexError when the split has fewer.
        """
        if not 0 <= number < int(self._documents[-1]):
            raise IndexError(f"document {number}: the split {self.name} has {int(self._documents[-1])}")
        shard, index = self._shard_of(number)
        ends, base = self._ends(shard), int(self.starts[shard])
        return base + (int(ends[index - 1]) if index else 0), base + int(ends[index])

    def document_id(self, number: int) -> str:
        """The id of a document: the sha256 of its text."""
        shard, index = self._shard_of(number)
        return str(_sidecar(self._locate(f"{self.shards[shard]}.parquet"), "document").column(0)[index])

    def close(self) -> None:
        """Close the files. The split can be read again."""
        self._open.cache_clear()
        self._ends.cache_clear()

    def _shard_of(self, number: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._documents, number, side="right")) - 1
        return shard, number - int(self._documents[shard])

    def _sizes(self, shard: int) -> tuple[int, int]:
        return int(np.diff(self.starts)[shard]), int(np.diff(self._documents)[shard])

    def _read_ends(self, shard: int) -> npt.NDArray[np.uint64]:
        return _numbers(self._locate(f"{self.shards[shard]}.ends"), self._sizes(shard)[1])

    def _opened(self, shard: int) -> "_File":
        return _File(self._locate(f"{self.shards[shard]}.bin"))

    def _beyond(self, pieces: tuple[Ids, Ids, Ids, Ids], out: npt.NDArray[Any]) -> ArtifactError:
        """What to say where the model has no row for an id: looking it up would end in an IndexError, or a trap."""
        for row, column, start, length in zip(*(part.tolist() for part in pieces), strict=True):
            odd = np.flatnonzero(out[row, column : column + length] >= self._vocab_size)
            if len(odd):
                shard = int(np.searchsorted(self.starts, start, side="right")) - 1
                path, at = self._locate(f"{self.shards[shard]}.bin"), start + int(odd[0]) - int(self.starts[shard])
                return ArtifactError(
                    f"{path}: token {at} has id {out[row, column + odd[0]]}, tokens.json says vocab_size "
                    f"{self._vocab_size}: the shard is corrupt, or of another tokenizer: run the tokenize stage again"
                )
        raise AssertionError("no piece has such an id")

    def _go_on(self, file: "_File", memory: memoryview, begin: int, got: int) -> None:
        """Read on where a read came back early, as it may for a signal; at the file's end there is nothing."""
        while got < len(memory):
            more = os.preadv(file.number, (memory[got:],), begin + got)
            if not more:
                raise ArtifactError(f"{file.path}: ends before byte {begin + len(memory)}: the shard was cut short")
            got += more


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

    @property
    def vocabulary(self) -> Vocabulary | None:
        """What masking has to know of the tokens; None where there is no mask token."""
        return None if self.mask is None else Vocabulary(self.vocab_size, self.end_of_text, self.mask)

    @classmethod
    def open(cls, root: Path | str | Stored, cache: Path | None = None, manifest: str | None = None) -> "Tokens":
        """Open a folder; or what is in a store or at a URL, whose files are fetched as they are needed, and verified.

        Args:
            cache: the folder that a URL's files are fetched into; processes and runs may share it.
            manifest: the sha256 that tokens.json must have, where it is known.

        Raises:
            ArtifactError: a file is missing, cut short, damaged or not what tokens.json says.
            StoreError: the store or URL cannot be reached, or a file is not there.
        """
        if isinstance(root, Stored):
            stored = Cache.of_store(root)
            return cls.parse(stored.manifest, f"tokens.json of {root.digest}", stored.path)
        remote = isinstance(root, str) and "://" in root
        name = f"{root}/tokens.json" if remote else str(Path(root) / "tokens.json")
        if remote:
            if cache is None:
                raise ArtifactError(f"{root}: tokens elsewhere need a cache, a folder to fetch them into")
            fetched = Cache.of_url(str(root), cache)
            text = fetched.manifest
            locate: Locate = fetched.path
        else:
            text, locate = _read_manifest(Path(root) / "tokens.json"), partial(Path, root)
        tokens = cls.parse(text, name, locate)
        if manifest is not None and tokens.manifest != manifest:
            raise ArtifactError(f"{name}: has sha256 {tokens.manifest}, not {manifest}: these are other tokens")
        if not remote:
            tokens.train.check()
            tokens.development.check()
        return tokens

    @classmethod
    def parse(cls, text: bytes, name: str, locate: Locate) -> "Tokens":
        """The artifact that a tokens.json describes. Raises ArtifactError when it is none."""
        try:
            said = json.loads(text)
            if said["format"] != FORMAT:
                raise ArtifactError(f"{name}: is of format {said['format']!r}; this trainer reads {FORMAT}")
            if said["dtype"] not in DTYPES:
                raise ArtifactError(f"{name}: dtype is {said['dtype']!r}, not {' or '.join(DTYPES)}: tokenize again")
            dtype = np.dtype(DTYPES[said["dtype"]])
            vocab_size, end_of_text, mask = int(said["vocab_size"]), int(said["end_of_text"]), said.get("mask")
            listed = {split: said["splits"][split]["shards"] for split in SPLITS}
            splits = {split: Split(locate, split, dtype, shards, vocab_size) for split, shards in listed.items()}
            beyond = [one for one in (end_of_text, mask) if one is not None and not 0 <= one < vocab_size]
            if beyond:
                raise ArtifactError(f"{name}: a special token has id {beyond[0]}, beyond vocab_size {vocab_size}")
            return cls(
                **splits,
                vocab_size=vocab_size,
                end_of_text=end_of_text,
                mask=mask,
                tokenizer=str(said["tokenizer"]),
                manifest=hashlib.sha256(text).hexdigest(),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{name}: is not a tokens manifest ({error!r})") from None


def whole(sizes: Sequence[int] | Ids) -> Runs:
    """A split as it comes, one shard after another. sizes: the tokens of each."""
    stops = np.cumsum(np.asarray(sizes, np.int64))
    starts = stops - np.asarray(sizes, np.int64)
    filled = stops > starts
    return Runs.of(starts[filled], stops[filled])


def domains_of(sidecars: Sequence[Path], sizes: Sequence[int] | Ids) -> dict[str, Runs]:
    """Where the documents of each domain are in a split, from the tables beside its shards alone.

    Args:
        sizes: tokens of each shard.

    Raises:
        ArtifactError: a table cannot be read, or does not end where its shard ends.
    """
    starts: dict[str, list[Ids]] = {}
    stops: dict[str, list[Ids]] = {}
    base = 0
    for path, size in zip(sidecars, sizes, strict=True):
        for name, start, stop in _runs_of(path, int(size)):
            starts.setdefault(name, []).append(start + base)
            stops.setdefault(name, []).append(stop + base)
        base += int(size)
    return {name: Runs.of(np.concatenate(starts[name]), np.concatenate(stops[name])) for name in sorted(starts)}


def _runs_of(path: Path, size: int) -> Iterator[tuple[str, Ids, Ids]]:
    """Each domain of a shard, and from where up to where its runs are."""
    table = _sidecar(path, "domain", "length")
    ends = np.cumsum(table["length"].to_numpy().astype(np.int64))
    if (int(ends[-1]) if len(ends) else 0) != size:
        raise ArtifactError(f"{path}: tells of {ends[-1] if len(ends) else 0} tokens, its shard has {size}")
    if not len(ends):
        return
    column = table["domain"].unify_dictionaries().combine_chunks()
    domain = column.indices.to_numpy()
    last = np.append(np.flatnonzero(domain[1:] != domain[:-1]), len(domain) - 1)
    stops = ends[last]
    starts = np.append(0, stops[:-1])
    for index, name in enumerate(column.dictionary.to_pylist()):
        chosen = (domain[last] == index) & (stops > starts)
        if chosen.any():
            yield str(name), starts[chosen], stops[chosen]


def _sidecar(path: Path, *columns: str) -> Any:
    try:
        return pq.read_table(path, columns=list(columns), read_dictionary=["domain"])
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file: the tokens artifact is incomplete") from None
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ArtifactError(f"{path}: is not the table of a token shard: {one_line(error)}") from None


class _File:
    """A file that is open for as long as something refers to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = -1
        try:
            self.number = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from None

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


def _numbers(path: Path, count: int) -> npt.NDArray[np.uint64]:
    _check_size(path, count * 8)
    return np.fromfile(path, "<u8", count)


def _read_manifest(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file: run the tokenize stage first") from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from None


def _check_size(path: Path, wanted: int) -> None:
    """Raises ArtifactError when a file has another size in bytes."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file: the tokens artifact is incomplete") from None
    if size != wanted:
        raise ArtifactError(f"{path}: has {size} bytes, tokens.json says {wanted}: the shard is corrupt")
