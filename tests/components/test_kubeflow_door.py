"""The Kubeflow door: pins and digests in, pins and digests out, bytes in the store."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from ruamel.yaml import YAML

from cairn.lineage import runs, signing
from cairn.lineage.artifact import read_artifact
from cairn.lineage.pins import read_pin_file, write_pin_file
from cairn.lineage.stage import Component
from cairn.lineage.store import Store
from components import kubeflow
from tests.canary import CANARY, SECRETS, found_in
from tests.lineage.test_signing import PROGRAM, private_pem
from tests.pipelines.project import ROOT, small_recipe, write_text


class Cluster:
    """A store, sources, and a disk for one pod after the other."""

    def __init__(self, root: Path, store: str) -> None:
        self.root = root
        self.store = store
        self.recipe = small_recipe()
        self.has_key = True
        if not (root / "text").exists():
            write_text(root / "text", documents=30)

    def run(self, component: str, code: int = 0, **changed: str | list[str]) -> str:
        """What a task prints. Keyword arguments replace those of its command line."""
        inputs = {"snapshot": [], "ingest": ["sources"], "tokenize": ["documents"]}[component]
        outputs = {"snapshot": ["sources"], "ingest": ["documents"], "tokenize": ["tokenizer", "tokens"]}[component]
        artifacts: dict[str, Any] = {
            name: {"artifacts": [{"name": name, "uri": str(self.pin(name)), "type": {"schemaTitle": "system.Dataset"}}]}
            for name in outputs
        }
        message = {"outputs": {"artifacts": artifacts, "outputFile": str(self.told(component))}}
        arguments: dict[str, str | list[str]] = {
            "recipe-text": self.text(),
            "store": self.store,
            "input": [f"{name}={self.pin(name)}" for name in inputs],
            "output": [f"{name}={self.pin(name)}" for name in outputs],
            "executor-input": json.dumps(message),
        }
        if "digest" not in changed:
            arguments["digest"] = [f"{name}={self.digest(name)}" for name in inputs]
        arguments.update({name.replace("_", "-"): value for name, value in changed.items()})
        # Each pod has a home of its own; only the key in it is the same.
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        if self.has_key:
            signing.signer()
            shutil.copy(signing.key_path(), self.home)
        words = [f"--{name}={one}" for name, v in arguments.items() for one in (v if isinstance(v, list) else [v])]
        done = subprocess.run(
            [sys.executable, "-m", f"components.{component}", "kubeflow", *words],
            cwd=self.root,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "CAIRN_HOME": str(self.home),
                "CAIRN_WORK": str(self.root / "disk"),
                "CAIRN_WORKERS": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert done.stdout == ""
        return done.stderr

    @property
    def home(self) -> Path:
        return self.root / "home"

    def text(self) -> str:
        """The recipe as a parameter."""
        path = self.root / "recipe.yaml"
        with open(path, "w") as file:
            YAML().dump(self.recipe, file)
        return path.read_text()

    def pin(self, artifact: str) -> Path:
        return self.root / "pins" / artifact

    def digest(self, artifact: str) -> str:
        return read_pin_file(self.pin(artifact)).digest

    def told(self, component: str) -> Path:
        return self.root / "told" / f"{component}.json"

    def lose(self, digest: str) -> None:
        """Take one object of an artifact away from a store that is a folder."""
        self.object(digest).unlink()

    def object(self, digest: str) -> Path:
        """The first object of an artifact, in a store that is a folder."""
        artifact = Store(self.store).pin(digest)
        assert artifact
        address = artifact.members[0].md5
        return Path(self.store, "files", "md5", address[:2], address[2:])


@pytest.fixture(scope="module")
def snapped(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """A cluster after its snapshot task."""
    root = tmp_path_factory.mktemp("snapped") / "cluster"
    (root / "store").mkdir(parents=True)
    cluster = Cluster(root, str(root / "store"))
    assert "snapshot: 30 objects" in cluster.run("snapshot")
    return cluster


@pytest.fixture
def cluster(snapped: Cluster, tmp_path: Path) -> Cluster:
    """A cluster of its own, after its snapshot task."""
    shutil.copytree(snapped.root, tmp_path / "cluster")
    return Cluster(tmp_path / "cluster", str(tmp_path / "cluster" / "store"))


def test_a_stage_runs_from_a_pin_and_leaves_pins(cluster: Cluster) -> None:
    printed = cluster.run("ingest")
    assert "ingest: running" in printed
    digest = cluster.digest("documents")
    Store(cluster.store).get(digest, cluster.root / "documents")
    assert read_artifact(cluster.root / "documents").digest == digest
    told = json.loads(cluster.told("ingest").read_text())
    assert told["parameterValues"] == {"documents_digest": digest}
    [artifact] = told["artifacts"]["documents"]["artifacts"]
    assert artifact["uri"] == str(cluster.pin("documents"))
    assert artifact["metadata"]["digest"] == digest
    assert artifact["metadata"]["train_documents"] > 0
    assert list((cluster.root / "disk" / "work").iterdir()) == []


def test_what_is_attested_and_in_the_store_is_neither_fetched_nor_run(cluster: Cluster) -> None:
    cluster.run("ingest")
    first = cluster.pin("documents").read_bytes()
    cluster.lose(cluster.digest("sources"))
    shutil.rmtree(cluster.root / "disk")
    assert cluster.run("ingest") == "ingest: up to date\n"
    assert cluster.pin("documents").read_bytes() == first


def test_a_stage_whose_output_is_lost_from_the_store_runs_again_to_the_same_digest(cluster: Cluster) -> None:
    cluster.run("ingest")
    digest = cluster.digest("documents")
    cluster.lose(digest)
    assert "ingest: running" in cluster.run("ingest")
    assert cluster.digest("documents") == digest
    assert Store(cluster.store).has(digest)


def test_a_run_notes_what_its_stages_did_last_and_a_stage_of_no_run_notes_nothing(cluster: Cluster) -> None:
    store = Store(cluster.store)
    cluster.run("ingest")
    assert runs.names(store) == []
    cluster.run("ingest", run="first")
    cluster.run("snapshot", run="first", locked=cluster.digest("sources"))
    noted = runs.read(store, "first")
    assert list(noted) == ["ingest", "snapshot"]
    ingest = noted["ingest"]
    assert (ingest.inputs, ingest.outcome) == ({"sources": cluster.digest("sources")}, "up to date")
    assert ingest.outputs == {"documents": cluster.digest("documents")}
    assert store.list(f"stages/{ingest.key}") != []
    assert "invalid_utf8" in ingest.recipe
    assert ingest.recipe.keys() < ingest.section.keys()
    assert noted["snapshot"].outputs == {"sources": cluster.digest("sources")}


def test_what_fails_is_not_noted_and_no_name_is_refused_before_the_work(cluster: Cluster) -> None:
    assert "run 'a/b': is no name for a run" in cluster.run("ingest", code=2, run="a/b")
    assert not cluster.pin("documents").exists()
    cluster.lose(cluster.digest("sources"))
    cluster.run("ingest", code=2, run="first")
    assert runs.names(Store(cluster.store)) == []


def test_a_snapshot_that_finds_nothing_new_attests_nothing(cluster: Cluster) -> None:
    digest = cluster.digest("sources")
    attested = Store(cluster.store).list(f"attestations/{digest}")
    assert cluster.run("snapshot").splitlines()[-1] == "snapshot: up to date"
    assert cluster.digest("sources") == digest
    assert Store(cluster.store).list(f"attestations/{digest}") == attested
    (cluster.root / "text" / "0000.txt").write_text("Something else altogether.\n")
    assert "snapshot: 30 objects" in cluster.run("snapshot")
    assert cluster.digest("sources") != digest


def test_a_lock_file_that_is_given_is_used_whatever_the_sources_are_by_now(cluster: Cluster) -> None:
    digest = cluster.digest("sources")
    shutil.rmtree(cluster.root / "text")
    assert cluster.run("snapshot", locked=digest) == "snapshot: up to date\n"
    assert cluster.digest("sources") == digest
    cluster.recipe["snapshot"]["sources"][0]["domain"] = "hikes"
    said = cluster.run("snapshot", code=2, locked=digest)
    assert said == f"error: sources {digest}: is the lock file of another snapshot section: run `cairn snapshot`\n"


def test_a_lock_file_whose_objects_are_lost_is_refused(cluster: Cluster) -> None:
    digest = cluster.digest("sources")
    tree = json.loads(Store(cluster.store).read_member(digest, ""))["tree"]
    cluster.lose(tree)
    assert f"does not hold its objects ({tree})" in cluster.run("snapshot", code=2, locked=digest)
    assert "holds no pin for" in cluster.run("snapshot", code=2, locked="0" * 64)


def test_the_bytes_can_lie_in_a_bucket(tmp_path: Path, s3: str) -> None:
    cluster = Cluster(tmp_path, f"{s3}/{tmp_path.name}")
    cluster.run("snapshot")
    cluster.run("ingest")
    assert Store(cluster.store).has(cluster.digest("documents"))
    assert cluster.run("ingest") == "ingest: up to date\n"


def test_a_bucket_that_is_not_there_is_said_to_be_missing(tmp_path: Path, s3: str) -> None:
    cluster = Cluster(tmp_path, "s3://no-such-bucket/cairn")
    said = cluster.run("snapshot", code=2)
    assert said == "error: s3://no-such-bucket/cairn: no such bucket: make it, or name the right one\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"store": ""}, "store parameter: is empty"),
        ({"store": "/no/such/folder"}, "/no/such/folder: no such folder"),
        ({"store": "nosuch://bucket"}, "nosuch://bucket: not a store that can be opened"),
        ({"digest": "sources=" + "0" * 64}, "the digest parameter says '000"),
        ({"digest": "sources="}, "the digest parameter says ''"),
        ({"input": "sources=no/such/pin"}, "no/such/pin: cannot be read: No such file or directory"),
        ({"input": "sources=recipe.yaml"}, "recipe.yaml: is not a pin"),
        ({"recipe_text": "ingest: [\n"}, "recipe parameter:2: not valid YAML"),
        ({"recipe_text": ""}, "recipe parameter:1: a recipe is a mapping of sections"),
        ({"recipe_text": "- a\n"}, "recipe parameter:1: a recipe is a mapping of sections"),
        ({"for_version": "9.0.0"}, "ingest: asked for version 9.0.0, but"),
        ({"store": "s3://me:swordfish@host/x"}, "parameter store: looks like a password in a URL: name a Kubernetes"),
        ({"recipe_text": "# hf_" + "Ab3" * 12}, "parameter recipe: looks like a Hugging Face token: name a Kubernetes"),
        ({"recipe_text": "#" * 60_001}, "parameter recipe: is 60,001 bytes long, 60,000 can be handed on"),
    ],
)
def test_bad_input_is_one_line_and_2_and_nothing_is_written(
    cluster: Cluster, change: dict[str, str], said: str
) -> None:
    before = sorted(path for path in Path(cluster.store).rglob("*"))
    printed = cluster.run("ingest", code=2, **change)
    assert said in printed
    assert len(printed.splitlines()) == 1
    assert "swordfish" not in printed
    assert not cluster.pin("documents").exists()
    assert not cluster.told("ingest").exists()
    assert sorted(path for path in Path(cluster.store).rglob("*")) == before


def test_a_pod_without_the_signing_key_is_refused_and_makes_none(cluster: Cluster) -> None:
    cluster.has_key = False
    said = cluster.run("ingest", code=2)
    assert said.startswith(
        f"error: {cluster.home / 'signing-key.pem'}: no signing key: mount the same one at CAIRN_HOME"
    )
    assert len(said.splitlines()) == 1
    assert list(cluster.home.iterdir()) == []
    assert not cluster.pin("documents").exists()


def test_a_pod_whose_key_is_in_its_environment_needs_no_key_file(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.run("snapshot")
    cluster.has_key = False
    pem = signing.key_path().read_text()
    monkeypatch.setenv("CAIRN_SIGNER", "env:KEY_OF_THE_CLUSTER")
    assert "KEY_OF_THE_CLUSTER is not set" in cluster.run("ingest", code=2)
    assert not cluster.pin("documents").exists()
    monkeypatch.setenv("KEY_OF_THE_CLUSTER", pem)
    cluster.run("ingest")
    assert cluster.pin("documents").exists()
    assert list(cluster.home.iterdir()) == []


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "{}",
        "[]",
        '{"outputs": []}',
        '{"outputs": {"outputFile": 1}}',
        '{"outputs": {"outputFile": "told", "artifacts": {"documents": {"artifacts": []}}}}',
        '{"outputs": {"outputFile": "told", "artifacts": {"documents": {"artifacts": [{"metadata": 1}]}}}}',
    ],
)
def test_a_message_that_does_not_say_where_outputs_go_is_a_usage_error(
    message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--recipe-text=x", "--store=x", "--input=sources=x", "--digest=sources=x", "--output=documents=x"]
    with pytest.raises(SystemExit) as ended:
        kubeflow.parse(Component.of("components.ingest"), [*words, f"--executor-input={message}"])
    assert ended.value.code == 2
    assert "--executor-input: is not a message that says where each output goes" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--input=sources", "--input=sources=", "--output=documents"])
def test_a_pin_without_a_path_is_a_usage_error(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"input": "--input=sources=x", "output": "--output=documents=x"}
    option = word[2:].partition("=")[0]
    words = ["--recipe-text=x", "--store=x", "--digest=sources=x", *{**given, option: word}.values()]
    with pytest.raises(SystemExit) as ended:
        kubeflow.parse(Component.of("components.ingest"), [*words, '--executor-input={"outputs": {"outputFile": "x"}}'])
    assert ended.value.code == 2
    assert f"--{option} {word.partition('=')[2]}: write it as NAME=FILE" in capsys.readouterr().err


def test_a_key_that_this_version_does_not_know_is_named_by_line(cluster: Cluster) -> None:
    cluster.recipe["pretrain"]["warp"] = 9
    line = 1 + cluster.text().splitlines().index("  warp: 9")
    said = cluster.run("ingest", code=2)
    assert said.startswith(f"error: recipe parameter:{line}: pretrain.warp: unknown key; ")


def test_a_pin_that_was_changed_is_no_pin(cluster: Cluster) -> None:
    pin = json.loads(cluster.pin("sources").read_text())
    pin["members"][0]["sha256"] = "0" * 64
    digest = pin["digest"]
    cluster.pin("sources").write_text(json.dumps(pin))
    said = cluster.run("ingest", code=2, digest=f"sources={digest}")
    assert "pins/sources: is not a pin, or was changed or cut short" in said


def test_a_pin_of_something_that_the_store_does_not_hold_is_refused(cluster: Cluster) -> None:
    (cluster.root / "other").write_text("not in the store")
    artifact = read_artifact(cluster.root / "other")
    write_pin_file(cluster.pin("sources"), artifact)
    said = cluster.run("ingest", code=2)
    assert said.splitlines()[-1] == f"error: {cluster.store}: holds no pin for {artifact.digest}"


def test_bytes_in_the_store_that_are_not_what_the_pin_says_are_refused(cluster: Cluster) -> None:
    place = cluster.object(cluster.digest("sources"))
    place.write_bytes(place.read_bytes().replace(b"walks", b"hikes"))
    assert "holds other bytes than" in cluster.run("ingest", code=2)
    assert not cluster.pin("documents").exists()


def test_an_input_that_the_component_does_not_take_is_a_usage_error(cluster: Cluster) -> None:
    said = cluster.run("ingest", code=2, input=f"tokens={cluster.pin('sources')}")
    assert "--input: takes sources; got tokens" in said
    assert "Traceback" not in said


def test_no_secret_of_a_pod_is_in_its_log_its_outputs_or_the_store(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a program signs, which has the pod's environment, and where it fails."""
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    program, key = tmp_path / "sign.py", tmp_path / "key.pem"
    program.write_text(PROGRAM)
    key.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1())))
    said = f"command:{sys.executable} {program} {key} --token={CANARY}"
    monkeypatch.setenv("CAIRN_SIGNER", said)
    cluster.has_key = False
    printed = cluster.run("snapshot") + cluster.run("ingest") + cluster.run("ingest", store="/proc/nowhere", code=2)
    monkeypatch.setenv("CAIRN_SIGNER", f"command:sh -c 'echo no such token $0 >&2; exit 3' --token={CANARY}")
    failed = cluster.run("ingest", code=2)
    assert "ended with 3: no such token …" in failed
    assert CANARY not in printed + failed
    assert found_in(cluster.root) == []
