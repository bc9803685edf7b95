"""Every layout, on 2 and on 4 processes, against one process: losses, gradients and weights."""

import json
import re
import shutil
import socket
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.components.test_pretrain_launch import RECIPE, launch
from tests.trainer.layouts import Case, State, Task, take_part, train
from tests.trainer.processes import CONTEXT
from trainer.checkpoint import largest_difference
from trainer.layout import mesh_of
from trainer.parallel import Parallel
from trainer.recipe import Training

BERT = {
    "causal": False,
    "norm": "layernorm",
    "norm_placement": "post",
    "positions": "learned",
    "qk_norm": "none",
    "activation": "gelu",
    "gated": False,
    "bias": True,
    "kv_heads": 4,
}
MODERNBERT = {"causal": False, "norm": "layernorm", "qk_norm": "none", "kv_heads": 4, "activation": "gelu"}
GPT2 = {**BERT, "causal": True, "norm_placement": "pre", "activation": "gelu-tanh"}
LLAMA = {"qk_norm": "none", "tied": False}
OLMO2 = {"qk_norm": "width", "norm_placement": "output", "tied": False}
SELECTIVE, FULL = {"activation_checkpointing": "selective"}, {"activation_checkpointing": "full"}

CASES = {
    2: {
        "ddp, selective": Case(SELECTIVE, LLAMA),
        "fsdp, OLMo 2": Case({"shard": 2}, OLMO2),
        "fsdp, bf16": Case({"shard": 2}, precision="bf16"),
        "tp, selective, z-loss in chunks": Case({"tensor": 2, **SELECTIVE}, LLAMA, z_loss=0.01, loss_chunk=17),
        "tp, bidirectional": Case({"tensor": 2}, MODERNBERT),
    },
    4: {
        "ddp": Case({}),
        "hsdp, full, bidirectional": Case({"shard": 2, **FULL}, BERT),
        "ddp × tp": Case({"tensor": 2}, {**GPT2, "bias": False, "norm": "rmsnorm", "positions": "rope", "gated": True}),
        "fsdp × tp, full, bidirectional": Case({"shard": 2, "tensor": 2, **FULL}, BERT, z_loss=0.01),
        "fsdp × tp, bf16": Case({"shard": 2, "tensor": 2}, precision="bf16"),
    },
}
SAVED: dict[str, dict[str, Any]] = {"replicas": {}, "fsdp": {"shard": 2}, "tp": {"tensor": 2}}
LOADED: dict[str, dict[str, Any]] = {
    "replicas": {"shard": 2, "tensor": 2},
    "fsdp": {"shard": 2},
    "tp": {},
    "once more": {"shard": "all"},
}
"""What two processes saved, by four; and what one process loaded of it and saved once more."""
TOLERANCE = {"fp32": 1e-5, "bf16": 0.06}


Found = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Found]:
    """What two, one and four processes found, in this order: each goes on from the checkpoints before."""
    folder = tmp_path_factory.mktemp("checkpoints")
    two = _in_processes(2, Task(CASES[2], saves=SAVED), folder)
    alone = Parallel(strict=False)
    one = {}
    for name in SAVED:
        state = State({}, alone)
        one[f"loaded: {name}"] = state.load(folder / name)
    state.save(folder / "once more")
    return {1: one, 2: two, 4: _in_processes(4, Task(CASES[4], loads=LOADED), folder)}


