"""The whole DAG as a user runs it: through dvc and without, twice, with a changed parameter, in another clone."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from cairn.lineage import attestation, signing
from cairn.lineage.statement import Resource
from cairn.lineage.store import Store
from pipelines.stages import NAMES
from tests.pipelines.project import ARTIFACTS, Project


def test_the_model_loads_and_continues_text(built: Project) -> None:
    program = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model = AutoModelForCausalLM.from_pretrained('artifacts/model')\n"
        "tokenizer = AutoTokenizer.from_pretrained('artifacts/model')\n"
        "ids = tokenizer('The stone', return_tensors='pt').input_ids\n"
        "print('said', tokenizer.decode(model.generate(ids, max_new_tokens=8, do_sample=False)[0]))\n"
    )
    assert "said The stone" in built.run("python", "-c", program)


def test_every_artifact_has_a_signed_statement_of_what_made_it(built: Project) -> None:
    store = Store(str(built.root / ".cairn" / "store"))
    digests = built.digests()
    inputs = {}
    read: tuple[Resource, ...] = ()
    for name in ARTIFACTS:
        digest = digests[name]
        assert digest
        envelopes = [envelope for _, envelope in attestation.made(store, digest)]
        assert len(envelopes) == 1, name
        verified = attestation.verify(envelopes[0], signing.trusted_keys())
        assert verified.missing() == []
        assert verified.expected_key() == verified.stage_key
        inputs[name] = verified.inputs
        read = verified.objects or read
    assert inputs["scores"]["model"] == digests["model"]
    assert inputs["model"]["checkpoint"] == digests["checkpoint"]
    assert inputs["checkpoint"]["tokens"] == digests["tokens"]
    assert inputs["tokens"]["documents"] == digests["documents"]
    sources = inputs["documents"]["sources"]
    (lock,) = [envelope for _, envelope in attestation.made(store, sources)]
    objects = attestation.verify(lock, signing.trusted_keys()).objects
    assert sum((one.uri or "").endswith(".txt") for one in objects) == 120
    assert read == objects


def test_a_second_repro_runs_nothing(built: Project) -> None:
    printed = built.run("dvc", "repro")
    assert "Data and pipelines are up to date." in printed
    assert "Running stage" not in printed
    assert built.git("status", "--porcelain") == ""


def test_without_dvc_and_with_two_workers_elsewhere_the_digests_are_the_same(built: Project, tmp_path: Path) -> None:
    elsewhere = Project.create(tmp_path / "another" / "place")
    elsewhere.run("cairn", "run", CAIRN_WORKERS="2")
    assert elsewhere.digests() == built.digests()
    lock = (elsewhere.root / "sources.lock.json").read_bytes()
    assert lock == (built.root / "sources.lock.json").read_bytes()
    printed = elsewhere.run("cairn", "run")
    assert elsewhere.ran(printed) == []
    assert printed.count("up to date") == len(NAMES)


def test_a_changed_training_parameter_runs_training_and_what_follows_and_back_again_nothing(copy: Project) -> None:
    before = copy.digests()
    recipe = copy.recipe()
    recipe["pretrain"]["clip"] = 0.5
    copy.write_recipe(recipe)
    assert copy.ran(copy.run("dvc", "repro")) == ["pretrain", "export", "evaluate", "report"]
    changed = copy.digests()
    assert {name for name in ARTIFACTS if changed[name] != before[name]} == {
        "checkpoint",
        "optimizer",
        "model",
        "scores",
        "report",
    }
    recipe["pretrain"]["clip"] = 1.0
    copy.write_recipe(recipe)
    assert copy.ran(copy.run("dvc", "repro")) == []
    assert copy.digests() == before


def test_what_was_pushed_is_pulled_in_a_clone_and_is_up_to_date_there(copy: Project, tmp_path: Path) -> None:
    copy.run("dvc", "push")
    clone = Project(tmp_path / "clone")
    copy.git("clone", "-q", str(copy.root), str(clone.root))
    clone.run("dvc", "remote", "modify", "--local", "store", "url", str(copy.root / ".cairn" / "store"))
    clone.run("dvc", "pull")
    assert clone.digests() == copy.digests()
    assert "Data and pipelines are up to date." in clone.run("dvc", "repro")
    printed = clone.run("cairn", "run")
    assert clone.ran(printed) == []


def test_a_slip_in_a_later_section_is_told_before_anything_runs(copy: Project) -> None:
    recipe = copy.recipe()
    recipe["ingest"]["split"]["seed"] = 9
    recipe["evaluate"]["stryde"] = 3
    copy.write_recipe(recipe)
    printed = copy.run("cairn", "run", code=2)
    assert "evaluate.stryde: unknown key; did you mean 'stride'?" in printed
    assert copy.ran(printed) == []
    assert "Traceback" not in printed
    printed = copy.run("dvc", "repro", code=255)
    assert "exited with 2" in printed
    assert "evaluate.stryde: unknown key; did you mean 'stride'?" in printed
    assert copy.ran(printed) == []


def test_the_full_dry_run_prints_the_commands_of_dvc_yaml(copy: Project) -> None:
    printed = copy.run("cairn", "run", "--dry-run")
    commands = [line.split(": ", 1)[1] for line in (copy.root / "dvc.yaml").read_text().splitlines() if "cmd: " in line]
    outlook = [line for line in printed.splitlines() if line.startswith("pretrain: ")]
    assert [line for line in printed.splitlines() if line not in outlook] == commands
    assert "tokens in 150 steps" in outlook[0]
    assert "no such stage" in copy.run("cairn", "run", "--until", "pretrane", code=2)


# The report is drawn before a signal could reach it.
@pytest.mark.parametrize("stage", [name for name in NAMES if name not in ("snapshot", "report")])
@pytest.mark.parametrize(
    ("door", "sent"), [("dvc repro", signal.SIGKILL), ("dvc repro", signal.SIGINT), ("cairn run", signal.SIGINT)]
)
@pytest.mark.slow
def test_a_stage_that_is_stopped_again_and_again_finishes_with_the_same_bytes(
    built: Project, tmp_path: Path, stage: str, door: str, sent: signal.Signals
) -> None:
    project = before(built, tmp_path, stage)
    for seconds in (0.0, 0.03, 0.1, 0.3, 1.0, 3.0):
        printed, code = stop(project, stage, door, sent, partial(time.sleep, seconds))
        if f"{stage}: running" not in printed:
            break  # the last attempt had come to its end
        assert code != 0, printed
        assert door != "cairn run" or code == 130, printed
        # Before its first line of ours runs, an interpreter has only a traceback for Ctrl-C.
        assert sent == signal.SIGKILL or "Traceback" not in printed or "<frozen site>" in printed, printed
        left = project.digests()
        assert all(left[name] in (None, built.digests()[name]) for name in ARTIFACTS), printed
    project.run(*door.split())
    assert project.digests() == built.digests()
    assert list((project.root / ".cairn" / "work").iterdir()) == []


@pytest.mark.parametrize(
    ("door", "sent", "code"),
    [("dvc repro", signal.SIGKILL, -9), pytest.param("cairn run", signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_training_that_is_stopped_goes_on_where_it_was_to_the_same_bytes(
    built: Project, tmp_path: Path, door: str, sent: signal.Signals, code: int
) -> None:
    project = before(built, tmp_path, "pretrain")
    alone = door == "cairn run"
    printed, ended = stop(project, "pretrain", door, sent, lambda: project.wait_for_step(30), alone)
    assert ended == code, printed
    assert "Traceback" not in printed
    assert not (project.root / "artifacts" / "checkpoint").exists()
    assert "resuming at step" in project.run(*door.split())
    assert project.digests() == built.digests()


def before(built: Project, tmp_path: Path, stage: str) -> Project:
    """The built project as it was before `stage` had ever run."""
    project = Project.create(tmp_path / "project")
    shutil.copytree(built.root / "artifacts", project.root / "artifacts")
    shutil.copytree(built.root / ".cairn" / "store", project.root / ".cairn" / "store")
    for name in ("dvc.lock", "sources.lock.json"):
        shutil.copy(built.root / name, project.root / name)
    shutil.rmtree(project.root / ".cairn" / "store" / "stages")
    for output in outputs_of(stage):
        shutil.rmtree(project.root / "artifacts" / output)
    return project


def stop(
    project: Project, stage: str, door: str, sent: signal.Signals, wait: Callable[[], None], alone: bool = False
) -> tuple[str, int | None]:
    """Signal every process of a door, as Ctrl-C in a terminal does, or only the first, as a supervisor does, some time
    after `stage` began; what it printed and its exit code."""
    process = project.start(*door.split())
    printed = ""
    assert process.stdout
    for line in process.stdout:
        printed += line
        if f"{stage}: running" in line:
            wait()
            with suppress(ProcessLookupError):
                (os.kill if alone else os.killpg)(process.pid, sent)
            break
    rest, _ = process.communicate(timeout=60)
    return printed + rest, process.returncode


def outputs_of(stage: str) -> set[str]:
    """The artifacts that a stage makes."""
    from pipelines.stages import stages

    return {name for one in stages() if one.name == stage for name in one.outputs}


def test_the_scores_are_what_dvc_shows(built: Project) -> None:
    shown = json.loads(built.run("dvc", "metrics", "show", "--json"))
    scores = json.loads((built.root / "artifacts" / "scores" / "scores.json").read_text())
    assert next(iter(shown[""]["data"].values()))["data"] == scores
