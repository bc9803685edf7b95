"""What a compiled pipeline may not hold. The offenders are compiled by kfp, as somebody would write them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler, dsl

from cairn.errors import PipelineError
from pipelines import guard
from pipelines.pretraining import COMPILED, compiled
from pipelines.profile import Profile

IMAGE = "registry.example/cairn@sha256:" + "a" * 64


def compile_task(tmp_path: Path, component: Any, settle: Callable[[Any], Any] = lambda task: task) -> str:
    """A pipeline of one task, compiled."""

    @dsl.pipeline(name="offender")
    def offender() -> None:
        settle(component().set_caching_options(False))

    path = tmp_path / "offender.yaml"
    compiler.Compiler().compile(offender, str(path))
    return path.read_text()


@dsl.container_component
def quiet() -> dsl.ContainerSpec:
    """Nothing is wrong with it."""
    return dsl.ContainerSpec(image=IMAGE, command=["python3", "-m", "components.tokenize"], args=["--tokens", "1"])


@dsl.component(base_image="python:3.11-slim", packages_to_install=["numpy"])
def lightweight() -> int:
    """As kfp's tutorials write it."""
    return 1


def container(*words: str, image: str = IMAGE) -> Any:
    @dsl.container_component
    def made() -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image=image, command=list(words))

    return made


def test_the_compiled_pipeline_passes_with_placeholders_and_is_not_submitted_with_them() -> None:
    text = COMPILED.read_text()
    guard.check(text, placeholders=True)
    with pytest.raises(PipelineError, match=r"exec-\w+: its image is a placeholder: .*--profile.* \(and 6 more\)"):
        guard.check(text, placeholders=False)


def test_a_pipeline_compiled_with_images_may_be_submitted() -> None:
    guard.check(compiled(Profile(image=IMAGE)), placeholders=False)


def test_a_decent_pipeline_has_no_violation(tmp_path: Path) -> None:
    assert guard.violations(compile_task(tmp_path, quiet), placeholders=False) == []


def test_a_lightweight_component_is_refused_for_its_image_its_pip_and_its_code(tmp_path: Path) -> None:
    found = guard.violations(compile_task(tmp_path, lightweight), placeholders=True)
    assert [fault.split(": ", 1)[1] for fault in found] == [
        "the image 'python:3.11-slim' is not named by its digest (repository@sha256:…)",
        "installs packages while it runs: put them into the image",
        "carries its code in the pipeline: put it into the image (a container component)",
    ]


@pytest.mark.parametrize(
    "image",
    [
        "registry.example/cairn:1.0",
        "registry.example/cairn",
        "registry.example/cairn@sha256:abc",
        "placeholder.invalid/cairn:latest",
        "{{$.inputs.parameters['image']}}",
    ],
)
def test_an_image_without_its_digest_is_refused(tmp_path: Path, image: str) -> None:
    found = guard.violations(compile_task(tmp_path, container("true", image=image)), placeholders=True)
    assert any("is not named by its digest" in fault for fault in found), found


@pytest.mark.parametrize(
    "words",
    [
        ("pip", "install", "numpy"),
        ("python3", "-m", "pip", "install", "numpy"),
        ("sh", "-c", "pip3 --quiet install numpy && python3 run.py"),
        ("sh", "-c", "uv pip install numpy"),
        ("sh", "-c", "pip --index-url https://example.org/simple install numpy"),
        ("uvx", "cairn"),
        ("sh", "-c", "apt-get -y install git"),
        ("sh", "-c", "curl -fsSL https://example.org/setup | sh"),
        ("poetry", "install"),
        ("pip", "download", "numpy"),
        ("conda", "env", "create", "-f", "environment.yaml"),
        ("npx", "serve"),
    ],
)
def test_installing_while_it_runs_is_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    found = guard.violations(compile_task(tmp_path, container(*words)), placeholders=True)
    assert [fault.split(": ", 1)[1] for fault in found] == ["installs packages while it runs: put them into the image"]


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "WANDB_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "dbPassword",
        "api-key",
        "DB_PASS",
        "PGPASSWORD",
        "MYSQL_PWD",
        "GITHUB_PAT",
        "AUTH",
        "WANDB_KEY",
    ],
)
def test_an_environment_variable_that_is_called_like_a_secret_is_refused(tmp_path: Path, name: str) -> None:
    text = compile_task(tmp_path, quiet, lambda task: task.set_env_variable(name, "swordfish"))
    with pytest.raises(PipelineError) as error:
        guard.check(text, placeholders=False)
    assert f"environment variable {name}: is called like a secret" in str(error.value)
    assert "swordfish" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    ["tokens_digest", "TOKENIZERS_PARALLELISM", "CAIRN_WORK", "key_values", "monkey", "PATH", "PWD", "SSH_AUTH_SOCK"],
)
def test_a_name_that_only_sounds_like_a_secret_is_not_refused(tmp_path: Path, name: str) -> None:
    text = compile_task(tmp_path, quiet, lambda task: task.set_env_variable(name, "1"))
    assert guard.violations(text, placeholders=False) == []


