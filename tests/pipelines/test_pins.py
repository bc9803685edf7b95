"""From a cluster to a laptop and back, on S3 and (`make test-slow`) on Google Cloud Storage, with what a user types.

The pods have neither git nor dvc. The laptop has never seen the data: a clone of code and recipe, and the bucket's URL.
"""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from cairn.lineage import runs, signing
from cairn.lineage.artifact import digest_of
from cairn.lineage.pins import read_pin_file, write_pin_file
from cairn.lineage.store import Store
from pipelines.pretraining import COMPILED
from pipelines.stages import NAMES, place
from tests.pipelines.project import Project
from tests.pipelines.test_kubeflow_run import CAUGHT, HOST

IDENTITY = {f"GIT_{role}_{what}": "t@example.invalid" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@dataclass(frozen=True)
class Cluster:
    """A folder that stands for all pods, and the bucket that they share."""

    image: Project
    root: Path
    url: str

    @property
    def caught(self) -> Path:
        return self.root / "caught"

    @property
    def surroundings(self) -> dict[str, str]:
        traps = self.root / "traps"
        path = os.pathsep.join((str(traps), str(Path(sys.executable).parent), os.environ["PATH"]))
        return {"PATH": path, "PYTHONPATH": f"{traps}{os.pathsep}{self.image.root}"}

    @classmethod
    def of(cls, project: Project, root: Path, url: str) -> "Cluster":
        """Pods with the code and the text of a project, and with traps where git and dvc would be."""
        shutil.copytree(project.root, root / "image", ignore=shutil.ignore_patterns(".git", ".dvc", "dvc.*"))
        cluster = cls(Project(root / "image"), root, url)
        cluster.caught.write_text("")
        traps = root / "traps"
        traps.mkdir()
        (traps / "sitecustomize.py").write_text(CAUGHT.format(log=str(cluster.caught)))
        for name in ("git", "dvc"):
            (traps / name).write_text(f'#!/bin/sh\necho "run {name} $*" >> {cluster.caught}\nexit 1\n')
            (traps / name).chmod(0o755)
        return cluster

    def run_pipeline(self, recipe: str, locked: str = "") -> tuple[str, str]:
        """Run every task of the compiled pipeline; the run's name, and what was printed."""
        before = set(runs.names(Store(self.url)))
        parameters = self.root / "parameters.json"
        parameters.write_text(json.dumps({"recipe": recipe, "store": self.url, "locked": locked}))
        command = ["python", str(HOST), str(COMPILED), str(self.root / "tasks"), str(parameters)]
        printed = self.image.run(*command, code=0, **self.surroundings)
        [run] = set(runs.names(Store(self.url))) - before
        return run, printed

    def evaluate(self, recipe: str, inputs: dict[str, str], run: str) -> Path:
        """What a pod makes of digests alone, on a disk of its own: the pin of its scores."""
        folder = self.root / f"pod-{run}"
        words = [f"--recipe-text={recipe}", f"--store={self.url}", f"--run={run}"]
        for name, digest in inputs.items():
            pin = folder / name
            artifact = Store(self.url).pin(digest)
            assert artifact
            pin.parent.mkdir(exist_ok=True)
            write_pin_file(pin, artifact)
            words += ["--input", f"{name}={pin}", "--digest", f"{name}={digest}"]
        scores = folder / "scores"
        message = json.dumps({"outputs": {"outputFile": str(folder / "told.json")}})
        words += ["--output", f"scores={scores}", "--executor-input", message]
        command = ["python", "-m", "components.evaluate", "kubeflow", *words]
        self.image.run(*command, code=0, CAIRN_WORK=str(folder / "work"), **self.surroundings)
        return scores


@dataclass(frozen=True)
class Trip:
    """A run on the cluster, and the project that it is pinned in."""

    cluster: Cluster
    run: str
    origin: Project


def point_at(project: Project, url: str) -> None:
    """Make a bucket the default DVC remote, as `dvc remote modify` does."""
    config = project.root / ".dvc" / "config"
    endpoint = (
        f"endpointurl = {os.environ['AWS_ENDPOINT_URL']}" if url.startswith("s3:") else "allow_anonymous_login = true"
    )
    text = config.read_text()
    assert "verify = true" in text
    config.write_text(text.replace("url = ../.cairn/store", f"url = {url}\n    {endpoint}"))


@pytest.fixture(scope="module", params=["s3", pytest.param("gcs", marks=pytest.mark.slow)])
def trip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trip:
    """What the pods have done when a person comes along."""
    url: str = request.getfixturevalue(request.param)
    root = tmp_path_factory.mktemp(request.param)
    origin = Project.create(root / "origin")
    recipe = origin.recipe()
    recipe["pretrain"].update(steps=40, checkpoint_every=20, evaluate_every=20)
    origin.write_recipe(recipe)
    cluster = Cluster.of(origin, root, url)
    signing.signer()  # the secret that every pod mounts
    run, _ = cluster.run_pipeline((origin.root / "params.yaml").read_text())
    # The person has the code and the recipe, and none of the data.
    shutil.rmtree(origin.root / "text")
    point_at(origin, url)
    origin.commit("The recipe, and where the store is")
    return Trip(cluster, run, origin)


def clone(project: Project, to: Path) -> Project:
    project.git("clone", "-q", str(project.root), str(to))
    return Project(to)


def test_a_run_is_pinned_pulled_and_found_unchanged_by_dvc_on_a_machine_that_never_saw_the_data(
    trip: Trip, tmp_path: Path
) -> None:
    laptop = clone(trip.origin, tmp_path / "laptop")
    printed = laptop.run("cairn", "pin", trip.run, "--commit", code=0, **IDENTITY)
    assert "dvc.lock, sources.lock.json written" in printed
    lock = (laptop.root / "dvc.lock").read_bytes()

    laptop.run("dvc", "pull")
    printed = laptop.run("dvc", "repro")
    assert laptop.ran(printed) == []
    assert printed.count("didn't change, skipping") == len(NAMES)
    assert (laptop.root / "dvc.lock").read_bytes() == lock
    assert laptop.git("status", "--porcelain") == ""
    ran = runs.read(Store(trip.cluster.url), trip.run)
    made = {name: digest for one in ran.values() for name, digest in one.outputs.items()}
    assert {name: digest_of(laptop.root / place(name)) for name in made} == made
    assert f"Cairn-Run: {trip.run}" in laptop.git("log", "-1", "--format=%(trailers)")
    assert made["model"] in laptop.git("log", "-1", "--format=%B")

    # And back: what the laptop makes and pushes is where a pod starts from, on an empty disk.
    laptop.run("cairn", "config", "set", "export.name=renamed")
    printed = laptop.run("dvc", "repro", "export", CAIRN_RUN="renamed")
    assert laptop.ran(printed) == ["export"]
    laptop.run("dvc", "push")
    noted = runs.read(Store(trip.cluster.url), "renamed")
    assert noted["export"].outputs["model"] == digest_of(laptop.root / "artifacts/model") != made["model"]
    assert noted["export"].outcome == "done"
    recipe = laptop.recipe()
    recipe["evaluate"]["leak_threshold"] = 0.5
    with open(tmp_path / "other.yaml", "w") as file:
        YAML().dump(recipe, file)
    inputs = {"model": noted["export"].outputs["model"], "documents": made["documents"]}
    scores = trip.cluster.evaluate((tmp_path / "other.yaml").read_text(), inputs, "elsewhere")
    assert read_pin_file(scores).digest == runs.read(Store(trip.cluster.url), "elsewhere")["evaluate"].outputs["scores"]

    # The pods had neither git nor dvc.
    assert trip.cluster.caught.read_text() == ""


@pytest.mark.slow
def test_a_pipeline_goes_on_from_what_dvc_pushed_and_its_run_comes_back_as_a_commit(s3: str, tmp_path: Path) -> None:
    url = f"{s3}/back"
    laptop = Project.create(tmp_path / "laptop")
    point_at(laptop, url)
    laptop.run("dvc", "repro")
    laptop.run("dvc", "push")
    laptop.commit("A first model")
    made = laptop.digests()
    # What is on no other disk: the text, the artifacts, what DVC and Cairn keep of them.
    for name in ("text", "artifacts", ".cairn", ".dvc/cache"):
        shutil.rmtree(laptop.root / name)
    laptop.commit("Without the text")

    cluster = Cluster.of(laptop, tmp_path, url)
    recipe = laptop.recipe()
    recipe["evaluate"]["leak_threshold"] = 0.5
    with open(tmp_path / "other.yaml", "w") as file:
        YAML().dump(recipe, file)
    locked = digest_of(laptop.root / "sources.lock.json")
    assert locked is not None
    run, printed = cluster.run_pipeline((tmp_path / "other.yaml").read_text(), locked)
    assert laptop.ran(printed) == ["evaluate", "report"]

    assert "evaluate.leak_threshold" in laptop.run("cairn", "pin", run, code=2)
    laptop.run("cairn", "pin", run, "--recipe", "--commit", code=0, **IDENTITY)
    assert laptop.git("show", "--format=", "--name-only", "HEAD").split() == ["dvc.lock", "params.yaml"]
    laptop.run("dvc", "pull")
    assert laptop.ran(laptop.run("dvc", "repro")) == []
    assert laptop.git("status", "--porcelain") == ""
    now = laptop.digests()
    assert {name for name in now if now[name] != made[name]} == {"scores", "report"}
    assert cluster.caught.read_text() == ""
