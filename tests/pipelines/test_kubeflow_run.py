"""Every command of the compiled pipeline, run on this machine: killed in training, run again, and once more.

What an image holds is set up in a folder: Cairn's code without a checkout. `git` and `dvc` are there to be caught.
"""

import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cairn.lineage.artifact import digest_of
from cairn.lineage.pins import read_pin_file
from cairn.lineage.runs import names, read
from cairn.lineage.stage import Component
from cairn.lineage.store import Store
from components.report.page import checkpoint_of, with_times
from components.report.times import times_of
from pipelines.pretraining import COMPILED
from pipelines.stages import NAMES, place, stages
from tests.pipelines.project import Project

HOST = Path(__file__).with_name("on_host.py")
CAUGHT = """
import sys
from pathlib import Path

class Catch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("dvc", "dvc_data", "git", "pygit2", "dulwich"):
            with open({log!r}, "a") as log:
                log.write(f"import {{name}}\\n")
            raise ImportError(name)

sys.meta_path.insert(0, Catch())
"""


class Pods:
    """A folder that stands for all pods, and the store beside it."""

    def __init__(self, root: Path, built: Project) -> None:
        self.project = unbuilt(built, root / "image")
        self.root = root
        self.store = root / "store"
        self.store.mkdir()
        self.caught = root / "caught"
        self.caught.write_text("")
        traps = root / "traps"
        traps.mkdir()
        (traps / "sitecustomize.py").write_text(CAUGHT.format(log=str(self.caught)))
        for name in ("git", "dvc"):
            (traps / name).write_text(f'#!/bin/sh\necho "run {name} $*" >> {self.caught}\nexit 1\n')
            (traps / name).chmod(0o755)
        self.parameters = root / "parameters.json"
        recipe = (self.project.root / "params.yaml").read_text()
        self.parameters.write_text(json.dumps({"recipe": recipe, "store": str(self.store)}))
        self.path = os.pathsep.join((str(traps), str(Path(sys.executable).parent), os.environ["PATH"]))
        self.python_path = f"{traps}{os.pathsep}{self.project.root}"

    def command(self, run: str) -> list[str]:
        return ["python", str(HOST), str(COMPILED), str(self.root / run), str(self.parameters)]

    def run(self, run: str) -> str:
        return self.project.run(*self.command(run), PATH=self.path, PYTHONPATH=self.python_path)

    def folders(self, run: str) -> dict[str, Path]:
        """What Kubeflow keeps of each task of a run."""
        [folder] = (self.root / run).iterdir()
        return {path.name: path for path in folder.iterdir()}

    def digests(self, run: str) -> dict[str, str]:
        """Artifact name to the digest in its pin."""
        folders = self.folders(run)
        return {name: read_pin_file(folders[stage.name] / name).digest for stage in stages() for name in stage.outputs}

    def told(self, run: str, task: str) -> Any:
        """The message that a task left for Kubeflow."""
        return json.loads((self.folders(run)[task] / "executor_output.json").read_text())


@dataclass(frozen=True)
class Runs:
    """Three runs of one pipeline, and what each printed."""

    pods: Pods
    killed: str
    finished: str
    again: str


