"""The `cairn` command: puts the verbs together and turns what a person can put right into one line."""

import difflib
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any, NoReturn

import typer

from cairn.cli import (
    affected,
    audit,
    compare,
    config,
    dag,
    doctor,
    generate,
    init,
    lineage,
    pin,
    pipeline,
    report,
    run,
    snapshot,
    status,
    store,
)
from cairn.errors import EXIT_BAD_INPUT, guard, one_line

app = typer.Typer(
    name="cairn",
    help="From raw text to a pre-trained base model, every step of which can be walked back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command("init")(init.init)
app.command("doctor")(doctor.doctor)
app.command("run")(run.run)
app.command("status")(status.status)
app.command("report")(report.report)
app.command("generate")(generate.generate)
app.command("compare")(compare.compare)
app.command("snapshot")(snapshot.snapshot)
app.command("audit")(audit.audit)
app.command("affected")(affected.affected)
app.command("pin")(pin.pin)
app.command("dag")(dag.dag)
app.add_typer(lineage.app, name="lineage")
app.add_typer(store.app, name="store")
app.add_typer(config.app, name="config")
app.add_typer(pipeline.app)


def _version(asked: bool) -> None:
    if asked:
        print(f"cairn {metadata.version('cairn')}")
        raise typer.Exit


@app.callback()
def everywhere(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error. May stand behind the verb too.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options that every verb takes."""
    if debug:
        os.environ["CAIRN_DEBUG"] = "1"  # the stages that a verb starts are doors too, and read it there


def main() -> NoReturn:
    """The console script."""
    sys.exit(guard(lambda: enter(sys.argv[1:])))


def enter(arguments: Sequence[str]) -> int:
    """Run one verb and return its exit code; an unknown verb or option is one line on stderr and 2.

    Raises what the verb raises; `guard` turns it into one line.
    """
    words, rest = list(arguments), []
    if "--" in words:
        words, rest = words[: words.index("--")], words[words.index("--") :]
    if "--debug" in words:
        words = ["--debug", *(word for word in words if word != "--debug")]
    try:
        code = typer.main.get_command(app).main([*words, *rest], prog_name="cairn", standalone_mode=False)
    except typer.TyperException as error:
        return _usage(error)
    except typer.Abort:
        print("aborted", file=sys.stderr)
        return 1
    return code if isinstance(code, int) else 0


def _usage(error: Any) -> int:
    """Say what was wrong with the command line, and where help is to be had."""
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        return EXIT_BAD_INPUT  # asking for the message printed the help
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "cairn"
    if context and hasattr(error, "possibilities"):
        known = [name for parameter in context.command.params for name in parameter.opts if name.startswith("-")]
        close = difflib.get_close_matches(error.option_name, known, n=1)
        message = error.message + (f": did you mean {close[0]}?" if close else "")
    print(f"error: {one_line(message)} (`{path} --help` tells more)", file=sys.stderr)
    return EXIT_BAD_INPUT
