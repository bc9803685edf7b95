"""The command-line door of every component: what dvc.yaml and `cairn run` call.

python -m components.ingest --recipe params.yaml --input sources=sources.lock.json --output documents=DIRECTORY

With `kubeflow` as its first argument it is the door of `components/kubeflow.py`. What takes time to import is imported
inside the guard: Ctrl-C is as likely then as later.
"""

import argparse
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cairn.errors import StageError, guard

if TYPE_CHECKING:
    from cairn.lineage.stage import Component, Note, Outcome, Task
    from components.kubeflow import Job
    from components.recipe import Recipe


@dataclass(frozen=True)
class Call:
    """What a door was asked for."""

    recipe: Path
    overrides: tuple[str, ...]
    inputs: dict[str, Path]
    outputs: dict[str, Path]
    refresh: bool
    run: str | None
    """The run that this belongs to."""


def door(
    package: str,
    work: "Callable[[Any, Task], BaseException | None]",
    cached: Collection[str] = (),
) -> NoReturn:
    """Run the stage of `package` as the command line asks, and exit.

    Args:
        work: gets the section of the recipe that has the component's name.
        cached: inputs that `work` reads from the store itself, through `Resources.cache`, where the pod has one. They
            are then not in `Task.inputs`.
    """

    def in_project(section: Any, component: "Component", call: Call, note: "Note | None") -> "Outcome":
        from cairn.lineage.stage import run_stage
        from cairn.lineage.store import Store
        from cairn.resources import Resources

        return run_stage(
            component,
            section,
            work,
            inputs=call.inputs,
            outputs=call.outputs,
            store=Store.default(),
            resources=Resources.from_environment(),
            note=note,
        )

    def in_kubeflow(section: Any, job: "Job") -> "tuple[Outcome, dict[str, str]]":
        from cairn.lineage.stage import run_pinned

        return run_pinned(
            job.component,
            section,
            work,
            inputs=job.inputs,
            store=job.store,
            resources=job.resources,
            home=job.home,
            reads=dict.fromkeys(cached, ()) if job.resources.cache else None,
        )

    open_door(package, in_project, in_kubeflow)


def open_door(
    package: str,
    in_project: "Callable[[Any, Component, Call, Note | None], Outcome]",
    in_kubeflow: "Callable[[Any, Job], tuple[Outcome, Mapping[str, str]]]",
) -> NoReturn:
    """Like `door`, for a component that is run by rules of its own.

    Args:
        in_project: calls the last of its arguments, where there is one, when it has done its work.
    """

    def enter() -> None:
        from cairn.lineage.stage import Component, Outcome

        component = Component.of(package)
        if sys.argv[1:2] == ["kubeflow"]:
            from components import kubeflow

            kubeflow.enter(component, in_kubeflow, sys.argv[2:])
            return
        import cairn.recipe
        from components.recipe import Recipe

        call = parse(component)
        text, name = cairn.recipe.text_of(call.recipe), str(call.recipe)
        section = section_of(cairn.recipe.loads(Recipe, text, name, call.overrides), component)
        note: Note | None = None
        if call.run is not None:
            from cairn.lineage.store import Store
            from components.noting import noting

            written = cairn.recipe.written(text, name, call.overrides)
            note = noting(call.run, Store.default(), component, section, written)
        outcome = in_project(section, component, call, note)
        if outcome is not Outcome.RAN:
            print(f"{component.name}: {outcome.value}", file=sys.stderr)

    sys.exit(guard(enter))


def parse(component: "Component", arguments: Sequence[str] | None = None) -> Call:
    """Read the command line of a component. Exits with 2 and a usage line when it does not fit."""
    parser = argparse.ArgumentParser(prog=f"python -m components.{component.name}", description=component.description)
    parser.add_argument("--recipe", type=Path, default=Path("params.yaml"), help="the recipe in force")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one recipe key")
    parser.add_argument("--for-version", help="the component's version that the caller knows; another is refused")
    parser.add_argument("--run", default="", metavar="NAME", help="the run that this belongs to (default: CAIRN_RUN)")
    for kind, names in (("input", component.inputs), ("output", component.outputs)):
        help_text = f"where an {kind} lies: {', '.join(names)}"
        parser.add_argument(f"--{kind}", action="append", default=[], metavar="NAME=PATH", help=help_text)
    if not component.inputs:
        parser.add_argument("--refresh", action="store_true", help="look at the sources again")
    given = parser.parse_args(arguments)
    check_version(component, given.for_version)
    places = {kind: _places(parser, kind, getattr(given, kind)) for kind in ("input", "output")}
    return Call(
        recipe=given.recipe,
        overrides=tuple(given.set),
        inputs=places["input"],
        outputs=places["output"],
        refresh=bool(getattr(given, "refresh", False)),
        run=run_of(given.run),
    )


def section_of(recipe: "Recipe", component: "Component") -> Any:
    """This component's section. The whole recipe was read: a slip in a later section is told now, not after hours of
    training."""
    return getattr(recipe, component.name)


def check_version(component: "Component", asked: str | None) -> None:
    """What was written for one version of a component must not be made by another under the old name."""
    if asked is None or asked == component.version:
        return
    from cairn import version

    newer = version.is_newer(asked, component.version)
    way_out = "update Cairn" if newer else "`cairn dag --write` takes it up"
    raise StageError(f"{component.name}: asked for version {asked}, but {component.version} is installed: {way_out}")


def run_of(asked: str) -> str | None:
    """The run that is meant: what was asked for, else `CAIRN_RUN`. Raises StageError when it is no name."""
    from cairn.lineage import runs

    name = asked or os.environ.get("CAIRN_RUN", "")
    return runs.check(name) if name else None


def _places(parser: argparse.ArgumentParser, kind: str, values: Sequence[str]) -> dict[str, Path]:
    places = {}
    for value in values:
        name, separator, path = value.partition("=")
        if not (name and separator and path):
            parser.error(f"--{kind} {value!r}: write it as NAME=PATH")
        places[name] = Path(path)
    return places
