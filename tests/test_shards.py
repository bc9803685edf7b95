"""Mapping over shards: the same results for any number of workers, and nothing finished is done twice."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from cairn.errors import SourceError, StageError
from cairn.shards import map_shards

ROOT = Path(__file__).resolve().parents[1]


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


def sleep(number: int) -> dict[str, Any]:
    """A long shard, which no result is ever made of; it says which process it is in."""
    Path(os.environ["CAIRN_TEST_PLACE"], str(os.getpid())).touch()
    time.sleep(600)
    return square(number)


def wait_for_the_others(number: int) -> dict[str, Any]:
    if number == 0:
        _wait_until(lambda: len(list(Path(os.environ["CAIRN_TEST_PLACE"]).glob("[0-9]*.json"))) == 4)
    return square(number)


def refuse_one_and_three(number: int) -> dict[str, Any]:
    if number == 1:
        time.sleep(0.5)
    if number in (1, 3):
        raise SourceError(f"{number}.txt:1: not wanted")
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


def test_a_shard_that_takes_long_does_not_keep_others_from_being_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAIRN_TEST_PLACE", str(tmp_path))
    results = map_shards(wait_for_the_others, range(5), workers=2, done=tmp_path, label="square")
    assert [result["square"] for result in results] == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("workers", [1, 2])
def test_of_two_faults_the_first_is_told(tmp_path: Path, workers: int) -> None:
    with pytest.raises(SourceError, match=r"1\.txt"):
        list(map_shards(refuse_one_and_three, range(5), workers=workers, done=tmp_path / "done", label="square"))


def test_a_worker_that_was_killed_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="set CAIRN_WORKERS lower"):
        list(map_shards(die_at_three, range(5), workers=2, done=tmp_path / "done", label="square"))


CHILD = """
import sys
from pathlib import Path
from cairn.errors import guard
from cairn.shards import map_shards
from tests.test_shards import sleep
if __name__ == "__main__":
    sys.exit(guard(lambda: list(map_shards(sleep, range(4), workers=2, done=Path("done"), label="sleep"))))
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_workers_end_with_a_parent_that_was_killed_or_interrupted(
    tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    script, pids = tmp_path / "child.py", tmp_path / "pids"
    script.write_text(CHILD)
    pids.mkdir()
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "CAIRN_TEST_PLACE": str(pids)}
    parent = subprocess.Popen([sys.executable, script], cwd=tmp_path, env=surroundings, stderr=subprocess.DEVNULL)
    _wait_until(lambda: len(list(pids.iterdir())) == 2)
    parent.send_signal(sent)
    assert parent.wait(timeout=20) == code
    workers = [int(path.name) for path in pids.iterdir()]
    _wait_until(lambda: not any(map(_runs, workers)))


def _runs(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
