"""The command-line door."""

from cairn.lineage.stage import Task
from components.door import door
from components.evaluate.recipe import Evaluate
from components.evaluate.summary import summary


def work(section: Evaluate, task: Task) -> None:
    """Fill the scores directory."""
    from components.evaluate.evaluate import evaluate

    evaluate(
        section,
        model=task.inputs["model"],
        documents=task.inputs["documents"],
        scores=task.outputs["scores"],
        work=task.work,
        workers=task.resources.workers,
        threads=task.resources.threads,
    )


if __name__ == "__main__":
    door(__package__ or "", Evaluate, work, summary)
