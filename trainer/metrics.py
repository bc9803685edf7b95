"""What training reports: a deterministic log that becomes part of the checkpoint, speeds that do not, and W&B."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cairn.lineage.artifact import canonical
from cairn.resources import peak_rss
from trainer.masking import IGNORED
from trainer.recipe import Training


class TrainingLog:
    """`training.jsonl`: one line for each logged step, with nothing in it that depends on the machine's speed.

    A run that resumes cuts the log back to what it was at the checkpoint, so its bytes are those of an undisturbed run.
    """

    def __init__(self, path: Path, length: int) -> None:
        """Go on after the first `length` bytes; 0 begins a new log."""
        self.path = path
        self.file = open(path, "r+b" if length else "wb")  # noqa: SIM115 - open for the whole run
        self.hash = hashlib.sha256(self.file.read(length) if length else b"")
        self.length = length
        # Cut in place: other processes may still be comparing what stays with the checkpoint.
        self.file.truncate(length)

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line; numbers are rounded to what repeats on one kind of machine."""
        rounded = {name: float(f"{value:.7g}") if isinstance(value, float) else value for name, value in line.items()}
        data = canonical(rounded) + b"\n"
        self.file.write(data)
        self.file.flush()
        self.hash.update(data)
        self.length += len(data)

    def settle(self) -> dict[str, Any]:
        """Bring the log to the disk; its length in bytes and its sha256, for the checkpoint that counts on it."""
        os.fsync(self.file.fileno())
        return {"length": self.length, "sha256": self.hash.hexdigest()}


def is_logged(path: Path, said: Mapping[str, Any]) -> bool:
    """Whether the log at `path` begins with what `TrainingLog.settle` said."""
    try:
        data = path.read_bytes()[: said["length"]]
    except FileNotFoundError:
        data = b""
    return (len(data), hashlib.sha256(data).hexdigest()) == (said["length"], said["sha256"])


class Speed:
    """Tokens per second of all processes, memory and waiting of this one. Kept in the work folder, and in the
    attestation."""

    def __init__(self, path: Path, training: Training, vocab_size: int, processes: int) -> None:
        self.file = open(path, "a")  # noqa: SIM115 - open for the whole run
        self.started = self.last = time.monotonic()
        self.tokens = self.counted = 0
        self.written = 0.0
        """The rate of the last line."""
        self.waited = self.evaluated = 0.0
        masked = training.masked
        self.flops = training.model.flops_per_token(vocab_size, 1.0 if masked is None else masked.rate)
        peak = peak_of_device() if training.precision == "bf16" else None
        self.peak = None if peak is None else peak * processes

    def count(self, tokens: int, waited: float) -> None:
        """Count the tokens of a step, and the seconds it waited for data."""
        self.tokens += tokens
        self.waited += waited

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Count the seconds of the block as evaluation."""
        began = time.monotonic()
        yield
        self.evaluated += time.monotonic() - began

    def now(self) -> str:
        """Tokens per second since the last line, or of that when it was just written, and MFU where the peak is known,
        for the terminal."""
        rate = self._rate() or self.written
        mfu = "" if self.peak is None else f", {self.mfu(rate):.0%} MFU"
        return f"{rate:,.0f} tokens/s{mfu}"

    def mfu(self, rate: float) -> float:
        """The share of the peak of all devices that `rate` tokens per second need: PaLM, appendix B."""
        assert self.peak is not None
        return rate * self.flops / self.peak

    def line(self, step: int) -> dict[str, float]:
        """Write and return the speed since the last line. Evaluation is not in the tokens per second."""
        seconds = max(time.monotonic() - self.last, 1e-9)
        line = {
            "step": step,
            "tokens_per_second": self._rate(),
            "data_wait": self.waited / seconds,
            "evaluation": self.evaluated / seconds,
            "peak_rss_gib": peak_rss(),
        }
        if self.peak is not None:
            line["mfu"] = self.mfu(line["tokens_per_second"])
        if torch.cuda.is_available():
            line["peak_gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
        self.written = line["tokens_per_second"]
        self.last, self.counted, self.waited, self.evaluated = time.monotonic(), self.tokens, 0.0, 0.0
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        return line

    def summary(self) -> dict[str, float]:
        """The whole run, as the attestation tells it."""
        seconds = time.monotonic() - self.started
        rate = self.tokens / seconds if seconds else 0.0
        return {"seconds": round(seconds, 1), "tokens_per_second": round(rate), "peak_rss_gib": round(peak_rss(), 3)}

    def _rate(self) -> float:
        trained = time.monotonic() - self.last - self.evaluated
        return (self.tokens - self.counted) / max(trained, 1e-9)


# Dense bf16 FLOP/s of a device, from NVIDIA's data sheets (without sparsity); the first name that fits counts.
PEAKS = (
    ("GB200", 2500e12),
    ("B200", 2250e12),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("L40S", 362e12),
    ("A100", 312e12),
    ("L4", 121e12),
)


def peak_of_device() -> float | None:
    """Dense bf16 FLOP/s of this process' GPU; None for one that is not known, and for a CPU: what that reaches follows
    its clock and its neighbours."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for known, peak in PEAKS if known in name), None)


