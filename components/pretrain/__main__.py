"""The command-line door."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from components.door import door

if TYPE_CHECKING:
    from cairn.lineage.stage import Task
    from components.pretrain.recipe import Pretrain


def work(section: "Pretrain", task: "Task") -> BaseException | None:
    """Launch the trainer and wait for it."""
    from components.pretrain.launch import let_go, pretrain
    from trainer.cache import Stored

    place, cache = task.resources.checkpoints, task.resources.cache
    if place:
        place = f"{place.rstrip('/')}/{task.key}"
        task.afterwards.append(partial(let_go, place))
    tokens: Path | Stored
    if "tokens" in task.inputs:
        tokens = task.inputs["tokens"]
    else:
        assert cache, "without a cache all inputs are fetched"
        tokens = Stored(task.store.url, task.digests["tokens"], str(Path(cache).absolute()))
    if section.init_from:
        from components.pretrain.beginning import keep

        task.objects.append(keep(section.init_from, section, tokens, task.store))
    return pretrain(
        section,
        tokens=tokens,
        checkpoint=task.outputs["checkpoint"],
        optimizer=task.outputs["optimizer"],
        work=task.work,
        resources=task.resources,
        name=task.key[:12],
        facts=task.facts,
        checkpoints=place,
    )


if __name__ == "__main__":
    door(__package__ or "", work, cached=["tokens"])
