"""`cairn dag`: the DAG as dvc.yaml, as a drawing, or as JSON."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cairn.cli.output import AsJson, print_json
from cairn.lineage.artifact import written_aside


def dag(
    write: Annotated[bool, typer.Option("--write", help="Write dvc.yaml, and the templates of its plots.")] = False,
    draw: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flow chart instead.")] = False,
    json: AsJson = False,
) -> None:
    """Print dvc.yaml as it follows from pipelines/stages.py."""
    from pipelines import plots
    from pipelines.stages import dvc_yaml, mermaid, stages

    if json:
        print_json([{name: _plain(value) for name, value in asdict(stage).items()} for stage in stages()])
        return
    if draw:
        print(mermaid(), end="")
        return
    text = dvc_yaml()
    if not write:
        print(text, end="")
        return
    for path, content in {Path("dvc.yaml"): text, **plots.files()}.items():
        with written_aside(path) as aside:
            aside.write_text(content, encoding="utf-8")
        print(f"{path} written")


def _plain(value: str | dict[str, Path]) -> str | dict[str, str]:
    return value if isinstance(value, str) else {name: str(path) for name, path in value.items()}
