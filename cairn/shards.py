"""Map a pure function over shards with a pool of processes. The results do not depend on the number of workers.

A shard's result is kept in a folder as soon as it is known, so a killed run goes on from there.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
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
        function: pure and picklable. What it writes, it writes aside and moves into place before it returns; what it
            returns can be kept as JSON.
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
    pool = ProcessPoolExecutor(min(workers, len(todo)), mp_context=context, initializer=_ignore_interrupt)
    try:
        futures = [(index, pool.submit(function, shards[index])) for index in todo]
        for index, future in futures:
            yield index, future.result()
    except BrokenProcessPool:
        raise StageError(
            "a data worker was killed (out of memory?): set CAIRN_WORKERS lower and run again; finished shards are kept"
        ) from None
    finally:
        # Not waiting for queued shards: on Ctrl-C or an error the user wants the prompt back.
        pool.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupt() -> None:
    """Ctrl-C reaches every process of the terminal; only the parent acts on it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
