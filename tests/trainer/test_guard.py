"""Outliers are left out, and what is no number ends training with the rows to blame."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cairn.errors import ArtifactError, StageError
from tests.trainer.processes import in_processes
from tests.trainer.tokens import counting
from trainer.guard import Guard, check_numbers
from trainer.loss import Examples, Losses, loss
from trainer.recipe import Skip, Training
from trainer.stop import Stop
from trainer.train import Run, Trainer

MODEL = {"layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "head_dim": 8, "mlp_width": 32, "context": 16}
RECIPE = {"model": MODEL, "steps": 12, "batch": 4, "micro_batch": 2, "threads": 1, "precision": "fp32"}


def verdicts(values: list[float], skip: Skip) -> list[bool]:
    guard = Guard(skip, torch.device("cpu"))
    return [
        bool(guard.judge(step, torch.tensor(value), torch.tensor(1.0 + step % 2))) for step, value in enumerate(values)
    ]


def test_a_value_above_the_limit_of_the_window_is_left_out() -> None:
    values = [2.0, 2.2, 1.8, 2.0, 2.1, 1.9, 2.0, 2.2]
    assert verdicts([*values, 5.0, 2.0], Skip(sigma=6, window=8)) == [True] * 8 + [False, True]
    assert all(verdicts([*values, 2.6, 0.0], Skip(sigma=6, window=8)))  # far below is no outlier


def test_nothing_is_left_out_before_half_a_window_is_known() -> None:
    assert all(verdicts([2.0, 2.1, 1.9, 90.0], Skip(sigma=6, window=8)))


def test_one_outlier_does_not_hide_the_next_and_a_level_that_stays_is_taken_after_a_while() -> None:
    calm = [2.0 + 0.1 * (step % 3) for step in range(16)]
    found = verdicts([*calm, 50.0, 2.0, 50.0, *[50.0] * 40], Skip(sigma=6, window=16))
    assert found[16:19] == [False, True, False]
    assert found[-1]
    assert 3 < found[19:].index(True) < 20


def test_a_guard_that_nobody_asked_for_judges_nothing_and_has_no_state() -> None:
    guard = Guard(None, torch.device("cpu"))
    assert guard.judge(0, torch.tensor(1.0), torch.tensor(1.0)) is None
    assert guard.state() == {}


def run(root: Path, until: int | None = None, **changes: Any) -> Run:
    work = root / "work"
    for folder in (work, root / "checkpoint", root / "optimizer"):
        folder.mkdir(parents=True, exist_ok=True)
    training = Training.model_validate_json(json.dumps({**RECIPE, **changes}))
    return Run(
        training=training,
        tokens=root / "tokens",
        work=work,
        checkpoints=str(work),
        checkpoint=root / "checkpoint",
        optimizer=root / "optimizer",
        board=None,
        name="x",
        until=until,
        grace=10.0,
        hang_after=600.0,
        join_within=60.0,
    )


class Never(Stop):
    """Asks nobody to stop."""

    asked = False

    def __init__(self) -> None:
        pass


def a_trainer(asked: Run) -> Trainer:
    return Trainer(asked, Never())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    counting(tmp_path / "tokens")
    return tmp_path


def spoiled(step: int, factor: float, trainers: list[Trainer]) -> Callable[..., Losses]:
    """The loss, with that of one step multiplied."""

    def spoil(*arguments: Any) -> Losses:
        found = loss(*arguments)
        return found._replace(total=found.total * factor) if trainers[-1].step == step else found

    return spoil


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.state().items()}


def test_a_step_with_an_exploding_gradient_is_left_out_and_resumes_alike(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainers: list[Trainer] = []
    monkeypatch.setattr("trainer.train.loss", spoiled(8, 1e6, trainers))
    skip = {"sigma": 6.0, "window": 8}

    def trained(until: int, root: Path = root) -> Trainer:
        trainers.append(a_trainer(run(root, until, skip=skip)))
        assert trainers[-1].fit()
        trainers[-1].close()
        return trainers[-1]

    before, after = state_of(trained(8)), state_of(trained(9))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"guard.history", "guard.skipped"}
    resumed = state_of(trained(11))
    lines = [json.loads(line) for line in (root / "work" / "training.jsonl").read_text().splitlines()]
    assert all("skipped" in line for line in lines)
    whole = root / "whole"
    (whole / "tokens").parent.mkdir()
    os.symlink(root / "tokens", whole / "tokens")
    for name, tensor in trained(11, whole).state().items():
        assert torch.equal(tensor, resumed[name]), name
    assert int(resumed["guard.skipped"]) == 1


def fail(root: Path, row: int) -> str:
    """Train until the loss of one row is no number; what is said."""
    asked = run(root)
    made = a_trainer(asked)

    def break_row(model: Any, examples: Examples, *arguments: Any) -> Losses:
        found = loss(model, examples, *arguments)
        wanted = made.batches.rows(3, row, 1).examples().tokens
        hit = (examples.tokens == wanted).all(1).any()
        return found._replace(
            total=found.total * (torch.nan if hit else 1.0), nats=found.nats * (torch.nan if hit else 1)
        )

    patch = pytest.MonkeyPatch()
    patch.setattr("trainer.train.loss", break_row)
    try:
        made.fit()
    except StageError as error:
        return str(error)
    finally:
        patch.undo()
        made.close()
    return "nothing"


def test_a_loss_that_is_no_number_names_step_row_process_and_documents(root: Path) -> None:
    said = in_processes(2, fail, root, 3)
    assert said[0] == said[1]
    assert said[0].startswith("step 4: the loss is nan and the gradient norm nan, and row 3 of process 1 is to blame:")
    assert "no checkpoint was written yet" in said[0]
    files = sorted((root / "work" / "diverged").iterdir())
    assert [file.name for file in files] == [f"step-00000004-process-{process}.json" for process in (0, 1)]
    rows = json.loads(files[1].read_bytes())["rows"]
    assert [(row["row"], row["finite"]) for row in rows] == [(2, True), (3, False)]
    assert all(document[:12] in said[0] for document in rows[1]["documents"][:3])


def test_a_tensor_that_holds_no_number_is_named() -> None:
    with pytest.raises(ArtifactError, match=r"^here: b\.weight holds a value that is not finite"):
        check_numbers({"a": torch.ones(2), "b.weight": torch.tensor([1.0, float("nan")])}, "here")
