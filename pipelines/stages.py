"""The one definition of the DAG.

A stage is a component run on named artifacts. What it takes and makes is in the component's `metadata.yaml`, its
section of the recipe has its name, and every artifact has one place; so the edges follow from the names. `dvc.yaml` is
written from this (`cairn dag --write`), and every other door is checked against it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from cairn.errors import StageError
from cairn.lineage.stage import Component
from pipelines import plots

# In an order in which they can run.
NAMES = ("snapshot", "ingest", "tokenize", "pretrain", "export", "evaluate", "report")
RECIPE = Path("params.yaml")


@dataclass(frozen=True)
class Stage:
    """One node of the DAG."""

    name: str
    version: str
    """Of the component."""
    inputs: dict[str, Path]
    outputs: dict[str, Path]

    def command(self, overrides: Sequence[str] = ()) -> list[str]:
        """The arguments of the component's door, after `python`.

        They name the version: when it is raised the command is another one, so DVC runs the stage. A project thereby
        needs no file of Cairn's own to depend on, and its `dvc.yaml` is refused by a Cairn that would do something
        else.
        """
        words = ["-m", f"components.{self.name}", "--for-version", self.version, "--recipe", str(RECIPE)]
        words += [word for name, path in self.inputs.items() for word in ("--input", f"{name}={path}")]
        words += [word for name, path in self.outputs.items() for word in ("--output", f"{name}={path}")]
        return words + [word for override in overrides for word in ("--set", override)]


@cache
def stages() -> tuple[Stage, ...]:
    """Every stage, each after those that make its inputs.

    Raises StageError when an input is made by no earlier stage, or an artifact by two.
    """
    made: dict[str, str] = {}
    found = []
    for name in NAMES:
        component = Component.of(f"components.{name}")
        for artifact in component.inputs:
            if artifact not in made:
                raise StageError(f"components/{name}/metadata.yaml: no earlier stage makes the input {artifact!r}")
        for artifact in component.outputs:
            if artifact in made:
                raise StageError(f"components/{name}/metadata.yaml: {made[artifact]} makes {artifact!r} too")
            made[artifact] = name
        inputs = {artifact: place(artifact) for artifact in component.inputs}
        outputs = {artifact: place(artifact) for artifact in component.outputs}
        found.append(Stage(name, component.version, inputs, outputs))
    return tuple(found)


def place(artifact: str) -> Path:
    """Where an artifact lies in a project."""
    return Path("sources.lock.json") if artifact == "sources" else Path("artifacts", artifact)


def dvc_yaml() -> str:
    """The text of `dvc.yaml`."""
    document: dict[str, Any] = {"stages": {stage.name: _dvc_stage(stage) for stage in stages()}}
    document["metrics"] = [str(place("scores") / "scores.json")]
    document["plots"] = plots.section(place("report"))
    text = StringIO()
    writer = YAML()
    writer.width = 10_000
    writer.dump(document, text)
    return "# Written by `cairn dag --write` from pipelines/stages.py. Do not edit.\n" + text.getvalue()


def mermaid() -> str:
    """The DAG as a Mermaid flow chart: stages are boxes, artifacts are rounded."""
    lines = ["flowchart LR"]
    for stage in stages():
        lines += [f"    {_node(artifact)} --> {stage.name}" for artifact in stage.inputs]
        lines += [f"    {stage.name} --> {_node(artifact)}" for artifact in stage.outputs]
    return "\n".join(lines) + "\n"


def _node(artifact: str) -> str:
    # Mermaid knows nodes by name, and a stage may be called what its artifact is.
    return f"{artifact}_artifact([{artifact}])" if artifact in NAMES else f"{artifact}([{artifact}])"


def _dvc_stage(stage: Stage) -> dict[str, Any]:
    # `persist`: DVC would remove an output before it runs the stage, and a checkpoint that a killed run had just moved
    # into place would be lost. The runner replaces outputs whole.
    options: dict[str, Any] = {"persist": True}
    if "sources" in stage.outputs:
        options["cache"] = False  # a lock file is kept by Git
    deps = {"deps": [str(path) for path in stage.inputs.values()]} if stage.inputs else {}
    return {
        "cmd": " ".join(["python", *stage.command()]),
        **deps,
        "params": [stage.name],
        "outs": [{str(path): options} for path in stage.outputs.values()],
    }
