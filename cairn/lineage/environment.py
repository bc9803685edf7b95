"""The environment fingerprint: what ran, and on what. Recorded in attestations, never part of an artifact.

It names packages, code, image, hardware and thread settings; it holds no host name, user name, serial number or
environment variable other than those that steer arithmetic.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import unicodedata
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from cairn.errors import StageError
from cairn.lineage import checkout
from cairn.lineage.artifact import canonical
from cairn.resources import Resources

CODE = ("cairn", "trainer", "components", "pipelines")
CODE_SUFFIXES = (".py", ".yaml", ".css", ".js", ".json", ".html")
ROOT = Path(__file__).resolve().parents[2]
# Instruction sets that decide which kernels, and so which bits, a CPU build of torch uses.
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile", "asimd", "bf16", "sve", "sha_ni")
ARITHMETIC = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUBLAS_WORKSPACE_CONFIG",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
)


def package_version(name: str) -> str:
    """The version of a bit-affecting package. `python` is the interpreter, `unicodedata` its Unicode tables.

    Raises StageError when it is not installed.
    """
    if name == "python":
        return platform.python_version()
    if name == "unicodedata":
        return unicodedata.unidata_version
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        raise StageError(f"the package {name} is not installed: run `make setup`") from None


@cache
def code() -> dict[str, Any]:
    """Digest of Cairn's own code, and the Git commit it stands at with the digest of what differs from it."""
    listing = [(path.relative_to(ROOT).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()) for path in _files()]
    changed = difference()
    return {
        "sha256": hashlib.sha256(canonical(sorted(listing))).hexdigest(),
        # A commit without what differs from it would pass for the code that ran.
        "commit": checkout.commit(ROOT) if changed is not None else None,
        "dirty": hashlib.sha256(changed).hexdigest() if changed else None,
    }


@cache
def difference() -> bytes | None:
    """What makes Cairn's own code out of the commit it stands at, as a patch; None without a commit, empty when there
    is nothing to change."""
    files = [path.relative_to(ROOT).as_posix() for path in _files()]
    return checkout.difference(ROOT, CODE, files) if checkout.commit(ROOT) else None


@cache
def locks() -> dict[str, str]:
    """sha256 of every `requirements*.lock` beside the code."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in lock_files().items()}


@cache
def lock_files() -> dict[str, bytes]:
    """The content of every `requirements*.lock` beside the code."""
    return {path.name: path.read_bytes() for path in sorted(ROOT.glob("requirements*.lock"))}


def fingerprint(resources: Resources) -> dict[str, Any]:
    """What an attestation says of the environment."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.system(),
        "machine": platform.machine(),
        **hardware(),
        "image": image(),
        "packages": _packages(),
        "arithmetic": {name: os.environ[name] for name in ARITHMETIC if name in os.environ},
        "resources": {
            "workers": resources.workers,
            "processes": resources.processes,
        },
    }


def image() -> str | None:
    """The container image, as whoever started the container names it; None outside of one."""
    return os.environ.get("CAIRN_IMAGE") or None


@cache
def hardware() -> dict[str, Any]:
    """Processor, bytes of memory, accelerators with their driver."""
    return {"processor": _processor(), "memory": _memory(), **_accelerators()}


@cache
def _packages() -> dict[str, str]:
    return dict(sorted((d.metadata["Name"], d.version) for d in metadata.distributions() if d.metadata["Name"]))


@cache
def _processor() -> dict[str, Any]:
    model, flags = platform.processor() or platform.machine(), ""
    if sys.platform == "linux":
        text = Path("/proc/cpuinfo").read_text()
        found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
        model = found[1] if found else model
        listed = re.search(r"^(?:flags|Features)\s*: (.*)$", text, re.MULTILINE)
        flags = listed[1] if listed else ""
    return {"model": model, "flags": [flag for flag in FLAGS if flag in flags.split()], "count": os.cpu_count()}


def _memory() -> int | None:
    """Bytes of this machine, whatever a container may use of them."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # a system that does not know these names
        return None


def _accelerators() -> dict[str, Any]:
    """Models of the accelerators in this machine, bytes of each, and the version of their driver.

    torch is asked only where the driver's own tool is not there and the work has it imported: a process that merely
    runs a stage must not wait for it.
    """
    asked = "--query-gpu=name,memory.total,driver_version"
    if tool := shutil.which("nvidia-smi"):
        command = [tool, asked, "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return {"accelerators": [], "driver": None}
        rows = [[field.strip() for field in line.split(",")] for line in done.stdout.splitlines()]
        found = [row for row in rows if len(row) == 3]
        if done.returncode == 0 and found:
            accelerators = [
                {"model": name, "memory": int(mib) << 20 if mib.isdecimal() else None} for name, mib, _ in found
            ]
            return {"accelerators": accelerators, "driver": found[0][2]}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        accelerators = [{"model": one.name, "memory": one.total_memory} for one in properties]
        return {"accelerators": accelerators, "driver": torch.version.hip or torch.version.cuda}
    return {"accelerators": [], "driver": None}


def _files() -> list[Path]:
    return [path for package in CODE for path in (ROOT / package).rglob("*") if path.suffix in CODE_SUFFIXES]