def _in_processes(size: int, task: Task, folder: Path) -> Found:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours, theirs = CONTEXT.Pipe(duplex=False)
    processes = [
        CONTEXT.Process(target=take_part, args=(rank, size, port, task, folder, theirs if rank == 0 else None))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    theirs.close()
    answers = dict(_received(ours))
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * size
    return answers


def _received(pipe: Connection) -> Any:
    while True:
        try:
            name, values = pipe.recv()
        except EOFError:
            return
        yield name, {key: torch.as_tensor(value) for key, value in values.items()}


@pytest.mark.parametrize("size", [2, 4])
def test_every_layout_trains_as_one_process_does(found: dict[int, Found], size: int) -> None:
    answers = found[size]
    alone: dict[str, dict[str, Tensor]] = {}
    for name, case in CASES[size].items():
        without = Case({}, case.model, case.precision, z_loss=case.z_loss, loss_chunk=case.loss_chunk)
        expected = alone.setdefault(repr(without), {}) or train(without, Parallel(strict=False))
        alone[repr(without)] = expected
        got, tolerance = answers[name], TOLERANCE[case.precision]
        assert got.keys() == expected.keys()
        # A gradient that is zero but for rounding (of a bias of keys) is held against those of the whole model.
        floor = max(float(value.abs().max()) for key, value in expected.items() if key.startswith("gradient."))
        for key, value in expected.items():
            scale = max(float(value.abs().max()), 0.1 * floor if key.startswith("gradient.") else 0.0)
            apart = float((got[key] - value).abs().max()) / scale
            assert apart <= tolerance, f"{size} processes, {name}: {key} is {apart:.1e} apart"


def test_a_state_that_two_processes_saved_is_loaded_by_one_and_by_four_bit_for_bit(found: dict[int, Found]) -> None:
    drawn = found[2]["drawn: replicas"]
    kinds = ("model.", "adamw.step.", "adamw.exp_avg.", "adamw.exp_avg_sq.", "muon.momentum.", "guard.")
    assert all(any(name.startswith(kind) for name in drawn) for kind in kinds)
    assert all(value.any() for value in drawn.values())
    loaded = [(size, name) for size in (1, 4) for name in found[size] if name.startswith("loaded: ")]
    assert len(loaded) == len(SAVED) + len(LOADED)
    for size, name in loaded:
        got = found[size][name]
        assert got.keys() == drawn.keys()
        assert [key for key in drawn if not torch.equal(got[key], drawn[key])] == [], f"{size} processes, {name}"


def recipe(layout: dict[str, Any], **model: Any) -> Training:
    return Case(layout, model).training


@pytest.mark.parametrize(
    ("layout", "model", "said"),
    [
        ({"tensor": 2}, OLMO2, "a norm over all heads (qk_norm: width) needs them in one process"),
        ({"tensor": 4}, {}, "layout.tensor (4) must divide model.kv_heads (2)"),
        ({"tensor": 2}, {"context": 33}, "layout.tensor (2) must divide model.context (33)"),
        ({"tensor": 2}, {"mlp_width": 129}, "layout.tensor (2) must divide model.mlp_width (129)"),
    ],
)
def test_a_model_that_cannot_be_split_is_refused_with_the_recipe(
    layout: dict[str, Any], model: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        recipe(layout, **model)


@pytest.mark.parametrize(
    ("layout", "processes", "vocabulary", "said"),
    [
        ({"shard": 2, "tensor": 2}, 2, 96, "their number must be a multiple of 4"),
        ({"tensor": 2}, 2, 97, "tensor 2 × shard 1 = 2 parts must divide the vocabulary (97)"),
        ({"shard": "all", "tensor": 2}, 4, 98, "tensor 2 × shard 2 = 4 parts must divide the vocabulary (98)"),
        ({"tensor": 2}, 16, 96, "8 processes cannot share 4 micro-batches evenly"),
    ],
)
def test_processes_that_cannot_be_laid_out_are_refused_before_training(
    layout: dict[str, Any], processes: int, vocabulary: int, said: str
) -> None:
    training = recipe(layout)
    training.check_processes(4, 96)
    with pytest.raises(ValueError, match=re.escape(said)):
        training.check_processes(processes, vocabulary)


def test_strict_mode_spreads_nothing() -> None:
    with pytest.raises(ValueError, match="strict mode keeps the whole model in every process"):
        Training.model_validate({**recipe({"shard": 2}).model_dump(), "mode": "strict"})


def test_one_process_that_is_its_own_mesh_shares_nothing() -> None:
    assert mesh_of(Case({}).training.layout, 4) == {"data": 4}
    assert mesh_of(Case({"shard": "all", "tensor": 2}).training.layout, 8) == {"replicate": 1, "shard": 4, "tensor": 2}
    assert mesh_of(Case({"shard": 2}).training.layout, 4) == {"replicate": 2, "shard": 2, "tensor": 1}


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_blocks_compute_what_they_did() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    apart = 0.0
    expected = train(Case({}), Parallel(strict=False))
    got = train(Case({}, compile=True), Parallel(strict=False))
    for key, value in expected.items():
        apart = max(apart, float((got[key] - value).abs().max() / value.abs().max()))
    assert apart <= 1e-5
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1  # one for all blocks, in one piece


@pytest.mark.parametrize("layout", [{"shard": 2}, pytest.param({"tensor": 2}, marks=pytest.mark.slow)])
def test_a_spread_run_ends_with_the_artifacts_of_one_process(layout: dict[str, Any], tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "mode": "fast",
        "precision": "fp32",
        "model": {**RECIPE["model"], "kv_heads": 2},  # type: ignore[dict-item]
        # Few steps: Muon makes much of the last bits of a gradient of so few tokens, and two percent after three more.
        "optimizer": {"matrices": "muon" if layout == {"shard": 2} else "adamw", "eps": 1e-3},
        "steps": 3,
        "checkpoint_every": 2,
        "keep_every": 2,
        "evaluate_every": 3,
    }
    launch(tmp_path / "alone", **changes)
    launch(tmp_path / "spread", processes=2, layout=layout, **changes)
    for artifact in ("checkpoint", "optimizer"):
        apart, where = largest_difference(tmp_path / "alone" / artifact, tmp_path / "spread" / artifact)
        assert apart <= 1e-4, where
    logs = [(tmp_path / name / "checkpoint" / "training.jsonl").read_text() for name in ("alone", "spread")]
    for alone, spread in zip(*(map(json.loads, log.splitlines()) for log in logs), strict=True):
        assert alone == pytest.approx(spread, rel=1e-4)
