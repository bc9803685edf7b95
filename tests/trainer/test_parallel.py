"""Sums in `strict`: one tree of pairs over the micro-batches of a step, whichever processes hold them."""

import os
import socket
from collections.abc import Sequence
from multiprocessing.connection import Connection

import pytest
import torch
from torch import nn

from tests.trainer.processes import CONTEXT
from trainer.parallel import Parallel, TreeSum

# In pairs: (1e8 + 1) + (-1e8 + 1) is 0 in fp32, since 1e8 swallows 1. One after another it is 1.
PARTS = (1e8, 1.0, -1e8, 1.0)


def summed(parts: Sequence[float]) -> torch.Tensor:
    sums = TreeSum()
    for part in parts:
        sums.add([torch.tensor([part])])
    return sums.total()[0]


def take_part(rank: int, size: int, port: int, answer: Connection) -> None:
    """One process: its share of the parts as gradient and as loss, combined with those of the others."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    share = len(PARTS) // size
    own = summed(PARTS[rank * share : (rank + 1) * share])
    parallel = Parallel(strict=True)
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = own.clone()
    totals, _ = parallel.combine([parameter], torch.cat((own, torch.tensor([float(share)]))), stop=False)
    parallel.close()
    answer.send((float(parameter.grad), float(totals[0]), float(totals[1])))


def combined(size: int) -> list[tuple[float, float, float]]:
    """Gradient, loss and number of targets in every one of `size` processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes = [CONTEXT.Pipe(duplex=False) for _ in range(size)]
    processes = [CONTEXT.Process(target=take_part, args=(rank, size, port, pipes[rank][1])) for rank in range(size)]
    for process in processes:
        process.start()
    for _, ours in pipes:
        ours.close()
    answers = [theirs.recv() for theirs, _ in pipes]
    for process in processes:
        process.join()
    return answers


def test_a_sum_is_taken_in_pairs() -> None:
    assert summed(PARTS).item() == 0.0
    assert summed([*PARTS, 5.0]).item() == 5.0


@pytest.mark.parametrize("size", [1, 2, 4])
def test_gradients_are_summed_in_pairs_whatever_the_number_of_processes(size: int) -> None:
    assert combined(size) == [(0.0, 0.0, 4.0)] * size
