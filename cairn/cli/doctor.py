"""`cairn doctor`: looks at the machine and the project, and says what to do about what is not in order."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from cairn.cli.output import AsJson, print_json, show, table
from cairn.errors import CairnError, one_line

if TYPE_CHECKING:
    from cairn.cli.finding import Finding

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(json: AsJson = False) -> None:
    """Look whether everything is there that a run needs; 1 when something is not."""
    findings = list(_findings())
    failed = any(found.level == "fail" for found in findings)
    if json:
        print_json([asdict(found) for found in findings])
        raise typer.Exit(int(failed))
    from rich.text import Text

    rows = table("", "", "")
    rows.show_header = False
    for found in findings:
        rows.add_row(Text(found.level, style=STYLES[found.level]), found.check, Text(found.said))
        if found.fix:
            rows.add_row("", "", Text(f"→ {found.fix}"))
    show(rows)
    raise typer.Exit(int(failed))


def _findings() -> Iterator["Finding"]:
    from cairn.cli import machine, project
    from cairn.cli.finding import Finding

    torch = machine.Torch()  # starts now and is asked last: importing torch takes as long as all the rest
    recipe = project.recipe_in_force()
    checks: dict[str, Callable[[], Finding]] = {
        "python": machine.python,
        "compiler": lambda: machine.compiler(recipe),
        "processors": lambda: machine.processors(recipe),
        "memory": lambda: machine.memory(recipe),
        "disk": lambda: machine.disk(recipe),
        "wandb": machine.board,
        "packages": project.packages,
        "recipe": project.recipe,
        "dag": project.dag,
        "git": project.git,
        "store": project.store,
        "dvc remote": project.remote,
        "signing key": project.key,
        "torch": torch.found,
    }
    for name, check in checks.items():
        try:
            yield check()
        except CairnError as error:
            yield Finding(name, "fail", one_line(error))
