"""What a compiled pipeline may hold: images by digest, nothing that is installed while it runs, no secret.

The compiled pipeline is kept in the Kubeflow database and shown in its pages to everybody who may look at runs. It is
checked when it is compiled, and again when it is submitted: then placeholders are refused too.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from cairn.errors import PipelineError, one_line
from components.image import PINNED, PLACEHOLDER

# `apt-get install`, `pip install`, `python -m pip install`, `uv pip install`, `conda install`, … and what kfp puts into
# lightweight components, whose code is in the pipeline instead of in the image.
_INSTALLS = re.compile(
    r"\b(?:pip[\d.]*|uv|conda|mamba|apt|apt-get|apk|dnf|yum|npm)\s+(?:\S+\s+){0,6}?(?:install|add|sync)\b"
    r"|\b(?:uvx|uv\s+run|pipx\s+run|ensurepip)\b|\b(?:curl|wget)\b[^\n]*\|\s*(?:ba)?sh\b"
)
_CODE = re.compile(r"ephemeral_component|kfp\.dsl\.executor_main")
# `tokens` and `tokenizer` are words of this trade; `token` is not.
_NAMES = re.compile(
    r"(?:^|_)(?:secrets?|token|passwords?|passwd|passphrase|credentials?|(?:private|api|access|secret)_?keys?)(?:$|_)"
)
_VALUES = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "an AWS key id": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})",
    "a GitLab token": r"\bglpat-[A-Za-z0-9_-]{20,}",
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "a Slack token": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    "a Google API key": r"\bAIza[0-9A-Za-z_-]{35}",
    "an API key": r"\bsk-[A-Za-z0-9_-]{20,}",
    "a JSON web token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.",
    "a password in a URL": r"://[^/\s:@]*:[^/\s:@]+@",
    "a signed URL": r"[?&](?:X-Amz-Signature|X-Goog-Signature|sig)=",
}


def check(text: str, *, placeholders: bool) -> None:
    """Raises PipelineError, naming the first fault of a compiled pipeline.

    Args:
        text: YAML, as the compiler wrote it: the pipeline, and perhaps settings of a platform.
        placeholders: whether images may still be placeholders.
    """
    _raise(violations(text, placeholders=placeholders))


def check_parameters(parameters: Mapping[str, str]) -> None:
    """Raises PipelineError when a run-time parameter looks like a secret: Kubeflow shows them to everybody."""
    _raise([fault for name, value in parameters.items() for fault in _secrets(f"parameter {name}", name, value)])


def violations(text: str, *, placeholders: bool) -> list[str]:
    """Everything that a compiled pipeline should not hold; each says where. Never the secret itself."""
    try:
        documents = [one for one in YAML(typ="safe", pure=True).load_all(text) if one is not None]
    except YAMLError as error:
        raise PipelineError(f"not a compiled pipeline: not valid YAML: {one_line(error)}") from None
    if not documents or not isinstance(documents[0], dict) or "deploymentSpec" not in documents[0]:
        raise PipelineError("not a compiled pipeline: it has no deploymentSpec")
    pipeline = documents[0]
    found: list[str] = []
    for name, executor in pipeline["deploymentSpec"].get("executors", {}).items():
        found += _container(name, executor.get("container", {}), placeholders) if "container" in executor else []
    definitions = {"root": pipeline.get("root", {}), **pipeline.get("components", {})}
    for name, component in definitions.items():
        for parameter in component.get("inputDefinitions", {}).get("parameters", {}):
            found += _secrets(f"{name}: parameter {parameter}", parameter, "")
        for task, said in component.get("dag", {}).get("tasks", {}).items():
            if said.get("cachingOptions", {}).get("enableCache"):
                found.append(f"{name}: task {task}: Kubeflow's cache is on; the attestations decide what is up to date")
    for where, value in _strings(documents):
        found += [f"{where}: looks like {kind}" for kind in _kinds(value)]
    return found


def _container(name: str, container: dict[str, Any], placeholders: bool) -> Iterator[str]:
    image = str(container.get("image", ""))
    if image == PLACEHOLDER:
        if not placeholders:
            yield f"{name}: its image is a placeholder: compile with a resource profile (--profile) that names one"
    elif not PINNED.fullmatch(image):
        yield f"{name}: the image {image!r} is not named by its digest (repository@sha256:…)"
    words = " ".join(str(word) for part in ("command", "args") for word in container.get(part, []))
    if _INSTALLS.search(words):
        yield f"{name}: installs packages while it runs: put them into the image"
    if _CODE.search(words):
        yield f"{name}: carries its code in the pipeline: put it into the image (a container component)"
    for variable in container.get("env", []):
        yield from _secrets(f"{name}: environment variable {variable['name']}", variable["name"], "")


def _secrets(where: str, name: str, value: str) -> Iterator[str]:
    """Faults of a name and its value."""
    # accessKey, access-key and ACCESS_KEY are one name.
    if _NAMES.search(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|-", "_", name).lower()):
        yield f"{where}: is called like a secret: refer to a Kubernetes secret instead"
    for kind in _kinds(value):
        yield f"{where}: looks like {kind}: refer to a Kubernetes secret instead"


def _kinds(value: str) -> Iterator[str]:
    """What kinds of secrets a text seems to hold."""
    yield from (kind for kind, pattern in _VALUES.items() if re.search(pattern, value))


def _strings(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a document, and the path to it."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _strings(inner, f"{where}.{key}" if where else str(key))


def _raise(faults: list[str]) -> None:
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise PipelineError(f"{faults[0]}{more}")
