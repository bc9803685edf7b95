"""Where a document is: an index by id over all token shards of a split, sorted, looked up without being read.

    <split>.index   one record of 52 bytes for each document, in order of the ids, little-endian but for the id:
                    id (sha256, 32 bytes), number of the shard (uint32), offset in it and length in tokens (uint64)

A document that is there twice has two records, in the order of the split. The file is mapped into memory: a search
touches some twenty pages of it, whatever its size.
"""

import mmap
import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from cairn.errors import ArtifactError, StageError

ID = 32
RECORD = np.dtype([("document", f"S{ID}"), ("shard", "<u4"), ("offset", "<u8"), ("length", "<u8")])
AT_ONCE = 4_000_000  # records sorted in memory: some 200 MB
Records = npt.NDArray[Any]


@dataclass(frozen=True)
class Place:
    """Where a document is in a split."""

    shard: int
    """Number of the token shard."""
    offset: int
    """Its first token in the shard."""
    length: int
    """Tokens, with the one that ends it."""


class DocumentIndex:
    """The index of a split, open for search."""

    def __init__(self, path: Path, documents: int) -> None:
        """Raises ArtifactError when the file is missing, or is not of so many documents."""
        self.path, self._count = path, documents
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size != documents * RECORD.itemsize:
                    raise ArtifactError(
                        f"{path}: has {size:,} bytes, an index of {documents:,} documents has "
                        f"{documents * RECORD.itemsize:,}: run the tokenize stage again"
                    )
                # An empty file cannot be mapped.
                self._map: mmap.mmap | bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be read: {error.strerror}: run the tokenize stage again") from None

    def __len__(self) -> int:
        """Number of documents."""
        return self._count

    def __enter__(self) -> "DocumentIndex":
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self._map, mmap.mmap):
            self._map.close()

    def find(self, document: str) -> list[Place]:
        """Where the document of this id is; several places where the same text is there more than once."""
        wanted = _packed(document)
        if wanted is None:
            return []
        first = bisect_left(range(self._count), wanted, key=self._id)
        places = []
        for number in range(first, self._count):
            if self._id(number) != wanted:
                break
            places.append(self._place(number))
        return places

    def _id(self, number: int) -> bytes:
        at = number * RECORD.itemsize
        return self._map[at : at + ID]

    def _place(self, number: int) -> Place:
        [(_, shard, offset, length)] = np.frombuffer(self._map, RECORD, 1, number * RECORD.itemsize).tolist()
        return Place(shard, offset, length)


def write_index(path: Path, sidecars: Sequence[Path], scratch: Path, at_once: int = AT_ONCE) -> None:
    """Write the index of a split.

    Args:
        sidecars: the tables beside its token shards, in order.
        scratch: an empty folder for what does not fit into memory at once.
        at_once: records that may be sorted in memory; more are divided by the first byte of their ids.

    Raises StageError when a document's id is no sha256.
    """
    total = sum(pq.read_metadata(sidecar).num_rows for sidecar in sidecars)
    with open(path, "wb") as file:
        if total <= at_once:
            file.write(_sorted(list(_records(sidecars))).tobytes())
            return
        parts = [scratch / f"{byte:02x}" for byte in range(256)]
        with ExitStack() as stack:
            files = [stack.enter_context(open(part, "wb")) for part in parts]
            for records in _records(sidecars):
                leading = records.view(np.uint8).reshape(len(records), -1)[:, 0]
                for byte in np.unique(leading).tolist():
                    files[byte].write(records[leading == byte].tobytes())
        for part in parts:
            file.write(_sorted([np.fromfile(part, RECORD)]).tobytes())
            part.unlink()


def _sorted(parts: Sequence[Records]) -> Records:
    records: Records = np.concatenate(parts) if parts else np.empty(0, RECORD)
    # Records come in the order of the split, which documents of one id keep.
    return records[np.argsort(records["document"], kind="stable")]


def _records(sidecars: Sequence[Path]) -> Iterator[Records]:
    for shard, sidecar in enumerate(sidecars):
        table = pq.read_table(sidecar, columns=["document", "offset", "length"])
        records = np.empty(table.num_rows, RECORD)
        ids = [_packed(document) for document in table["document"].to_pylist()]
        if None in ids:
            raise StageError(f"{sidecar}: row {ids.index(None)}: the id of a document is not a sha256")
        records["document"] = np.frombuffer(b"".join(one for one in ids if one is not None), f"S{ID}")
        records["shard"] = shard
        for name in ("offset", "length"):
            records[name] = table[name].to_numpy()
        yield records


def _packed(document: str) -> bytes | None:
    """An id as the index holds it; None where it is none."""
    try:
        packed = bytes.fromhex(document)
    except ValueError:
        return None
    return packed if len(packed) == ID else None
