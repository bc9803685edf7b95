"""How verbs print: tables that fit the terminal, whole lines elsewhere, and JSON for programs."""

import json
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

WIDE = 200  # columns where there is no terminal that could be too narrow
HIGH = 50  # lines; a table takes as many as it has

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def show(shown: "Table") -> None:
    """Print a table. Text is shown as it is: `[` in a value is no markup."""
    from rich.console import Console

    # Unless both are given, rich takes a terminal that cannot show colours for one of 80 columns.
    console = Console(width=width(), height=HIGH, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(shown)
    for line in captured.get().splitlines():
        print(line.rstrip())


def width() -> int:
    """Columns that a table may take."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE


def table(*columns: str) -> "Table":
    """A table without lines. A column whose name ends in `>` holds numbers."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        number = column.endswith(">")
        # A number that is broken over two lines reads as another one.
        made.add_column(
            column.removesuffix(">"), justify="right" if number else "left", no_wrap=number, overflow="fold"
        )
    return made


def paragraph(text: str) -> None:
    """Print text indented, with lines that fit the terminal."""
    width = min(100, shutil.get_terminal_size().columns)
    for part in text.split("\n\n"):
        print(textwrap.fill(part, width, initial_indent="  ", subsequent_indent="  "))


def short(digest: Any) -> str:
    """The beginning of a digest."""
    return str(digest)[:12] if digest else "none"


def moment(time: str | None) -> str:
    """An ISO 8601 time in UTC to the minute, as people read it."""
    return f"{time[:16].replace('T', ' ')} UTC" if time else "unknown"


def written(value: Any) -> str:
    """A recipe value as it would stand in a recipe."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
