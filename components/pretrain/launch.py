"""Launch the trainer with TorchX and wait for it.

On one machine: the `local_cwd` scheduler and the `dist.torchrun` component. The launcher holds a lease on the work
folder for as long as it lives; when it lets go, asked to or not, the trainer writes a checkpoint and ends. So nothing
trains on unowned, and Ctrl-C never cuts a checkpoint short.
"""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from cairn.errors import AT_ONCE, StageError, StoreError, one_line
from cairn.lineage.artifact import remove, written_aside
from cairn.progress import pass_on, relayed
from cairn.resources import PROFILE, Resources
from trainer import lease
from trainer.cache import Stored
from trainer.layout import mesh_of
from trainer.place import Place
from trainer.preflight import beyond, check, outlook
from trainer.recipe import Training
from trainer.tokens import Tokens

# Outside the work folder, which goes when the stage is done: an offline run is there to be synced later.
BOARD = Path(".cairn")
GLANCE = 1.0  # seconds; a trainer that looks whether the lease is held takes it for a moment
# What makes a CPU train faster and changes no bit; a variable that is set already stays as it is.
CPU_SPEED = {
    # glibc gives freed memory back to the system and faults it in again for every large tensor: a quarter of a step.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TOP_PAD_": str(64 << 20),
    # A thread of libgomp that waits for the others spins 300,000 times before it sleeps. Beside any other busy process
    # it takes the processor from the thread it waits for, and a step takes 6 to 20 times as long.
    "GOMP_SPINCOUNT": "10000",
}


def pretrain(
    section: Training,
    *,
    tokens: Path | Stored,
    checkpoint: Path,
    optimizer: Path,
    work: Path,
    resources: Resources,
    name: str,
    facts: dict[str, Any],
    checkpoints: str | None = None,
    until: int | None = None,
    board: bool = True,
) -> BaseException | None:
    """Train, resuming from what an earlier run left in `work`.

    Args:
        tokens: a folder, or what is in a store, which each process reads from there as it needs it.
        checkpoint, optimizer: folders for the finished artifacts.
        name: what the job and its W&B run are called.
        facts: takes seeds, world size, speed, what was drawn of each domain and where it was resumed.
        checkpoints: the folder or URL below which checkpoints in progress of this run lie; None is `work`.
        until: stop after this step, with a checkpoint in `work`; None trains to the last and writes the artifacts.
        board: whether metrics go to W&B, as its environment variables say.

    Returns:
        What interrupted training when its last step was done already, so that it came to its end all the same.

    Raises:
        StageError: the run cannot work as asked, or the trainer failed; the text is the trainer's own.
        ArtifactError: the tokens are damaged.
        StoreError: the tokens are not in the store.
        KeyboardInterrupt: asked to stop; a checkpoint was written.
    """
    opened = Tokens.open(tokens)
    order = check(section, opened, resources.processes)
    if resources.profile and resources.profile[0] >= section.steps:
        first, stop = resources.profile
        raise StageError(
            f"environment variable {PROFILE}='{first}:{stop}': training has steps 0 to {section.steps - 1}: name some "
            "of them, or unset it"
        )
    print(f"pretrain: {outlook(section, opened.vocab_size, resources.processes)}", file=sys.stderr)
    warning = beyond(section, opened.vocab_size, resources.processes)
    if warning:
        print(f"pretrain: {warning}", file=sys.stderr)
    held = lease.wait(work / "lease", GLANCE)
    if held is None:
        raise StageError(f"{work}: another launcher holds the lease on this run")
    with held:
        launch = lease.sign(held)  # which tells a trainer of an earlier launch to end
        orphan_gone = lease.hold(work / "writer")
        if orphan_gone is None:
            print("pretrain: waiting for the trainer of a killed run to finish its checkpoint", file=sys.stderr)
            orphan_gone = lease.wait(work / "writer", lease.ORPHAN_PATIENCE)
            if orphan_gone is None:
                raise StageError(f"{work}: a trainer of an earlier run is still alive there: stop it and run again")
        orphan_gone.close()
        request = {
            "training": section.model_dump(mode="json"),
            "tokens": asdict(tokens) if isinstance(tokens, Stored) else str(tokens),
            "work": str(work),
            "checkpoints": checkpoints or str(work),
            "checkpoint": str(checkpoint),
            "optimizer": str(optimizer),
            "board": (os.environ.get("WANDB_DIR") or str(BOARD)) if board else None,
            "name": name,
            "until": until,
            "grace": resources.grace,
            "hang_after": resources.hang_after,
            "join_within": resources.join_within,
            "profile": resources.profile,
            "profiles": str((BOARD / "profile").resolve()),
        }
        with written_aside(work / "run.json") as aside:
            aside.write_text(json.dumps(request))
        remove(work / "status.json")
        interrupted = _run_job(work, launch, resources, section.threads, name, held.close)
        held.close()
    status = _status(work, interrupted)
    if status["outcome"] == "failed":
        raise StageError(f"pretrain: {status['message']}")
    if status["outcome"] not in ("done", "reached"):
        if interrupted:
            print(f"pretrain: {status['message']}", file=sys.stderr)
            raise interrupted
        raise StageError(f"pretrain: {status['message']}, by somebody else: run again to go on from there")
    facts.update({key: value for key, value in status.items() if key != "outcome"})
    facts.update(
        seed=section.seed,
        mode=section.mode,
        precision=section.precision,
        world_size=resources.processes,
        mesh=mesh_of(section.layout, resources.processes),
        threads=section.threads,
        parameters=section.model.parameters(opened.vocab_size),
        tokens_seen=section.tokens,
        domains={name: asdict(each) for name, each in order.drawn(section.steps).items()},
    )
    return interrupted


