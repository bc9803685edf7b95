"""The catalogue of a store: which artifacts it holds, what they are and when they were made, runs, models, totals.

What an artifact is, only attestations by a trusted key tell; a pin knows files alone. Whether its bytes are here is
told by one listing of the store, not by asking for each object.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from cairn.errors import StoreError
from cairn.lineage.artifact import Artifact
from cairn.lineage.attestation import Attestation, maker
from cairn.lineage.contents import Contents, addresses, in_parallel
from cairn.lineage.roots import Pinned, digests_in, pins, pointers, run_records
from cairn.lineage.store import Store

SHORTEST = 6  # characters of a digest


@dataclass(frozen=True)
class Item:
    """One artifact of a store."""

    digest: str
    name: str
    """What a trusted attestation calls it; empty when there is none."""
    component: str
    version: str
    when: str
    """ISO 8601, UTC: when the stage ended that made it; without an attestation, when it was pinned."""
    size: int
    files: int
    objects: int
    """What it needs: its distinct files and, for a directory, its `.dir` object."""
    absent: tuple[str, ...]
    """The addresses of those that are not in this store."""
    artifact: Artifact

    @property
    def is_whole(self) -> bool:
        """Whether all its objects are in this store."""
        return not self.absent

    @property
    def missing(self) -> int:
        """How many objects are not in this store."""
        return len(self.absent)


@dataclass(frozen=True)
class Catalogue:
    """What a store holds."""

    items: tuple[Item, ...]
    """The newest first."""
    objects: int
    bytes: int
    unpinned: int
    """Objects that no pin names, such as what `dvc push` sent of something else."""
    unpinned_bytes: int
    faults: tuple[str, ...]
    """Pins that cannot be read."""


@dataclass(frozen=True)
class Run:
    """One run, by its records."""

    name: str
    stages: Mapping[str, str]
    """Stage to outcome."""
    outputs: Mapping[str, str]
    """Artifact name to digest."""
    when: str
    """ISO 8601, UTC: when its last record was written, by the store's clock."""


def catalogue(store: Store, keys: Mapping[str, ec.EllipticCurvePublicKey], digests: Collection[str] = ()) -> Catalogue:
    """What a store holds.

    Args:
        keys: whose attestations are believed.
        digests: of the artifacts that are wanted; none is all.
    """
    there: dict[str, int] = {}
    for entry in Contents(store.url).objects():
        if entry.address is not None:
            there[entry.address] = entry.size
    faults, named, items = [], set[str](), []
    trees: dict[str, Attestation] = {}
    """Digest to the attestation of the snapshot that says it to be its tree of copied objects."""

    def describe(one: Pinned) -> tuple[Pinned, Attestation | None]:
        # A tree of copied objects has no attestation: that of its lock file, one file, names it.
        wanted = one.artifact is not None and (not digests or one.digest in digests or not one.artifact.is_directory)
        return one, maker(store, one.digest, keys) if wanted else None

    for one, attested in in_parallel(describe, pins(store)):
        if one.artifact is None:
            faults.append(one.fault)
            continue
        if attested is not None and isinstance(tree := attested.facts.get("tree"), str):
            trees[tree] = attested
        needed = set(addresses(one.artifact))
        named |= needed & there.keys()
        if not digests or one.digest in digests:
            items.append(_item(one, one.artifact, attested, len(needed), sorted(needed - there.keys())))
    items = [_as_tree(item, trees[item.digest]) if item.digest in trees else item for item in items]
    items.sort(key=lambda item: (item.when, item.digest), reverse=True)
    unpinned = [size for address, size in there.items() if address not in named]
    return Catalogue(tuple(items), len(there), sum(there.values()), len(unpinned), sum(unpinned), tuple(sorted(faults)))


def runs(store: Store) -> list[Run]:
    """What runs left behind, the newest first."""
    written = {entry.key: entry.modified for entry in Contents(store.url).walk("runs")}
    grouped: dict[str, dict[str, dict[str, Any]]] = {}
    for key, record in run_records(store).items():
        parts = key.removesuffix(".json").split("/")
        grouped.setdefault(parts[1], {})[key] = record
    found = []
    for name, records in grouped.items():
        stages = {str(one.get("stage", "unknown")): str(one.get("outcome", "unreadable")) for one in records.values()}
        outputs = {
            artifact: digest
            for one in records.values()
            if isinstance(one.get("outputs"), dict)
            for artifact, digest in one["outputs"].items()
        }
        newest = max(written.get(key, 0.0) for key in records)
        found.append(Run(name, stages, outputs, _iso(newest)))
    return sorted(found, key=lambda run: (run.when, run.name), reverse=True)


def models(store: Store) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Model name to the version of its pointer and the digests that it names."""
    return {name: (version, tuple(sorted(digests_in(value)))) for name, (version, value) in pointers(store).items()}


def full_digests(store: Store, given: Collection[str]) -> list[str]:
    """The digests of pinned artifacts that begin as given, in capitals or not.

    Raises StoreError when a beginning is too short, fits none, or fits several.
    """
    given = [one.lower() for one in given]
    if all(len(one) == 64 for one in given):
        return list(given)
    names = [name.removesuffix(".json") for name in store.list("pins")]
    found = []
    if not names:
        raise StoreError(f"{store}: holds no artifact: `cairn run` makes some, or name another store")
    for one in given:
        fitting = [name for name in names if name.startswith(one)]
        if len(one) < SHORTEST or len(fitting) != 1:
            why = "fits no artifact" if not fitting else f"fits {len(fitting)} artifacts"
            why = f"has less than {SHORTEST} characters" if len(one) < SHORTEST else why
            raise StoreError(f"{store}: the digest {one!r} {why}: `cairn store ls` shows what there is")
        found += fitting
    return found


def _item(one: Pinned, artifact: Artifact, attested: Attestation | None, objects: int, absent: list[str]) -> Item:
    name = next((name for name, digest in attested.outputs.items() if digest == one.digest), "") if attested else ""
    return Item(
        digest=one.digest,
        name=name,
        component=attested.component if attested else "",
        version=attested.version if attested else "",
        when=_iso(datetime.fromisoformat(attested.finished).timestamp() if attested else one.modified),
        size=artifact.size,
        files=len(artifact.members),
        objects=objects,
        absent=tuple(absent),
        artifact=artifact,
    )


def _as_tree(item: Item, attested: Attestation) -> Item:
    """An artifact as what the audit calls it too: the objects that a snapshot copied."""
    if item.name:
        return item
    when = _iso(datetime.fromisoformat(attested.finished).timestamp())
    return replace(item, name="objects", component=attested.component, version=attested.version, when=when)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(min(seconds, time.time() + 1e9), UTC).isoformat(timespec="seconds")
