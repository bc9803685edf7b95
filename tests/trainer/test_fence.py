"""One trainer writes to a place of checkpoints: the one that came last, wherever it runs."""

import json
import os
import threading
import time
from pathlib import Path

import pytest
import torch

from cairn.errors import StageError, StoreError
from tests.trainer.processes import CONTEXT
from tests.trainer.test_resume import _settings, made, train  # noqa: F401 - a fixture
from tests.trainer.tokens import counting
from trainer.fence import Fence
from trainer.place import Place
from trainer.progress import InProgress
from trainer.train import Trainer


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}" if request.param == "s3" else str(tmp_path / "place")


def test_who_comes_last_has_the_place_and_the_one_before_is_told_who_that_is(place: str) -> None:
    first = Fence(place)
    first.check()
    second = Fence(place)
    second.check()
    with pytest.raises(StageError, match=f": process {os.getpid()} on .* took these checkpoints over at 20"):
        first.check()
    second.check()


def test_of_many_that_come_at_once_one_has_the_place(place: str) -> None:
    fences: list[Fence] = []
    threads = [threading.Thread(target=lambda: fences.append(Fence(place))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(fence.number for fence in fences) == [1, 2, 3, 4, 5, 6]
    *_, last = sorted(fences, key=lambda fence: fence.number)
    last.check()
    for fence in fences:
        if fence is not last:
            with pytest.raises(StageError, match="took these checkpoints over"):
                fence.check()


def test_a_place_that_was_removed_or_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    fence = Fence(str(tmp_path / "place"))
    Place(str(tmp_path)).drop("place")
    with pytest.raises(StageError, match="place: was removed while training went on: run again"):
        fence.check()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file: "):
        Fence(str(tmp_path / "file"))


def test_a_trainer_that_was_fenced_off_writes_commits_and_drops_nothing(tmp_path: Path) -> None:
    def of(fence: Fence) -> InProgress:
        return InProgress(Place(f"{tmp_path}/checkpoints"), {}, 1, still_ours=fence.check)

    state = {"model.norm": torch.ones(3)}
    first = Fence(str(tmp_path))
    old = of(first)
    old.save(2, state, b"", {})
    old.wait()
    new = of(Fence(str(tmp_path)))
    new.save(4, state, b"", {})
    new.wait()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for step in (3, 4):
        old.save(step, state, b"", {})
        with pytest.raises(StageError, match="took these checkpoints over"):
            old.wait()
    # Just before the manifest another trainer comes.
    asked: list[str] = []

    def taken_meanwhile() -> None:
        asked.append("asked")
        if len(asked) == 2:
            Fence(str(tmp_path))
        new.still_ours()

    late = InProgress(Place(f"{tmp_path}/checkpoints"), {}, 1, still_ours=taken_meanwhile)
    late.save(6, state, b"", {})
    with pytest.raises(StageError, match="took these checkpoints over"):
        late.wait()
    assert not (tmp_path / "checkpoints" / "00000006" / "manifest.json").exists()
    assert {path: path.read_bytes() for path in before} == before


def hold_up(root: Path, tokens: Path, place: str, environment: dict[str, str]) -> None:
    """Train, and stand still after the first checkpoint until another trainer has the place."""
    os.environ.update(environment)
    take = Trainer._train_step

    def held_up(trainer: Trainer, *arguments: object) -> object:
        if trainer.step == 5:
            trainer.checkpoints.wait()
            (root / "standing").touch()
            while not (root / "taken").exists():
                time.sleep(0.01)
        return take(trainer, *arguments)  # type: ignore[arg-type]

    Trainer._train_step = held_up  # type: ignore[method-assign, assignment]
    try:
        train(root, tokens, {}, checkpoints=place)
        said = "nothing"
    except StageError as error:
        said = str(error)
    (root / "said.json").write_text(json.dumps(said))


def take_over(root: Path, tokens: Path, place: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    train(root, tokens, {}, checkpoints=place)


def test_a_second_trainer_goes_on_at_once_and_the_first_one_ends_before_it_writes_again(
    tmp_path: Path, place: str
) -> None:
    tokens = counting(tmp_path / "tokens")
    assert train(tmp_path / "whole", tokens, {})
    roots = tmp_path / "one", tmp_path / "other"
    for root in roots:
        root.mkdir()
    # The server that forks them may have been started before there was a bucket.
    environment = dict(os.environ)
    first = CONTEXT.Process(target=hold_up, args=(roots[0], tokens, place, environment))
    second = CONTEXT.Process(target=take_over, args=(roots[1], tokens, place, environment))
    first.start()
    while not (roots[0] / "standing").exists():
        assert first.is_alive()
        time.sleep(0.01)
    second.start()
    second.join(60)
    assert second.exitcode == 0
    (roots[0] / "taken").touch()
    first.join(60)
    said = json.loads((roots[0] / "said.json").read_text())
    assert f"process {second.pid} on " in said
    assert "this run ends" in said
    assert made(roots[1]) == made(tmp_path / "whole")
    assert not list((roots[0] / "checkpoint").iterdir())
    resumed = json.loads((roots[1] / "work" / "status.json").read_text())
    assert resumed["resumed_at"] == 4
