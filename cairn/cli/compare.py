"""`cairn compare`: two runs side by side."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cairn.cli.output import AsJson, print_json, short, show, table, width, written

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.evaluate.comparison import Row

ROOM = 120  # columns from which intervals stand beside the numbers
WHICH = "A scores or project folder, a digest of scores, or a Git revision."


def compare(
    first: Annotated[str, typer.Argument(help=WHICH, show_default=False)],
    second: Annotated[str, typer.Argument(help=f"{WHICH} Default: this project.")] = ".",
    json: AsJson = False,
) -> None:
    """Show where two runs differ: recipe, versions, digests, and bits per byte with a paired interval."""
    import components.evaluate.comparison as scored
    from pipelines.ancestry import ancestral_differences, ancestry
    from pipelines.runs import named

    with tempfile.TemporaryDirectory() as scratch:
        one, other = (named(name, Path(scratch)) for name in (first, second))
        scores = scored.read_scores(one.folder), scored.read_scores(other.folder)
    rows = scored.compare(*scores)
    first, second = ("this project" if name == "." else name for name in (first, second))
    led = {run.name: ancestry(run.store, run.digest) for run in (one, other)}
    differing = ancestral_differences(led[one.name], led[other.name])
    unknown = [name for name, found in led.items() if not found.stages]
    if json:
        print_json(
            {
                "first": {"name": one.name, "scores": one.digest, "digests": led[one.name].digests},
                "second": {"name": other.name, "scores": other.digest, "digests": led[other.name].digests},
                "differences": [asdict(each) for each in differing],
                "scores": [{**asdict(row), "verdict": row.verdict} for row in rows],
            }
        )
        return
    for name in unknown:
        print(f"{name}: no trusted attestation says how it was made, so only scores can be compared")
    if differing:
        shown = table("what differs", first, second)
        for each in differing:
            say = short if each.part in ("output", "code") else written
            label = each.name if each.part in ("recipe", "output") else f"{each.part} {each.name}"
            shown.add_row(label, say(each.then), say(each.now))
        show(shown)
    elif not unknown:
        print("made alike: the same recipe, versions, packages, code and bytes")
    intervals = width() >= ROOM
    with_them = " with 95 % intervals" if intervals else ""
    unit = "bits per masked byte" if "masked" in scores[0].setting else "bits per byte"
    print(f"\n{unit}{with_them}, lower is better (and how many documents both scored)")
    if intervals:
        show(_table(rows, first, second, intervals))
    else:
        # Names may be long paths, which would take the room of the numbers.
        show(_table(rows, "first", "second", intervals))
        print(f"first: {first}\nsecond: {second}\na terminal of {ROOM} columns, or --json, shows 95 % intervals too")
    if scores[0].setting != scores[1].setting:
        print(f"scored differently, so not comparable as they are: {scores[0].setting} and {scores[1].setting}")


def _table(rows: "list[Row]", first: str, second: str, intervals: bool) -> Any:
    from rich.text import Text

    shown = table("held-out text", f"{first}>", f"{second}>", "difference>", f"{second} is")
    styles = {"better": "green", "worse": "red"}
    for row in rows:
        difference = "" if row.difference is None else f"{row.difference:+.4f}"
        if difference and intervals:
            difference += f" [{row.low:+.3f}, {row.high:+.3f}]"
        shown.add_row(
            f"{row.domain} {row.set} ({row.documents:,})",
            _cell(row.first, intervals),
            _cell(row.second, intervals),
            difference,
            Text(row.verdict, styles.get(row.verdict, "dim")),
        )
    return shown


def _cell(score: "Mapping[str, Any]", interval: bool) -> str:
    if not score.get("documents"):
        return "no documents"
    said = f"{score['bits_per_byte']:.4f}"
    return f"{said} [{score['low']:.3f}, {score['high']:.3f}]" if interval else said
