"""Work in progress is seen from outside, and not disturbed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cairn.shards import map_shards
from pipelines.work import work_of

HOLDER = """
import sys
from pathlib import Path
from cairn.lineage.stage import Component, only_one
with only_one(Path(sys.argv[1]), Component.of("components.ingest"), "key"):
    print("held", flush=True)
    sys.stdin.read()
"""


def count(number: int) -> dict[str, int]:
    if number == 3:
        raise KeyboardInterrupt
    return {"number": number}


def test_shards_that_are_done_are_counted_against_all(tmp_path: Path) -> None:
    assert work_of("ingest", "key", tmp_path) is None
    with pytest.raises(KeyboardInterrupt):
        list(map_shards(count, [1, 2, 3, 4], workers=1, done=tmp_path / "work/key/scratch/done", label="ingest"))
    work = work_of("ingest", "key", tmp_path)
    assert work is not None
    assert (work.done, work.total, work.unit, work.process, work.left) == (2, 4, "shards", None, None)
    assert work_of("ingest", "another key", tmp_path) is None


def test_a_process_is_seen_while_it_holds_the_stage_and_by_its_module(tmp_path: Path) -> None:
    # The words after the program are what a door's own would be.
    command = [sys.executable, "-c", HOLDER, str(tmp_path), "-m", "components.ingest"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        work = work_of("ingest", None, tmp_path)
        assert work is not None
        assert (work.process, work.key) == (process.pid, "key")
        assert work_of("tokenize", None, tmp_path) is None
        process.communicate("")
    assert work_of("ingest", None, tmp_path) is None


def test_a_number_that_now_is_another_process_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "key").write_text(str(os.getpid()))
    assert work_of("ingest", None, tmp_path) is None
