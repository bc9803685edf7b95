"""`cairn status`: what a run would do and why, without running anything."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cairn.lineage import environment
from cairn.lineage.artifact import read_artifact
from cairn.lineage.model_signature import sign_model
from cairn.lineage.signing import signer
from pipelines.stages import NAMES, stages
from tests.cli.conftest import Cairn, Said
from tests.pipelines.project import Project

ROOT = Path(__file__).resolve().parents[2]


def states(said: Said) -> dict[str, str]:
    assert said.code == 0, said.err
    return {one["stage"]: one["state"] for one in json.loads(said.out)["stages"]}


def reasons(said: Said) -> dict[str, list[str]]:
    """Stage to the lines that stand beside it."""
    found: dict[str, list[str]] = {}
    for line in said.out.splitlines()[1:]:
        if not line:
            break
        name = line[:8].strip() or next(reversed(found))
        found.setdefault(name, []).append(line[8:].strip().split("  ")[-1].strip())
    return found


def test_after_a_run_everything_is_up_to_date(cairn: Cairn, built: Project) -> None:
    said = cairn("status", "--json", at=built.root)
    assert states(said) == dict.fromkeys(NAMES, "up to date")
    shown = cairn("status", at=built.root).out
    assert "`cairn run` would make" not in shown
    digest = built.digests()["model"]
    assert f"model {str(digest)[:12]}" in shown


def test_it_loads_nothing_heavy_and_reads_an_artifact_once(built: Project, tmp_path: Path) -> None:
    project = Project(tmp_path / "copy")
    shutil.copytree(built.root, project.root, symlinks=True)
    program = (
        "import sys; from cairn.cli.main import enter; enter(['status', '--json'])\n"
        "heavy = {'torch', 'numpy', 'transformers', 'pyarrow', 'dvc', 'kfp', 'wandb'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", program]
    first = subprocess.run(command, cwd=project.root, env=surroundings, capture_output=True, text=True, check=True)
    model = project.root / "artifacts" / "model" / "model.safetensors"
    stat = model.stat()
    # Size, inode and time stay, so it is taken for unchanged: status is for looking, the runner reads the bytes.
    with open(model, "r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\1\2\3\4")
    os.utime(model, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = subprocess.run(command, cwd=project.root, env=surroundings, capture_output=True, text=True, check=True)
    assert first.stdout == second.stdout
    os.utime(model)
    third = subprocess.run(command, cwd=project.root, env=surroundings, capture_output=True, text=True, check=True)
    assert first.stdout != third.stdout


def test_a_changed_key_is_named_with_both_values_and_what_follows_waits(cairn: Cairn, built: Project) -> None:
    said = cairn("status", "pretrain.clip=0.5", "pretrain.optimizer.betas=[0.9, 0.99]", at=built.root)
    told = reasons(said)
    assert told["pretrain"] == ["pretrain.optimizer.betas: [0.9, 0.95] → [0.9, 0.99]", "pretrain.clip: 1.0 → 0.5"]
    assert told["export"] == ["comes after pretrain (stale)"]
    assert told["tokenize"][0].startswith("tokenizer ")
    assert "`cairn run` would make: pretrain, export, evaluate, report" in said.out


def test_another_source_is_told_before_anything_is_read(cairn: Cairn, built: Project) -> None:
    said = cairn("status", "snapshot.sources.0.domain=hills", at=built.root)
    assert reasons(said)["snapshot"] == ["snapshot.sources.0.domain: walks → hills"]
    assert states(cairn("status", "snapshot.sources.0.domain=hills", "--json", at=built.root))["ingest"] == "stale"


def test_bytes_that_were_changed_by_hand_are_seen(cairn: Cairn, copy: Project) -> None:
    shutil.rmtree(copy.root / ".dvc" / "cache")
    scores = copy.root / "artifacts" / "scores" / "scores.json"
    scores.write_text(scores.read_text().replace("0.4", "0.3"))
    told = reasons(cairn("status", at=copy.root))
    assert told["evaluate"][0].startswith("scores was changed: ")


def test_what_comes_after_a_damaged_artifact_is_judged_by_what_will_be_there_again(cairn: Cairn, copy: Project) -> None:
    shutil.rmtree(copy.root / ".dvc" / "cache")
    with open(copy.root / "artifacts" / "documents" / "documents.json", "ab") as file:
        file.write(b" ")
    said = cairn("status", at=copy.root)
    assert reasons(said)["ingest"][0].startswith("documents was changed: ")
    assert "`cairn run` would make: ingest\n" in said.out
    done = cairn("run", "--until", "tokenize", at=copy.root)
    assert (done.code, states(cairn("status", "--json", at=copy.root))) == (0, dict.fromkeys(NAMES, "up to date"))


def test_the_sound_result_of_another_recipe_is_not_called_changed(cairn: Cairn, copy: Project) -> None:
    shutil.rmtree(copy.root / ".dvc" / "cache")
    before = copy.digests()["documents"]
    assert cairn("run", "--until", "ingest", "ingest.split.seed=5", at=copy.root).code == 0
    # A run would bring back what this one replaced, and that is what is shown.
    assert reasons(cairn("status", at=copy.root))["ingest"] == [f"documents {str(before)[:12]}"]
    shutil.rmtree(copy.root / ".cairn" / "store" / "files")  # the sources were in it too
    told = reasons(cairn("status", at=copy.root))["ingest"]
    assert told == ["comes after snapshot (stale)", "ingest.split.seed: 5 → 0"]


def test_a_signature_of_another_model_is_told_and_a_run_puts_the_right_one_there(cairn: Cairn, copy: Project) -> None:
    """As after `dvc checkout`, which brings a model back and knows nothing of its signature."""
    beside = copy.root / "artifacts" / "model.sig"
    sound = beside.read_bytes()
    beside.write_bytes(sign_model(read_artifact(copy.root / "artifacts" / "scores"), "model", signer()))
    told = "no signature of this model lies beside it: `cairn run` puts it there"
    assert reasons(cairn("status", at=copy.root))["export"][1:] == [told]
    assert cairn("run", "--until", "export", at=copy.root).code == 0
    assert beside.read_bytes() == sound
    assert len(reasons(cairn("status", at=copy.root))["export"]) == 1


def test_what_an_interrupted_run_left_does_not_matter_once_the_stage_is_up_to_date(cairn: Cairn, copy: Project) -> None:
    stages = json.loads(cairn("status", "--json", at=copy.root).out)["stages"]
    (key,) = [one["key"] for one in stages if one["stage"] == "export"]
    (copy.root / ".cairn" / "work" / key / "scratch").mkdir(parents=True)
    assert states(cairn("status", "--json", at=copy.root)) == dict.fromkeys(NAMES, "up to date")
    # Where the outputs are lost, the same folder is what a run goes on from.
    shutil.rmtree(copy.root / ".dvc" / "cache")
    shutil.rmtree(copy.root / "artifacts" / "model")
    assert states(cairn("status", "--json", at=copy.root))["export"] == "interrupted"


def test_what_failed_is_not_called_interrupted_and_its_error_is_told(cairn: Cairn, copy: Project) -> None:
    recipe = copy.recipe()
    recipe["ingest"]["min_document_bytes"] = 10_000_000
    copy.write_recipe(recipe)
    assert cairn("run", "--until", "ingest", at=copy.root).code != 0
    assert states(cairn("status", "--json", at=copy.root))["ingest"] == "failed"
    (told,) = reasons(cairn("status", at=copy.root))["ingest"]
    assert told.startswith("none of 120 documents was kept: 120 by min_document_bytes: loosen these keys")
    assert told.endswith(": once that is put right, `cairn run` goes on from what was finished")


def test_what_is_gone_is_in_the_store_or_is_missing(cairn: Cairn, copy: Project) -> None:
    shutil.rmtree(copy.root / "artifacts" / "documents")
    found = states(cairn("status", "--json", at=copy.root))
    assert found == {**dict.fromkeys(NAMES, "up to date"), "ingest": "in the store"}
    shutil.rmtree(copy.root / ".dvc" / "cache")
    said = cairn("status", at=copy.root)
    assert "is neither here nor in the store" in reasons(said)["ingest"][0]
    assert "`cairn run` would make: ingest\n" in said.out


def test_a_raised_version_and_another_package_are_told(
    cairn: Cairn, copy: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = copy.root / "components" / "export" / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("version: ", "version: 9", 1))
    real = environment.package_version
    monkeypatch.setattr(environment, "ROOT", copy.root)
    monkeypatch.setattr(environment, "package_version", lambda name: "9.9" if name == "tokenizers" else real(name))
    stages.cache_clear()
    try:
        told = reasons(cairn("status", at=copy.root))
    finally:
        stages.cache_clear()
    assert told["export"][-1].startswith("version 0.")
    assert "→ 90." in told["export"][-1]
    assert told["tokenize"] == [f"tokenizers {real('tokenizers')} → 9.9"]


def test_what_nobody_trusted_signed_is_not_up_to_date(
    cairn: Cairn, built: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAIRN_HOME", str(tmp_path / "somebody else"))
    said = cairn("status", at=built.root)
    assert reasons(said)["evaluate"][-1] == "scores: no trusted attestation says how it was made"
    assert "signed by no trusted key" in said.err


def test_a_lock_file_that_is_none_is_told(cairn: Cairn, copy: Project) -> None:
    (copy.root / "sources.lock.json").write_text("{}")
    said = cairn("status", at=copy.root)
    assert "sources.lock.json: not a lock file of sources" in said.out


def test_an_old_dvc_yaml_is_told(cairn: Cairn, copy: Project) -> None:
    path = copy.root / "dvc.yaml"
    path.write_text(path.read_text().replace("--for-version 0.", "--for-version 7."))
    assert "dvc.yaml is not what the stages say: `cairn dag --write`" in cairn("status", at=copy.root).out


def test_a_dvc_yaml_that_is_no_text_is_told(cairn: Cairn, copy: Project) -> None:
    (copy.root / "dvc.yaml").write_bytes(b"stages: \xff\n")
    assert "dvc.yaml is not what the stages say: `cairn dag --write`" in cairn("status", at=copy.root).out


@pytest.fixture
def training(copy: Project) -> Iterator[tuple[Project, "subprocess.Popen[str]"]]:
    """A project in the middle of a long training run."""
    process = copy.start("cairn", "run", "pretrain.steps=100000")
    copy.wait_for_step(30)
    yield copy, process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_run_that_goes_on_has_step_rate_and_time_left_and_a_stopped_one_its_step(
    cairn: Cairn, training: tuple[Project, "subprocess.Popen[str]"]
) -> None:
    project, process = training
    (one,) = [
        one
        for one in json.loads(cairn("status", "--json", at=project.root).out)["stages"]
        if one["stage"] == "pretrain"
    ]
    assert one["state"] == "running"
    work = one["work"]
    assert 30 <= work["done"] < work["total"] == 100_000
    assert work["rate"] > 0
    assert work["left"] == pytest.approx((work["total"] - work["done"]) / work["rate"])
    assert work["key"] != one["key"]
    shown = reasons(cairn("status", at=project.root))["pretrain"][0]
    assert "tokens/s, loss " in shown
    assert f"with another recipe than the one in force, process {work['process']}" in shown

    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    stopped = cairn("status", "pretrain.steps=100000", at=project.root)
    assert "interrupted" in stopped.out
    assert "of 100,000 steps" in reasons(stopped)["pretrain"][0]
    assert "`cairn run` goes on from there" in reasons(stopped)["pretrain"][0]
    assert states(cairn("status", "--json", at=project.root))["pretrain"] == "up to date"
