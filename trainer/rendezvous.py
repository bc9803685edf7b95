"""Where the processes of a run find each other, within a time."""

import os
import time
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore

from cairn.errors import StageError

TIMEOUT = timedelta(minutes=30)
"""Of one exchange of tensors; a process that hangs is found before (heart.py)."""


def join(within: float) -> None:
    """Make the group of all processes, as torchrun's environment names them; nothing where there is one only.

    Args:
        within: seconds until all must have come.

    Raises:
        StageError: the first process cannot be reached, or others did not come; they are named.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return
    deadline = time.monotonic() + within
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), client(within, rank == 0))
        store.set(f"came/{rank}", "")
    except (dist.DistNetworkError, dist.DistStoreError, OSError, ValueError):
        raise StageError(
            f"rendezvous: rank {rank} did not reach {where} within {within:g} s: does the first process run there "
            "(MASTER_ADDR, MASTER_PORT)?"
        ) from None
    came: list[int] = []
    while len(came) < size:
        came = [one for one in range(size) if store.check([f"came/{one}"])]
        if len(came) < size and time.monotonic() > deadline:
            missing = ", ".join(str(one) for one in range(size) if one not in came)
            raise StageError(
                f"rendezvous at {where}: {len(came)} of {size} processes came within {within:g} s, missing are ranks "
                f"{missing}: do all nodes run? CAIRN_JOIN_WITHIN sets the time"
            )
        time.sleep(0.01)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)


def client(timeout: float, first: bool = False) -> TCPStore:
    """A connection of its own to the store of the group; the first process holds it, or torchrun where it says so."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    master = first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True)
    seconds = timedelta(seconds=timeout)
    return TCPStore(
        host, port, is_master=master, timeout=seconds, wait_for_workers=False, multi_tenant=True, use_libuv=True
    )
