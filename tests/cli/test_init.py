"""`cairn init`: a project in any folder, also where Cairn is installed as a package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cairn.recipe
from components.ingest.recipe import C4, FineWeb, Gopher
from components.recipe import Recipe
from pipelines.stages import dvc_yaml
from tests.cli.conftest import Cairn
from tests.pipelines.project import write_text

ROOT = Path(__file__).resolve().parents[2]
TINY = (ROOT / "recipes" / "tiny.yaml").read_text()


def test_an_empty_folder_becomes_a_project_like_the_checkout(cairn: Cairn, tmp_path: Path) -> None:
    said = cairn("init", at=tmp_path)
    assert said.code == 0
    assert "next: `cairn run`" in said.out
    assert (tmp_path / "params.yaml").read_text() == TINY
    assert (tmp_path / "dvc.yaml").read_text() == dvc_yaml()
    assert (tmp_path / ".dvc" / "config").read_text() == (ROOT / ".dvc" / "config").read_text()
    assert (tmp_path / ".dvc" / ".gitignore").read_text() == (ROOT / ".dvc" / ".gitignore").read_text()
    for ignored in (".cairn/store", "artifacts/model", "wandb/run"):
        subprocess.run(["git", "check-ignore", "-q", ignored], cwd=tmp_path, check=True)


def test_own_text_takes_the_place_of_the_sources_and_of_what_was_tuned_to_them(cairn: Cairn, tmp_path: Path) -> None:
    write_text(tmp_path / "My Notes", documents=3)
    said = cairn("init", "--text", "My Notes", "--text", "My Notes/*.txt", "--licence", "CC-BY-4.0", at=tmp_path)
    assert said.code == 0, said.err
    text = (tmp_path / "params.yaml").read_text()
    recipe = cairn_recipe(tmp_path)
    sources = [(source.name, source.uri, source.domain, source.licence) for source in recipe.snapshot.sources]
    assert sources == [
        ("my-notes", "My Notes", "my-notes", "CC-BY-4.0"),
        ("my-notes-2", "My Notes/*.txt", "my-notes", "CC-BY-4.0"),
    ]
    assert text.endswith(TINY[TINY.index("  split:\n") :])
    assert (recipe.ingest.gopher, recipe.ingest.c4, recipe.ingest.fineweb) == (Gopher(), C4(), FineWeb())
    assert "standard library" not in text
    assert "ocstrings" not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--text notes", "--text notes: say --licence: an SPDX expression such as CC-BY-4.0, or LicenseRef-own"),
        ("--text note", "--text note: no such file, folder or object"),
        ("--text note --licence CC0-1.0", "--text note: no such file, folder or object"),
        ("--text notes --licence mine!", "--licence mine!: 'mine!' is not an SPDX expression"),
        ("--text notes --licence CC0-1.0 --kind poem", "--kind poem: input should be 'prose' or 'code'"),
        ("--licence CC0-1.0 --kind code", "--licence: says something about your own text: name the text with --text"),
        ("--recipe tyni", "--recipe tyni: no such recipe; there are tiny"),
    ],
)
def test_what_cannot_work_is_told_and_nothing_is_written(
    cairn: Cairn, tmp_path: Path, words: str, message: str
) -> None:
    write_text(tmp_path / "notes", documents=1)
    said = cairn("init", *words.split(), at=tmp_path)
    assert said.code == 2
    assert said.err.startswith(f"error: {message}")
    assert said.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_what_is_there_is_replaced_with_force_only(cairn: Cairn, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("mine: 1\n")
    (tmp_path / ".gitignore").write_text("/secret/\n/.cairn/")
    said = cairn("init", at=tmp_path)
    assert said.code == 2
    assert said.err == "error: params.yaml: is there already: --force replaces it, or begin in an empty folder\n"
    assert (tmp_path / "params.yaml").read_text() == "mine: 1\n"
    assert not (tmp_path / "dvc.yaml").exists()
    assert cairn("init", "--force", at=tmp_path).code == 0
    assert (tmp_path / "params.yaml").read_text() == TINY
    assert (tmp_path / ".gitignore").read_text().startswith("/secret/\n/.cairn/\n/artifacts/\n/wandb/\n")


def test_without_git_dvc_is_told_so(cairn: Cairn, tmp_path: Path) -> None:
    assert cairn("init", "--no-git", at=tmp_path).code == 0
    assert not (tmp_path / ".git").exists()
    assert not (tmp_path / ".gitignore").exists()
    status = subprocess.run(["dvc", "status"], cwd=tmp_path, env=path(), capture_output=True, text=True, check=True)
    assert "changed" in status.stdout


def test_an_installed_cairn_sets_up_a_project_that_both_doors_run(tmp_path: Path) -> None:
    source, installed, project = tmp_path / "source", tmp_path / "installed", tmp_path / "project"
    kept = ["cairn", "trainer", "components", "pipelines", "recipes"]
    for package in kept:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(installed), str(source)], check=True)
    shutil.rmtree(source)
    write_text(project / "text")
    # No trace of the checkout: neither its folder nor the console script of its environment.
    surroundings = {**path(), "PYTHONPATH": str(installed), "CAIRN_WORKERS": "1"}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=project, env=surroundings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    cairn = (sys.executable, str(installed / "bin" / "cairn"))
    run(*cairn, "init", "--text", "text", "--licence", "CC0-1.0")
    run(*cairn, "config", "set", "ingest.split.heldout=0.1")
    printed = run(*cairn, "run", "--until", "ingest")
    assert "ingest: documents" in printed
    printed = run("dvc", "repro", "ingest")
    assert printed.count("up to date") == 2, "DVC called the same doors, and there was nothing to do"
    assert "Data and pipelines are up to date." in run("dvc", "repro", "ingest")


def cairn_recipe(folder: Path) -> Recipe:
    return cairn.recipe.load(Recipe, folder / "params.yaml")


def path() -> dict[str, str]:
    """The environment, with this interpreter's programs first."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
