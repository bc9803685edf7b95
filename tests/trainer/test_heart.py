"""A run that hangs: who is behind, where, and with which stacks."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch._C._distributed_c10d import HashStore

from cairn.errors import StageError
from trainer import rendezvous
from trainer.heart import Heart

HANGING = """
import sys, time
from pathlib import Path
from trainer.heart import Heart
heart = Heart(0, 1, 0.4, Path(sys.argv[1]), None)
heart.start()
def get_on():
    for step in range(3):
        for phase in ("data", "forward and backward", "gather", "optimizer"):
            heart.at(phase, step)
            time.sleep(0.05)
def stand_still():
    heart.at("evaluate", 3)
    time.sleep(60)
get_on()
stand_still()
"""


def test_a_process_that_stands_still_is_told_with_its_place_and_ends_with_its_stacks(tmp_path: Path) -> None:
    began = time.monotonic()
    process = subprocess.run([sys.executable, "-c", HANGING, str(tmp_path)], capture_output=True, text=True, timeout=50)
    assert process.returncode == 1
    assert time.monotonic() - began < 40
    (line,) = process.stderr.splitlines()
    assert line.startswith(
        "pretrain: hangs: nobody got on for 0.4 s: the only process is behind, in evaluate of step 4"
    )
    assert "in stand_still" in (tmp_path / "rank-0.txt").read_text()


def hearts(tmp_path: Path) -> list[Heart]:
    store = HashStore()
    return [Heart(rank, 3, 60.0, tmp_path, store) for rank in range(3)]


def tell(heart: Heart) -> None:
    heart.ticks += 1
    heart._exchange()


def test_the_one_that_is_behind_is_named_and_not_those_that_wait_for_it(tmp_path: Path) -> None:
    first, second, third = hearts(tmp_path)
    for heart in (first, second, third):
        heart.at("data", 12)
    for heart in (first, third):
        heart.at("gather")
    for heart in (third, second, first):
        tell(heart)
    assert "rank 1 is behind, in data of step 13; stacks" in first.told()
    second.at("gather")
    tell(second)
    tell(first)
    assert "all ranks are in gather of step 13; stacks" in first.told()


def test_what_follows_a_step_is_behind_the_next_one(tmp_path: Path) -> None:
    first, second, third = hearts(tmp_path)
    first.at("evaluate", 7)
    for heart in (second, third):  # have nothing to evaluate
        heart.at("evaluate", 7)
        heart.at("scored")
    for heart in (third, second, first):
        tell(heart)
    assert "rank 0 is behind, in evaluate of step 8; stacks" in first.told()
    first.at("save", 7)
    for heart in (second, third):
        heart.at("gather", 8)
    for heart in (third, second, first):
        tell(heart)
    assert "rank 0 is behind, in save of step 8; stacks" in first.told()


def test_one_that_no_longer_answers_is_named_before_all_others(tmp_path: Path) -> None:
    first, second, third = hearts(tmp_path)
    for heart in (third, second, first):
        heart.at("gather", 7)
        tell(heart)
    first.seen[2] = (first.seen[2][0], first.seen[2][1] - 60, first.seen[2][2] - 60)
    assert "rank 2 is behind, in gather of step 8, and does not answer" in first.told()


def test_until_two_steps_are_done_more_patience_is_had(tmp_path: Path) -> None:
    heart = Heart(0, 1, 10.0, tmp_path, None)
    assert heart.patience == 30.0
    for step in range(2):
        heart.at("optimizer", step)
    assert heart.patience == 10.0
    heart.thread = heart.start().thread
    heart.end()
    assert not list(tmp_path.iterdir()), "no stacks were written"


def test_a_rendezvous_that_nobody_else_comes_to_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StageError, match=r"1 of 3 processes came within 0.1 s, missing are ranks 1, 2"):
        rendezvous.join(0.1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("MASTER_PORT", "9")
    with pytest.raises(StageError, match=r"rank 1 did not reach 127.0.0.1:9 within 0.5 s"):
        rendezvous.join(0.5)
