"""What a compiled pipeline may hold: images by digest, nothing that is installed while it runs, no secret.

The compiled pipeline is kept in the Kubeflow database and shown in its pages to everybody who may look at runs. It is
checked when it is compiled; what a run is given besides, its parameters, is checked by every task
(`components/kubeflow.py`).
"""

import re
from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from cairn.errors import PipelineError, one_line
from components import secrets
from components.image import PINNED, PLACEHOLDER

# `apt-get install`, `pip install`, `python -m pip install`, `uv pip install`, `conda env create`, … and what kfp puts
# into lightweight components, whose code is in the pipeline instead of in the image.
_INSTALLS = re.compile(
    r"\b(?:pip[\d.]*|uv|poetry|pdm|pipenv|pixi|(?:micro)?mamba|conda|apt|apt-get|apk|dnf|yum|npm|pnpm|yarn|gem|cargo)\s+"
    r"(?:\S+\s+){0,6}?(?:install|add|sync|download|wheel|create|update|upgrade|ci)\b"
    r"|\b(?:uvx|npx|uv\s+run|pipx\s+run|ensurepip)\b|\b(?:curl|wget)\b[^\n]*\|\s*(?:ba)?sh\b"
)
_CODE = re.compile(r"ephemeral_component|kfp\.dsl\.executor_main")
_INSTEAD = "refer to a Kubernetes secret instead (`secrets` in the resource profile)"


def check(text: str, *, placeholders: bool) -> None:
    """Raises PipelineError, naming the first fault of a compiled pipeline.

    Args:
        text: YAML, as the compiler wrote it: the pipeline, and perhaps settings of a platform.
        placeholders: whether images may still be placeholders.
    """
    if faults := violations(text, placeholders=placeholders):
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise PipelineError(f"{faults[0]}{more}")


def violations(text: str, *, placeholders: bool) -> list[str]:
    """Everything that a compiled pipeline should not hold; each says where. Never the secret itself.

    Raises PipelineError when it is no compiled pipeline.
    """
    try:
        documents = [one for one in YAML(typ="safe", pure=True).load_all(text) if one is not None]
    except YAMLError as error:
        raise PipelineError(f"not a compiled pipeline: not valid YAML: {one_line(error)}") from None
    if not documents or not isinstance(documents[0], dict) or "deploymentSpec" not in documents[0]:
        raise PipelineError("not a compiled pipeline: it has no deploymentSpec")
    pipeline = documents[0]
    found: list[str] = []
    executors = _inside(pipeline, "deploymentSpec", "executors")
    for name in executors:
        if "container" in _inside(executors, name):  # an importer runs nothing of ours
            found += _container(name, _inside(executors, name, "container"), placeholders)
    definitions = {"root": pipeline.get("root"), **_inside(pipeline, "components")}
    for name in definitions:
        for parameter in _inside(definitions, name, "inputDefinitions", "parameters"):
            if secrets.named(str(parameter)):
                found.append(f"{name}: parameter {parameter}: is called like a secret: {_INSTEAD}")
        tasks = _inside(definitions, name, "dag", "tasks")
        for task in tasks:
            if _inside(tasks, task, "cachingOptions").get("enableCache"):
                found.append(f"{name}: task {task}: Kubeflow's cache is on; the attestations decide what is up to date")
    for where, value in _strings(documents):
        found += [f"{where}: looks like {kind}: {_INSTEAD}" for kind in secrets.kinds(value)]
    return found


def _container(name: str, container: dict[str, Any], placeholders: bool) -> Iterator[str]:
    image = str(container.get("image", ""))
    if image == PLACEHOLDER:
        if not placeholders:
            yield f"{name}: its image is a placeholder: compile with a resource profile (--profile) that names one"
    elif not PINNED.fullmatch(image):
        yield f"{name}: the image {image!r} is not named by its digest (repository@sha256:…)"
    words = " ".join(str(word) for part in ("command", "args") for word in _listed(container, part))
    if _INSTALLS.search(words):
        yield f"{name}: installs packages while it runs: put them into the image"
    if _CODE.search(words):
        yield f"{name}: carries its code in the pipeline: put it into the image (a container component)"
    for variable in _listed(container, "env"):
        if not isinstance(variable, dict):
            raise PipelineError("not a compiled pipeline: env: is no list of mappings")
        called = str(variable.get("name", ""))
        if secrets.named(called):
            yield f"{name}: environment variable {called}: is called like a secret: {_INSTEAD}"


def _inside(mapping: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The mapping that lies in mappings under these keys; an empty one where there is none."""
    for key in keys:
        inner = {} if mapping.get(key) is None else mapping[key]
        if not isinstance(inner, dict):
            raise PipelineError(f"not a compiled pipeline: {key}: is no mapping")
        mapping = inner
    return mapping


def _listed(mapping: dict[str, Any], key: str) -> list[Any]:
    """The list under a key; an empty one where there is none."""
    value = [] if mapping.get(key) is None else mapping[key]
    if not isinstance(value, list):
        raise PipelineError(f"not a compiled pipeline: {key}: is no list")
    return value


def _strings(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a document, and the path to it."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _strings(inner, f"{where}.{key}" if where else str(key))
