"""The documents artifact: records in shards of zstd-compressed JSON lines."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import zstandard

from cairn.errors import ArtifactError, one_line
from components.ingest.unpacking import unzstd

SPLITS = ("train", "development", "heldout")
LEVEL = 3
AGAIN = "run the ingest stage again"


class ShardWriter:
    """Writes records into `00000.jsonl.zst`, `00001.jsonl.zst`, … of bounded size. The same records, the same bytes."""

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._limit = folder, shard_bytes
        self._count = self._size = 0
        self._file: BinaryIO | None = None
        self._frame: Any = None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def write(self, record: dict[str, Any]) -> None:
        """Add a record; a new shard begins when it does not fit into this one."""
        line = orjson.dumps(record) + b"\n"
        if self._file is not None and self._size + len(line) > self._limit:
            self._close()
        if self._file is None:
            self._file = open(self._folder / f"{self._count:05d}.jsonl.zst", "wb")  # noqa: SIM115 - closed in _close
            self._frame = zstandard.ZstdCompressor(LEVEL).stream_writer(self._file, closefd=False)
            self._count += 1
            self._size = 0
        self._frame.write(line)
        self._size += len(line)

    def _close(self) -> None:
        if self._file is not None:
            self._frame.close()
            # A finished unit of work is vouched for by a result that is synced: its records must not come later.
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None


def shards(documents: Path, split: str) -> list[Path]:
    """The shards of a split, in order. Raises ArtifactError when there is no such artifact."""
    if not (documents / "ledger.json").exists():
        raise ArtifactError(f"{documents}: is not a documents artifact: run the ingest stage first")
    return shards_in(documents / split)


def shards_in(folder: Path) -> list[Path]:
    """The shards that a `ShardWriter` wrote into a folder, in order."""
    return sorted(folder.glob("*.jsonl.zst"))


def read_shard(path: Path) -> Iterator[dict[str, Any]]:
    """The records of one shard. Raises ArtifactError, naming the line, when it is cut short or damaged."""
    number = 0
    try:
        with open(path, "rb") as packed:
            for line in unzstd(packed):
                number += 1
                yield orjson.loads(line)
        if number == 0:  # a shard is begun for a record
            raise EOFError
    except EOFError:
        raise ArtifactError(f"{path}: line {number + 1}: is cut short: {AGAIN}") from None
    except zstandard.ZstdError as error:
        raise ArtifactError(f"{path}: line {number + 1}: is damaged: {one_line(error)}: {AGAIN}") from None
    except orjson.JSONDecodeError as error:
        raise ArtifactError(f"{path}: line {number}: is damaged: {one_line(error)}: {AGAIN}") from None
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such shard: {AGAIN}") from None


def read_split(documents: Path, split: str) -> Iterator[dict[str, Any]]:
    """The records of a split, in order."""
    for path in shards(documents, split):
        yield from read_shard(path)
