"""A checkpoint in progress counts on the log that came with it, and on nothing that is half there."""

import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cairn.errors import FULL_DISK, StageError
from components.pretrain.launch import let_go
from trainer.manifest import sealed, unsealed
from trainer.metrics import TrainingLog, is_logged
from trainer.place import Place
from trainer.progress import InProgress

RECIPE = {"pretrain": {"batch": 4, "model": {"width": 16, "layers": 2}}}


def state_at(step: int) -> dict[str, Tensor]:
    """A state that is another after every step."""
    return {
        "adamw.step.norm": torch.tensor(float(step)),
        "model.norm": torch.arange(4.0) * step,
        "model.narrow": torch.full((3,), step / 8, dtype=torch.bfloat16),
    }


def of(root: Path | str, made_for: dict[str, Any] = RECIPE, keep_last: int = 2) -> InProgress:
    return InProgress(Place(str(root)), made_for, keep_last)


def train(work: Path, *, steps: range, keep: tuple[int, ...], length: int = 0, root: str = "") -> None:
    """Log every step, and keep a checkpoint after some."""
    log = TrainingLog(work / "training.jsonl", length)
    checkpoints = of(root or work / "checkpoints")
    for step in steps:
        log.write({"step": step, "loss": 1 / step})
        if step in keep:
            checkpoints.save(step, state_at(step), log.path.read_bytes(), {"log": log.settle()})
    checkpoints.wait()


def resumed(root: Path | str, made_for: dict[str, Any] = RECIPE) -> int:
    """The step whose state is taken up; 0 for none."""
    found = of(root, made_for).load({name: torch.zeros_like(t) for name, t in state_at(0).items()}, lambda _: None)
    if found is None:
        return 0
    manifest, state = found
    step: int = manifest["step"]
    assert all(torch.equal(state[name], tensor) for name, tensor in state_at(step).items())
    return step


def test_a_log_that_is_taken_up_is_cut_to_the_checkpoint_and_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole, again = tmp_path / "whole", tmp_path / "again"
    whole.mkdir()
    again.mkdir()
    train(whole, steps=range(1, 10), keep=(4,))
    train(again, steps=range(1, 8), keep=(4,))
    assert resumed(again / "checkpoints") == 4
    said = unsealed((again / "checkpoints" / "00000004" / "manifest.json").read_bytes())["log"]
    assert is_logged(again / "training.jsonl", said)
    train(again, steps=range(5, 10), keep=(8,), length=said["length"])
    assert (again / "training.jsonl").read_bytes() == (whole / "training.jsonl").read_bytes()
    # What was read back counts too in what the next checkpoint says of the log.
    assert resumed(again / "checkpoints") == 8


