"""The command-line door of every component: what dvc.yaml and `cairn run` call.

python -m components.ingest --recipe params.yaml --input sources=sources.lock.json --output documents=DIRECTORY

With `kubeflow` as its first argument it is the door of `components/kubeflow.py`.
"""

import argparse
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import cairn.recipe
from cairn import version
from cairn.errors import StageError, guard
from cairn.lineage.stage import Component, Outcome, Task, run_pinned, run_stage
from cairn.lineage.store import Store
from cairn.recipe import Section
from cairn.resources import Resources
from components.recipe import Recipe
from components.summary import Read, Summary

if TYPE_CHECKING:
    from components.kubeflow import Job

S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Call:
    """What a door was asked for."""

    recipe: Path
    overrides: tuple[str, ...]
    inputs: dict[str, Path]
    outputs: dict[str, Path]
    refresh: bool


def door(
    package: str,
    model: type[S],
    work: Callable[[S, Task], BaseException | None],
    summary: Callable[[Read], Summary],
    reads: Mapping[str, Collection[str]] | None = None,
) -> NoReturn:
    """Run the stage of `package` as the command line asks, and exit.

    Args:
        summary: what a person sees in Kubeflow of what the stage made.
        reads: the files that `work` reads of an input; of an input without an entry, all.
    """

    def in_project(section: S, component: Component, call: Call) -> Outcome:
        return run_stage(
            component,
            section,
            work,
            inputs=call.inputs,
            outputs=call.outputs,
            store=Store.default(),
            resources=Resources.from_environment(),
        )

    def in_kubeflow(section: S, job: "Job") -> tuple[Outcome, dict[str, str]]:
        return run_pinned(
            job.component,
            section,
            work,
            inputs=job.inputs,
            store=job.store,
            resources=job.resources,
            home=job.home,
            reads=reads,
        )

    open_door(package, model, in_project, in_kubeflow, summary)


def open_door(
    package: str,
    model: type[S],
    in_project: Callable[[S, Component, Call], Outcome],
    in_kubeflow: "Callable[[S, Job], tuple[Outcome, Mapping[str, str]]]",
    summary: Callable[[Read], Summary],
) -> NoReturn:
    """Like `door`, for a component that is run by rules of its own."""

    def enter() -> None:
        component = Component.of(package)
        if sys.argv[1:2] == ["kubeflow"]:
            from components import kubeflow

            kubeflow.enter(component, model, in_kubeflow, summary, sys.argv[2:])
            return
        call = parse(component)
        recipe = cairn.recipe.load(Recipe, call.recipe, call.overrides)
        outcome = in_project(section_of(recipe, component, model), component, call)
        if outcome is not Outcome.RAN:
            print(f"{component.name}: {outcome.value}", file=sys.stderr)

    sys.exit(guard(enter))


def parse(component: Component, arguments: Sequence[str] | None = None) -> Call:
    """Read the command line of a component. Exits with 2 and a usage line when it does not fit."""
    parser = argparse.ArgumentParser(prog=f"python -m components.{component.name}", description=component.description)
    parser.add_argument("--recipe", type=Path, default=Path("params.yaml"), help="the recipe in force")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one recipe key")
    parser.add_argument("--for-version", help="the component's version that the caller knows; another is refused")
    for kind, names in (("input", component.inputs), ("output", component.outputs)):
        help_text = f"where an {kind} lies: {', '.join(names)}"
        parser.add_argument(f"--{kind}", action="append", default=[], metavar="NAME=PATH", help=help_text)
    if not component.inputs:
        parser.add_argument("--refresh", action="store_true", help="look at the sources again")
    given = parser.parse_args(arguments)
    check_version(component, given.for_version)
    places = {kind: _places(parser, kind, getattr(given, kind)) for kind in ("input", "output")}
    return Call(
        given.recipe, tuple(given.set), places["input"], places["output"], bool(getattr(given, "refresh", False))
    )


def section_of(recipe: Recipe, component: Component, model: type[S]) -> S:
    """This component's section. The whole recipe is read: a slip in a later section is told now, not after hours of
    training."""
    section = getattr(recipe, component.name)
    if not isinstance(section, model):
        raise TypeError(f"the section {component.name} of the recipe is not this component's")
    return section


def check_version(component: Component, asked: str | None) -> None:
    """What was written for one version of a component must not be made by another under the old name."""
    if asked is None or asked == component.version:
        return
    newer = version.is_newer(asked, component.version)
    way_out = "update Cairn" if newer else "`cairn dag --write` takes it up"
    raise StageError(f"{component.name}: asked for version {asked}, but {component.version} is installed: {way_out}")


def _places(parser: argparse.ArgumentParser, kind: str, values: Sequence[str]) -> dict[str, Path]:
    places = {}
    for value in values:
        name, separator, path = value.partition("=")
        if not (name and separator and path):
            parser.error(f"--{kind} {value!r}: write it as NAME=PATH")
        places[name] = Path(path)
    return places
