"""Tensors of which every process holds a part: the part that is here, and the exchange of whole matrices."""

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


def part_of(tensor: Tensor) -> Tensor:
    """What is here of a tensor, in the same memory; of a plain tensor, all."""
    part: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return part.detach()


def as_part_of(whole: Tensor, part: Tensor) -> Tensor:
    """A tensor spread as `whole` is, of which `part` is here."""
    if not isinstance(whole, DTensor):
        return part
    return DTensor.from_local(
        part, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


def gradient_of(parameter: Tensor) -> Tensor:
    """The gradient, spread as its parameter is.

    Raises RuntimeError when there is none.
    """
    grad = parameter.grad
    if grad is None:
        raise RuntimeError("a parameter took no part in the loss")
    if isinstance(grad, DTensor) and isinstance(parameter, DTensor) and grad.placements != parameter.placements:
        grad = grad.redistribute(placements=parameter.placements)
    return grad


def holders(tensor: Tensor) -> tuple[Any, ...]:
    """The groups of processes that hold other parts than this one does: one for each dimension of the mesh over which
    the tensor is split. Empty where all of it is here."""
    if not isinstance(tensor, DTensor):
        return ()
    mesh = tensor.device_mesh
    split = [at for at, placement in enumerate(tensor.placements) if not placement.is_replicate()]
    return tuple(mesh.get_group(at) for at in split if mesh.size(at) > 1)


def norm(tensors: Iterable[Tensor]) -> Tensor:
    """The joint Euclidean norm of tensors, an fp32 scalar: the same in every process. All must be spread alike in all
    processes, and their parts differ where `holders` says so."""
    by_holders: dict[tuple[Any, ...], list[Tensor]] = {}
    for tensor in tensors:
        by_holders.setdefault(holders(tensor), []).append(part_of(tensor))
    norms = []
    for groups, parts in by_holders.items():
        total = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(parts)))
        if groups:
            square = total.square()
            for group in groups:
                dist.all_reduce(square, group=group)
            total = square.sqrt()
        norms.append(total)
    whole: Tensor = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    return whole


class Exchange:
    """Whole matrices from their parts, shared out among the processes that hold these, and back again.

    Matrix number i is put together in process i modulo their number. Each process sends what others need and no more:
    the parts of all matrices once, and the parts of the results once.
    """

    def __init__(self, matrices: Sequence[Tensor]) -> None:
        """matrices: all split over the same processes; every process names the same ones in the same order."""
        self.shapes = [tuple(matrix.shape) for matrix in matrices]
        groups = holders(matrices[0])
        self.rank, self.size = 0, 1
        if groups:
            self.group = _joined(matrices[0])
            self.rank, self.size = dist.get_rank(self.group), dist.get_world_size(self.group)
            here = [
                compute_local_shape_and_global_offset(matrix.shape, matrix.device_mesh, matrix.placements)
                for matrix in matrices
                if isinstance(matrix, DTensor)
            ]
            self.blocks: list[list[tuple[tuple[int, ...], tuple[int, ...]]]] = [[] for _ in range(self.size)]
            """Shape and offset of the part of each matrix, by process."""
            dist.all_gather_object(self.blocks, here, group=self.group)
        self.mine = range(self.rank, len(matrices), self.size)
        """Numbers of the matrices that are put together here."""

    def gather(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """The whole matrices of `mine`, from the parts of all matrices that are here."""
        if self.size == 1:
            return list(parts)
        sent = [[parts[index] for index in self._of(to)] for to in range(self.size)]
        wanted = [[(origin, index) for index in self.mine] for origin in range(self.size)]
        wholes = {index: parts[0].new_empty(self.shapes[index]) for index in self.mine}
        received = iter(self._swap(sent, wanted, parts[0]))
        for origin, index in chain.from_iterable(wanted):
            self._within(wholes[index], origin, index).copy_(next(received))
        return list(wholes.values())

    def scatter(self, wholes: Sequence[Tensor], like: Tensor) -> list[Tensor]:
        """The parts of all matrices that are here, from the whole matrices of `mine`.

        Args:
            like: of their dtype and device; not every process has a whole matrix to see them from.
        """
        if self.size == 1:
            return list(wholes)
        mine = dict(zip(self.mine, wholes, strict=True))
        sent = [[self._within(whole, to, index) for index, whole in mine.items()] for to in range(self.size)]
        wanted = [[(self.rank, index) for index in self._of(origin)] for origin in range(self.size)]
        parts = dict(
            zip((index for _, index in chain.from_iterable(wanted)), self._swap(sent, wanted, like), strict=True)
        )
        return [parts[index] for index in range(len(self.shapes))]

    def _swap(self, sent: list[list[Tensor]], wanted: list[list[tuple[int, int]]], like: Tensor) -> list[Tensor]:
        """Send a list of tensors to each process; what they send: for each of them a list of blocks, by (process that
        holds it, number of the matrix)."""
        shapes = [[self.blocks[holder][index][0] for holder, index in blocks] for blocks in wanted]
        flat = torch.cat([tensor.flatten() for tensors in sent for tensor in tensors] or [like.new_empty(0)])
        sizes = [sum(math.prod(shape) for shape in of_one) for of_one in shapes]
        received = like.new_empty(sum(sizes))
        dist.all_to_all_single(
            received, flat, sizes, [sum(tensor.numel() for tensor in tensors) for tensors in sent], group=self.group
        )
        every = [shape for of_one in shapes for shape in of_one]
        parts = torch.split(received, [math.prod(shape) for shape in every])
        return [part.view(shape) for part, shape in zip(parts, every, strict=True)]

    def _of(self, process: int) -> range:
        return range(process, len(self.shapes), self.size)

    def _within(self, whole: Tensor, process: int, index: int) -> Tensor:
        """The block of a whole matrix that a process holds."""
        (rows, columns), (row, column) = self.blocks[process][index]
        return whole[row : row + rows, column : column + columns]


def _joined(matrix: Tensor) -> Any:
    """The group of all processes that a matrix is split over."""
    groups = holders(matrix)
    if len(groups) == 1 or not isinstance(matrix, DTensor):
        return groups[0]
    mesh, names = matrix.device_mesh, matrix.device_mesh.mesh_dim_names or ()
    split = tuple(name for at, name in enumerate(names) if mesh.get_group(at) in groups)
    return mesh[split]._flatten().get_group()
