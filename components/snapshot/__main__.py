"""The command-line door: python -m components.snapshot --recipe params.yaml --output sources=sources.lock.json"""

from typing import TYPE_CHECKING

from cairn.errors import StageError
from components.door import Call, open_door

if TYPE_CHECKING:
    from cairn.lineage.stage import Component, Note, Outcome
    from components.kubeflow import Job
    from components.snapshot.recipe import Snapshot


def in_project(section: "Snapshot", component: "Component", call: Call, note: "Note | None") -> "Outcome":
    """Make sure that the lock file is there."""
    if call.inputs or set(call.outputs) != {"sources"}:
        raise StageError("snapshot: takes no input and makes one output: --output sources=sources.lock.json")
    from cairn.lineage.artifact import read_artifact
    from cairn.lineage.store import Store
    from cairn.resources import Resources
    from components.snapshot.snapshot import snapshot

    lock = call.outputs["sources"]
    outcome = snapshot(
        section,
        lock,
        refresh=call.refresh,
        component=component,
        store=Store.default(),
        resources=Resources.from_environment(),
    )
    if note is not None:
        note({}, {"sources": read_artifact(lock, address=False).digest}, outcome)
    return outcome


def in_kubeflow(section: "Snapshot", job: "Job") -> "tuple[Outcome, dict[str, str]]":
    """Make sure that the store holds the lock file."""
    from components.snapshot.snapshot import snapshot_pinned

    return snapshot_pinned(
        section,
        job.locked,
        component=job.component,
        store=job.store,
        resources=job.resources,
        home=job.home,
    )


if __name__ == "__main__":
    open_door(__package__ or "", in_project, in_kubeflow)
