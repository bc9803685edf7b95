"""Map a pure function over shards with a pool of processes. The results do not depend on the number of workers.

A shard's result is kept in a folder as soon as it is known, so a killed run goes on from there.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import orjson

from cairn.errors import StageError
from cairn.lineage.artifact import written_aside
from cairn.progress import progress

T = TypeVar("T")
Result = dict[str, Any]


def map_shards(
    function: Callable[[T], Result], shards: Sequence[T], *, workers: int, done: Path, label: str
) -> Iterator[Result]:
    """`function(shard)` for every shard, in the order of `shards`.

    Args:
        function: pure and picklable. It may be stopped anywhere, and is then called again: it begins by removing what
            it left behind. What it returns can be kept as JSON.
        workers: processes to use at most; 1 runs in this process.
        done: folder for the results of finished shards. It must belong to these shards and this function alone (a
            folder under a stage's work folder does: the stage key fixes both).
        label: what the progress line calls the work.

    Raises:
        StageError: a worker died (most often: out of memory). Finished shards are kept.
    """
    done.mkdir(parents=True, exist_ok=True)
    (done / "total").write_text(str(len(shards)))  # for who looks at it from outside
    kept = {int(path.stem): path for path in done.glob("*.json")}
    todo = [index for index in range(len(shards)) if index not in kept]
    with progress(label, len(shards), "shards", done=len(kept)) as shown:
        for index, result in _results(function, shards, todo, workers):
            with written_aside(done / f"{index}.json") as aside:
                aside.write_bytes(orjson.dumps(result))
            shown.advance()
    for index in range(len(shards)):
        yield orjson.loads((done / f"{index}.json").read_bytes())


def _results(
    function: Callable[[T], Result], shards: Sequence[T], todo: Sequence[int], workers: int
) -> Iterator[tuple[int, Result]]:
    if workers == 1 or len(todo) <= 1:
        for index in todo:
            yield index, function(shards[index])
        return
    context = multiprocessing.get_context("spawn")
    held, alive = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(min(workers, len(todo)), context, _begin, (held,))
    try:
        futures = {pool.submit(function, shards[index]): index for index in todo}
        # As they are finished: one that takes long does not keep the others from being kept.
        for future in as_completed(futures):
            if future.exception() is not None:
                break
            yield futures.pop(future), future.result()
        # Only when one failed is anything left: those before it were begun before it, and the first fault is told.
        for future, index in futures.items():
            yield index, future.result()
        pool.shutdown()
    except BrokenProcessPool:
        raise StageError(
            "a data worker was killed (out of memory?): set CAIRN_WORKERS lower and run again; finished shards are kept"
        ) from None
    finally:
        # On Ctrl-C or an error the user wants the prompt back, not the end of every shard that was begun.
        alive.close()
        pool.shutdown(cancel_futures=True)


def _begin(held: Connection) -> None:
    """Make this process a worker. Ctrl-C reaches every process of the terminal; only the parent acts on it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(held,), daemon=True).start()


def _end_with_parent(held: Connection) -> None:
    """End when the parent closes its end of the pipe or is killed: else its next run would find us writing."""
    try:
        held.recv()
    except (EOFError, OSError):
        os._exit(1)
