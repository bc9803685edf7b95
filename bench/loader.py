"""How fast the trainer's rows are read: random sequences from the page cache, on one core.

    python bench/loader.py [FOLDER]   # FOLDER: where a shard of 1 GB is written, and removed again (default: /tmp)

Ours is `Batches`: the order computed, the rows of a step read, as int64, with their domains. The peers read what
nanoGPT reads, `torch.stack` of slices of a memory-mapped file, inputs and targets; and the same with a `DataLoader` of
PyTorch without workers around it. They draw positions with `torch.randint`, which is less than an order that takes
every sequence once. All on one thread, in alternation, in processor seconds; a token is counted once, not as an input
and as a target. Then what the loop of a training waits for data: the time that `Loader.take` takes, beside a step of
arithmetic of the size of the CPU's.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from components.pretrain.launch import CPU_SPEED
from trainer.batches import Batches
from trainer.loader import Loader
from trainer.recipe import ModelShape, Phase, Training
from trainer.tokens import Tokens

TOKENS = 500_000_000
DOCUMENT = 700  # tokens
SHAPES = ((1024, 512), (2048, 256))  # context, sequences in a step
ROUNDS, STEPS = 7, 20
GOAL = 400e6  # tokens a second
MOST_WAIT = 0.01  # of the loop


def main() -> int:
    torch.set_num_threads(1)
    if CPU_SPEED.items() - os.environ.items():  # the trainer runs with these, and so does everybody here
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **CPU_SPEED})
    at = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=at, prefix="cairn-bench-") as folder:
        tokens = Tokens.open(written(Path(folder)))
        speeds = {f"{context}x{batch}": speed(tokens, Path(folder), context, batch) for context, batch in SHAPES}
        wait = waited(tokens)
    long = speeds[f"{SHAPES[-1][0]}x{SHAPES[-1][1]}"]
    result = {
        "bench": "loader",
        "ours": long["ours"],
        "peer": long["nanogpt"],
        "ratio": round(long["ours"] / long["nanogpt"], 2),
        "unit": "million tokens for each second of a core (peer: nanoGPT's memmap and stack)",
        "by_shape": speeds,
        "data_wait_share": wait,
    }
    print(json.dumps(result))
    return 0 if long["ours"] * 1e6 >= GOAL and wait < MOST_WAIT else 1


def written(folder: Path) -> Path:
    """One shard of random tokens, all of which are in the page cache then."""
    (folder / "train").mkdir()
    random = np.random.default_rng(0)
    with open(folder / "train" / "00000.bin", "wb") as file:
        for _ in range(10):
            file.write(random.integers(1, 50_000, TOKENS // 10, dtype=np.uint16).data)
    documents = TOKENS // DOCUMENT
    lengths = np.full(documents, DOCUMENT)
    lengths[-1] += TOKENS - documents * DOCUMENT
    np.cumsum(lengths).astype("<u8").tofile(folder / "train" / "00000.ends")
    domain = pa.DictionaryArray.from_arrays(np.arange(documents, dtype=np.int32) // 50 % 2, ["code", "text"])
    pq.write_table(pa.table({"domain": domain, "length": lengths}), folder / "train" / "00000.parquet")
    shard = {"name": "train/00000", "tokens": TOKENS, "documents": documents}
    said = {"format": "cairn-tokens-v1", "dtype": "uint16", "vocab_size": 50_257, "end_of_text": 0, "tokenizer": ""}
    said["splits"] = {"train": {"shards": [shard]}, "development": {"shards": []}}
    (folder / "tokens.json").write_text(json.dumps(said))
    return folder


def recipe(context: int, batch: int, mixture: tuple[Phase, ...] = ()) -> Training:
    shape = ModelShape(layers=1, width=64, heads=1, kv_heads=1, head_dim=64, mlp_width=64, context=context)
    return Training(model=shape, steps=100_000, batch=batch, micro_batch=batch, mixture=mixture, document_mask=False)


def speed(tokens: Tokens, folder: Path, context: int, batch: int) -> dict[str, float]:
    """Millions of tokens for each processor second, by variant; the medians of rounds that alternate."""
    stream = np.memmap(folder / "train" / "00000.bin", np.uint16, "r")
    plain = Batches(recipe(context, batch), tokens)
    mixture = Batches(recipe(context, batch, (Phase(weights={"code": 0.7, "text": 0.3}),)), tokens)
    loaded = iter(
        torch.utils.data.DataLoader(
            Sequences(stream, context), batch, sampler=torch.randint(len(stream) - context, (10_000_000,)).tolist()
        )
    )
    variants: dict[str, Callable[[int], object]] = {
        "ours": lambda step: plain.rows(step, 0, batch),
        "ours_mixture": lambda step: mixture.rows(step, 0, batch),
        "ours_before_int64": lambda step: plain.raw(step, 0, batch),
        "nanogpt": lambda _: nanogpt(stream, context, batch),
        "dataloader": lambda _: next(loaded),
    }
    found: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(ROUNDS + 1):
        for name, work in variants.items():
            began = time.process_time()
            for step in range(STEPS):
                work(turn * STEPS + step)
            if turn:  # the first warms up
                found[name].append(STEPS * batch * context / (time.process_time() - began) / 1e6)
    speeds = {name: round(median(each), 1) for name, each in found.items()}
    print(f"context {context}, {batch} sequences: {speeds} million tokens a processor second")
    return speeds


def nanogpt(stream: npt.NDArray[np.uint16], context: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Its `get_batch`."""
    at = torch.randint(len(stream) - context, (batch,)).tolist()
    inputs = torch.stack([torch.from_numpy(stream[one : one + context].astype(np.int64)) for one in at])
    targets = torch.stack([torch.from_numpy(stream[one + 1 : one + 1 + context].astype(np.int64)) for one in at])
    return inputs, targets


@dataclass
class Sequences(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """What nanoGPT reads, one sequence at a time."""

    stream: npt.NDArray[np.uint16]
    context: int

    def __len__(self) -> int:
        return len(self.stream) - self.context

    def __getitem__(self, at: int) -> tuple[torch.Tensor, torch.Tensor]:
        window = torch.from_numpy(self.stream[at : at + self.context + 1].astype(np.int64))
        return window[:-1], window[1:]


@dataclass
class Whole:
    """All rows of a step, on the CPU."""

    data_rank: int = 0
    data_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def waited(tokens: Tokens) -> float:
    """The share of a loop that waits for its rows, where a step multiplies matrices for some 100 ms."""
    training = recipe(1024, 64)
    loader = Loader(Batches(training, tokens), training, Whole())
    matrix = torch.randn(1024, 1024)
    waiting, began = 0.0, 0.0
    for step in range(60):
        if step == 10:
            waiting, began = 0.0, time.monotonic()
        asked = time.monotonic()
        loader.take(step)
        waiting += time.monotonic() - asked
        for _ in range(8):
            matrix @ matrix
    share = waiting / (time.monotonic() - began)
    loader.close()
    print(f"data wait: {share:.2%} of the loop, with 64 sequences of 1,024 in a step")
    return round(share, 5)


if __name__ == "__main__":
    sys.exit(main())
