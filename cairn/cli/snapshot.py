"""`cairn snapshot`: take the sources as they are now, or say what that would change."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cairn.cli.output import AsJson, print_json
from cairn.cli.run import Overrides, door

if TYPE_CHECKING:
    from components.snapshot.changes import Change
    from components.snapshot.recipe import Snapshot

SIGNS = {"added": "+", "removed": "-", "changed": "~"}
SHOWN = 20  # objects of one kind


def snapshot(
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and write nothing.")] = False,
    json: AsJson = False,
) -> None:
    """Look at the sources again and write sources.lock.json."""
    import cairn.recipe
    from components.recipe import Recipe
    from pipelines.stages import RECIPE, place, stages

    lock = place("sources")
    if dry_run:
        _foretell(cairn.recipe.load(Recipe, RECIPE, overrides or ()).snapshot, lock, json)
        return
    door([sys.executable, *stages()[0].command(overrides or ()), "--refresh"])
    if json:
        from cairn.lineage.artifact import digest_of

        print_json({"sources": digest_of(lock)})


def _foretell(section: "Snapshot", lock: Path, json: bool) -> None:
    from cairn.lineage.store import identity
    from components.snapshot.changes import changes
    from components.snapshot.lock import read_lock

    locked = read_lock(lock) if lock.exists() else None
    found, unchanged = changes(section, locked)
    other_recipe = locked is not None and locked.recipe != identity(section.model_dump(mode="json"))
    if json:
        said = {"changes": [asdict(change) for change in found], "unchanged": unchanged}
        print_json({**said, "recipe_changed": other_recipe})
        return
    for kind, sign in SIGNS.items():
        chosen = [change for change in found if change.kind == kind]
        for change in chosen[:SHOWN]:
            print(f"{sign} {change.uri} ({_size(change)})")
        if len(chosen) > SHOWN:
            print(f"{sign} and {len(chosen) - SHOWN} more")
    counts = ", ".join(f"{sum(change.kind == kind for change in found)} {kind}" for kind in SIGNS)
    print(f"{lock}: {counts}, {unchanged} as they were; nothing was written")
    if other_recipe:
        print("the snapshot section of the recipe has changed too")


def _size(change: "Change") -> str:
    sizes = [f"{size:,} bytes" for size in (change.then, change.now) if size is not None]
    return " → ".join(sizes) or "of unknown size"
