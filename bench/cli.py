"""The command line: processor seconds until help is there, for every verb, beside two peers.

    python bench/cli.py

Processor seconds, not wall time, so that a busy machine measures the same. The best of several runs, with warm caches.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

import typer

from cairn.cli.main import app

BIN = Path(sys.executable).parent
RUNS = 5
BUDGET, VERB_BUDGET = 0.3, 0.5  # seconds
PEERS = ("dvc", "wandb")


def processor_seconds(*command: str) -> float:
    """The least that a command took, its children with it, over some runs."""
    taken = []
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)


def verbs() -> list[list[str]]:
    """Every verb, and every one below a verb."""
    found = []
    for name, command in sorted(vars(typer.main.get_command(app))["commands"].items()):
        found.append([name])
        found += [[name, inner] for inner in sorted(getattr(command, "commands", {}))]
    return found


def main() -> int:
    ours = processor_seconds(str(BIN / "cairn"), "--help")
    print(f"cairn --help: {ours:.2f} s")
    each = {" ".join(verb): processor_seconds(str(BIN / "cairn"), *verb, "--help") for verb in verbs()}
    for verb, seconds in each.items():
        print(f"cairn {verb} --help: {seconds:.2f} s")
    peers = {name: processor_seconds(str(BIN / name), "--help") for name in PEERS}
    for name, seconds in peers.items():
        print(f"{name} --help: {seconds:.2f} s")
    slowest = max(each, key=lambda verb: each[verb])
    result = {
        "bench": "cli",
        "ours": round(ours, 3),
        "peer": round(peers["dvc"], 3),
        "ratio": round(ours / peers["dvc"], 3),
        "unit": "CPU s of --help (peer: dvc)",
        "wandb": round(peers["wandb"], 3),
        "slowest_verb": slowest,
        "slowest_verb_s": round(each[slowest], 3),
    }
    print(json.dumps(result))
    return 0 if ours <= BUDGET and each[slowest] <= VERB_BUDGET else 1


if __name__ == "__main__":
    sys.exit(main())