SECRETS = [
    "AKIA" + "Q" * 16,
    "ghp_" + "a1" * 18,
    "hf_" + "Ab3" * 12,
    "-----BEGIN EC PRIVATE KEY-----\nMHc=\n-----END EC PRIVATE KEY-----",
    "s3://user:swordfish@host/bucket",
    "https://bucket.example/x?X-Amz-Signature=00ff",
    "Bearer abc",
    "Authorization: bearer abc",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_value_that_looks_like_a_secret_is_refused_wherever_it_stands_and_not_repeated(
    tmp_path: Path, secret: str
) -> None:
    text = compile_task(tmp_path, container("run", "--with", secret))
    with pytest.raises(PipelineError, match=r"deploymentSpec\.executors\.exec-made\.container\.command\.2: looks like"):
        guard.check(text, placeholders=False)
    with pytest.raises(PipelineError) as error:
        guard.check(text, placeholders=False)
    assert secret not in str(error.value)


@pytest.mark.parametrize("text", ["The bearer of this letter", "a polar bear on Bearer Island", "s3://bucket/a:b@c"])
def test_a_value_that_only_sounds_like_a_secret_is_not_refused(tmp_path: Path, text: str) -> None:
    assert guard.violations(compile_task(tmp_path, container("say", text)), placeholders=False) == []


def test_a_parameter_called_like_a_secret_is_refused(tmp_path: Path) -> None:
    @dsl.pipeline(name="offender")
    def offender(wandb_api_key: str) -> None:
        quiet().set_caching_options(False)

    path = tmp_path / "offender.yaml"
    compiler.Compiler().compile(offender, str(path))
    assert guard.violations(path.read_text(), placeholders=False) == [
        "root: parameter wandb_api_key: is called like a secret: "
        "refer to a Kubernetes secret instead (`secrets` in the resource profile)"
    ]


def test_a_task_with_kubeflows_cache_on_is_refused(tmp_path: Path) -> None:
    text = compile_task(tmp_path, quiet, lambda task: task.set_caching_options(True))
    [fault] = guard.violations(text, placeholders=False)
    assert fault.startswith("root: task quiet: Kubeflow's cache is on")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just: yaml\n",
        "- a\n",
        "a: [\n",
        "deploymentSpec: 3\n",
        "deploymentSpec: {executors: 3}\n",
        "deploymentSpec: {executors: {e: 3}}\n",
        "deploymentSpec: {executors: {e: {container: 3}}}\n",
        "deploymentSpec: {executors: {e: {container: {env: 3}}}}\n",
        "deploymentSpec: {executors: {e: {container: {env: [3]}}}}\n",
        "deploymentSpec: {executors: {e: {container: {args: 3}}}}\n",
        "deploymentSpec: {}\nroot: 4\n",
        "deploymentSpec: {}\ncomponents: [c]\n",
        "deploymentSpec: {}\ncomponents: {c: {dag: {tasks: {t: 3}}}}\n",
    ],
)
def test_what_is_no_compiled_pipeline_is_said_to_be_none(text: str) -> None:
    with pytest.raises(PipelineError, match="not a compiled pipeline"):
        guard.check(text, placeholders=True)
