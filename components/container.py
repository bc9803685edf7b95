"""What the containers of all components have in common: one command, pins in and out. Imports kfp and nothing heavy."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kfp import dsl

from cairn.lineage.stage import Component
from components.image import PLACEHOLDER

if TYPE_CHECKING:
    DigestFile = str
else:
    DigestFile = dsl.OutputPath(str)
"""An output parameter of a component: the digest of an artifact."""


def container(
    component: str,
    recipe: str,
    store: str,
    inputs: Mapping[str, tuple[Any, str]],
    outputs: Mapping[str, Any],
    run: str,
    page: Any = None,
    locked: str | None = None,
) -> dsl.ContainerSpec:
    """The container that runs a component's Kubeflow door.

    Args:
        inputs: pin and digest of each input.
        outputs: pin of each output.
        run: the run that it belongs to; empty where it belongs to none.
        page: an artifact for people, where the component has one.
        locked: digest of the lock file to use, where the component asks for one.
    """
    # One word for an option and its value, where the value is a person's: it may begin with a dash.
    words = ["--for-version", Component.of(f"components.{component}").version]
    words += [f"--recipe-text={recipe}", f"--store={store}"]
    for name, (pin, digest) in inputs.items():
        words += ["--input", f"{name}={pin.path}", "--digest", f"{name}={digest}"]
    for name, pin in outputs.items():
        words += ["--output", f"{name}={pin.path}"]
    words.append(f"--run={run}")
    if page is not None:
        words += ["--page", page.path]
    if locked is not None:
        words.append(f"--locked={locked}")
    command = ["python3", "-m", f"components.{component}", "kubeflow"]
    return dsl.ContainerSpec(image=PLACEHOLDER, command=command, args=[*words, "--executor-input={{$}}"])
