"""What general-purpose compressors make of the same held-out text, after they have seen the train text.

PPMd: bits = compressed(train + held-out) - compressed(train). Zstandard, level 19: with a dictionary trained on the
train text. The documents of a domain are one text, so a compressor also learns from those before; the model does not.
"""

import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyppmd
import zstandard

from cairn.errors import StageError
from cairn.shards import map_shards
from components.ingest.documents import read_split

PPMD_MEMORY = 1 << 30  # bytes; only what the text needs is touched
ZSTD_LEVEL = 19
AT_ONCE = 2  # compressors that run at the same time: the large orders need much memory


@dataclass(frozen=True)
class Job:
    """One compressor, over all held-out texts."""

    name: str
    setting: int
    """Order of PPMd, or bytes of the dictionary."""
    train: Path
    texts: tuple[Path, ...]


def compress(
    documents: Path, texts: Mapping[str, Sequence[str]], orders: Sequence[int], dictionaries: Sequence[int], prime: int,
    work: Path, workers: int,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Bits per byte of every text under every compressor: `{"ppmd_12": {text name: bits per byte}}`.

    Args:
        texts: the held-out documents of each text, by its name.
        prime: bytes of train text to prime with, at most.
        work: keeps the texts, and what the finished compressors found.

    Raises:
        StageError: a compressor was killed.
    """
    work.mkdir(parents=True, exist_ok=True)
    train = work / "train.txt"
    train.write_bytes(_end_of_train(documents, prime))
    paths = {name: work / f"{number}.txt" for number, name in enumerate(texts)}
    for name, path in paths.items():
        with open(path, "wb") as file:
            file.writelines(text.encode() for text in texts[name])
    jobs = [Job(f"ppmd_{order}", order, train, tuple(paths.values())) for order in sorted(orders, reverse=True)]
    jobs += [Job(f"zstd_19_dict_{size // 1024}k", size, train, tuple(paths.values())) for size in dictionaries]
    sizes = map_shards(run, jobs, workers=min(AT_ONCE, workers), done=work / "done", label="compressors")
    found = {job.name: result["bytes"] for job, result in zip(jobs, sizes, strict=True)}
    return {
        name: {text: 8 * size / paths[text].stat().st_size for text, size in zip(paths, found[name], strict=True)}
        for name in sorted(found)
    }


def run(job: Job) -> dict[str, Any]:
    """The bytes that each text of the job is compressed to."""
    return {"bytes": _ppmd(job) if job.name.startswith("ppmd") else _zstd(job)}


def _end_of_train(documents: Path, size: int) -> bytes:
    """The last `size` bytes of the train text, with little more than that in memory."""
    kept: deque[bytes] = deque()
    total = 0
    for record in read_split(documents, "train"):
        kept.append(record["text"].encode())
        total += len(kept[-1])
        while total - len(kept[0]) >= size:
            total -= len(kept.popleft())
    return b"".join(kept)[-size:]


def _ppmd(job: Job) -> list[int]:
    encoder = pyppmd.Ppmd7Encoder(job.setting, PPMD_MEMORY)
    encoder.encode(job.train.read_bytes())
    # An encoder cannot be copied, and priming takes nearly all the time. A forked process is the copy.
    ends = _forked(encoder, b"")
    return [_forked(encoder, path.read_bytes()) - ends for path in job.texts]


def _forked(encoder: "pyppmd.Ppmd7Encoder", text: bytes) -> int:
    """Bytes that the encoder puts out for `text` and its end, found in a copy of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            size = len(encoder.encode(text)) + len(encoder.flush())
            os.write(writing, size.to_bytes(8, "little"))
        finally:
            # Whatever happened: a copy that lived on would go about its parent's business.
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        data = answer.read()
    os.waitpid(child, 0)
    if len(data) != 8:
        raise StageError("a compressor was killed (out of memory?): lower evaluate.ppmd_orders or prime_bytes")
    return int.from_bytes(data, "little")


def _zstd(job: Job) -> list[int]:
    text = job.train.read_bytes()
    size = 4096
    samples: list[bytes | bytearray | memoryview] = [text[start : start + size] for start in range(0, len(text), size)]
    try:
        # Fixed cover parameters: searching for better ones takes minutes and gains little.
        dictionary = zstandard.train_dictionary(min(job.setting, len(text) // 4), samples, k=1024, d=8)
    except zstandard.ZstdError:
        dictionary = zstandard.ZstdCompressionDict(text[-job.setting :])  # too little text to train on
    compressor = zstandard.ZstdCompressor(ZSTD_LEVEL, dict_data=dictionary)
    return [len(compressor.compress(path.read_bytes())) for path in job.texts]
