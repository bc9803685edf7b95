"""Checkpoints in progress: the whole state of a run, for the run itself.

One folder for each step: a file from every process, the training log as far as it came, and the manifest, which is
written last and names the digests of the others. A checkpoint without a manifest was never finished. The state is
copied first, and written by a thread while training goes on. There is no state of a random generator in it, because
training has none: rows, masks and first weights are functions of the seed, the step and the row.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from cairn.errors import StageError
from cairn.lineage.artifact import canonical
from trainer.dcp import Reader, Writer
from trainer.manifest import sealed, unsealed
from trainer.place import Place

DIFFERENCES = 3  # fields of two recipes that are named
STEP = re.compile(r"\d{8}")

T = TypeVar("T")


class InProgress:
    """The checkpoints of one run, in one place. Every process calls the same methods in the same order."""

    def __init__(
        self,
        place: Place,
        made_for: Mapping[str, Any],
        keep_last: int,
        rank: int = 0,
        size: int = 1,
        still_ours: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            made_for: what a checkpoint must have been made for to be taken up: nested mappings, as of a recipe.
            keep_last: how many stay.
            still_ours: called in the first process before a checkpoint is begun, committed or dropped; raises
                StageError when the place is another trainer's by now.
        """
        self.place = place
        self.made_for = made_for
        self.keep_last = keep_last
        self.rank = rank
        self.size = size
        self.still_ours = still_ours
        # A group of its own: the thread talks to the threads of the others while training talks on the first one.
        self.group = dist.new_group(backend="gloo") if size > 1 else None
        self.writer = ThreadPoolExecutor(1, "checkpoint")
        self.in_flight: Future[None] | None = None
        self.newest: int | None = None
        """The step of the newest checkpoint that is known to be whole."""

    # Save

    def save(self, step: int, state: Mapping[str, Tensor], log: bytes, facts: Mapping[str, Any]) -> None:
        """Copy the state after `step` steps, and begin to write it; at most one is being written.

        Args:
            state: the same names, shapes and dtypes in every process; whole tensors, or DTensors.
            log: the training log up to here; of the first process.
            facts: what `load` is to give back; of the first process.

        Raises what `check` raises.
        """
        self.wait()
        if step == self.newest:
            return
        copies = {name: _copied(tensor) for name, tensor in state.items()}
        self.in_flight = self.writer.submit(self._write, step, copies, log, dict(facts))

    def check(self) -> None:
        """Raise what went wrong in the thread, if it is known by now: OSError (disk full), StoreError, StageError when
        another trainer took the place over."""
        if self.in_flight and self.in_flight.done():
            self.wait()

    def wait(self) -> None:
        """Wait until what is being written is whole. Raises what `check` raises."""
        waited, self.in_flight = self.in_flight, None
        if waited:
            waited.result()

    def _write(self, step: int, state: dict[str, Tensor], log: bytes, facts: dict[str, Any]) -> None:
        folder, planner = f"{step:08d}", DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)

        def commit(tensors: dict[str, Any], files: dict[str, Any]) -> None:
            files["training.jsonl"] = self.place.write(f"{folder}/training.jsonl", lambda: [memoryview(log)])
            manifest = {"step": step, "made_for": self.made_for, "processes": self.size, **facts}
            self.still_ours()
            self.place.put(f"{folder}/manifest.json", sealed({**manifest, "files": files, "tensors": tensors}))
            self.newest = step
            self.still_ours()
            self._retire(step)

        writer = Writer(self.place, folder, self.still_ours, commit)
        try:
            with _as_it_was():
                save(state, storage_writer=writer, planner=planner, process_group=self.group, no_dist=self.size == 1)
            self.newest = step
        except OSError:
            if self.rank == 0 and self.newest != step:
                self.place.drop(folder)  # half a checkpoint on a full disk helps nobody
            raise

    def _retire(self, step: int) -> None:
        """Drop all but the last checkpoints. What a run ahead of us left behind, it will write again."""
        for folder in self._folders():
            if int(folder) > step:
                self.place.drop(folder)
        for folder in self._folders()[: -self.keep_last]:
            # The manifest first: half a checkpoint must not pass for one.
            self.place.drop(f"{folder}/manifest.json")
            self.place.drop(folder)

    def _folders(self) -> list[str]:
        return [name for name in self.place.folders() if STEP.fullmatch(name)]

    # Load

    def load(
        self, state: Mapping[str, Tensor], accept: Callable[[dict[str, Any]], None]
    ) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Fill a state from the newest sound checkpoint, if there is one; what its manifest says, and the state.

        A damaged one is named and passed over, before anything of it is loaded.

        Args:
            state: as for `save`; its tensors are overwritten.
            accept: takes a manifest in the first process; raises ValueError when what belongs to it is lost.

        Raises:
            StageError: the newest was made for something else, whose first differences are named; or none holds
                numbers only, which is known when the state was overwritten already.
            StoreError: the place cannot be reached.
        """
        folders, overwritten = self._shared(self._folders), False
        for folder in reversed(folders):
            try:
                manifest = self._sound(folder, state, accept)
                overwritten = True
                self._read(folder, manifest, dict(state))
            except ValueError as error:
                self._say(f"checkpoint {folder} is passed over: {error}")
                continue
            self.newest = int(manifest["step"])
            return manifest, dict(state)
        if overwritten:
            raise StageError(
                f"{self.place.url}: no checkpoint is left that holds numbers: move them away to begin anew"
            )
        if folders:
            self._say("no checkpoint is left: training begins at step 0")
        return None

    def log_of(self, manifest: Mapping[str, Any]) -> bytes:
        """The training log that came with a checkpoint."""
        return self.place.read(f"{manifest['step']:08d}/training.jsonl")

    def _sound(
        self, folder: str, state: Mapping[str, Tensor], accept: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """The manifest of a checkpoint whose every file was read and found to be what it says. Raises ValueError."""

        def read() -> dict[str, Any] | str:
            try:
                manifest = unsealed(self.place.read(f"{folder}/manifest.json"))
                if f"{manifest['step']:08d}" != folder:
                    return f"manifest.json is of step {manifest['step']}"
                return manifest
            except FileNotFoundError:
                return "it was never finished: it has no manifest.json"
            except ValueError as error:
                return str(error)

        manifest = self._shared(read)
        if isinstance(manifest, str):
            raise ValueError(manifest)
        if manifest["made_for"]:  # a state that was taken up says nothing: whoever took it up knows
            _refuse_another(f"{self.place.url}/{folder}", manifest["made_for"], self.made_for)
        fault = _misfit(manifest["tensors"], state)
        files = sorted(manifest["files"].items())[self.rank :: self.size]
        faults = (self.place.fault(f"{folder}/{name}", **said) for name, said in files)
        fault = fault or next((one for one in faults if one), None)
        if self.rank == 0 and not fault:
            try:
                accept(manifest)
            except ValueError as error:
                fault = str(error)
        fault = next((one for one in self._gathered(fault) if one), None)
        if fault:
            raise ValueError(fault)
        return manifest

    def _read(self, folder: str, manifest: dict[str, Any], state: dict[str, Tensor]) -> None:
        """Raises ValueError when a value is not a number: nothing could be trained on from it."""
        planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        reader = Reader(self.place, folder, manifest["tensors"])
        with _as_it_was():
            load(state, storage_reader=reader, planner=planner, process_group=self.group, no_dist=self.size == 1)
        infinite = next((name for name, tensor in state.items() if not _finite(tensor)), None)
        name = next((one for one in self._gathered(infinite) if one), None)
        if name:
            raise ValueError(f"{name} holds values that are not numbers")

    # Among the processes

    def _gathered(self, value: T) -> list[T]:
        if self.group is None:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, self.group)
        return values

    def _shared(self, work: Callable[[], T]) -> T:
        """What `work` returns in the first process."""
        value: list[Any] = [work() if self.rank == 0 else None]
        if self.group is not None:
            dist.broadcast_object_list(value, 0, self.group)
        shared: T = value[0]
        return shared

    def _say(self, text: str) -> None:
        if self.rank == 0:
            print(f"pretrain: {text}", file=sys.stderr, flush=True)


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Have what DCP raises be what went wrong, in whichever process."""
    try:
        yield
    except CheckpointException as error:
        raise next(cause for cause, _ in error.failures.values()) from error


