"""`cairn report`: the page of the last run, with the times that only its attestation knows."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cairn.errors import ArtifactError

COPY = Path(".cairn", "report.html")


def report(
    open_it: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    output: Annotated[Path, typer.Option(help="Where the page is written.")] = COPY,
) -> None:
    """Write the report of this project as one page, and print where it is."""
    from cairn.lineage.artifact import written_aside
    from cairn.lineage.store import Store
    from components.report.page import checkpoint_of, with_times
    from components.report.times import times_of
    from pipelines.stages import place, stages

    path = place("report") / "report.html"
    for artifact in (made for stage in stages() for made in stage.outputs.values()):
        if output.resolve().is_relative_to(artifact.resolve()):
            raise ArtifactError(
                f"--output {output}: {artifact} is an artifact and stays as it was made: write elsewhere"
            )
    try:
        page = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file: `cairn run` makes it") from None
    except UnicodeDecodeError:
        raise ArtifactError(f"{path}: is damaged: `cairn run` makes it again") from None
    # The artifact itself holds no time: with one, no two runs would have the same digest.
    times = times_of(Store.default(), checkpoint_of(page))
    with written_aside(output) as aside:
        aside.write_text(with_times(page, times), encoding="utf-8")
    print(output)
    if open_it:
        import webbrowser

        if not webbrowser.open(output.resolve().as_uri()):
            print(f"no browser could be opened: open {output} by hand", file=sys.stderr)
