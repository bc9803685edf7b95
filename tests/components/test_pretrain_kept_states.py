"""States that stay with the optimizer: what they are, that a run does not lose them, and that training goes on from
them to the bytes of the run that kept them."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from cairn.errors import ArtifactError
from cairn.lineage.artifact import digest_of
from cairn.resources import Resources
from components.pretrain.launch import pretrain
from components.pretrain.recipe import Pretrain
from tests.components.test_pretrain_launch import RECIPE, launch, made, start, wait_for_step
from trainer.kept import take_up

KEEPING: dict[str, Any] = {"keep_every": 15}


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 steps that keeps its states after 15 and 30."""
    root = tmp_path_factory.mktemp("keeping")
    launch(root, **KEEPING)
    return root


def train(root: Path, tokens: Path, *, until: int | None = None) -> None:
    """Train in this process' folder `root`, on from what is in its work folder."""
    for name in ("checkpoint", "optimizer", "work"):
        (root / name).mkdir(exist_ok=True)
    pretrain(
        Pretrain.model_validate_json(json.dumps({**RECIPE, **KEEPING})),
        tokens=tokens,
        checkpoint=root / "checkpoint",
        optimizer=root / "optimizer",
        work=root / "work",
        resources=Resources(1, 1),
        name="test",
        facts={},
        until=until,
        board=False,
    )


def test_the_optimizer_artifact_holds_the_states_and_the_checkpoint_is_what_it_was(
    keeping: Path, tmp_path: Path
) -> None:
    launch(tmp_path)
    assert digest_of(tmp_path / "checkpoint") == digest_of(keeping / "checkpoint")
    names = {path.name for path in (keeping / "optimizer" / "steps").iterdir()}
    assert names == {f"{step:08d}.{kind}" for step in (15, 30) for kind in ("safetensors", "json")}
    manifest = json.loads((keeping / "optimizer" / "steps" / "00000030.json").read_bytes())
    log = (keeping / "checkpoint" / "training.jsonl").read_bytes()
    assert log[: manifest["log"]["length"]].count(b"\n") == manifest["step"] == 30


def test_training_on_from_a_kept_state_ends_with_the_bytes_of_the_run(keeping: Path, tmp_path: Path) -> None:
    log = (keeping / "checkpoint" / "training.jsonl").read_bytes()
    assert take_up(keeping / "optimizer" / "steps" / "00000015.safetensors", log, tmp_path / "work") == 15
    train(tmp_path, keeping / "tokens")
    assert digest_of(tmp_path / "checkpoint") == digest_of(keeping / "checkpoint")
    again = tmp_path / "optimizer" / "steps"
    assert sorted(path.name for path in again.iterdir()) == ["00000030.json", "00000030.safetensors"]
    assert digest_of(again / "00000030.safetensors") == digest_of(
        keeping / "optimizer" / "steps" / "00000030.safetensors"
    )


def test_training_can_stop_at_a_step_and_go_on_later(keeping: Path, tmp_path: Path) -> None:
    train(tmp_path, keeping / "tokens", until=20)
    assert (tmp_path / "work" / "training.jsonl").read_bytes().count(b"\n") == 20
    assert not list((tmp_path / "checkpoint").iterdir())
    train(tmp_path, keeping / "tokens")
    assert made(tmp_path) == made(keeping)


@pytest.mark.parametrize("lost", ["00000120.safetensors", pytest.param("00000120.json", marks=pytest.mark.slow)])
def test_a_checkpoint_whose_kept_state_is_lost_is_passed_over_and_the_state_is_made_again(
    tmp_path: Path, lost: str
) -> None:
    long: dict[str, Any] = {"steps": 900, "checkpoint_every": 100, "keep_every": 120, "evaluate_every": 1000}
    process = start(tmp_path, **long)
    wait_for_step(process, tmp_path / "work", 150)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    newest = max((tmp_path / "work" / "checkpoints").iterdir()).name
    (tmp_path / "work" / "kept" / lost).unlink()
    _, said = launch(tmp_path, **long)
    assert f"checkpoint {newest} is passed over: the state that was kept at step 120 is lost" in said
    assert (tmp_path / "optimizer" / "steps" / lost).exists()


def test_a_kept_state_that_was_changed_or_came_with_another_log_is_not_taken_up(keeping: Path, tmp_path: Path) -> None:
    steps = shutil.copytree(keeping / "optimizer" / "steps", tmp_path / "steps")
    log = (keeping / "checkpoint" / "training.jsonl").read_bytes()
    state = steps / "00000015.safetensors"
    with pytest.raises(ArtifactError, match="came with other lines than"):
        take_up(state, log.replace(b'"step":3,', b'"step":4,'), tmp_path / "other")
    state.write_bytes(state.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match="is not the state that its manifest tells of"):
        take_up(state, log, tmp_path / "changed")
    state.with_suffix(".json").write_text("{}")
    with pytest.raises(ArtifactError, match="is not the manifest of a kept state"):
        take_up(state, log, tmp_path / "silent")
