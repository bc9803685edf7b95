"""`cairn status`: what a run would do, and how far one is that is going on. Nothing is run, and torch is not loaded."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cairn.cli.output import AsJson, print_json, short, show, table, written

if TYPE_CHECKING:
    from pipelines.differences import Difference
    from pipelines.state import Standing
    from pipelines.work import Work

STYLES = {
    "up to date": "green",
    "in the store": "green",
    "stale": "yellow",
    "missing": "yellow",
    "interrupted": "magenta",
    "failed": "red",
    "running": "cyan",
}
Overrides = Annotated[list[str] | None, typer.Argument(help="Recipe overrides, as for `cairn run`.")]


def status(overrides: Overrides = None, json: AsJson = False) -> None:
    """Say of every stage whether it is up to date, why not, or how far it is."""
    from pipelines.state import SETTLED, standings

    found = standings(overrides or ())
    if json:
        print_json({"stages": [_plain(one) for one in found], "dvc_yaml_is_current": _dvc_yaml_is_current()})
        return
    from rich.text import Text

    rows = table("stage", "state", "")
    for one in found:
        for index, line in enumerate(_said(one) or [""]):
            state = Text(one.state.value, style=STYLES[one.state.value]) if index == 0 else ""
            rows.add_row(one.stage if index == 0 else "", state, Text(line))
    show(rows)
    would = [one.stage for one in found if one.state not in SETTLED]
    if would and not any(one.work and one.work.process for one in found):
        print(f"\n`cairn run` would make: {', '.join(would)}")
    _tell_code(found)
    if _dvc_yaml_is_current() is False:
        print("dvc.yaml is not what the stages say: `cairn dag --write` writes it anew")


def _plain(one: "Standing") -> dict[str, Any]:
    return {**asdict(one), "state": one.state.value, "work": one.work and {**asdict(one.work), "left": one.work.left}}


def _said(one: "Standing") -> list[str]:
    """What is worth a line about a stage."""
    from pipelines.state import SETTLED

    if one.work:
        return [_progress(one.work, one.work.key != one.key)]
    if one.state in SETTLED:
        made = ", ".join(f"{name} {short(digest)}" for name, digest in (one.will_be or one.outputs).items())
        return [
            made,
            *(f"no signature of this {name} lies beside it: `cairn run` puts it there" for name in one.unsigned),
        ]
    before = [f"{why.name} ({why.now})" for why in one.why if why.part == "before"]
    after = [f"comes after {', '.join(before)}"] if before else []
    reasons = after + [_reason(why) for why in one.why if why.part != "before"]
    return reasons or ["was not made yet"]


def _progress(work: "Work", other_recipe: bool) -> str:
    from cairn.progress import duration

    if work.failed:
        return f"{work.failed}: once that is put right, `cairn run` goes on from what was finished"
    parts = [] if work.done is None else [f"{work.done:,.0f} of {work.total:,.0f} {work.unit}"]
    parts += [f"{work.rate:.3g} {work.unit}/s"] if work.rate else []
    parts += [work.note] if work.note else []
    parts += [f"{duration(work.left)} left"] if work.left is not None else []
    parts += ["with another recipe than the one in force"] if other_recipe else []
    parts += [f"process {work.process}"] if work.process else ["`cairn run` goes on from there"]
    return ", ".join(parts)


def _reason(why: "Difference") -> str:
    match why.part:
        case "unreadable":
            return str(why.now)
        case "recipe":
            return f"{why.name}: {written(why.then)} → {written(why.now)}"
        case "version" | "package":
            return f"{'version' if why.part == 'version' else why.name} {why.then} → {why.now}"
        case "input" if why.then is None and why.now is None:
            return f"its input {why.name} is missing"
        case "input":
            return f"its input {why.name} is another: {short(why.then)} → {short(why.now)}"
    if why.then is None:
        return f"{why.name}: no trusted attestation says how it was made"
    if why.now is None:
        return f"{why.name} {short(why.then)} is neither here nor in the store"
    return f"{why.name} was changed: {short(why.now)} is not the attested {short(why.then)}"


def _tell_code(found: list["Standing"]) -> None:
    """Other code under the same versions promises the same bytes; who doubts it is told where to look."""
    by_code: dict[Any, list[str]] = {}
    for one in found:
        if one.code:
            by_code.setdefault(one.code, []).append(one.stage)
    for code, stages in by_code.items():
        where = f"commit {code.commit[:12]}{' with changes' if code.dirty else ''}" if code.commit else "no checkout"
        print(f"made by other code than this ({short(code.sha256)}, {where}): {', '.join(stages)}")


def _dvc_yaml_is_current() -> bool | None:
    """Whether dvc.yaml is what the stages say; None where there is none."""
    from pathlib import Path

    from pipelines.stages import dvc_yaml

    path = Path("dvc.yaml")
    return path.read_bytes() == dvc_yaml().encode() if path.exists() else None
