"""The command-line door of every component: what dvc.yaml, the container and `cairn run` call.

python -m components.ingest --recipe params.yaml --input sources=sources.lock.json --output documents=DIRECTORY

What takes time to import is imported inside the guard: Ctrl-C is as likely then as later.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cairn.errors import guard

if TYPE_CHECKING:
    from cairn.lineage.stage import Component, Task


@dataclass(frozen=True)
class Call:
    """What a door was asked for."""

    recipe: Path
    overrides: tuple[str, ...]
    inputs: dict[str, Path]
    outputs: dict[str, Path]
    refresh: bool


def door(package: str, work: "Callable[[Any, Task], BaseException | None]") -> NoReturn:
    """Run the stage of `package` as the command line asks, and exit. `work` gets the section of the recipe that has the
    component's name."""

    def enter() -> int:
        from cairn.lineage.stage import Component, Outcome, run_stage
        from cairn.lineage.store import Store
        from cairn.resources import Resources

        component = Component.of(package)
        call = parse(component)
        section = read_section(component, call)
        outcome = run_stage(
            component,
            section,
            work,
            inputs=call.inputs,
            outputs=call.outputs,
            store=Store.default(),
            resources=Resources.from_environment(),
        )
        if outcome is not Outcome.RAN:
            print(f"{component.name}: {outcome.value}", file=sys.stderr)
        return 0

    sys.exit(guard(enter))


def parse(component: "Component", arguments: Sequence[str] | None = None) -> Call:
    """Read the command line of a component. Exits with 2 and a usage line when it does not fit."""
    parser = argparse.ArgumentParser(prog=f"python -m components.{component.name}", description=component.description)
    parser.add_argument("--recipe", type=Path, default=Path("params.yaml"), help="the recipe in force")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one recipe key")
    for kind, names in (("input", component.inputs), ("output", component.outputs)):
        help_text = f"where an {kind} lies: {', '.join(names)}"
        parser.add_argument(f"--{kind}", action="append", default=[], metavar="NAME=PATH", help=help_text)
    if not component.inputs:
        parser.add_argument("--refresh", action="store_true", help="look at the sources again")
    given = parser.parse_args(arguments)
    places = {kind: _places(parser, kind, getattr(given, kind)) for kind in ("input", "output")}
    return Call(
        given.recipe, tuple(given.set), places["input"], places["output"], bool(getattr(given, "refresh", False))
    )


def read_section(component: "Component", call: Call) -> Any:
    """This component's section, after the whole recipe was found valid: a slip in a later section is told now, not
    after hours of training."""
    import cairn.recipe
    from components.recipe import Recipe

    return getattr(cairn.recipe.load(Recipe, call.recipe, call.overrides), component.name)


def _places(parser: argparse.ArgumentParser, kind: str, values: Sequence[str]) -> dict[str, Path]:
    places = {}
    for value in values:
        name, separator, path = value.partition("=")
        if not (name and separator and path):
            parser.error(f"--{kind} {value!r}: write it as NAME=PATH")
        places[name] = Path(path)
    return places
