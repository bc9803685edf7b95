"""How verbs print: tables that fit the terminal, whole lines elsewhere, and JSON for programs."""

import json
import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

WIDE = 200  # columns where there is no terminal that could be too narrow
GAP = 2  # columns between two of a table
INDENT = 4  # of what is below the first line of a paragraph
HIGH = 50  # lines; a table takes as many as it has

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def show(shown: "Table") -> None:
    """Print a table. Text is shown as it is: `[` in a value is no markup. No word is broken, since what is a name
    could not be copied then: where the columns are too narrow for that, each row becomes a paragraph."""
    from rich.console import Console

    cells = [[str(cell) for cell in column.cells] for column in shown.columns]
    widths = [max(map(len, (str(column.header), *texts))) for column, texts in zip(shown.columns, cells, strict=True)]
    least = [
        wide if column.no_wrap else max(len(word) for text in (str(column.header), *texts) for word in text.split())
        for column, texts, wide in zip(shown.columns, cells, widths, strict=True)
    ]
    room = width() - GAP * (len(widths) - 1)
    if cells[0] and sum(least) > room:
        _paragraphs(shown, cells)
        return
    if sum(widths) > room:
        while sum(widths) > room:
            slack = [wide - narrow for wide, narrow in zip(widths, least, strict=True)]
            widths[slack.index(max(slack))] -= 1
        for column, wide in zip(shown.columns, widths, strict=True):
            column.width = wide
    # Unless both are given, rich takes a terminal that cannot show colours for one of 80 columns.
    console = Console(width=width(), height=HIGH, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(shown)
    for line in captured.get().splitlines():
        print(line.rstrip())


def _paragraphs(shown: "Table", cells: list[list[str]]) -> None:
    """The rows of a table below each other: the first cells in one line, the others below, numbers with their names."""
    for row in zip(*cells, strict=True):
        named = [
            f"{column.header} {cell}" if column.justify == "right" else cell
            for column, cell in zip(shown.columns, row, strict=True)
        ]
        head = "  ".join(filter(None, named[:2]))
        below, head = (named[2:], head) if len(head) <= width() else (named[1:], named[0])
        print(head)
        line = ""
        for cell in filter(None, below):
            if line and len(line) + GAP + len(cell) > width() - INDENT:
                _wrap(line)
                line = ""
            line = f"{line}{' ' * GAP if line else ''}{cell}"
        _wrap(line)


def _wrap(text: str) -> None:
    for line in textwrap.wrap(
        text,
        width(),
        initial_indent=" " * INDENT,
        subsequent_indent=" " * (INDENT + 2),
        break_long_words=False,
        break_on_hyphens=False,
    ):
        print(line)


def width() -> int:
    """Columns that a table may take: those of the terminal, or what `COLUMNS` says."""
    told = os.environ.get("COLUMNS", "").isdecimal()
    return shutil.get_terminal_size().columns if told or sys.stdout.isatty() else WIDE


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
