"""The environment fingerprint: what ran, and on what. Recorded in attestations, never part of an artifact.

It names packages, code, image, hardware and thread settings; it holds no host name, user name or environment variable
other than those that steer arithmetic.
"""

import hashlib
import os
import platform
import re
import subprocess
import sys
import unicodedata
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from cairn.errors import StageError
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
    files = [path for package in CODE for path in (ROOT / package).rglob("*") if path.suffix in CODE_SUFFIXES]
    listing = [(path.relative_to(ROOT).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]
    commit = _git("rev-parse", "HEAD")
    difference = _git("diff", "HEAD", "--", *CODE) if commit else None
    return {
        "sha256": hashlib.sha256(canonical(sorted(listing))).hexdigest(),
        "commit": commit.decode().strip() if commit else None,
        "dirty": hashlib.sha256(difference).hexdigest() if difference else None,
    }


@cache
def locks() -> dict[str, str]:
    """sha256 of every `requirements*.lock` beside the code."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(ROOT.glob("requirements*.lock"))
    }


def fingerprint(resources: Resources) -> dict[str, Any]:
    """What an attestation says of the environment."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "image": os.environ.get("CAIRN_IMAGE") or None,
        "packages": _packages(),
        "arithmetic": {name: os.environ[name] for name in ARITHMETIC if name in os.environ},
        "resources": {
            "workers": resources.workers,
            "processes": resources.processes,
        },
    }


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


def _git(*arguments: str) -> bytes | None:
    """The output of a git command in the code's checkout; None where there is no checkout or no git."""
    if not (ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
