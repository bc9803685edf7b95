"""Write the hash-pinned locks: `requirements.lock` and one `requirements.torch-*.lock` for each torch build.

Torch stands apart because its build decides bits: the CPU wheel and the CUDA wheel (with the libraries it pulls in)
are different programs under one version number. The locks hold hashes and no index address, so they install from
whatever index the machine is set up for.

A lock is resolved for every platform at once (`uv pip compile --universal`), at the versions of the earlier lock where
they still fit; with `--upgrade`, at the newest. The CPU build of torch for Linux is not
on the public index: its hash is taken from wheels found in the `PIP_FIND_LINKS` folders, and only for the Python
versions found there; entries of an earlier lock are kept.
"""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CUDA_ONLY = re.compile(r"^(nvidia-|cuda-|triton$)")
HASH = re.compile(r"sha256:([0-9a-f]{64})")
HEADER = "# Written by `make lock`. Do not edit.\n"


def resolve(upgrade: bool) -> dict[str, str]:
    """Resolve everything with the public torch build: requirement name to its block of lines."""
    command = ["uv", "pip", "compile", "pyproject.toml", "--universal", "--python-version", "3.11"]
    command += ["--extra", "dev", "--extra", "docs", "--no-strip-extras"]
    for name in () if upgrade else ("requirements.lock", "requirements.torch-cuda.lock"):
        command += ["--constraint", name]
    command += [
        "--generate-hashes",
        "--no-emit-index-url",
        "--no-emit-find-links",
        "--no-header",
        "--no-annotate",
        "-q",
    ]
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)
    named: dict[str, str] = {}
    for block in filter(None, blocks):  # a name may have several blocks, one for each platform marker
        name = re.split(r"[=\[ @]", block, maxsplit=1)[0]
        # pip, told to check hashes, takes `pydantic[email]` for something else than `pydantic`, and asks for both.
        bare = re.sub(r"\[[^]]*\]", "", block, count=1)
        named[name] = named.get(name, "") + (block if bare == block else bare + block)
    return named


def local_torch_hashes(version: str) -> set[str]:
    """sha256 of the `+cpu` wheels of this torch version in the folders of `PIP_FIND_LINKS`."""
    folders = [Path(folder) for folder in os.environ.get("PIP_FIND_LINKS", "").split() if Path(folder).is_dir()]
    wheels = [wheel for folder in folders for wheel in folder.glob(f"torch-{version}+cpu-*.whl")]
    return {hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels}


def pinned(requirement: str, hashes: set[str]) -> str:
    """One requirement with its hashes, as pip reads them."""
    return " \\\n".join([requirement, *(f"    --hash=sha256:{digest}" for digest in sorted(hashes))]) + "\n"


def main() -> int:
    blocks = resolve(upgrade="--upgrade" in sys.argv[1:])
    cuda = {name: block for name, block in blocks.items() if name == "torch" or CUDA_ONLY.match(name)}
    rest = [block for name, block in blocks.items() if name not in cuda]
    (ROOT / "requirements.lock").write_text(HEADER + "".join(rest))
    (ROOT / "requirements.torch-cuda.lock").write_text(HEADER + "".join(cuda.values()))

    match = re.match(r"torch==([0-9.]+)", blocks["torch"])
    assert match, blocks["torch"]
    version = match[1]
    cpu_lock = ROOT / "requirements.torch-cpu.lock"
    earlier = cpu_lock.read_text().partition("sys_platform != ")[0] if cpu_lock.exists() else ""
    kept = set(HASH.findall(earlier)) if f"torch=={version}+cpu" in earlier else set()
    linux = kept | local_torch_hashes(version)
    if not linux:
        print(
            f"no torch-{version}+cpu wheel in the folders of PIP_FIND_LINKS: the CPU lock would lack Linux",
            file=sys.stderr,
        )
        return 1
    requirements = [
        pinned(f"torch=={version}+cpu ; sys_platform == 'linux'", linux),
        pinned(f"torch=={version} ; sys_platform != 'linux'", set(HASH.findall(blocks["torch"]))),
    ]
    cpu_lock.write_text(HEADER + "".join(requirements))
    return 0


if __name__ == "__main__":
    sys.exit(main())
