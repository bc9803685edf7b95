"""What tests of the care of a store build: artifacts with a history, and a store that has grown old."""

import json
import os
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cairn.lineage import attestation
from cairn.lineage.artifact import Artifact
from cairn.lineage.contents import Contents, addresses, top_address
from cairn.lineage.pins import address as key_of
from cairn.lineage.signing import Signer, signer
from cairn.lineage.statement import Resource, statement
from cairn.lineage.store import Store, identity

DAY = 24 * 3600.0


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """A directory with these files."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def attest(
    store: Store,
    outputs: Mapping[str, str],
    inputs: Mapping[str, str] = {},
    finished: str = "2026-01-01T00:00:00+00:00",
    key: Signer | None = None,
    component: str = "ingest",
    facts: Mapping[str, Any] = {},
) -> str:
    """Publish an attestation that `outputs` were made from `inputs`; its stage key."""
    stage_key = identity({"inputs": dict(inputs), "outputs": dict(outputs)})
    said = statement(
        outputs=[Resource(name, digest) for name, digest in outputs.items()],
        dependencies=[Resource(name, digest) for name, digest in inputs.items()],
        parameters={"component": component, "version": "0.1.0", "section": {}},
        internal={"stageKey": stage_key, "packages": {}, "environment": {}, "facts": dict(facts)},
        run={"invocationId": "0", "startedOn": finished, "finishedOn": finished},
        builder={"id": "urn:cairn:runner"},
    )
    envelope = attestation.sign(said, key or signer())
    attestation.publish(store, envelope, list(outputs.values()), stage_key)
    return stage_key


def note_run(store: Store, run: str, outputs: Mapping[str, str], stage: str = "ingest") -> None:
    """Write down that a run made these."""
    record = {"stage": stage, "version": "0.1.0", "key": "0" * 64, "inputs": {}, "outputs": dict(outputs)}
    store.write(f"runs/{run}/{stage}.json", json.dumps({**record, "outcome": "done"}).encode())


def grow_old(store: Store, days: float, keys: Iterable[str] | None = None) -> None:
    """Have everything in a local store, or these keys, be so many days old."""
    then = time.time() - days * DAY
    for key in keys if keys is not None else [entry.key for entry in Contents(store.url).walk()]:
        os.utime(Path(store.url, key), (then, then))


def objects(store: Store) -> set[str]:
    """The addresses of all objects."""
    return {entry.address for entry in Contents(store.url).objects() if entry.address}


def needs(*artifacts: Artifact) -> set[str]:
    """The addresses of all that these need."""
    return {address for artifact in artifacts for address in addresses(artifact)}


def lock_of(artifact: Artifact, path: str = "artifacts/documents") -> str:
    """A `dvc.lock` that has an artifact as its output."""
    out = f"{{path: {path}, hash: md5, md5: {top_address(artifact)}, size: {artifact.size}}}"
    return f"schema: '2.0'\nstages:\n  ingest:\n    cmd: true\n    outs:\n    - {out}\n"


def git(root: Path, *arguments: str) -> str:
    """The output of a git command that succeeds."""
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.invalid"]
    done = subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout


def object_path(store: Store, address: str) -> Path:
    """Where a local store has an object."""
    return Path(store.url, key_of(address))
