"""The table beside a token shard, read: which documents it holds."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cairn.errors import ArtifactError, one_line


def documents_of(path: Path) -> list[str]:
    """Ids of the documents of a token shard, in order. Raises ArtifactError when the table cannot be read."""
    try:
        return [str(one) for one in pq.read_table(path, columns=["document"]).column(0).to_pylist()]
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ArtifactError(f"{path}: is not the table of a token shard: {one_line(error)}") from None
