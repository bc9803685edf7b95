"""The command-line door."""

from typing import TYPE_CHECKING

from components.door import door

if TYPE_CHECKING:
    from cairn.lineage.stage import Task
    from components.export.recipe import Export


def work(section: "Export", task: "Task") -> None:
    """Fill the model directory, and check it before it is kept."""
    from components.export.huggingface import export

    task.facts["parity"] = export(
        section,
        checkpoint=task.inputs["checkpoint"],
        tokenizer=task.inputs["tokenizer"],
        model=task.outputs["model"],
        work=task.work,
    )


if __name__ == "__main__":
    door(__package__ or "", work)
