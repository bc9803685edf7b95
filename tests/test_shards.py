"""Mapping over shards: the same results for any number of workers, and nothing finished is done twice."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from cairn.errors import SourceError, StageError
from cairn.shards import map_shards


def square(number: int) -> dict[str, Any]:
    return {"square": number * number}


def die_at_three(number: int) -> dict[str, Any]:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(number)


def refuse_three(number: int) -> dict[str, Any]:
    if number == 3:
        raise SourceError("three.txt:1: not wanted")
    return square(number)


def must_be_kept(number: int) -> dict[str, Any]:
    assert number >= 3, f"shard {number} was finished before and ran again"
    return square(number)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_shards(tmp_path: Path, workers: int) -> None:
    results = list(map_shards(square, range(5), workers=workers, done=tmp_path / "done", label="square"))
    assert [result["square"] for result in results] == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_failed_goes_on_where_it_was(tmp_path: Path, workers: int) -> None:
    with pytest.raises(SourceError, match=r"three\.txt"):
        list(map_shards(refuse_three, range(5), workers=workers, done=tmp_path / "done", label="square"))
    results = list(map_shards(must_be_kept, range(5), workers=1, done=tmp_path / "done", label="square"))
    assert [result["square"] for result in results] == [0, 1, 4, 9, 16]


def test_a_worker_that_was_killed_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="set CAIRN_WORKERS lower"):
        list(map_shards(die_at_three, range(5), workers=2, done=tmp_path / "done", label="square"))
