"""The `cairn` command: puts the verbs together and turns what a person can put right into one line."""

import sys
from typing import NoReturn

import click
import typer

from cairn.cli import dag, run
from cairn.errors import guard

app = typer.Typer(
    help="From raw text to a pre-trained base model, every step of which can be walked back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("run")(run.run)
app.command("snapshot")(run.snapshot)
app.command("dag")(dag.dag)


def enter() -> int:
    """Run the command line; the exit code."""
    try:
        code = app(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    return code if isinstance(code, int) else 0


def main() -> NoReturn:
    """The console script."""
    sys.exit(guard(enter))
