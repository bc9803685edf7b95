"""The command-line door."""

from cairn.lineage.stage import Task
from components.door import door
from components.tokenize.recipe import Tokenize
from components.tokenize.summary import summary


def work(section: Tokenize, task: Task) -> None:
    """Fill the tokenizer and tokens directories."""
    from components.tokenize.tokenize import tokenize

    tokenize(
        section,
        documents=task.inputs["documents"],
        tokenizer=task.outputs["tokenizer"],
        tokens=task.outputs["tokens"],
        work=task.work,
        workers=task.resources.workers,
    )


if __name__ == "__main__":
    door(__package__ or "", Tokenize, work, summary)
