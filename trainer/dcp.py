"""How torch.distributed.checkpoint (DCP) writes and reads: one file for each process, and no pickle.

DCP decides who writes and who reads which part of which tensor, so that a state that W processes saved is read by any
other number. Its own storage keeps what it needs to know as a pickle, without digests, and counts a checkpoint as
complete once that is there. Here it stands in a manifest, as JSON.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed._shard._utils import narrow_tensor_by_index
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from trainer.place import Place

# One process is a group of its own, and no fault.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


class Writer(StorageWriter):
    """Writes a checkpoint into a folder of a place, hashing every file while it is written."""

    def __init__(
        self,
        place: Place,
        folder: str,
        begin: Callable[[], None],
        commit: Callable[[dict[str, Any], dict[str, Any]], None],
    ) -> None:
        """Both are called in the first process.

        Args:
            begin: raises what is against writing, before anything is.
            commit: takes what is to be known of the tensors and of the files, and writes the manifest, when every
                process has written.
        """
        self.place = place
        self.folder = folder
        self.begin = begin
        self.commit = commit

    def reset(self, checkpoint_id: Any = None) -> None:
        """Nothing: a writer is for one checkpoint."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Nothing."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Number the files. Only here is it known that nobody writes yet: what a killed run left behind goes."""
        self.begin()
        self.place.drop(f"{self.folder}/manifest.json")
        self.place.drop(self.folder)
        return [replace(plan, storage_data=f"{index:05d}.bin") for index, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this process' parts, in the order of their names."""
        items = sorted(plan.items, key=lambda item: (item.index.fqn, tuple(item.index.offset or ())))
        tensors = [cast(Tensor, planner.resolve_data(item)) for item in items]  # a state holds nothing else
        results: list[WriteResult] = []
        if items:
            name = plan.storage_data
            said = self.place.write(f"{self.folder}/{name}", lambda: map(_bytes, tensors))
            at = 0
            for item, tensor in zip(items, tensors, strict=True):
                where = {"file": name, "at": at, "said": said}
                results.append(WriteResult(item.index, tensor.nbytes, where))
                at += tensor.nbytes
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Commit what every process has written."""
        written = [result for of_process in results for result in of_process]
        files = {result.storage_data["file"]: result.storage_data["said"] for result in written}
        where = {(one.index.fqn, tuple(one.index.offset or ())): one for one in written}
        tensors: dict[str, Any] = {}
        for name, tensor in sorted(metadata.state_dict_metadata.items()):
            assert isinstance(tensor, TensorStorageMetadata)
            parts = []
            for chunk in sorted(tensor.chunks, key=attrgetter("offsets")):
                one = where.get((name, tuple(chunk.offsets))) or where[name, ()]
                lies = {"file": one.storage_data["file"], "at": one.storage_data["at"], "size": one.size_in_bytes}
                parts.append({"offset": list(chunk.offsets), "shape": list(chunk.sizes), **lies})
            dtype = str(tensor.properties.dtype).removeprefix("torch.")
            tensors[name] = {"dtype": dtype, "shape": list(tensor.size), "parts": parts}
        self.commit(tensors, files)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        """DCP asks this of storage that it has to choose itself."""
        return False


class Reader(StorageReader):
    """Reads what a manifest tells of; its files were checked before."""

    def __init__(self, place: Place, folder: str, tensors: Mapping[str, Any]) -> None:
        """`tensors`: as `Writer` gave them to `commit`."""
        self.place = place
        self.folder = folder
        self.tensors = tensors

    def reset(self, checkpoint_id: Any = None) -> None:
        """Nothing: a reader is for one checkpoint."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """What DCP plans with."""
        state, where = {}, {}
        for name, tensor in self.tensors.items():
            chunks = []
            for part in tensor["parts"]:
                chunks.append(ChunkStorageMetadata(torch.Size(part["offset"]), torch.Size(part["shape"])))
                where[MetadataIndex(name, part["offset"])] = {**part, "dtype": tensor["dtype"]}
            properties = TensorProperties(dtype=getattr(torch, tensor["dtype"]))
            state[name] = TensorStorageMetadata(properties, torch.Size(tensor["shape"]), chunks)
        return Metadata(state_dict_metadata=state, storage_data=where)  # type: ignore[arg-type]

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Keep where the parts lie."""
        self.where: dict[MetadataIndex, dict[str, Any]] = metadata.storage_data

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Nothing."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Nothing."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Read the parts that this process needs."""
        for item in plan.items:
            part = self.where[item.storage_index]
            data = self.place.read(f"{self.folder}/{part['file']}", part["at"], part["at"] + part["size"])
            dtype = getattr(torch, part["dtype"])
            whole = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
            read = narrow_tensor_by_index(whole.view(part["shape"]), item.storage_offsets, item.lengths)
            target = planner.resolve_tensor(item).detach()
            target.copy_(read)
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        """DCP asks this of storage that it has to choose itself."""
        return False


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]
