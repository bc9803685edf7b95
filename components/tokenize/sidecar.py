"""The table beside a token shard, read: which documents it holds, and where."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cairn.errors import ArtifactError, one_line


def documents_of(path: Path) -> list[str]:
    """Ids of the documents of a token shard, in order. Raises ArtifactError when the table cannot be read."""
    return [str(one) for one in _read(path, "document").column(0).to_pylist()]


def places_of(path: Path) -> list[tuple[str, int, int]]:
    """The documents of a token shard in order: id, offset, length. Raises ArtifactError when it cannot be read."""
    table = _read(path, "document", "offset", "length")
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def stretches_of(path: Path, documents: set[str]) -> npt.NDArray[np.int64]:
    """Where the tokens of these documents are in a token shard: (n, 2), from and up to, in order.

    Raises ArtifactError when the table cannot be read.
    """
    table = _read(path, "document", "offset", "length")
    chosen = np.fromiter((str(one) in documents for one in table.column(0).to_pylist()), bool, table.num_rows)
    offsets, lengths = (table.column(name).to_numpy().astype(np.int64)[chosen] for name in ("offset", "length"))
    return np.stack([offsets, offsets + lengths], axis=1)


def _read(path: Path, *columns: str) -> Any:
    try:
        return pq.read_table(path, columns=list(columns))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ArtifactError(f"{path}: is not the table of a token shard: {one_line(error)}") from None