def let_go(checkpoints: str) -> None:
    """Remove what a run that is done left at its `checkpoints`. Where that fails, it says so: nothing counts on it."""
    folder, _, name = checkpoints.rpartition("/")
    try:
        Place(folder).drop(name)
    except (OSError, StoreError) as error:
        said = f"{one_line(error)}: the checkpoints in progress stay there, and are of no more use"
        print(f"pretrain: {said}", file=sys.stderr, flush=True)


def _run_job(
    work: Path, launch: str, resources: Resources, threads: int, name: str, let_go: Callable[[], None]
) -> BaseException | None:
    """Run the job to its end, passing on what it prints; what interrupted it, if anything did.

    Args:
        launch: what stands in the lease.
        let_go: gives up the lease, which asks the trainer to write a checkpoint and end.
    """
    from torchx.components.dist import torchrun
    from torchx.runner import get_runner
    from torchx.schedulers.local_scheduler import SignalException

    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        **relayed(),
        "OMP_NUM_THREADS": str(threads),
        # torch 2.13 restarts fail one time in three while the store of a dead attempt is shared.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "PET_MAX_RESTARTS": str(resources.restarts),
        # What torchrun leaves the trainers before it kills them: a little more than they leave themselves.
        "PET_SHUTDOWN_TIMEOUT": str(int(resources.grace) + 2),
        "PET_RDZV_CONF": f"join_timeout={int(resources.join_within)}",
        **{key: value for key, value in CPU_SPEED.items() if key not in os.environ},
    }
    asks, job = str(work / "run.json"), f"1x{resources.processes}"
    app = torchrun(asks, launch, m="trainer", name=f"/cairn-{name}", j=job, env=environment)
    interrupted: BaseException | None = None
    with _own_signals(), get_runner() as runner:
        options = {"log_dir": str((work / "logs").resolve()), "auto_set_cuda_visible_devices": False}
        try:
            handle = runner.run(app, "local_cwd", cfg=options)
            heard = Heard()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, heard)
        except SignalException as stop:  # raised by handlers that TorchX installs before it starts the job
            _raise(stop.sigval, None)
        shown = 0
        output = Output(resources.restarts)
        while True:
            try:
                # After an interrupt the log is read again, from its beginning.
                for line in islice(runner.log_lines(handle, app.roles[0].name, should_tail=True), shown, None):
                    shown += 1
                    output.show(line)
                runner.wait(handle, wait_interval=0.1)
                return interrupted
            except (KeyboardInterrupt, SystemExit) as stop:
                if interrupted is not None:
                    runner.cancel(handle)
                    raise
                interrupted = stop
                print("\npretrain: stopping at the next step (again: stop at once)", file=sys.stderr, flush=True)
                let_go()


class Heard:
    """A handler that raises for a signal, and not again for one that follows at once: Ctrl-C comes from the terminal
    and from whoever passes it on, and the second must not end what the first one asked for."""

    def __init__(self) -> None:
        self.last = float("-inf")

    def __call__(self, number: int, frame: object) -> None:
        """Raise KeyboardInterrupt or SystemExit, or do nothing."""
        before, self.last = self.last, time.monotonic()
        if self.last - before > AT_ONCE:
            _raise(number, frame)


def _raise(number: int, _: object) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def _own_signals() -> Iterator[None]:
    """TorchX's local scheduler replaces the handlers of this process; put them back when it is done."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Output:
    """Passes on what the first process says, and what any says of the whole run, without torchrun's prefix. What
    torchrun itself says is in the logs; of it, which process it lost is told with the step that training goes on at."""

    WORKER = re.compile(r"\[(?:default)?(\d+)\]:(.*)")
    LOST = re.compile(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+)")

    def __init__(self, restarts: int) -> None:
        """`restarts`: how often torchrun starts the processes again."""
        self.restarts = restarts
        self.restarted = 0
        self.lost = ""

    def show(self, line: str) -> None:
        """Pass on a line, or not."""
        if said := self.WORKER.match(line):
            self._said(said[2].rstrip(), first=said[1] == "0")
        elif lost := self.LOST.search(line):
            code, rank = int(lost[1]), lost[2]
            how = f"was killed by signal {-code}" if code < 0 else "ended with an error"
            self.lost = self.lost or f"rank {rank} {how}"

    def _said(self, text: str, first: bool) -> None:
        if text.startswith("error: "):
            return  # the status file says it too, and the door will
        if self.lost and text.startswith(("pretrain: resuming at", "pretrain: beginning")):
            self.restarted += 1
            again = f"{self.lost}: {text.removeprefix('pretrain: ')} (restart {self.restarted} of {self.restarts})"
            text, self.lost = f"pretrain: {again}", ""
        if text.startswith("pretrain: hangs"):
            self.lost = "after the hang"
        elif text.startswith("lost another process"):
            return
        if first or text.startswith("pretrain: "):
            pass_on(text)


def _status(work: Path, interrupted: BaseException | None) -> dict[str, Any]:
    try:
        status: dict[str, Any] = json.loads((work / "status.json").read_bytes())
        return status
    except FileNotFoundError:
        if interrupted:  # before the trainer could hear of it
            return {"outcome": "stopped", "step": 0, "message": "stopped before it began"}
        logs = sorted((work / "logs").rglob("stderr.log"), key=lambda path: path.stat().st_mtime)
        said = _last_error(logs[-1]) if logs else "it printed nothing"
        raise StageError(
            f"pretrain: the trainer ended without a word ({said}); its logs are in {work / 'logs'}"
        ) from None


def _last_error(log: Path) -> str:
    """The last line of a traceback in a log, or its last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    named = [line.partition("]:")[2] or line for line in lines if "Error" in line or "error" in line]
    return (named or lines or ["it printed nothing"])[-1][:300]
