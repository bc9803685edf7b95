"""The command-line door: python -m components.ingest --input sources=sources.lock.json --output documents=DIRECTORY"""

from cairn.lineage.stage import Task
from components.door import door
from components.ingest.recipe import Ingest
from components.ingest.summary import summary


def work(section: Ingest, task: Task) -> None:
    """Fill the documents directory."""
    from components.ingest.ingest import ingest

    ingest(
        section,
        sources=task.inputs["sources"],
        documents=task.outputs["documents"],
        store=task.store,
        work=task.work,
        workers=task.resources.workers,
    )


if __name__ == "__main__":
    door(__package__ or "", Ingest, work, summary)
