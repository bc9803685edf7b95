"""The command-line door."""

from cairn.lineage.stage import Task
from components.door import door
from components.export.recipe import Export
from components.export.summary import summary


def work(section: Export, task: Task) -> None:
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
    door(__package__ or "", Export, work, summary)