def _copied(tensor: Tensor) -> Tensor:
    """A copy in main memory that nobody trains on; of a DTensor, of the part that this process holds."""
    if isinstance(tensor, DTensor):
        local = tensor.to_local().detach().to("cpu", copy=True)
        return DTensor(local, tensor._spec, requires_grad=False)  # type: ignore[no-untyped-call]
    return tensor.detach().to("cpu", copy=True)


def _finite(tensor: Tensor) -> bool:
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return not local.is_floating_point() or bool(torch.isfinite(local).all())


def _misfit(said: Mapping[str, Any], state: Mapping[str, Tensor]) -> str | None:
    """The first tensor that a checkpoint lacks, holds besides, or holds in another dtype or shape."""
    for name in sorted({*said, *state}):
        if name not in said:
            return f"it lacks {name}"
        if name not in state:
            return f"it holds {name}, which is not part of this run"
        there = (said[name]["dtype"], *said[name]["shape"])
        here = (str(state[name].dtype).removeprefix("torch."), *state[name].shape)
        if there != here:
            return f"{name} is {_form(*there)} there, and {_form(*here)} here"
    return None


def _form(dtype: str, *shape: int) -> str:
    return f"{dtype} {list(shape)}"


def _refuse_another(place: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    then, now = dict(_leaves(there)), dict(_leaves(here))
    differing = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    if differing:
        told = [f"{name} was {_said(then, name)}, is {_said(now, name)}" for name in differing[:DIFFERENCES]]
        more = f" and {len(differing) - DIFFERENCES} more" if len(differing) > DIFFERENCES else ""
        raise StageError(
            f"{place}: is the checkpoint of another recipe: {'; '.join(told)}{more}: "
            "set them back, or move the checkpoints away to begin anew"
        )


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _said(leaves: Mapping[str, Any], name: str) -> str:
    return canonical(leaves[name]).decode() if name in leaves else "not there"
