"""What proofs cost: re-hashing, writing, attesting, and bytes on their way to another machine.

    python bench/lineage.py [PROJECT]   # PROJECT: a finished default run of yours; without it, one is made in a clone

- An audit of an artifact of 10 GB in a store, from the command line: bytes a second for each core, beside sha256 of a
  buffer in memory on one core, measured before and after.
- Hash while writing: a file into a store, beside hashing it alone.
- The default run with all work taken out: what reading, hashing, pinning, signing and publishing take, beside what the
  run took.
- 1 GB on its way: push, clone, pull and a run that does nothing, beside the same with `dvc push`, `pull` and `repro`.

The peers alternate with ours.
"""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from cairn.lineage import attestation
from cairn.lineage.artifact import CHUNK, digest_of, read_artifact
from cairn.lineage.attestation import Attestation
from cairn.lineage.hashing import hash_stream
from cairn.lineage.signing import signer
from cairn.lineage.stage import Component, Task, run_stage
from cairn.lineage.statement import Resource, statement
from cairn.lineage.store import Store
from cairn.recipe import Section
from cairn.resources import Resources
from pipelines.stages import Stage, stages

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
MEMORY = Path("/dev/shm")
GB = 1_000_000_000
AUDITED, MEMBERS = 10 * GB, 10
WRITTEN = 2 * GB
SENT, FILES = 1 * GB, 16
MEMORY_BUDGET = 600  # MB that an audit may take, whatever it reads
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "WANDB_MODE": "disabled"}


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="cairn-bench-") as temporary:
        folder = Path(temporary)
        # A finished run is believed where its key is trusted.
        ENVIRONMENT["CAIRN_HOME"] = os.environ.setdefault("CAIRN_HOME", str(folder / "home"))
        hashed = audited(folder / "audited")
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else folder) as memory:
            written = writing(Path(memory, "written"))
        sent = sending(folder / "sent")
        finished = Path(sys.argv[1]) if len(sys.argv) > 1 else default_run(folder / "default")
        attested = attesting(finished, folder / "bare")
    within = (
        hashed["ratio"] >= 0.8
        and hashed["peak_mb"] <= MEMORY_BUDGET
        and written["ratio"] <= 1.15
        and sent["ratio"] <= 1.0
        and attested["ratio"] <= 0.02
    )
    result = {
        "bench": "lineage",
        "ours": hashed["gb_per_core_second"],
        "peer": hashed["sha256_gb_per_second"],
        "ratio": hashed["ratio"],
        "unit": "GB re-hashed for each second of a core (peer: sha256 of memory)",
        "audit": hashed,
        "hash_while_writing": written,
        "transfer": sent,
        "attestation": attested,
    }
    print(json.dumps(result))
    return 0 if within else 1


