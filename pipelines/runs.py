"""Which scores a person means: a folder, a digest, or a Git revision."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from cairn.errors import ArtifactError
from cairn.lineage.artifact import digest_of, read_artifact
from cairn.lineage.store import Store
from pipelines.stages import place

SCORES = place("scores")


@dataclass(frozen=True)
class Named:
    """Scores, brought to a folder."""

    name: str
    """As the person said it."""
    folder: Path
    digest: str
    store: Store
    """Where the attestations are that lead back from them."""


def named(name: str, scratch: Path) -> Named:
    """Find the scores that `name` means: a scores folder or a project folder, the beginning of a digest in the store,
    or a Git revision whose `dvc.lock` names scores that are in the store.

    Args:
        scratch: where scores are put that are fetched.

    Raises:
        ArtifactError: nothing is meant by that name, or what is meant has no scores, or their bytes are not kept.
        StoreError: the store cannot be read.
    """
    folder = Path(name)
    if folder.is_dir():
        return _in_folder(name, folder)
    store = Store.default()
    digest = _by_digest(name, store) or _by_revision(name, store)
    if digest is None:
        raise ArtifactError(f"{name}: no folder, no digest of scores in {store}, and no Git revision")
    target = scratch / digest
    if not target.exists() and not store.has(digest):
        if digest_of(SCORES) == digest:
            return Named(name, SCORES, digest, store)
        raise ArtifactError(
            f"{name}: its scores are known, but their bytes are neither in artifacts/ nor in {store}: `cairn run` "
            "with that recipe makes them again"
        )
    if not target.exists():
        store.get(digest, target)
    return Named(name, target, digest, store)


def _in_folder(name: str, folder: Path) -> Named:
    whole = folder.resolve()
    # Scores are attested in the store of the project that they lie in; elsewhere, only the current one may know them.
    around = whole.parents[1] if whole.parts[-2:] == SCORES.parts else Path()
    for scores, root in ((folder / SCORES, folder), (folder, around)):
        if (scores / "scores.json").exists():
            return Named(name, scores, read_artifact(scores, address=False).digest, Store.default(root))
    raise ArtifactError(f"{name}: neither a scores artifact nor a project with {SCORES}")


def _by_digest(name: str, store: Store) -> str | None:
    if not re.fullmatch(r"[0-9a-f]{6,64}", name):
        return None
    found = [pin.removesuffix(".json") for pin in store.list("pins") if pin.startswith(name)]
    if not found:
        return None
    if len(found) > 1:
        raise ArtifactError(f"{name}: {len(found)} artifacts have digests that begin so: write more of it")
    pinned = store.pin(found[0])
    if pinned is None or "scores.json" not in {member.path for member in pinned.members}:
        raise ArtifactError(f"{name}: is the digest of an artifact that holds no scores")
    return found[0]


def _by_revision(name: str, store: Store) -> str | None:
    """The digest of the scores that `dvc.lock` named at a Git revision."""
    outputs = outputs_at(name)
    if outputs is None:
        return None
    address = outputs.get(str(SCORES))
    if address is None:
        raise ArtifactError(f"{name}: its dvc.lock names no {SCORES}: `dvc repro` had not come that far")
    digest = pinned_as(store, address)
    if digest is None:
        raise ArtifactError(
            f"{name}: its scores ({address}) are not pinned in {store.url}: `dvc repro` makes them there"
        )
    return digest


def outputs_at(revision: str) -> dict[str, str] | None:
    """Path to md5 address of every output that `dvc.lock` named at a Git revision; None when it is no revision.

    Raises ArtifactError when there was no `dvc.lock`, or none that can be read.
    """
    if revision.startswith("-") or _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}") is None:
        return None
    lock = _git("show", f"{revision}:./dvc.lock")
    if lock is None:
        raise ArtifactError(
            f"{revision}: has no dvc.lock: only what `dvc repro` made and was committed can be found so"
        )
    try:
        stages = YAML(typ="safe", pure=True).load(lock)["stages"].values()
        return {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", ())}
    except (YAMLError, KeyError, TypeError, AttributeError):
        raise ArtifactError(f"{revision}: its dvc.lock cannot be read") from None


def pinned_as(store: Store, address: str) -> str | None:
    """The digest of the artifact that a store keeps under an md5 address. The address says no digest, so the pins are
    looked through."""
    for pin in store.list("pins"):
        if json.loads(store.read(f"pins/{pin}") or b"{}").get("md5") == address:
            return pin.removesuffix(".json")
    return None


def _git(*arguments: str) -> str | None:
    """What git prints; None when it ends with an error or is not installed."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