@pytest.fixture(scope="module")
def runs(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A run that was killed in the middle of training, the run after it, and one more."""
    pods = Pods(tmp_path_factory.mktemp("pods"), built)
    process = pods.project.start(*pods.command("killed"), PATH=pods.path, PYTHONPATH=pods.python_path)
    pods.project.wait_for_step(30)
    os.killpg(process.pid, signal.SIGKILL)
    killed, _ = process.communicate(timeout=60)
    return Runs(pods, killed, pods.run("finished"), pods.run("again"))


def unbuilt(built: Project, root: Path) -> Project:
    """Code, text and recipe of a project, without what was made of them and without Git and DVC."""
    made = (".git", ".dvc", ".cairn", "artifacts", "sources.lock.json", "dvc.*")
    shutil.copytree(built.root, root, ignore=shutil.ignore_patterns(*made))
    return Project(root)


def expected(built: Project) -> dict[str, str | None]:
    return {**built.digests(), "sources": digest_of(built.root / place("sources"))}


def test_the_pipeline_gets_the_digests_that_dvc_repro_gets(runs: Runs, built: Project) -> None:
    assert runs.pods.digests("finished") == expected(built)


def test_what_was_done_before_the_kill_is_not_done_again_and_training_goes_on_where_it_was(runs: Runs) -> None:
    assert runs.pods.project.ran(runs.killed) == ["ingest", "tokenize", "pretrain"]
    assert runs.pods.project.ran(runs.finished) == ["pretrain", "export", "evaluate", "report"]
    for name in ("snapshot", "ingest", "tokenize"):
        assert f"{name}: up to date" in runs.finished
    assert "pretrain: resuming at step" in runs.finished


def test_a_second_run_does_nothing_and_hands_on_the_same_pins(runs: Runs, built: Project) -> None:
    assert runs.pods.project.ran(runs.again) == []
    assert all(f"{name}: up to date" in runs.again for name in NAMES)
    assert runs.pods.digests("again") == expected(built)


def test_each_run_notes_the_stages_that_it_finished(runs: Runs) -> None:
    store = Store(str(runs.pods.store))
    killed, finished, again = sorted((set(read(store, run)) for run in names(store)), key=len)
    assert killed == {"snapshot", "ingest", "tokenize"}
    assert finished == again == set(NAMES)


def test_nothing_of_a_finished_run_is_left_but_what_is_in_the_store(runs: Runs) -> None:
    assert list((runs.pods.project.root / ".cairn" / "work").iterdir()) == []
    assert not (runs.pods.project.root / "artifacts").exists()


def test_neither_git_nor_dvc_is_called_or_imported(runs: Runs) -> None:
    pods = runs.pods
    assert pods.caught.read_text() == ""
    # And the traps do catch.
    tempted = ("sh", "-c", "git status; python -c 'import dvc'")
    pods.project.run(*tempted, code=1, PATH=pods.path, PYTHONPATH=pods.python_path)
    assert pods.caught.read_text() == "run git status\nimport dvc\n"
    pods.caught.write_text("")


def test_the_digest_goes_to_the_next_task_as_a_parameter_too(runs: Runs) -> None:
    digests = runs.pods.digests("finished")
    for stage in stages():
        told = runs.pods.told("finished", stage.name)["parameterValues"]
        assert told == {f"{name}_digest": digests[name] for name in stage.outputs}


def test_a_person_reads_size_version_and_scores_at_the_artifacts(runs: Runs, built: Project) -> None:
    def properties(task: str, artifact: str) -> Any:
        return runs.pods.told("again", task)["artifacts"][artifact]["artifacts"][0]["metadata"]

    manifest = json.loads((built.root / "artifacts/checkpoint/checkpoint.json").read_text())
    model = properties("export", "model")
    assert model["digest"] == built.digests()["model"]
    assert model["version"] == Component.of("components.export").version
    assert model["bytes"] == sum(path.stat().st_size for path in (built.root / "artifacts/model").iterdir())
    assert (model["parameters"], model["tokens_seen"]) == (manifest["parameters"], manifest["tokens_seen"])
    scores = json.loads((built.root / "artifacts/scores/scores.json").read_text())["bits_per_byte"]["walks"]
    metrics = {f"bits_per_byte_walks_{kind}": row["bits_per_byte"] for kind, row in scores.items()}
    assert properties("evaluate", "metrics") == metrics
    ledger = json.loads((built.root / "artifacts/documents/ledger.json").read_text())
    kept = sum(row["walks"]["documents"] for row in ledger["splits"].values())
    assert properties("ingest", "metrics")["documents_kept"] == kept
    last = json.loads((built.root / "artifacts/checkpoint/training.jsonl").read_text().splitlines()[-1])
    assert properties("pretrain", "metrics")["loss"] == last["loss"]
    assert properties("tokenize", "tokens")["train_tokens"] > properties("tokenize", "tokens")["development_tokens"]


def test_the_pages_are_the_report_the_model_card_and_the_scores(runs: Runs, built: Project) -> None:
    folders = runs.pods.folders("again")
    html = (built.root / "artifacts/report/report.html").read_text()
    times = times_of(Store(str(runs.pods.store)), checkpoint_of(html))
    assert times is not None
    assert (folders["report"] / "page").read_text() == with_times(html, times)
    card = (built.root / "artifacts/model/README.md").read_text()
    page = (folders["export"] / "page").read_text()
    assert page.startswith("# cairn-tiny\n")
    assert card.endswith(page)
    assert "| walks | naive |" in (folders["evaluate"] / "page").read_text()
    assert "| walks | text | walks | CC0-1.0 | 120 |" in (folders["snapshot"] / "page").read_text()


def test_what_flows_between_tasks_is_small(runs: Runs) -> None:
    largest = max(path.stat().st_size for path in (runs.pods.root / "finished").rglob("*") if path.name != "page")
    assert largest < 20_000  # the pin of the source objects is the longest


def test_cairn_run_finds_what_the_pods_made(runs: Runs, built: Project, tmp_path: Path) -> None:
    project = unbuilt(built, tmp_path / "project")
    shutil.copytree(runs.pods.store, project.root / ".cairn" / "store")
    printed = project.run("cairn", "run")
    assert project.ran(printed) == []
    assert printed.count("restored") == len(NAMES)
    assert project.digests() == built.digests()
