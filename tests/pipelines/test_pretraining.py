"""The compiled pipeline: what is kept in the repository, its edges, its machines."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from kfp.dsl import HTML, Artifact, Dataset, Markdown, Metrics, Model
from ruamel.yaml import YAML

from cairn.cli.main import enter
from cairn.errors import RecipeError, guard
from cairn.lineage.stage import Component
from components.image import PLACEHOLDER
from pipelines.pretraining import COMPILED, compiled
from pipelines.profile import Machine, Profile
from pipelines.stages import NAMES, Stage, stages

IMAGE = "registry.example/cairn@sha256:" + "a" * 64
CUDA = "registry.example/cairn-cuda@sha256:" + "b" * 64
TYPES = {
    "sources": Dataset,
    "documents": Dataset,
    "tokenizer": Artifact,
    "tokens": Dataset,
    "checkpoint": Model,
    "optimizer": Artifact,
    "model": Model,
    "scores": Dataset,
    "report": Dataset,
}
FOR_PEOPLE = {
    "snapshot": {"page": Markdown},
    "ingest": {"metrics": Metrics, "page": Markdown},
    "tokenize": {"metrics": Metrics, "page": Markdown},
    "pretrain": {"metrics": Metrics},
    "export": {"page": Markdown},
    "evaluate": {"metrics": Metrics, "page": Markdown},
    "report": {"page": HTML},
}


def load(text: str) -> dict[str, Any]:
    pipeline: dict[str, Any] = YAML(typ="safe").load(text)
    return pipeline


@pytest.fixture(scope="module")
def pipeline() -> dict[str, Any]:
    """The pipeline in the repository."""
    return load(COMPILED.read_text())


@pytest.mark.golden
def test_the_pipeline_in_the_repository_is_what_the_code_compiles_to() -> None:
    text = compiled(Profile())
    if os.environ.get("CAIRN_WRITE_GOLDENS"):
        COMPILED.write_text(text)
    assert text == COMPILED.read_text(), "`cairn pipeline compile --output pipelines/compiled/pretraining.yaml`"


def test_its_tasks_are_the_stages(pipeline: dict[str, Any]) -> None:
    assert set(pipeline["root"]["dag"]["tasks"]) == set(NAMES)


@pytest.mark.parametrize("stage", stages(), ids=lambda stage: stage.name)
def test_every_input_comes_from_the_stage_that_makes_it(pipeline: dict[str, Any], stage: Stage) -> None:
    maker = {artifact: one.name for one in stages() for artifact in one.outputs}
    task = pipeline["root"]["dag"]["tasks"][stage.name]
    edges = {
        artifact: {"taskOutputArtifact": {"outputArtifactKey": artifact, "producerTask": maker[artifact]}}
        for artifact in stage.inputs
    }
    digests = {
        f"{artifact}_digest": {
            "taskOutputParameter": {"outputParameterKey": f"{artifact}_digest", "producerTask": maker[artifact]}
        }
        for artifact in stage.inputs
    }
    given: dict[str, Any] = {name: {"componentInputParameter": name} for name in ("recipe", "store")}
    given["run"] = {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}  # Kubeflow's own name of the run
    if not stage.inputs:
        given["locked"] = {"componentInputParameter": "locked"}
    assert task["inputs"].get("artifacts", {}) == edges
    assert task["inputs"]["parameters"] == {**given, **digests}
    assert task.get("dependentTasks", []) == sorted({maker[artifact] for artifact in stage.inputs})
    assert task["cachingOptions"] == {}, "Kubeflow's own cache is on"


@pytest.mark.parametrize("stage", stages(), ids=lambda stage: stage.name)
def test_a_component_takes_and_makes_what_its_metadata_says(pipeline: dict[str, Any], stage: Stage) -> None:
    interface = pipeline["components"][f"comp-{stage.name}"]

    def artifacts(definitions: str) -> dict[str, str]:
        listed = interface[definitions].get("artifacts", {})
        return {name: said["artifactType"]["schemaTitle"] for name, said in listed.items()}

    made: dict[str, Any] = {name: TYPES[name] for name in stage.outputs} | FOR_PEOPLE[stage.name]
    assert artifacts("inputDefinitions") == {name: TYPES[name].schema_title for name in stage.inputs}
    assert artifacts("outputDefinitions") == {name: kind.schema_title for name, kind in made.items()}
    assert set(interface["outputDefinitions"]["parameters"]) == {f"{name}_digest" for name in stage.outputs}


@pytest.mark.parametrize("stage", stages(), ids=lambda stage: stage.name)
def test_a_container_runs_the_door_of_its_component(pipeline: dict[str, Any], stage: Stage) -> None:
    container = pipeline["deploymentSpec"]["executors"][f"exec-{stage.name}"]["container"]
    assert container["command"] == ["python3", "-m", f"components.{stage.name}", "kubeflow"]
    arguments = container["args"]
    assert arguments[:2] == ["--for-version", Component.of(f"components.{stage.name}").version]
    assert "--run={{$.inputs.parameters['run']}}" in arguments
    for artifact in stage.inputs:
        assert f"{artifact}={{{{$.inputs.artifacts['{artifact}'].path}}}}" in arguments
        assert f"{artifact}={{{{$.inputs.parameters['{artifact}_digest']}}}}" in arguments
    for artifact in stage.outputs:
        assert f"{artifact}={{{{$.outputs.artifacts['{artifact}'].path}}}}" in arguments
    assert container["image"] == PLACEHOLDER
    assert "env" not in container


def test_only_recipe_store_and_lock_are_asked_for_at_run_time(pipeline: dict[str, Any]) -> None:
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    assert set(parameters) == {"recipe", "store", "locked"}
    assert parameters["locked"]["isOptional"]
    assert not any(parameters[name].get("isOptional") for name in ("recipe", "store"))


def test_a_profile_puts_each_stage_on_its_machine() -> None:
    gpu = Machine(
        image=CUDA,
        cpu="8",
        memory="64Gi",
        accelerator="nvidia.com/gpu",
        accelerators=2,
        environment={"CAIRN_PROCESSES": "2"},
    )
    pipeline = load(compiled(Profile(image=IMAGE, stages={"pretrain": gpu, "ingest": Machine(cpu="4")})))
    containers = {name: one["container"] for name, one in pipeline["deploymentSpec"]["executors"].items()}
    assert {name: one["image"] for name, one in containers.items()} == {
        f"exec-{name}": CUDA if name == "pretrain" else IMAGE for name in NAMES
    }
    assert {one["name"]: one["value"] for one in containers["exec-pretrain"]["env"]} == {
        "CAIRN_IMAGE": CUDA,
        "CAIRN_PROCESSES": "2",
    }
    resources = containers["exec-pretrain"]["resources"]
    assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert resources["accelerator"]["resourceCount"] == "2"
    assert resources["resourceCpuLimit"] == resources["resourceCpuRequest"] == "8"
    assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"] == "64Gi"
    assert "resources" not in containers["exec-evaluate"]


def test_a_profile_takes_secrets_and_the_signing_key_from_kubernetes(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(
        f"image: {IMAGE}\nsigning_key: cairn-key\nstages:\n  pretrain: {{secrets: {{WANDB_API_KEY: wandb/api-key}}}}\n"
    )
    pipeline, platforms = YAML(typ="safe").load_all(compiled(Profile.read(path)))
    executors = platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    # As kfp-kubernetes 2.17.0 writes them for use_secret_as_volume and use_secret_as_env.
    key = {
        "secretName": "cairn-key",
        "secretNameParameter": {"runtimeValue": {"constant": "cairn-key"}},
        "optional": False,
        "mountPath": "/etc/cairn",
    }
    wandb = {
        "secretName": "wandb",
        "secretNameParameter": {"runtimeValue": {"constant": "wandb"}},
        "optional": False,
        "keyToEnv": [{"secretKey": "api-key", "envVar": "WANDB_API_KEY"}],
    }
    assert executors.pop("exec-pretrain") == {"secretAsVolume": [key], "secretAsEnv": [wandb]}
    assert executors == {f"exec-{name}": {"secretAsVolume": [key]} for name in NAMES if name != "pretrain"}
    for one in pipeline["deploymentSpec"]["executors"].values():
        assert {"name": "CAIRN_HOME", "value": "/etc/cairn"} in one["container"]["env"]


def test_the_profile_in_the_readme_compiles(tmp_path: Path) -> None:
    [said] = re.findall(r"```yaml\n(image:.*?)```", (COMPILED.parents[2] / "README.md").read_text(), re.DOTALL)
    path = tmp_path / "profile.yaml"
    path.write_text(said.replace("…", "a" * 64))
    assert "secretName: cairn-key" in compiled(Profile.read(path))


def test_a_secret_of_the_profile_is_every_stages_where_it_says_nothing_else() -> None:
    profile = Profile(
        secrets={"AWS_SECRET_ACCESS_KEY": "store/key", "WANDB_MODE": "wandb/mode"},
        stages={"pretrain": Machine(environment={"WANDB_MODE": "offline"}, secrets={"AWS_SECRET_ACCESS_KEY": "a/b"})},
    )
    assert profile.machine("ingest").secrets == {"AWS_SECRET_ACCESS_KEY": "store/key", "WANDB_MODE": "wandb/mode"}
    assert profile.machine("pretrain").secrets == {"AWS_SECRET_ACCESS_KEY": "a/b"}
    with pytest.raises(ValueError, match="CAIRN_HOME is where"):
        Profile(secrets={"CAIRN_HOME": "a/b"}, signing_key="cairn-key")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("accelerator: ''", "stages.pretrain.accelerator: "),
        ("environment: {A B: c}", "stages.pretrain.environment: 'A B' is no name of a variable"),
        ("environment: {CAIRN_IMAGE: other}", "stages.pretrain.environment: CAIRN_IMAGE is set to `image`"),
        ("secrets: {CAIRN_IMAGE: a/b}", "stages.pretrain.secrets: CAIRN_IMAGE is set to `image`"),
        ("secrets: {DB_PASS: Swordfish}", "stages.pretrain.secrets: DB_PASS: write secret-name/key"),
        ("{environment: {A: b}, secrets: {A: b/c}}", "stages.pretrain.secrets: A is in `environment` too"),
        ("environment: {CAIRN_HOME: /keys}", "stages: pretrain: CAIRN_HOME is where `signing_key` is mounted"),
    ],
)
def test_a_profile_says_nothing_that_a_cluster_would_refuse_or_an_attestation_would_believe(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(f"signing_key: cairn-key\nstages:\n  pretrain:\n    {text}\n".replace("\n    {", " {"))
    with pytest.raises(RecipeError) as error:
        Profile.read(path)
    assert said in str(error.value)
    assert "Swordfish" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image: registry.example/cairn:latest\n", "profile.yaml:1: image: name the image by its digest"),
        ("stages:\n  pretrian: {}\n", "profile.yaml:1: stages: no stage 'pretrian'; did you mean 'pretrain'?"),
        ("stages:\n  pretrain:\n    memory: lots\n", "profile.yaml:3: stages.pretrain.memory: "),
        ("stages:\n  pretrain:\n    acelerator: gpu\n", "profile.yaml:3: stages.pretrain.acelerator: unknown key"),
        ("image: [\n", "profile.yaml:2: not valid YAML"),
    ],
)
def test_a_slip_in_a_profile_is_named_by_line_and_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        Profile.read(path)
    assert said in str(error.value)


def test_cairn_pipeline_compile_prints_the_pipeline(capsys: pytest.CaptureFixture[str]) -> None:
    assert enter(["pipeline", "compile"]) == 0
    printed = capsys.readouterr()
    assert printed.out == COMPILED.read_text()
    assert "placeholders" in printed.err


def test_cairn_pipeline_compile_writes_what_a_profile_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile, output = tmp_path / "profile.yaml", tmp_path / "deep" / "pipeline.yaml"
    profile.write_text(f"image: {IMAGE}\n")
    assert enter(["pipeline", "compile", "--profile", str(profile), "--output", str(output)]) == 0
    assert capsys.readouterr().err == ""
    assert output.read_text() == compiled(Profile(image=IMAGE))


def test_a_pipeline_with_settings_of_a_platform_is_one_object_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text(f"image: {IMAGE}\nsigning_key: cairn-key\n")
    assert enter(["pipeline", "compile", "--profile", str(profile), "--json"]) == 0
    assert {"deploymentSpec", "platforms"} < set(json.loads(capsys.readouterr().out))


def test_a_secret_in_a_profile_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile, output = tmp_path / "profile.yaml", tmp_path / "pipeline.yaml"
    profile.write_text(f"image: {IMAGE}\nstages:\n  pretrain:\n    environment:\n      WANDB_API_KEY: swordfish\n")
    assert guard(lambda: enter(["pipeline", "compile", "--profile", str(profile), "--output", str(output)])) == 2
    said = capsys.readouterr().err
    assert "environment variable WANDB_API_KEY: is called like a secret" in said
    assert "swordfish" not in said
    assert not output.exists()