def audited(folder: Path) -> dict[str, float]:
    """An audit of one artifact of `AUDITED` bytes, as its user would start it."""
    artifact = folder / "artifact"
    artifact.mkdir(parents=True)
    for number in range(MEMBERS):
        sparse(artifact / f"{number:05d}.bin", AUDITED // MEMBERS, number)
    store = Store(str(folder / "store"))
    held = read_artifact(artifact)
    for member in held.members:
        at = folder / "store" / "files" / "md5" / member.md5[:2] / member.md5[2:]
        at.parent.mkdir(parents=True, exist_ok=True)
        (artifact / member.path).rename(at)
    shutil.rmtree(artifact)
    store.write_pin(held)
    attest(store, held.digest)
    command = [str(BIN / "cairn"), "audit", held.digest, "--store", store.url, "--json"]
    before = sha256_speed()
    cores = len(os.sched_getaffinity(0))
    seconds, spent, peak = timed(command, folder)
    alone = (before + sha256_speed()) / 2
    speed = AUDITED / GB / spent
    print(
        f"audit of {AUDITED / GB:.0f} GB, start and all: {seconds:.1f} s on {cores} cores, {speed:.2f} GB a second "
        f"of a core; sha256 alone {alone:.2f} GB; ratio {speed / alone:.2f}; peak {peak:.0f} MB"
    )
    return {
        "gb_per_core_second": round(speed, 3),
        "sha256_gb_per_second": round(alone, 3),
        "ratio": round(speed / alone, 3),
        "wall_s": round(seconds, 1),
        "peak_mb": round(peak),
        "gb": AUDITED / GB,
    }


def attest(store: Store, digest: str) -> None:
    """Say that somebody made an artifact; the audit need not like it, it has to read it."""
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    said = statement(
        outputs=[Resource("documents", digest)],
        dependencies=[],
        parameters={"component": "bench", "version": "0.0.0", "section": {}},
        internal={"stageKey": "0" * 64, "packages": {}, "environment": {}, "facts": {}},
        run={"invocationId": "bench", "startedOn": now, "finishedOn": now},
        builder={"id": "urn:cairn:bench"},
    )
    attestation.publish(store, attestation.sign(said, signer()), [digest], "0" * 64)


def sha256_speed() -> float:
    """GB/s of sha256 over a buffer that is in the cache, on one core."""
    buffer = bytes(1 << 20)
    best = 0.0
    for _ in range(5):
        sha256, began = hashlib.sha256(), time.perf_counter()
        for _ in range(400):
            sha256.update(buffer)
        best = max(best, 400 * len(buffer) / GB / (time.perf_counter() - began))
    return best


def writing(folder: Path) -> dict[str, float]:
    """A file put into a store, hashed while it is written, beside hashing it alone: md5 and sha256, as a pin has both.

    In memory where there is such a file system, for else the disk is measured.
    """
    folder.mkdir(parents=True)
    source = folder / "source"
    noise(source, WRITTEN, 1)
    ours, peer, apart = [], [], []
    for _ in range(4):
        peer.append(seconds_of(lambda: hashed_on_one_thread(source)))
        apart.append(seconds_of(lambda: read_artifact(source)))
        ours.append(seconds_of(lambda: Store(str(folder / "store")).put(source)))
        shutil.rmtree(folder / "store")
    ratio = min(ours) / min(peer)
    print(
        f"hash while writing 2 GB: {min(ours):.2f} s; hashing on one thread {min(peer):.2f} s, ratio {ratio:.2f}; "
        f"each hash on a thread of its own {min(apart):.2f} s, ratio {min(ours) / min(apart):.2f}"
    )
    return {
        "ours_s": round(min(ours), 2),
        "hashing_alone_s": round(min(peer), 2),
        "ratio": round(ratio, 3),
        "hashing_on_two_threads_s": round(min(apart), 2),
    }


def hashed_on_one_thread(path: Path) -> None:
    with open(path, "rb", buffering=0) as file:
        hash_stream(file, memoryview(bytearray(CHUNK)))


class Blob(Section):
    """The section of a stage that makes a blob."""

    size: int = SENT


BLOB = Component(
    name="blob", version="0.0.0", stability="alpha", description="A blob.", inputs=(), outputs=("blob",), packages=()
)


def sending(folder: Path) -> dict[str, float]:
    """Push, clone, pull, and a run that does nothing: through the store with our runner, and with DVC alone."""
    ours, peer = [], []
    for turn in range(3):
        ours.append(sent_by_cairn(folder / f"cairn-{turn}"))
        peer.append(sent_by_dvc(folder / f"dvc-{turn}"))
        for name in ("cairn", "dvc"):
            shutil.rmtree(folder / f"{name}-{turn}")
    best_ours, best_peer = (min(times, key=lambda parts: sum(parts.values())) for times in (ours, peer))
    ratio = sum(best_ours.values()) / sum(best_peer.values())
    for name, parts in (("cairn", best_ours), ("dvc", best_peer)):
        told = ", ".join(f"{part} {seconds:.1f}" for part, seconds in parts.items())
        print(f"1 GB with {name}: {sum(parts.values()):.1f} s ({told})")
    return {
        "ours_s": round(sum(best_ours.values()), 2),
        "dvc_s": round(sum(best_peer.values()), 2),
        "ratio": round(ratio, 3),
    }


def project(folder: Path) -> Path:
    """A Git repository with a blob of `SENT` bytes, its remote beside it."""
    root = folder / "project"
    (root / "blob").mkdir(parents=True)
    for number in range(FILES):
        noise(root / "blob" / f"{number:05d}.bin", SENT // FILES, number)
    (root / ".gitignore").write_text("/blob\n/.cairn\n")
    sh(root, "git", "init", "-q")
    sh(root, "dvc", "init", "-q")
    sh(root, "dvc", "remote", "add", "-q", "-d", "store", str(folder / "remote"))
    sh(root, "dvc", "remote", "modify", "store", "verify", "true")
    stage = "stages:\n  blob:\n    cmd: test -d blob\n    outs:\n    - blob:\n        persist: true\n"
    (root / "dvc.yaml").write_text(stage)
    return root


def sent_by_dvc(folder: Path) -> dict[str, float]:
    """Seconds of each part."""
    root = project(folder)
    sh(root, "dvc", "repro", "-q")
    commit(root)
    clone = folder / "clone"
    return {
        "push": seconds_of(lambda: sh(root, "dvc", "push", "-q")),
        "clone": seconds_of(lambda: sh(folder, "git", "clone", "-q", str(root), str(clone))),
        "pull": seconds_of(lambda: sh(clone, "dvc", "pull", "-q")),
        "repro": seconds_of(lambda: sh(clone, "dvc", "repro", "-q")),
    }


def sent_by_cairn(folder: Path) -> dict[str, float]:
    """Seconds of each part, every one in a process of its own, as `cairn run` and `cairn store` start them."""
    root = project(folder)
    blob = root / "blob"
    blob.rename(folder / "made")
    run_blob(root, folder / "remote", folder / "made")
    commit(root)
    clone = folder / "clone"
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from bench.lineage import *; "
    push = f"{program}Store({str(folder / 'remote')!r}).put(Path('blob'))"
    run = f"{program}run_blob(Path(), Path({str(folder / 'remote')!r}), None)"
    return {
        "push": seconds_of(lambda: sh(root, sys.executable, "-c", push)),
        "clone": seconds_of(lambda: sh(folder, "git", "clone", "-q", str(root), str(clone))),
        "pull": seconds_of(lambda: sh(clone, sys.executable, "-c", run)),
        "repro": seconds_of(lambda: sh(clone, sys.executable, "-c", run)),
    }


def run_blob(root: Path, remote: Path, made: Path | None) -> None:
    """The stage; without `made` there is nothing that it could do: its output must come from the store."""

    def work(_: Blob, task: Task) -> None:
        assert made is not None, "the blob should have come from the store"
        for path in made.iterdir():
            path.rename(task.outputs["blob"] / path.name)

    run_stage(
        BLOB,
        Blob(),
        work,
        inputs={},
        outputs={"blob": root / "blob"},
        store=Store(str(remote)),
        resources=Resources.from_environment(),
        home=root / ".cairn",
    )


def default_run(folder: Path) -> Path:
    """The default run in a clone."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    print("the default run in a clone: dvc repro", flush=True)
    sh(folder, "dvc", "repro", quiet=True)
    return folder


def attesting(finished: Path, folder: Path) -> dict[str, float]:
    """What every stage of a finished default run takes when its work is taken out of it."""
    took = bare = 0.0
    for stage in stages():
        digest = digest_of(finished / next(iter(stage.outputs.values())))
        if digest is None:
            sys.exit(f"{finished}: not a finished default run")
        made = attestation.maker(Store.default(finished), digest)
        assert made is not None, f"{stage.name} has no trusted attestation"
        took += (moment(made.finished) - moment(made.started)).total_seconds()
        # Snapshot reads the sources to hash them, which is its work; to sign and publish what it read is not.
        again = signed_again if stage.name == "snapshot" else without_work
        bare += again(stage, made, finished, folder / stage.name)
    print(f"attestation: {bare:.2f} s of a default run of {took:.0f} s, {bare / took:.2%}")
    return {"ours_s": round(bare, 2), "run_s": round(took, 1), "ratio": round(bare / took, 4)}


def signed_again(_: Stage, made: Attestation, finished: Path, folder: Path) -> float:
    """Seconds until an attestation is signed and published."""
    store = Store(str(folder / "store"))
    began = time.perf_counter()
    attestation.publish(store, attestation.sign(made.statement, signer()), list(made.outputs.values()), made.stage_key)
    return time.perf_counter() - began


def without_work(stage: Stage, made: Attestation, finished: Path, folder: Path) -> float:
    """Seconds that the runner takes around a stage whose outputs are only copied."""
    copying = 0.0

    def work(_: Section, task: Task) -> None:
        nonlocal copying
        began = time.perf_counter()
        for name, path in stage.outputs.items():
            shutil.copytree(finished / path, task.outputs[name], dirs_exist_ok=True)
        os.sync()  # else what the copy left to be written would be counted as ours
        copying += time.perf_counter() - began

    began = time.perf_counter()
    run_stage(
        Component.of(f"components.{stage.name}"),
        Said(value=made.section),
        work,
        inputs={name: finished / path for name, path in stage.inputs.items()},
        outputs={name: folder / path for name, path in stage.outputs.items()},
        store=Store(str(folder / "store")),
        resources=Resources.from_environment(),
        home=folder / ".cairn",
    )
    return time.perf_counter() - began - copying


class Said(Section):
    """Stands for a section of any component."""

    value: dict[str, Any]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def sparse(path: Path, size: int, mark: int) -> None:
    """A file of `size` bytes that takes no room on the disk; its first bytes tell it from others."""
    with open(path, "wb") as file:
        file.write(mark.to_bytes(8, "big"))
        file.truncate(size)


def noise(path: Path, size: int, seed: int) -> None:
    """A file of bytes that nothing can compress or take for another's."""
    block = hashlib.shake_128(seed.to_bytes(8, "big")).digest(CHUNK)
    with open(path, "wb") as file:
        for number in range(0, size, CHUNK):
            file.write(number.to_bytes(8, "big"))
            file.write(block[8 : min(CHUNK, size - number)])


def commit(root: Path) -> None:
    sh(root, "git", "add", "-A")
    sh(root, "git", "-c", "user.name=bench", "-c", "user.email=bench@example.invalid", "commit", "-qm", "blob")


def sh(folder: Path, *command: str, quiet: bool = True) -> None:
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=quiet, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{(done.stderr or '')[-2000:]}")


def timed(command: list[str], folder: Path) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and peak memory (MB) of a command; an audit that finds something ends with 1."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode not in (0, 1):
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, spent, after.ru_maxrss / 1000


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
