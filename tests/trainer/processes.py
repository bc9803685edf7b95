"""Several processes on this machine, each calling one function."""

import io
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

CONTEXT = multiprocessing.get_context("forkserver")
"""Processes that begin where everything is imported: that takes seconds, and is done once for all of them."""
CONTEXT.set_forkserver_preload(["trainer.train", "torch._dynamo"])


def in_processes(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(*arguments)` gives in each of `size` processes, which know rank and size as torchrun tells them.

    The function must be one that a module has; what it raises is raised here.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes = [CONTEXT.Pipe(duplex=False) for _ in range(size)]
    processes = [
        CONTEXT.Process(target=_call, args=(rank, size, port, pipes[rank][1], function, arguments))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for _, ours in pipes:
        ours.close()
    answers = [torch.load(io.BytesIO(theirs.recv_bytes()), weights_only=False) for theirs, _ in pipes]
    for process in processes:
        process.join()
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _call(
    rank: int, size: int, port: int, answer: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    try:
        given = function(*arguments)
    except Exception as error:
        error.add_note("".join(traceback.format_tb(error.__traceback__)))
        given = error
    written = io.BytesIO()
    torch.save(given, written)  # a pickle of a tensor holds a file descriptor of this process, which is about to end
    answer.send_bytes(written.getvalue())
