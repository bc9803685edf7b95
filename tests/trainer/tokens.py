"""Token shards written by hand, in the format of the tokens artifact."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

END = 0


def write_tokens(
    root: Path,
    documents: dict[str, list[list[int]]],
    vocab_size: int = 64,
    shards: int = 1,
    domains: list[str] | None = None,
    mask: int | None = None,
    digests: bool = False,
) -> Path:
    """A tokens artifact; `documents` holds the ids of each document of a split, without end-of-text.

    Args:
        shards: of the train split, to which documents are dealt in order; every other split has one.
        mask: the mask token, where there is one.
        digests: whether tokens.json tells those of the shards. They follow the version of pyarrow.
        domains: of the train documents; otherwise they are of two domains in turn.
    """
    splits = {}
    for split, texts in documents.items():
        (root / split).mkdir(parents=True)
        ids = [[*text, END] for text in texts]
        lengths = np.array([len(text) for text in ids], np.int64)
        names = ["odd" if index % 2 else "even" for index in range(len(ids))]
        if split == "train" and domains is not None:
            names = domains
        said_of: list[dict[str, Any]] = []
        for part in np.array_split(np.arange(len(ids)), shards if split == "train" else 1):
            name = f"{split}/{len(said_of):05d}"
            path = root / f"{name}.bin"
            np.array([token for index in part for token in ids[index]], "<u2").tofile(path)
            np.cumsum(lengths[part]).astype("<u8").tofile(path.with_suffix(".ends"))
            table = {
                "document": [f"{index:064x}" for index in part],
                "domain": [names[index] for index in part],
                "length": lengths[part],
                "bytes": 3 * lengths[part],
            }
            pq.write_table(pa.table(table), path.with_suffix(".parquet"))
            size = int(lengths[part].sum())
            said_of.append({"name": name, "tokens": size, "documents": len(part), "bytes": 3 * size})
            if digests:
                said_of[-1]["sha256"] = {
                    suffix: hashlib.sha256(path.with_suffix(suffix).read_bytes()).hexdigest()
                    for suffix in (".bin", ".ends", ".parquet")
                }
        splits[split] = {"shards": said_of}
    said = {
        "format": "cairn-tokens-v1",
        "dtype": "uint16",
        "vocab_size": vocab_size,
        "end_of_text": END,
        **({} if mask is None else {"mask": mask}),
        "tokenizer": "0" * 64,
        "splits": splits,
    }
    (root / "tokens.json").write_text(json.dumps(said))
    return root


def counting(root: Path, digests: bool = False) -> Path:
    """Documents that count upwards from different starts: easily learnt, and no two windows alike."""

    def text(seed: int) -> list[int]:
        return [1 + (seed * 7 + position * (1 + seed % 3)) % 63 for position in range(40 + seed % 11)]

    texts = {"train": [text(seed) for seed in range(60)], "development": [text(seed) for seed in range(60, 66)]}
    return write_tokens(root, texts, digests=digests)
