"""Token shards written by hand, in the format of the tokens artifact."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

END = 0


def write_tokens(root: Path, documents: dict[str, list[list[int]]], vocab_size: int = 64) -> Path:
    """A tokens artifact with one shard for each split; `documents` holds the ids of each, without end-of-text."""
    splits = {}
    for split, texts in documents.items():
        (root / split).mkdir(parents=True)
        ids = [[*text, END] for text in texts]
        np.array([token for text in ids for token in text], "<u2").tofile(root / split / "00000.bin")
        lengths = [len(text) for text in ids]
        np.cumsum(lengths).astype("<u8").tofile(root / split / "00000.ends")
        table = {
            "document": [f"{index:064x}" for index in range(len(ids))],
            "domain": ["odd" if index % 2 else "even" for index in range(len(ids))],
            "length": lengths,
            "bytes": [3 * length for length in lengths],
        }
        pq.write_table(pa.table(table), root / split / "00000.parquet")
        shard = {"name": f"{split}/00000", "tokens": sum(lengths), "documents": len(ids), "bytes": 3 * sum(lengths)}
        splits[split] = {"shards": [shard]}
    said = {
        "format": "cairn-tokens-v1",
        "dtype": "uint16",
        "vocab_size": vocab_size,
        "end_of_text": END,
        "tokenizer": "0" * 64,
        "splits": splits,
    }
    (root / "tokens.json").write_text(json.dumps(said))
    return root


def counting(root: Path) -> Path:
    """Documents that count upwards from different starts: easily learnt, and no two windows alike."""

    def text(seed: int) -> list[int]:
        return [1 + (seed * 7 + position * (1 + seed % 3)) % 63 for position in range(40 + seed % 11)]

    return write_tokens(
        root, {"train": [text(seed) for seed in range(60)], "development": [text(seed) for seed in range(60, 66)]}
    )