def test_the_log_is_on_the_disk_before_a_checkpoint_counts_on_it_and_the_manifest_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def note(number: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{number}").removeprefix(f"{tmp_path}/"))
        fsync(number)

    monkeypatch.setattr(os, "fsync", note)
    train(tmp_path, steps=range(1, 3), keep=(2,))
    *before, last = synced
    assert before == ["training.jsonl", *(f"checkpoints/00000002/{name}" for name in ("00000.bin", "training.jsonl"))]
    assert last.startswith("checkpoints/00000002/.manifest.json.")


def test_the_last_few_stay_and_what_is_ahead_goes(tmp_path: Path) -> None:
    train(tmp_path, steps=range(1, 9), keep=(2, 4, 6, 8))
    assert Place(str(tmp_path / "checkpoints")).folders() == ["00000006", "00000008"]
    train(tmp_path, steps=range(5, 8), keep=(7,))
    assert Place(str(tmp_path / "checkpoints")).folders() == ["00000006", "00000007"]


def test_what_changes_after_a_save_began_is_not_in_it(tmp_path: Path) -> None:
    checkpoints, state = of(tmp_path), state_at(3)
    checkpoints.save(3, state, b"", {})
    for tensor in state.values():
        tensor.fill_(0)
    checkpoints.wait()
    assert resumed(tmp_path) == 3


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def retell(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Have the manifest say something else, with a digest that fits."""

    def told(path: Path) -> None:
        manifest = unsealed(path.read_bytes())
        change(manifest)
        path.write_bytes(sealed(manifest))

    return told


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("00000.bin", Path.unlink, "00000.bin is missing"),
        ("00000.bin", cut, "00000.bin has 23 of 26 bytes"),
        ("00000.bin", flip, "00000.bin holds other bytes than were saved"),
        ("training.jsonl", cut, "training.jsonl has "),
        ("manifest.json", Path.unlink, "it was never finished: it has no manifest.json"),
        ("manifest.json", cut, "manifest.json holds other bytes than were saved"),
        ("manifest.json", flip, "manifest.json holds other bytes than were saved"),
        ("manifest.json", lambda path: path.write_text("[1]"), "manifest.json holds other bytes than were saved"),
        ("manifest.json", lambda path: path.write_text('{"format": "cairn-progress-v9"}'), "'cairn-progress-v9'"),
        (
            "manifest.json",
            retell(lambda said: said["tensors"]["model.norm"].update(dtype="float16")),
            "model.norm is float16 [4] there, and float32 [4] here",
        ),
        ("manifest.json", retell(lambda said: said["tensors"].pop("model.norm")), "it lacks model.norm"),
        (
            "manifest.json",
            retell(lambda said: said["tensors"].update(more=said["tensors"]["model.norm"])),
            "it holds more, which is not part of this run",
        ),
        ("manifest.json", retell(lambda said: said.update(step=5)), "manifest.json is of step 5"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Callable[[Path], object], message: str
) -> None:
    train(tmp_path, steps=range(1, 5), keep=(2, 4))
    damage(tmp_path / "checkpoints" / "00000004" / name)
    assert resumed(tmp_path / "checkpoints") == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("pretrain: checkpoint 00000004 is passed over: ")
    assert message in said


def test_a_state_that_holds_no_numbers_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = of(tmp_path)
    for step, value in ((1, 1.0), (2, float("nan"))):
        checkpoints.save(step, {"model.norm": torch.full((2,), value)}, b"", {})
    checkpoints.wait()
    found = of(tmp_path).load({"model.norm": torch.zeros(2)}, lambda _: None)
    assert found is not None
    assert found[0]["step"] == 1
    assert found[1]["model.norm"].tolist() == [1.0, 1.0]
    assert "model.norm holds values that are not numbers" in capsys.readouterr().err


def test_a_run_does_not_begin_with_a_state_that_holds_no_numbers(tmp_path: Path) -> None:
    checkpoints = of(tmp_path)
    checkpoints.save(1, {"model.norm": torch.full((2,), float("nan"))}, b"", {})
    checkpoints.wait()
    with pytest.raises(StageError, match="no checkpoint is left that holds numbers: move them away"):
        of(tmp_path).load({"model.norm": torch.zeros(2)}, lambda _: None)


def test_when_none_is_left_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, steps=range(1, 3), keep=(2,))
    flip(tmp_path / "checkpoints" / "00000002" / "00000.bin")
    assert resumed(tmp_path / "checkpoints") == 0
    assert "no checkpoint is left: training begins at step 0" in capsys.readouterr().err


def test_the_checkpoint_of_another_recipe_is_refused_with_the_fields_that_differ(tmp_path: Path) -> None:
    train(tmp_path, steps=range(1, 3), keep=(2,))
    other = {"pretrain": {"batch": 8, "model": {"width": 24, "layers": 2, "bias": True}}}
    said = (
        "pretrain.batch was 4, is 8; pretrain.model.bias was not there, is true; pretrain.model.width was 16, is 24: "
    )
    with pytest.raises(StageError, match="is the checkpoint of another recipe: ") as refused:
        resumed(tmp_path / "checkpoints", other)
    assert said in str(refused.value)


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_is_full_is_told_at_the_next_step_and_the_checkpoint_before_is_still_there(tmp_path: Path) -> None:
    train(tmp_path, steps=range(1, 3), keep=(2,))
    checkpoints = of(tmp_path / "checkpoints")
    with full_disk(10):
        checkpoints.save(4, state_at(4), b"", {})
        with pytest.raises(OSError, match="File too large") as told:
            while True:  # as the loop does: a step, and a look
                checkpoints.check()
    assert told.value.errno in FULL_DISK
    assert str(told.value.filename).endswith("checkpoints/00000004/00000.bin")
    assert Place(str(tmp_path / "checkpoints")).folders() == ["00000002"]
    assert resumed(tmp_path / "checkpoints") == 2


def test_checkpoints_on_an_object_store_are_written_read_checked_and_dropped_as_on_a_disk(
    s3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, steps=range(1, 9), keep=(2, 4, 6), root=f"{s3}/run")
    place = Place(f"{s3}/run")
    assert place.folders() == ["00000004", "00000006"]
    assert resumed(f"{s3}/run") == 6
    assert place.read("00000006/training.jsonl").count(b"\n") == 6
    data = bytearray(place.read("00000006/00000.bin"))
    data[3] ^= 1
    place.put("00000006/00000.bin", bytes(data))
    assert resumed(f"{s3}/run") == 4
    assert "00000.bin holds other bytes than were saved" in capsys.readouterr().err
    place.drop("00000004/manifest.json")
    assert resumed(f"{s3}/run") == 0
    assert json.loads(place.read("00000006/manifest.json"))["step"] == 6
    let_go(f"{s3}/run")
    assert Place(s3).folders() == []
    let_go(f"{s3}/run")
    assert "stay there" not in capsys.readouterr().err


def test_checkpoints_that_cannot_be_removed_when_a_run_is_done_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Place, key: str) -> None:
        raise PermissionError(f"{key}: is not yours")

    monkeypatch.setattr(Place, "drop", refuse)
    let_go(f"{tmp_path}/run")
    assert "run: is not yours: the checkpoints in progress stay there" in capsys.readouterr().err
