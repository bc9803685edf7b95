"""The planned memory of a training process, beside what one takes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from trainer.memory import Memory, plan
from trainer.preflight import beyond, outlook
from trainer.recipe import Training

ROOT = Path(__file__).resolve().parents[2]
SHAPE = {"layers": 6, "width": 384, "heads": 6, "kv_heads": 6, "head_dim": 64, "mlp_width": 1024, "context": 256}


def planned(processes: int = 1, vocab_size: int = 8192, **changes: Any) -> Memory:
    said = {"model": SHAPE, "steps": 1000, "batch": 16, "micro_batch": 4, **changes}
    return plan(Training.model_validate(said), vocab_size, processes)


def test_a_process_takes_about_what_is_planned() -> None:
    case = "micro-batch 4, vocabulary 8k"
    command = [sys.executable, str(ROOT / "bench" / "memory.py"), case]
    said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    assert 0.6 < said["measured"] / said["planned"] < 1.5, said["plan"]


def test_every_part_of_the_plan_answers_to_what_it_is_made_of() -> None:
    parameters = Training.model_validate({"model": SHAPE, "steps": 9, "batch": 4, "micro_batch": 4}).model
    usual = planned()
    assert usual.weights == 4 * parameters.parameters(8192)
    assert planned(optimizer={"matrices": "adamw"}).optimizer == 2 * usual.weights > usual.optimizer
    assert usual.total == usual.weights + usual.gradients + usual.optimizer + usual.step + usual.checkpoint
    assert planned(micro_batch=16).gradients < usual.gradients  # nothing waits to be summed
    assert planned(processes=2).gradients > usual.gradients  # what is gathered
    fast: dict[str, Any] = {"mode": "fast", "batch": 64}
    whole, sharded = planned(4, **fast), planned(4, layout={"shard": "all"}, **fast)
    assert abs(4 * sharded.weights - whole.weights) < 16
    wide: dict[str, Any] = {"micro_batch": 16, "vocab_size": 50_304}
    assert planned(loss_chunk=512, **wide).step <= planned(**wide).step
    assert planned(layout={"activation_checkpointing": "full"}, mode="fast", micro_batch=16).step < planned(
        mode="fast", micro_batch=16
    ).step  # fmt: skip


def test_what_will_not_fit_is_said_before_it_starts() -> None:
    small = Training.model_validate({"model": {"named": "tiny"}, "steps": 10, "batch": 4, "micro_batch": 4})
    large = Training.model_validate(
        {"model": {"named": "llama-1b"}, "steps": 10, "batch": 512, "micro_batch": 512, "optimizer": {}}
    )
    assert beyond(small, 256, 1) is None
    said = beyond(large, 128_000, 1)
    assert said is not None
    assert "pretrain.micro_batch" in said
    assert outlook(small, 256, 1).startswith(f"{small.model.parameters(256):,} parameters, 10,240 tokens in 10 steps")
