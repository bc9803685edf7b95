"""The command-line door: python -m components.ingest --input sources=sources.lock.json --output documents=DIRECTORY"""

from typing import TYPE_CHECKING

from components.door import door

if TYPE_CHECKING:
    from cairn.lineage.stage import Task
    from components.ingest.recipe import Ingest


def work(section: "Ingest", task: "Task") -> None:
    """Fill the documents directory."""
    from components.ingest.ingest import ingest
    from components.snapshot.lock import read_lock

    ingest(
        section,
        sources=task.inputs["sources"],
        documents=task.outputs["documents"],
        store=task.store,
        work=task.work,
        workers=task.resources.workers,
    )
    lock = read_lock(task.inputs["sources"])
    task.objects.extend(lock.resources())
    task.sources.update(lock.described())


if __name__ == "__main__":
    door(__package__ or "", work)
