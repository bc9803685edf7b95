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
    from cairn.lineage.attestation import BEGINNING
    from cairn.lineage.statement import Resource
    from components.pretrain.launch import let_go, pretrain
    from trainer.cache import Stored

    if section.init_from:
        from components.pretrain.beginning import keep

        keep(section, task.inputs["tokens"], task.store)
        noted = {"kind": BEGINNING, "path": section.init_from.path}
        task.objects.append(Resource("init_from", section.init_from.sha256, annotations=noted))

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
