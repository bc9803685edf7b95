"""Tokens to a fixed held-out loss: the default recipe beside AdamW with a cosine whose rate was swept for this.

    python bench/recipe.py              # six minutes on two cores
    python bench/recipe.py --quick      # a minute, to see that it works; its numbers mean nothing

Same model, same text (../shared/data/docs-corpus, or $DOCS_CORPUS), same batches in the same order, same first weights.
The baseline trains once for every rate; the loss of its best run is the target. The default recipe then trains whole
runs of fewer tokens, each with a schedule of its own length, as anybody would who has less to spend: the least that
reaches the target is found by bisection, and between the last two runs by interpolation of the loss over the logarithm
of the tokens. The rates of the default recipe are those of the recipe: nothing is swept for it here.
"""

import argparse
import io
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import zstandard
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from trainer.loss import loss, next_token
from trainer.model import Transformer
from trainer.optim import Optimizers, clip
from trainer.recipe import ModelShape, Optimizer, Schedule
from trainer.schedule import rate

ROOT = Path(__file__).resolve().parent.parent
CORPUS = Path(os.environ.get("DOCS_CORPUS", ROOT.parent / "shared" / "data" / "docs-corpus"))
GOAL = 1.3
SHAPE = ModelShape(layers=4, width=256, heads=4, kv_heads=2, head_dim=64, mlp_width=704, context=256)
VOCABULARY, BATCH, STEPS = 4096, 16, 160
RATES = (0.001, 0.002, 0.004, 0.008)
SHARES = (0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 1.0)
"""Of the baseline's tokens, that the default recipe tries."""
HELDOUT = 128  # windows
END = "<|endoftext|>"


@dataclass(frozen=True)
class Text:
    """Windows of context + 1 tokens, int64."""

    train: Tensor
    heldout: Tensor


def documents(count: int) -> list[str]:
    """The first documents of the corpus, whole shards at a time."""
    found: list[str] = []
    for shard in sorted(CORPUS.glob("*.jsonl.zst")):
        with zstandard.ZstdDecompressor().stream_reader(shard.open("rb")) as stream:
            found += [json.loads(line)["text"] for line in io.TextIOWrapper(stream, encoding="utf-8")]
        if sum(map(len, found)) >= count:
            return found
    return found


def text(windows: int) -> Text:
    """Text for so many windows of training; the held-out ones are of other documents."""
    made = documents((windows + HELDOUT) * SHAPE.context * 6)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(made[::8], trainer)
    end = tokenizer.encode(END).ids
    parts: list[list[int]] = [[], []]
    for index, encoded in enumerate(tokenizer.encode_batch(made)):
        parts[index % 16 == 15] += end + encoded.ids
    size = SHAPE.context + 1
    train, heldout = (torch.tensor(ids[: len(ids) // size * size]).view(-1, size) for ids in parts)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    return Text(train[order[:windows]], heldout[:HELDOUT])


def run(optimizer: Optimizer, schedule: Schedule, steps: int, text: Text) -> float:
    """Train from the same first weights on the first batches; nats per held-out token."""
    model = Transformer(SHAPE, VOCABULARY, torch.bfloat16)
    model.initialize(0)
    optimizers = Optimizers(optimizer, model)
    for step in range(steps):
        found = loss(model, next_token(text.train[step * BATCH : (step + 1) * BATCH], None))
        found.total.backward()  # type: ignore[no-untyped-call]
        _, divisor = clip(model.parameters(), 1.0, found.counted.float())
        optimizers.step(rate(schedule, step, steps), divisor=divisor)
    with torch.no_grad():
        parts = [loss(model, next_token(part, None)) for part in torch.split(text.heldout, BATCH)]
    return float(sum(part.nats.sum() for part in parts) / sum(part.counted for part in parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few steps and rates")
    quick = parser.parse_args().quick
    if not any(CORPUS.glob("*.jsonl.zst")):
        print(f"{CORPUS}: no text there: nothing to measure")
        return
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    torch.set_flush_denormal(True)
    steps, rates = (12, RATES[:3]) if quick else (STEPS, RATES)
    began, used = time.monotonic(), time.process_time()
    data = text(steps * BATCH)
    assert len(data.train) == steps * BATCH, "the corpus is too small"

    def tokens(share: float) -> int:
        return round(share * steps) * BATCH * SHAPE.context

    print(f"{'recipe':28} {'tokens':>10} {'held-out loss':>14}")
    baseline: dict[float, float] = {}
    for lr in rates:
        baseline[lr] = run(Optimizer(matrices="adamw", lr=lr), Schedule(kind="cosine"), steps, data)
        print(f"{f'AdamW, cosine, rate {lr}':28} {tokens(1):>10,} {baseline[lr]:>14.4f}", flush=True)
    best = min(baseline, key=lambda lr: baseline[lr] if math.isfinite(baseline[lr]) else math.inf)
    target, inside = baseline[best], best not in (min(rates), max(rates))
    ours: dict[float, float] = {}
    low, high = -1, len(SHARES)  # the last that misses the target, the first that reaches it
    while high - low > 1:
        middle = (low + high) // 2
        share = SHARES[middle]
        ours[share] = run(Optimizer(), Schedule(), round(share * steps), data)
        print(f"{f'default, {share:.0%} of the tokens':28} {tokens(share):>10,} {ours[share]:>14.4f}", flush=True)
        low, high = (low, middle) if ours[share] <= target else (middle, high)
    reached = [share for share in ours if ours[share] <= target]
    missed = [share for share in ours if ours[share] > target]
    needed: float | None = tokens(min(reached)) if reached else None
    if reached and missed:
        one, other = max(missed), min(reached)
        part = (ours[one] - target) / (ours[one] - ours[other])
        needed = math.exp((1 - part) * math.log(tokens(one)) + part * math.log(tokens(other)))
    fewer = tokens(1) / needed if needed else None
    print(f"\nbest rate of the baseline: {best}, {'inside' if inside else 'AT THE EDGE of'} the range")
    told = f"{fewer:.2f} times fewer tokens" if fewer else "the target was not reached"
    print(f"default recipe: {told} to a held-out loss of {target:.4f} (goal {GOAL})")
    result = {
        "bench": "recipe",
        "target_loss": round(target, 4),
        "baseline": {str(lr): round(value, 4) for lr, value in baseline.items()},
        "baseline_tokens": tokens(1),
        "best_rate": best,
        "best_rate_inside": inside,
        "default": {str(tokens(share)): round(value, 4) for share, value in sorted(ours.items())},
        "default_tokens": needed and round(needed),
        "times_fewer": fewer and round(fewer, 3),
        "goal": GOAL,
        "quick": quick,
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
