"""The command-line door: python -m components.snapshot --recipe params.yaml --output sources=sources.lock.json"""

import sys

from cairn.errors import StageError, guard
from components.door import parse, read_section


def enter() -> int:
    """Make sure that the lock file is there, as the command line asks."""
    from cairn.lineage.stage import Component, Outcome
    from cairn.lineage.store import Store
    from cairn.resources import Resources
    from components.snapshot.snapshot import snapshot

    component = Component.of("components.snapshot")
    call = parse(component)
    section = read_section(component, call)
    if call.inputs or set(call.outputs) != {"sources"}:
        raise StageError("snapshot: takes no input and makes one output: --output sources=sources.lock.json")
    outcome = snapshot(
        section,
        call.outputs["sources"],
        refresh=call.refresh,
        component=component,
        store=Store.default(),
        resources=Resources.from_environment(),
    )
    if outcome is not Outcome.RAN:
        print(f"snapshot: {outcome.value}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(guard(enter))
