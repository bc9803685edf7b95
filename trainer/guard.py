"""What keeps one bad step from spoiling a run: outliers are left out, and what is no number ends training."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cairn.errors import ArtifactError
from cairn.lineage.artifact import readable, written_aside
from trainer.loss import Examples, Losses
from trainer.recipe import Skip
from trainer.sharded import holders, part_of

NAMED = 3  # documents and rows that a message names; the file names all


class Guard:
    """Judges every step by its loss and gradient norm. What it knows of earlier steps is part of the state.

    A step is left out when one of the two is more than `sigma` standard deviations above the mean of the last `window`
    steps, as OLMo-core's `SkipStepOptimizer` does (2501.00656 trained with it). All is done on the device: nobody waits
    for the verdict. Here an outlier is remembered as the limit that it broke, so that one does not hide the next, and
    a level that stays becomes the normal one after a while.
    """

    def __init__(self, skip: Skip | None, device: torch.device) -> None:
        """skip: None takes every step, and has no state."""
        self.skip = skip
        self.history = torch.zeros(2, skip.window if skip else 0, device=device)
        """Loss and gradient norm of the last steps, each step in the column of its number modulo the window."""
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        """Steps that were left out so far."""

    def judge(self, step: int, loss: Tensor, norm: Tensor) -> Tensor | None:
        """Whether a step is taken, a bool scalar on the device; None when no step is ever left out.

        Args:
            step: from 0; every step is judged once, in order.
            loss, norm: scalars.
        """
        if self.skip is None:
            return None
        known = min(step, self.skip.window)
        values = torch.stack((loss, norm)).to(self.history)
        if known < self.skip.window // 2 or known < 2:
            limits = torch.full_like(values, torch.inf)
        else:
            deviation, mean = torch.std_mean(self.history[:, :known].double(), 1)
            limits = (mean + self.skip.sigma * deviation).float()
        self.history[:, step % self.skip.window] = torch.minimum(values, limits)
        accepted = (values <= limits).all()
        self.skipped += ~accepted
        return accepted

    def state(self) -> dict[str, Tensor]:
        """What the next verdict depends on."""
        return {"guard.history": self.history, "guard.skipped": self.skipped} if self.skip else {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up a state that `state()` gave. Raises KeyError when a tensor is missing."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


def check_numbers(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raises ArtifactError, naming the tensor, when one that was loaded holds a value that is no number."""
    for name, tensor in tensors.items():
        if not torch.isfinite(part_of(tensor)).all():
            raise ArtifactError(f"{where}: {name} holds a value that is not finite: take an earlier or another one")


def rows_to_blame(model: nn.Module, examples: Examples, loss: Callable[[Examples], Losses]) -> list[int]:
    """The rows that, alone, have a loss or gradient that is not finite. Called when a step had one; costs a step.

    Where processes hold parts of the model, a gradient is a sum over them, and only losses are looked at. All processes
    call it together, with as many rows each.
    """
    whole = not any(holders(parameter) for parameter in model.parameters())
    blamed = []
    for row in range(len(examples.tokens)):
        model.zero_grad()
        total = loss(examples.rows(row, row + 1)).total
        total.backward()  # type: ignore[no-untyped-call]
        values = [total.detach(), *(p.grad for p in model.parameters() if whole and p.grad is not None)]
        if not all(torch.isfinite(value).all() for value in values):
            blamed.append(row)
    return blamed


def report(folder: Path, step: int, rows: Mapping[int, list[str]], blamed: list[int]) -> str:
    """Write down the documents of this process' rows of a step that ended training; one line about all processes.

    Args:
        step: as the training log counts, from 1.
        rows: the documents of each row, by its number in the step.
        blamed: those rows among them that are not finite.
    """
    process, processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    folder.mkdir(parents=True, exist_ok=True)
    with written_aside(folder / f"step-{step:08d}-process-{process}.json") as aside:
        listed = [{"row": row, "finite": row not in blamed, "documents": rows[row]} for row in rows]
        aside.write_bytes(readable({"step": step, "process": process, "rows": listed}))
    found = [(row, process, rows[row]) for row in blamed]
    every, count = [found], len(rows)
    if processes > 1:
        every = [[] for _ in range(processes)]
        dist.all_gather_object(every, found)
        count *= processes
    bad = [row for of_one in every for row in of_one]
    if not bad or len(bad) == count:
        return f"{'no single row' if bad else 'no row alone'} is to blame: training diverged (documents: {folder})"
    numbers = ", ".join(str(row) for row, _, _ in bad[:NAMED]) + (" ..." if len(bad) > NAMED else "")
    owners = ", ".join(str(owner) for owner in sorted({owner for _, owner, _ in bad}))
    documents = list(dict.fromkeys(document for _, _, documents in bad for document in documents))
    told = ", ".join(document[:12] for document in documents[:NAMED]) + (" ..." if len(documents) > NAMED else "")
    return f"row {numbers} of process {owners} is to blame: look at what it holds, documents {told} (all: {folder})"
