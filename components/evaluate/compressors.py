"""What general-purpose compressors make of the same held-out text, after they have seen the train text.

PPMd: bits = compressed(train + held-out) - compressed(train). Zstandard, level 19: with a dictionary trained on the
train text. The documents of a domain are one text, so a compressor also learns from those before; the model does not.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pyppmd
import zstandard

from cairn.errors import StageError
from components.ingest.documents import read_split

PPMD_MEMORY = 1 << 30  # bytes; only what the text needs is touched
ZSTD_LEVEL = 19


@dataclass(frozen=True)
class Job:
    """One compressor, over all held-out texts."""

    name: str
    setting: int
    """Order of PPMd, or bytes of the dictionary."""
    train: Path
    texts: tuple[Path, ...]


def compress(
    documents: Path, texts: dict[str, bytes], orders: Sequence[int], dictionaries: Sequence[int], prime: int,
    work: Path, workers: int,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Bits per byte of every text under every compressor: `{"ppmd_12": {text name: bits per byte}}`.

    Args:
        texts: held-out text by name.
        prime: bytes of train text to prime with, at most.
    """
    work.mkdir(parents=True, exist_ok=True)
    train = work / "train.txt"
    with open(train, "wb") as file:
        for record in read_split(documents, "train"):
            file.write(record["text"].encode())
    if train.stat().st_size > prime:
        train.write_bytes(train.read_bytes()[-prime:])
    paths = []
    for number, text in enumerate(texts.values()):
        paths.append(work / f"{number}.txt")
        paths[-1].write_bytes(text)
    jobs = [Job(f"ppmd_{order}", order, train, tuple(paths)) for order in sorted(orders, reverse=True)]
    jobs += [Job(f"zstd_19_dict_{size // 1024}k", size, train, tuple(paths)) for size in dictionaries]
    # Fresh processes: forking (below) a process with torch's threads in it would be asking for trouble. Two at a time
    # keeps the memory of the large orders bounded.
    with ProcessPoolExecutor(min(2, workers), mp_context=get_context("spawn")) as pool:
        sizes = dict(zip((job.name for job in jobs), pool.map(_sizes, jobs), strict=True))
    return {
        name: {text: 8 * size / len(data) for (text, data), size in zip(texts.items(), found, strict=True)}
        for name, found in sorted(sizes.items())
    }


def _sizes(job: Job) -> list[int]:
    return _ppmd(job) if job.name.startswith("ppmd") else _zstd(job)


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
        size = len(encoder.encode(text)) + len(encoder.flush())
        os.write(writing, size.to_bytes(8, "little"))
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
