"""What `cairn doctor` asks of the machine: Python, torch, a compiler, processors, memory, disk, W&B."""

import json
import netrc
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cairn.cli.finding import Finding
from cairn.errors import SourceError

if TYPE_CHECKING:
    from components.recipe import Recipe

GB = 1e9
# Bytes on disk for each parameter. Weights are fp32, and an optimizer keeps up to two more values of it. Two
# checkpoints in progress, the finished ones, the export, and DVC's copies of what is finished.
ON_DISK = 2 * 12 + (12 + 4) * 2
TORCH = """
import json, torch
print(json.dumps({
    "version": torch.__version__,
    "cuda": torch.version.cuda,
    "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
}))
"""


def python() -> Finding:
    """The interpreter; `requires-python` has seen to its version."""
    said = f"{platform.python_implementation()} {platform.python_version()}"
    if platform.python_implementation() != "CPython":
        return Finding("python", "warn", said, "the locks and goldens are for CPython")
    return Finding("python", "ok", said)


class Torch:
    """Imports torch in a process of its own, because only that shows whether it can be."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", TORCH]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def found(self) -> Finding:
        """Its build and what it can use. Waits for the import."""
        printed, complained = self.process.communicate()
        if self.process.returncode:
            why = (complained.strip().splitlines() or ["it said nothing"])[-1]
            return Finding("torch", "fail", f"cannot be imported: {why}", "`make setup` installs the locked build")
        said = json.loads(printed)
        if said["cuda"] is None:
            return Finding("torch", "ok", f"{said['version']}, CPU build")
        if not said["devices"]:
            fix = "look at `nvidia-smi`; on a machine without one, `make setup TORCH=cpu` takes a smaller build"
            return Finding("torch", "warn", f"{said['version']}, CUDA {said['cuda']}, but no device can be used", fix)
        return Finding("torch", "ok", f"{said['version']}, CUDA {said['cuda']}: {', '.join(said['devices'])}")


def compiler(recipe: "Recipe | None") -> Finding:
    """A C++ compiler, which `torch.compile` calls."""
    names = filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++"))
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found:
        return Finding("compiler", "ok", found)
    if recipe is not None and recipe.pretrain.compile:
        fix = "install g++ or clang++ (Debian: `apt install g++`), or set pretrain.compile: false"
        return Finding("compiler", "fail", "no C++ compiler, and pretrain.compile is true", fix)
    return Finding("compiler", "ok", "no C++ compiler; only pretrain.compile: true needs one")


def processors(recipe: "Recipe | None") -> Finding:
    """Threads against the processors that this process may use, and against what others use of them."""
    from cairn.resources import Resources

    resources = Resources.from_environment()
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = recipe.pretrain.threads if recipe is not None else 1
    wanted = resources.processes * threads
    load = os.getloadavg()[0]
    said = f"{count} processors, load {load:.1f}"
    said += f"; {resources.processes} × {threads} threads to train with" if recipe is not None else ""
    quota = _quota()
    if quota is not None and wanted > quota:
        # Threads that wait for a processor spin, and a step takes many times as long.
        each = max(1, int(quota / resources.processes))
        fix = f"set pretrain.threads to {each} and CAIRN_WORKERS={max(1, int(quota))}"
        return Finding("processors", "warn", f"{said}, but the container may use {quota:g}", fix)
    if wanted > count:
        fix = f"set CAIRN_PROCESSES × pretrain.threads to {count} at most"
        return Finding("processors", "warn", f"{said}: more threads than processors", fix)
    if load > count / 2:
        return Finding("processors", "warn", f"{said}: others are busy here", "wait, or expect a slower run")
    return Finding("processors", "ok", said)


def memory(recipe: "Recipe | None") -> Finding:
    """Memory that is free, against what training is planned to take, and a gigabyte for each program."""
    import psutil

    from cairn.resources import Resources
    from trainer.memory import plan

    available = psutil.virtual_memory().available
    processes = Resources.from_environment().processes
    planned = plan(recipe.pretrain, recipe.tokenize.vocab_size, processes).total if recipe else 0
    needed = (planned + GB) * processes
    return _enough("memory", recipe, available, needed, "close other programs, or choose a smaller pretrain.model")


def disk(recipe: "Recipe | None") -> Finding:
    """Room for work in progress, artifacts and the store, estimated from the recipe and the lock file of the data."""
    free = shutil.disk_usage(Path()).free
    needed = ON_DISK * _parameters(recipe) + 5 * _source_bytes() + GB
    return _enough(
        "disk", recipe, free, needed, "free some, or move the project; the store may lie elsewhere (CAIRN_STORE)"
    )


def board() -> Finding:
    """Whether W&B will send what it is asked to send. The key itself is not read."""
    mode = os.environ.get("WANDB_MODE", "offline")
    if mode == "disabled":
        return Finding("wandb", "ok", "disabled (WANDB_MODE)")
    if mode != "online":
        return Finding("wandb", "ok", f"{mode}: `wandb sync .cairn/wandb/offline-run-*` sends it later")
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    if os.environ.get("WANDB_API_KEY") or _logged_in(host):
        return Finding("wandb", "ok", f"online, logged in at {host}")
    return Finding("wandb", "warn", f"online, but not logged in at {host}", "`wandb login`, or WANDB_MODE=offline")


def _enough(check: str, recipe: "Recipe | None", there: float, needed: float, fix: str) -> Finding:
    takes = f"this recipe takes about {needed / GB:.1f} GB" if recipe else f"any takes more than {needed / GB:.1f} GB"
    said = f"{there / GB:.1f} GB free; {takes}"
    if there < needed:
        return Finding(check, "fail" if there < needed / 2 else "warn", said, fix)
    return Finding(check, "ok", said)


def _parameters(recipe: "Recipe | None") -> int:
    return recipe.pretrain.model.parameters(recipe.tokenize.vocab_size) if recipe else 0


def _source_bytes() -> int:
    from components.snapshot.lock import read_lock
    from pipelines.stages import place

    try:
        return sum(one.size for one in read_lock(place("sources")).objects().values())
    except SourceError:
        return 0


def _quota() -> float | None:
    """Processors that the container's control group allows; None without a limit."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) / int(period)


def _logged_in(host: str) -> bool:
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
