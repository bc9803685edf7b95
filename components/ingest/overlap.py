"""The overlap of held-out text with the training split: the share of a document's word 8-grams that occur in it.

It is written down with every held-out and development document, so that results can be given without what leaked.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cairn.lineage.artifact import written_aside
from cairn.shards import map_shards
from components.ingest.documents import SPLITS, ShardWriter, read_shard, shards_in
from components.ingest.ngrams import Hasher, Hashes, occurring


@dataclass(frozen=True)
class Part:
    """One shard of the training split, and where the 8-grams to look for are."""

    shard: Path
    wanted: Path
    found: Path
    """Is written: one bit for each of `wanted`."""


def measure_overlap(documents: Path, held: Path, *, shard_bytes: int, work: Path, workers: int) -> None:
    """Write the held-out and development documents of `held` to `documents`, each with its `overlap`, 0 to 1.

    Args:
        documents: holds the training split.
        work: keeps what was found in each of its shards.
    """
    hasher = Hasher()
    parts = [
        hashes for split in SPLITS[1:] for record in _records(held / split) for hashes in hasher.hashes(record["text"])
    ]
    wanted: Hashes = np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint64)
    del parts
    found = _find(wanted, documents / "train", work, workers)
    for split in SPLITS[1:]:
        with ShardWriter(documents / split, shard_bytes) as shard:
            for record in _records(held / split):
                number = leaked = 0
                for hashes in hasher.hashes(record["text"]):
                    number += len(hashes)
                    leaked += int(found[np.searchsorted(wanted, hashes)].sum())
                shard.write({**record, "overlap": round(leaked / number, 6) if number else 0.0})


def _find(wanted: Hashes, train: Path, work: Path, workers: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """For each of `wanted`, 1 when it occurs in the training split and 0 when not."""
    named = work / "wanted.npy"
    with written_aside(named) as aside, open(aside, "wb") as file:
        np.save(file, wanted)
    parts = [Part(shard, named, work / f"{shard.stem}.bits") for shard in shards_in(train)]
    bits = np.zeros((len(wanted) + 7) // 8, np.uint8)
    for result in map_shards(find, parts, workers=workers, done=work / "done", label="overlap"):
        bits |= np.frombuffer(work.joinpath(result["found"]).read_bytes(), np.uint8)
    return np.unpackbits(bits, count=len(wanted))


def find(part: Part) -> dict[str, Any]:
    """Look for the wanted 8-grams in one shard."""
    wanted = np.load(part.wanted, mmap_mode="r")
    hasher, found = Hasher(), np.zeros(len(wanted), bool)
    for record in read_shard(part.shard):
        for hashes in hasher.hashes(record["text"]):
            found[occurring(wanted, hashes)] = True
    with written_aside(part.found) as aside:
        aside.write_bytes(np.packbits(found).tobytes())
    return {"found": part.found.name}


def _records(folder: Path) -> Iterator[dict[str, Any]]:
    for shard in shards_in(folder):
        yield from read_shard(shard)
