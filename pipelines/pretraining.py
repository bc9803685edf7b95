"""The DAG in Kubeflow: from sources to a report. `pipelines/stages.py` defines it; a test compares every edge.

Between tasks goes a pin, a small file, and the digest in it as a parameter. Bytes go through the store. The recipe is a
run-time parameter; only images and machines are compiled in.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from components.evaluate.component import evaluate
from components.export.component import export
from components.image import PLACEHOLDER
from components.ingest.component import ingest
from components.pretrain.component import pretrain
from components.report.component import report
from components.snapshot.component import snapshot
from components.tokenize.component import tokenize
from pipelines import guard
from pipelines.profile import HOME, Machine, Profile

COMPILED = Path(__file__).parent / "compiled" / "pretraining.yaml"
"""The pipeline compiled without a profile. A test compares it with what the code compiles to."""


def compiled(profile: Profile) -> str:
    """The compiled pipeline as YAML. Raises PipelineError when it holds what it should not."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pipeline.yaml")
        compiler.Compiler().compile(pipeline(profile), str(path))
        text = path.read_text()
    guard.check(text, placeholders=True)
    return text


def pipeline(profile: Profile) -> Any:
    """The pipeline as a kfp function, for the machines of a profile."""

    @dsl.pipeline(name="pretraining", description="From raw text to a pre-trained base language model.")
    def pretraining(recipe: str, store: str, locked: str = "") -> None:
        """Wire the stages.

        Args:
            recipe: the whole recipe, as YAML.
            store: URL of the store.
            locked: digest of the lock file of the sources; empty: look at the sources as they are now.
        """

        def run(component: Callable[..., Any], **arguments: Any) -> Any:
            task = component(recipe=recipe, store=store, run=dsl.PIPELINE_JOB_ID_PLACEHOLDER, **arguments)
            return settled(task, profile)

        sources = run(snapshot, locked=locked)
        documents = run(ingest, **pinned(sources, "sources"))
        tokens = run(tokenize, **pinned(documents, "documents"))
        checkpoint = run(pretrain, **pinned(tokens, "tokens"))
        model = run(export, **pinned(checkpoint, "checkpoint"), **pinned(tokens, "tokenizer"))
        scores = run(evaluate, **pinned(model, "model"), **pinned(documents, "documents"))
        run(
            report,
            **pinned(documents, "documents"),
            **pinned(tokens, "tokens"),
            **pinned(checkpoint, "checkpoint"),
            **pinned(model, "model"),
            **pinned(scores, "scores"),
        )

    return pretraining


def pinned(task: Any, artifact: str) -> dict[str, Any]:
    """The arguments that take an artifact from the task that makes it: its pin and its digest."""
    return {artifact: task.outputs[artifact], f"{artifact}_digest": task.outputs[f"{artifact}_digest"]}


def settled(task: Any, profile: Profile) -> Any:
    """Put a task on its machine. Attestations say what is up to date, so Kubeflow's own cache is off."""
    machine = profile.machine(task.name)
    task.set_caching_options(False)
    task.set_container_image(machine.image)
    if machine.image != PLACEHOLDER:
        task.set_env_variable("CAIRN_IMAGE", machine.image)  # for the attestation: a container cannot tell
    for name, value in machine.environment.items():
        task.set_env_variable(name, value)
    if profile.signing_key is not None:
        task.set_env_variable("CAIRN_HOME", HOME)
    if secrets := mounted(profile.signing_key, machine):
        task.platform_config["kubernetes"] = secrets
    if machine.cpu is not None:
        task.set_cpu_request(machine.cpu).set_cpu_limit(machine.cpu)
    if machine.memory is not None:
        task.set_memory_request(machine.memory).set_memory_limit(machine.memory)
    if machine.accelerator is not None:
        task.set_accelerator_type(machine.accelerator).set_accelerator_limit(machine.accelerators)
    return task


def mounted(signing_key: str | None, machine: Machine) -> dict[str, Any]:
    """What a pod takes from Kubernetes secrets, as kfp's message KubernetesExecutorConfig.

    The package kfp-kubernetes makes the same messages; for two fields it is not worth a dependency.
    """

    def secret(name: str) -> dict[str, Any]:
        # Older versions of Kubeflow read the first, newer ones the second.
        return {
            "secretName": name,
            "secretNameParameter": {"runtimeValue": {"constant": name}},
            "optional": False,
        }

    taken: dict[str, Any] = {}
    for variable, reference in machine.secrets.items():
        name, _, key = reference.partition("/")
        said = {**secret(name), "keyToEnv": [{"secretKey": key, "envVar": variable}]}
        taken.setdefault("secretAsEnv", []).append(said)
    if signing_key is not None:
        taken["secretAsVolume"] = [{**secret(signing_key), "mountPath": HOME}]
    return taken
