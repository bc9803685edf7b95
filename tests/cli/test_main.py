"""What every verb has in common: slips, help, tracebacks on demand, completion."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from cairn.cli.main import app
from tests.cli.conftest import Cairn

ROOT = Path(__file__).resolve().parents[2]
VERBS = sorted(vars(typer.main.get_command(app))["commands"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("runn", "No such command 'runn'. Did you mean 'run'? (`cairn --help` tells more)"),
        ("run --dry-rum", "No such option: --dry-rum: did you mean --dry-run? (`cairn run --help` tells more)"),
        ("run --unitl=a", "No such option: --unitl: did you mean --until? (`cairn run --help` tells more)"),
        ("run --until", "Option '--until' requires an argument. (`cairn --help` tells more)"),
        ("config explian", "No such command 'explian'. Did you mean 'explain'? (`cairn config --help` tells more)"),
        ("compare", "Missing argument 'first'. (`cairn compare --help` tells more)"),
        ("generate --tokens no", "Invalid value for '--tokens': "),
        ("run --until pretrian", "--until pretrian: no such stage: did you mean pretrain?"),
    ],
)
def test_a_slip_is_one_line_with_the_nearest_word_and_2(cairn: Cairn, tmp_path: Path, words: str, message: str) -> None:
    said = cairn(*words.split(), at=tmp_path)
    assert said.code == 2
    assert said.err.startswith(f"error: {message}")
    assert said.err.count("\n") == 1
    assert said.out == ""


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(cairn: Cairn, tmp_path: Path, verb: str) -> None:
    said = cairn(verb, "--help", at=tmp_path)
    assert said.code == 0
    assert f"cairn {verb}" in said.out
    assert cairn(verb, "-h", at=tmp_path).out == said.out


def test_without_a_verb_the_help_is_shown(cairn: Cairn, tmp_path: Path) -> None:
    said = cairn(at=tmp_path)
    assert said.code == 2
    assert all(verb in said.out for verb in VERBS)


@pytest.mark.parametrize("words", ["--debug status", "status --debug"])
def test_debug_shows_the_traceback_wherever_it_stands(cairn: Cairn, tmp_path: Path, words: str) -> None:
    said = cairn(*words.split(), at=tmp_path)
    assert said.code == 2
    assert "Traceback" in said.err
    assert said.err.endswith("error: params.yaml: no such file: `cairn init` writes one\n")


def test_without_debug_there_is_no_traceback(cairn: Cairn, tmp_path: Path) -> None:
    said = cairn("status", at=tmp_path)
    assert said.err == "error: params.yaml: no such file: `cairn init` writes one\n"


def test_a_recipe_of_a_newer_cairn_is_refused_by_that(cairn: Cairn, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("# From the future.\ncairn: 99.0.0\nspeed: fast\n")
    for verb in ("run", "status"):
        said = cairn(verb, at=tmp_path)
        assert said.code == 2
        assert said.err.startswith("error: params.yaml:2: cairn: written for Cairn 99.0.0, but ")
        assert said.err.endswith("is installed: update Cairn\n")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("cairn com", "compare"),
        ("cairn run --until pre", "pretrain"),
        ("cairn config explain pretrain.optimizer.mu", "pretrain.optimizer.muon_lr"),
    ],
)
def test_the_shell_completes_verbs_stages_and_keys(words: str, offered: str) -> None:
    said = words.split()
    asked = {"_CAIRN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(said) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", "from cairn.cli.main import main; main()"],
        env={**os.environ, **asked},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert offered in done.stdout.split()
