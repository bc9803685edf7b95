"""The `cairn` command: puts the verbs together and turns what a person can put right into one line."""

import sys
from typing import NoReturn

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


def main() -> NoReturn:
    """The console script. Unknown verbs and options are typer's to report; everything else is `guard`'s."""
    sys.exit(guard(app))
