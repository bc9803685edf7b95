"""`cairn doctor`: each finding with its fix, and 1 when something is not in order."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

import cairn.recipe
from cairn.cli import machine, project
from cairn.lineage import environment
from cairn.lineage.signing import signer
from components.recipe import Recipe
from tests.cli.conftest import Cairn, Said
from tests.pipelines.project import Project

ROOT = Path(__file__).resolve().parents[2]


def levels(said: Said) -> dict[str, str]:
    return {found["check"]: found["level"] for found in json.loads(said.out)}


@pytest.fixture
def tiny() -> Recipe:
    """The default recipe."""
    return cairn.recipe.load(Recipe, ROOT / "recipes" / "tiny.yaml")


def test_a_project_in_order_passes_and_is_left_as_it_was(cairn: Cairn, built: Project) -> None:
    before = sorted(path for path in built.root.rglob("*") if ".git/" not in str(path))
    said = cairn("doctor", "--json", at=built.root)
    assert said.code == 0
    found = levels(said)
    assert "fail" not in found.values()
    in_order = ("python", "torch", "recipe", "dag", "git", "store", "dvc remote", "signing key", "wandb", "disk")
    assert {name: found[name] for name in in_order} == dict.fromkeys(in_order, "ok")
    assert sorted(path for path in built.root.rglob("*") if ".git/" not in str(path)) == before


def test_what_is_wrong_is_told_with_its_fix_and_ends_with_1(
    cairn: Cairn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text("pretrain: {}\n")
    (tmp_path / "file").write_text("")
    home = tmp_path / "keys"
    monkeypatch.setenv("CAIRN_HOME", str(home))
    signer()
    (home / "signing-key.pem").chmod(0o644)
    monkeypatch.setenv("CAIRN_STORE", str(tmp_path / "file"))
    monkeypatch.setenv("CAIRN_PROCESSES", "many")
    said = cairn("doctor", at=tmp_path)
    assert said.code == 1
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert "fail processors environment variable CAIRN_PROCESSES='many': must be a whole number from 1" in lines
    key = f"fail signing key {home}/signing-key.pem: others may read it (mode 0644)"
    assert lines[lines.index(key) + 1] == f"→ `chmod 600 {home}/signing-key.pem`"
    assert any(line.startswith("fail recipe params.yaml:1: snapshot: missing: add it") for line in lines)
    assert any(line.startswith(f"fail store {tmp_path}/file: ") for line in lines)
    assert "warn dag no dvc.yaml: `cairn run` works, `dvc repro` does not" in lines


def test_outside_a_project_nothing_is_left_and_nothing_said_of_a_recipe(cairn: Cairn, tmp_path: Path) -> None:
    said = cairn("doctor", at=tmp_path)
    assert said.code == 1
    assert "none yet: the first run makes .cairn/store" in said.out
    assert "this recipe" not in said.out
    assert list(tmp_path.iterdir()) == []


def test_the_store_in_a_bucket_passes(tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAIRN_STORE", s3)
    found = project.store()
    assert (found.level, found.said) == ("ok", f"{s3}: a record was written, read back and removed")
    filesystem, path = fsspec.core.url_to_fs(s3)
    filesystem.invalidate_cache()
    assert filesystem.find(path) == []


def test_a_store_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".cairn" / "store").mkdir(parents=True)
    monkeypatch.setattr(project, "PATIENCE", 0.2)
    monkeypatch.setattr(project, "_probe", lambda opened: time.sleep(5))
    found = project.store()
    assert (found.level, "no answer" in found.said) == ("fail", True)


def test_more_threads_than_processors_and_a_small_quota_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(machine, "_quota", lambda: None)
    recipe = cairn.recipe.load(Recipe, ROOT / "recipes" / "tiny.yaml", ["pretrain.threads=1"])
    assert machine.processors(recipe).level == "ok"
    assert machine.processors(None).level == "ok"
    recipe = cairn.recipe.load(Recipe, ROOT / "recipes" / "tiny.yaml", ["pretrain.threads=999"])
    assert machine.processors(recipe).level == "warn"
    assert "more threads than processors" in machine.processors(recipe).said
    monkeypatch.setattr(machine, "_quota", lambda: 1.5)
    assert machine.processors(recipe).fix == "set pretrain.threads to 1 and CAIRN_WORKERS=1"


def test_disk_and_memory_are_held_against_the_recipe(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    assert machine.disk(tiny).level == "ok"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=400_000_000))
    assert machine.disk(tiny).level == "fail"
    large = tiny.pretrain.model.model_copy(update={"layers": 200_000})
    huge = tiny.model_copy(update={"pretrain": tiny.pretrain.model_copy(update={"model": large})})
    assert machine.memory(huge).level == "fail"
    assert machine.memory(tiny).level == "ok"


def test_a_compiler_matters_only_to_who_compiles(tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    compiled = tiny.model_copy(update={"pretrain": tiny.pretrain.model_copy(update={"compile": True})})
    assert machine.compiler(tiny).level == "ok"
    assert machine.compiler(None).level == "ok"
    assert machine.compiler(compiled).level == "fail"


@pytest.mark.parametrize(
    ("mode", "login", "level"),
    [("offline", False, "ok"), ("disabled", False, "ok"), ("online", False, "warn"), ("online", True, "ok")],
)
def test_wandb_is_asked_only_whether_it_can_send(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, login: bool, level: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", mode)
    if login:
        (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password never-shown\n")
        (tmp_path / ".netrc").chmod(0o600)
    found = machine.board()
    assert found.level == level
    assert "never-shown" not in found.said + found.fix


def test_a_torch_that_does_not_import_is_told_with_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TORCH", "raise ImportError('libtorch_cpu.so: cannot open shared object file')")
    found = machine.Torch().found()
    assert found.level == "fail"
    assert "libtorch_cpu.so: cannot open shared object file" in found.said


def test_packages_that_are_not_as_locked_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert project.packages().level == "ok", "a package has no lock beside it"
    numpy = environment.package_version("numpy")
    lock = f"numpy=={numpy} \\\n    --hash=sha256:{'0' * 64}\norjson==0.0.1 ; sys_platform != 'win32' \\\n"
    (tmp_path / "requirements.lock").write_text(f"{lock}    --hash=sha256:00\nwinloop==1.0 ; sys_platform == 'win32'\n")
    found = project.packages()
    assert found.level == "warn"
    assert found.said == f"orjson {environment.package_version('orjson')} (locked: 0.0.1)"


def test_a_remote_elsewhere_and_one_that_is_not_verified_are_told(
    copy: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy.root)
    assert project.remote().level == "ok"
    config = copy.root / ".dvc" / "config"
    config.write_text(config.read_text().replace("verify = true", "verify = false"))
    assert project.remote().fix == "`dvc remote modify store verify true`"
    monkeypatch.setenv("CAIRN_STORE", "/elsewhere")
    assert "but the store is /elsewhere" in project.remote().said
    config.write_text("[core]\n")
    assert "`dvc push` has nowhere to go" in project.remote().said


def test_what_is_not_in_git_is_named(copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.root)
    assert project.git().level == "ok"
    copy.git("rm", "--quiet", "--cached", "dvc.lock")
    assert project.git().fix == "`git add dvc.lock`"
    (copy.root / ".gitignore").unlink()
    assert project.git().said.startswith("does not ignore .cairn/store")
