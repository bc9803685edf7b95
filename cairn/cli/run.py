"""`cairn run`: the DAG without dvc, with the same doors and so the same digests."""

import difflib
import os
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cairn.cli.output import AsJson, print_json
from cairn.errors import RecipeError, StageError

if TYPE_CHECKING:
    from components.recipe import Recipe

Overrides = Annotated[list[str] | None, typer.Argument(help="Recipe overrides, such as pretrain.optimizer.lr=3e-4.")]


def _stages(incomplete: str) -> list[str]:
    """Names of stages that begin so, for completion."""
    from pipelines.stages import NAMES

    return [name for name in NAMES if name.startswith(incomplete)]


def run(
    overrides: Overrides = None,
    until: Annotated[str | None, typer.Option(help="Stop after this stage.", autocompletion=_stages)] = None,
    name: Annotated[
        str | None, typer.Option("--run", help="Name this run, or go on with the run of this name.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the recipe and print the commands only.")] = False,
    json: AsJson = False,
) -> None:
    """Run every stage that is not up to date, in order."""
    import cairn.recipe
    from cairn.lineage import runs
    from cairn.lineage.artifact import digest_of
    from components.recipe import Recipe
    from pipelines.stages import NAMES, RECIPE, stages

    if until is not None and until not in NAMES:
        close = difflib.get_close_matches(until, NAMES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the stages are {', '.join(NAMES)}"
        raise RecipeError(f"--until {until}: no such stage: {hint}")
    name = runs.check(name or os.environ.get("CAIRN_RUN") or runs.new())
    recipe = cairn.recipe.load(Recipe, RECIPE, overrides or ())
    chosen = stages()[: NAMES.index(until or NAMES[-1]) + 1]
    commands = {stage.name: stage.command(overrides or ()) for stage in chosen}
    if dry_run:
        if json:
            print_json({name: ["python", *command] for name, command in commands.items()})
        else:
            print("\n".join(shlex.join(["python", *command]) for command in commands.values()))
        if "pretrain" in commands:
            _foretell(recipe)
        return
    print(f"run {name}", file=sys.stderr, flush=True)
    for command in commands.values():
        door([sys.executable, *command, "--run", name])
    if json:
        print_json({name: digest_of(path) for stage in chosen for name, path in stage.outputs.items()})


def _foretell(recipe: "Recipe") -> None:
    """What training will take, on stderr; the vocabulary is the one that is asked for.

    Raises RecipeError when the processes that are asked for cannot do it.
    """
    from cairn.resources import Resources
    from trainer.preflight import beyond, outlook

    size, processes = recipe.tokenize.vocab_size, Resources.from_environment().processes
    try:
        recipe.pretrain.check_processes(processes, size)
    except ValueError as error:
        raise RecipeError(str(error)) from None
    for line in (outlook(recipe.pretrain, size, processes), beyond(recipe.pretrain, size, processes)):
        if line:
            print(f"pretrain: {line}", file=sys.stderr)


def door(command: list[str]) -> None:
    """Run a stage in a process of its own, so that no stage pays for another's memory. Ends with its code if it fails.

    Ctrl-C and SIGTERM are passed on, and the stage ends in its own time. From a terminal Ctrl-C reaches it by itself
    too, at once: it counts as one.
    """
    stage: subprocess.Popen[bytes] | None = None
    asked: list[int] = []

    def pass_on(number: int, _: object) -> None:
        asked.append(number)
        if stage is not None:
            stage.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        try:
            stage = subprocess.Popen(command)
        except OSError as error:
            raise StageError(f"{command[0]}: cannot be started: {error}") from None
        for number in asked:
            stage.send_signal(number)
        code = stage.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code < 0 and -code not in asked:
        name = command[2].rpartition(".")[2]
        raise StageError(
            f"{name}: was killed by signal {-code} (out of memory?): finished work is kept, `cairn run` goes on from "
            "there"
        )
    if code:
        # A stage killed by a signal is reported as a shell would.
        raise typer.Exit(code if code > 0 else 128 - code)
    if asked:
        # It came too late to stop the stage; it still stops what would follow.
        raise typer.Exit(128 + asked[0])
