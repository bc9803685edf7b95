"""What both doors write into the store when a stage of a run returns."""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cairn import version
from cairn.lineage import runs
from cairn.lineage.stage import Component, Note, Outcome
from cairn.lineage.store import Store, identity
from cairn.recipe import Section


def noting(run: str, store: Store, component: Component, section: Section, recipe: Mapping[str, Any]) -> Note:
    """What notes a stage of `run`.

    Args:
        recipe: the whole recipe as it is written, before defaults.
    """

    def note(inputs: Mapping[str, str], outputs: Mapping[str, str], outcome: Outcome) -> None:
        whole = section.model_dump(mode="json")
        # Snapshot's own key is not known before the sources were looked at.
        key = component.key(section, inputs) if component.inputs else f"{component.name}-{identity(whole)}"
        ran = runs.Ran(
            stage=component.name,
            version=component.version,
            cairn=version.installed(),
            key=key,
            inputs=dict(inputs),
            outputs=dict(outputs),
            outcome=outcome.value,
            recipe=json.loads(json.dumps(recipe.get(component.name, {}), default=str)),
            section=whole,
            finished=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        before = runs.note(store, run, ran)
        if before is not None:
            made = ", ".join(f"{name} {digest[:12]}" for name, digest in before.outputs.items())
            print(
                f"{component.name}: run {run} had noted {made} ({before.finished}): this takes its place",
                file=sys.stderr,
                flush=True,
            )

    return note
