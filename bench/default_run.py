"""The default run in fresh clones: time, memory, scores, what a second run does, and whether two clones agree.

    python bench/default_run.py [FOLDER]   # about two runs long; the clones are left in FOLDER

Clones this checkout (committed state) twice into different directories, runs `dvc repro` in both, one with one data
worker and one with two, and prints seconds, peak memory of all processes together, held-out bits per byte beside the
compressors of the same run, the seconds of a second `dvc repro`, the stages that a changed training parameter re-runs,
and the digests side by side.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import psutil

from cairn.lineage.artifact import digest_of
from pipelines.stages import place

ROOT = Path(__file__).resolve().parent.parent
BUDGET = 300.0  # seconds that a person is asked to wait
COMPARED = ("documents", "tokenizer", "tokens", "checkpoint", "optimizer", "model", "scores", "report")


def clone(folder: Path) -> Path:
    """A clone of this checkout."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    return folder


def run(folder: Path, *command: str, **environment: str) -> tuple[float, float, str]:
    """Run a command in a clone: seconds, peak memory in GiB of the whole process tree, and what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    log = folder / ".bench.log"
    with open(log, "w") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, "PATH": path, **environment}, stdout=output, stderr=output
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, tree_memory(process.pid))
            time.sleep(0.2)
        seconds = time.monotonic() - started
    printed = log.read_text()
    log.unlink()
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{printed[-4000:]}")
    return seconds, peak / 2**30, printed


def tree_memory(pid: int) -> int:
    """Resident bytes of a process and all below it, shared pages counted once for each process group member (PSS)."""
    total = 0
    try:
        members = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in members:
        try:
            total += getattr(member.memory_full_info(), "pss", member.memory_info().rss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def scores(folder: Path) -> dict[str, dict[str, float]]:
    """Held-out bits per byte of a finished run: the model beside every compressor, for each domain and set."""
    said = json.loads((folder / place("scores") / "scores.json").read_text())["bits_per_byte"]
    return {
        f"{domain} {kind}": {"model": row["bits_per_byte"], **row["compressors"]}
        for domain, kinds in said.items()
        for kind, row in kinds.items()
        if row["documents"]
    }


def main() -> int:
    with tempfile.TemporaryDirectory() if len(sys.argv) < 2 else nullcontext(sys.argv[1]) as temporary:
        one = clone(Path(temporary, "one"))
        two = clone(Path(temporary, "another", "two"))
        print("first clone, default settings: dvc repro", flush=True)
        seconds, memory, _ = run(one, "dvc", "repro")
        print(f"  {seconds:.1f} s, peak memory {memory:.2f} GiB")
        found = scores(one)
        for name, row in found.items():
            shown = ", ".join(f"{kind} {value:.3f}" for kind, value in row.items())
            print(f"  bits per byte, {name}: {shown}")
        again, _, printed = run(one, "dvc", "repro")
        nothing = "Running stage" not in printed
        print(f"second dvc repro: {again:.1f} s, {'nothing ran' if nothing else 'STAGES RAN'}")
        recipe = one / "params.yaml"
        text = recipe.read_text()
        recipe.write_text(text.replace("  clip: 1.0", "  clip: 0.9"))
        _, _, printed = run(one, "dvc", "repro", "--dry")
        would = [line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage")]
        recipe.write_text(text)
        print(f"after a change of pretrain.clip would run: {', '.join(would)}")
        print("second clone, CAIRN_WORKERS=1: cairn run", flush=True)
        run(two, "cairn", "run", CAIRN_WORKERS="1")
        different = 0
        for name in COMPARED:
            first, second = (digest_of(folder / place(name)) for folder in (one, two))
            different += first is None or first != second
            print(f"  {name:10} {str(first)[:16]} {str(second)[:16]} {'equal' if first == second else 'DIFFERENT'}")
    result = {
        "bench": "default_run",
        "ours": round(seconds, 1),
        "peer": BUDGET,
        "ratio": round(seconds / BUDGET, 3),
        "unit": "s (peer: the budget)",
        "peak_gib": round(memory, 2),
        "second_run_s": round(again, 1),
        "different_digests": different,
        "bits_per_byte": found,
    }
    print(json.dumps(result))
    return 0 if nothing and not different else 1


if __name__ == "__main__":
    sys.exit(main())
