"""The command-line door."""

from typing import TYPE_CHECKING

from components.door import door

if TYPE_CHECKING:
    from cairn.lineage.stage import Task
    from components.pretrain.recipe import Pretrain


def work(section: "Pretrain", task: "Task") -> BaseException | None:
    """Launch the trainer and wait for it."""
    from components.pretrain.launch import pretrain

    place = task.resources.checkpoints
    return pretrain(
        section,
        tokens=task.inputs["tokens"],
        checkpoint=task.outputs["checkpoint"],
        optimizer=task.outputs["optimizer"],
        work=task.work,
        resources=task.resources,
        name=task.key[:12],
        facts=task.facts,
        checkpoints=f"{place.rstrip('/')}/{task.key}" if place else None,
    )


if __name__ == "__main__":
    door(__package__ or "", work)
