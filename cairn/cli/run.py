"""`cairn run` and `cairn snapshot`: the DAG without dvc, with the same doors and so the same digests."""

import shlex
import signal
import subprocess
import sys
from typing import Annotated

import typer

from cairn.errors import RecipeError, StageError

Overrides = Annotated[list[str] | None, typer.Argument(help="Recipe overrides, such as pretrain.optimizer.lr=3e-4.")]


def run(
    overrides: Overrides = None,
    until: Annotated[str | None, typer.Option(help="Stop after this stage.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the recipe and print the commands only.")] = False,
) -> None:
    """Run every stage that is not up to date, in order."""
    import cairn.recipe
    from components.recipe import Recipe
    from pipelines.stages import NAMES, RECIPE, stages

    if until is not None and until not in NAMES:
        raise RecipeError(f"--until {until}: no such stage; the stages are {', '.join(NAMES)}")
    cairn.recipe.load(Recipe, RECIPE, overrides or ())
    for stage in stages():
        command = [sys.executable, *stage.command(overrides or ())]
        if dry_run:
            print(shlex.join(["python", *command[1:]]))
        else:
            _door(command)
        if stage.name == until:
            break


def snapshot(overrides: Overrides = None) -> None:
    """Look at the sources again and write sources.lock.json."""
    from pipelines.stages import stages

    _door([sys.executable, *stages()[0].command(overrides or ()), "--refresh"])


def _door(command: list[str]) -> None:
    """Run a stage in a process of its own, so that no stage pays for another's memory. Ends with its code if it fails.

    Ctrl-C reaches the stage by itself, which ends in its own time; SIGTERM is passed on.
    """
    try:
        stage = subprocess.Popen(command)
    except OSError as error:
        raise StageError(f"{command[0]}: cannot be started: {error}") from None
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    terminate = signal.signal(signal.SIGTERM, lambda *_: stage.terminate())
    try:
        code = stage.wait()
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, terminate)
    if code:
        # A stage killed by a signal is reported as a shell would.
        raise typer.Exit(code if code > 0 else 128 - code)
