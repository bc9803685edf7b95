"""The command-line door."""

from typing import TYPE_CHECKING

from components.door import door

if TYPE_CHECKING:
    from cairn.lineage.stage import Task
    from components.evaluate.recipe import Evaluate


def work(section: "Evaluate", task: "Task") -> None:
    """Fill the scores directory."""
    from components.evaluate.evaluate import evaluate

    evaluate(
        section,
        model=task.inputs["model"],
        documents=task.inputs["documents"],
        scores=task.outputs["scores"],
        work=task.work,
        workers=task.resources.workers,
    )


if __name__ == "__main__":
    door(__package__ or "", work)