def by_domain(nats: Tensor, targets: Tensor, domain: Tensor, domains: int) -> Tensor:
    """Sums of the cross-entropy for each domain, then the number of targets of each: (2 * domains,) fp32.

    A product with indicators: its order of summation is fixed, which that of a scatter on a GPU is not.

    nats, targets, domain: of one shape; `IGNORED` targets do not count.
    """
    counts = (targets != IGNORED).flatten()
    which = domain.flatten()[None] == torch.arange(domains, device=domain.device)[:, None]
    both = torch.stack((nats.flatten(), counts.float()), 1)
    return (which.float() @ both).T.flatten()


def means(sums: Tensor, domains: Sequence[str]) -> dict[str, float]:
    """`loss.<domain>` of each domain that the step had targets of, from the sums of `by_domain`. Of one domain there is
    nothing to tell that the loss does not."""
    if len(domains) < 2:
        return {}
    nats, counts = sums.view(2, -1).tolist()
    pairs = zip(domains, nats, counts, strict=True)
    return {f"loss.{name}": total / count for name, total, count in pairs if count}


class Board(Protocol):
    """Where metrics are sent while training runs."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send the metrics of a step."""

    def finish(self) -> None:
        """Say that the run is over."""


class NoBoard:
    """Sends nothing."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""


class WandbBoard:
    """Weights & Biases. Offline unless `WANDB_MODE` says otherwise; project, entity and key are its own variables."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any], resume_at: int) -> None:
        import wandb

        os.environ.setdefault("WANDB_SILENT", "true")
        self.run = wandb.init(
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            project=os.environ.get("WANDB_PROJECT", "cairn"),
            dir=str(folder),
            id=name if resume_at == 0 else f"{name}-{resume_at}",
            config=dict(config),
            settings=wandb.Settings(console="off", x_disable_stats=True),
        )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send the metrics of a step."""
        self.run.log(dict(metrics), step=step)

    def finish(self) -> None:
        """Flush what was sent."""
        self.run.finish()


def board(folder: Path, name: str, config: Mapping[str, Any], resume_at: int) -> Board:
    """W&B, or nothing when `WANDB_MODE=disabled`: then it is not even imported.

    Training does not depend on it: when it cannot start, that is said and training goes on without.
    """
    if os.environ.get("WANDB_MODE") == "disabled":
        return NoBoard()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return WandbBoard(folder, name, config, resume_at)
    except Exception as error:
        print(f"pretrain: W&B cannot start, training goes on without it: {error}", file=sys.stderr, flush=True)
        return NoBoard()
