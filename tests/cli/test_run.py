"""`cairn run` and `cairn dag`: what would be done, and what was, for people and for programs."""

import json
import sys
from pathlib import Path

import pytest
import typer

from cairn.cli.run import door
from cairn.errors import StageError
from pipelines.stages import NAMES, dvc_yaml
from tests.cli.conftest import Cairn
from tests.pipelines.project import Project, small_recipe


def test_a_dry_run_names_the_commands_and_their_overrides(cairn: Cairn, built: Project) -> None:
    said = cairn("run", "pretrain.steps=7", "--until", "tokenize", "--dry-run", at=built.root)
    lines = said.out.splitlines()
    assert [line.split()[2] for line in lines] == [f"components.{name}" for name in NAMES[:3]]
    assert all(line.endswith("--set pretrain.steps=7") for line in lines)
    told = json.loads(cairn("run", "pretrain.steps=7", "--until", "tokenize", "--dry-run", "--json", at=built.root).out)
    assert [" ".join(command) for command in told.values()] == lines


def test_a_run_ends_with_the_digests_of_what_is_there(built: Project) -> None:
    printed = built.run("cairn", "run", "--until", "ingest", "--json")
    said = json.loads(printed[printed.index("{") :])
    assert said["documents"] == built.digests()["documents"]
    assert list(said) == ["sources", "documents"]


def test_a_slip_in_the_recipe_is_told_before_anything_starts(cairn: Cairn, built: Project) -> None:
    said = cairn("run", "evaluate.stryde=3", at=built.root)
    assert said.code == 2
    assert said.err == ("error: override 'evaluate.stryde=3': evaluate.stryde: unknown key; did you mean 'stride'?\n")


def test_the_dag_is_written_and_read_by_programs(cairn: Cairn, tmp_path: Path) -> None:
    assert cairn("dag", at=tmp_path).out == dvc_yaml()
    assert cairn("dag", "--write", at=tmp_path).code == 0
    assert (tmp_path / "dvc.yaml").read_text() == dvc_yaml()
    told = {stage["name"]: stage for stage in json.loads(cairn("dag", "--json", at=tmp_path).out)}
    assert tuple(told) == NAMES
    assert told["ingest"]["inputs"] == {"sources": "sources.lock.json"}
    assert told["tokenize"]["outputs"] == {"tokenizer": "artifacts/tokenizer", "tokens": "artifacts/tokens"}


def test_a_stage_that_was_killed_is_told() -> None:
    command = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    with pytest.raises(StageError, match=r"was killed by signal 9 \(out of memory\?\)"):
        door(command)


def test_ctrl_c_that_comes_too_late_for_a_stage_stops_what_would_follow() -> None:
    late = "import os, signal; signal.signal(2, signal.SIG_IGN); os.kill(os.getppid(), 2); import time; time.sleep(0.3)"
    with pytest.raises(typer.Exit) as ended:
        door([sys.executable, "-c", late])
    assert ended.value.exit_code == 130


def test_a_dry_run_tells_that_processes_cannot_share_a_step(
    cairn: Cairn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text(json.dumps(small_recipe()))
    monkeypatch.setenv("CAIRN_PROCESSES", "3")
    said = cairn("run", "--dry-run", at=tmp_path)
    assert (said.code, said.err) == (
        2,
        "error: 3 processes cannot share 2 micro-batches evenly: set CAIRN_PROCESSES to a divisor of it, or lower "
        "pretrain.micro_batch\n",
    )
