"""The command-line door."""

from typing import TYPE_CHECKING

from components.door import door

if TYPE_CHECKING:
    from cairn.lineage.stage import Task
    from components.tokenize.recipe import Tokenize


def work(section: "Tokenize", task: "Task") -> None:
    """Fill the tokenizer and tokens directories."""
    from components.tokenize.tokenize import tokenize

    choice = tokenize(
        section,
        documents=task.inputs["documents"],
        tokenizer=task.outputs["tokenizer"],
        tokens=task.outputs["tokens"],
        work=task.work,
        workers=task.resources.workers,
        engine=task.resources.engine,
    )
    task.facts["engine"] = {"name": choice.engine, "version": choice.version, "why": choice.why}


if __name__ == "__main__":
    door(__package__ or "", work)
