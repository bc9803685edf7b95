"""A component's door refuses what was written for another version of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from cairn.errors import StageError
from cairn.lineage.stage import Component
from components.door import parse
from pipelines.stages import stages

COMPONENT = Component.of("components.ingest")
PLACES = ["--input", "sources=a", "--output", "documents=b"]


def test_the_version_it_was_written_for_is_taken_and_none_too() -> None:
    assert parse(COMPONENT, ["--for-version", COMPONENT.version, *PLACES]).inputs == {"sources": Path("a")}
    assert parse(COMPONENT, PLACES).outputs == {"documents": Path("b")}


@pytest.mark.parametrize(
    ("version", "way_out"), [("99.0.0", "update Cairn"), ("0.0.1", "`cairn dag --write` takes it up")]
)
def test_another_version_is_refused_with_the_way_out(version: str, way_out: str) -> None:
    with pytest.raises(StageError) as caught:
        parse(COMPONENT, ["--for-version", version, *PLACES])
    installed = f"but {COMPONENT.version} is installed"
    assert str(caught.value) == f"ingest: asked for version {version}, {installed}: {way_out}"


def test_a_raised_version_is_another_command_so_dvc_runs_the_stage() -> None:
    for stage in stages():
        words = stage.command()
        assert words[words.index("--for-version") + 1] == Component.of(f"components.{stage.name}").version


def test_the_refusal_is_one_line_and_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "components.export", "--for-version", "99.0.0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: export: asked for version 99.0.0, but ")
    assert done.stderr.count("\n") == 1
