"""What two runs differ in by their text: objects of the sources, and documents with the reason for each.

A reason is computed, not remembered: the rules of the other run's recipe are applied to the text. Of one run the ids
are held in memory, 32 bytes each; the documents themselves are read one after another.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cairn.errors import ArtifactError, SourceError, StoreError, one_line
from cairn.lineage.places import Places
from cairn.progress import progress
from components.ingest.documents import SPLITS, read_shard, shards
from components.ingest.ingest import rule_against
from components.ingest.recipe import Ingest
from components.snapshot.lock import Lock, LockedObject, LockedSource, read_lock
from pipelines.ancestry import Ancestry

SAMPLES = 3  # documents that are named for each reason


@dataclass(frozen=True)
class Objects:
    """URIs of the objects of one source that differ."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """One document."""

    document: str
    """Its id."""
    origin: str
    """URI of its object."""


@dataclass
class Reason:
    """Documents that differ for one reason."""

    kind: str
    """`dropped`: in the first run and not in the second. `added`: the other way round. `moved`: in another split.
    `elsewhere`: the same text, now from another object."""
    why: str
    documents: int = 0
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True)
class Changes:
    """What became of the text between two runs."""

    sources: dict[str, Objects]
    """By source; those that do not differ are not there."""
    first: int = 0
    """Documents of the first run."""
    second: int = 0
    both: int = 0
    reasons: tuple[Reason, ...] = ()
    unread: str = ""
    """Why the documents could not be compared."""


def changes(first: Ancestry, second: Ancestry, fetch_first: Places, fetch_second: Places) -> Changes:
    """Compare the sources and documents of two runs; what is not to be had is told in `unread`."""
    sources: dict[str, Objects] = {}
    try:
        sides = _Side.of(first, fetch_first), _Side.of(second, fetch_second)
        sources = _objects(sides[0].lock, sides[1].lock)
        return _documents(*sides, sources)
    except (ArtifactError, SourceError, StoreError) as error:
        return Changes(sources, unread=one_line(error))


@dataclass(frozen=True)
class _Side:
    """One of the two runs."""

    lock: Lock
    section: Ingest
    version: str
    documents: Path
    sources: Mapping[str, LockedSource]
    objects: Mapping[tuple[str, str], LockedObject]
    """By source and URI."""

    @classmethod
    def of(cls, run: Ancestry, fetch: Places) -> "_Side":
        for stage in ("snapshot", "ingest"):
            if stage not in run.stages:
                raise ArtifactError(f"no trusted attestation of its {stage} stage is known")
        lock = read_lock(fetch(run.digests["sources"]))
        return cls(
            lock,
            Ingest.model_validate(run.stages["ingest"].section),
            run.stages["ingest"].version,
            fetch(run.digests["documents"]),
            {source.name: source for source in lock.sources},
            {(source.name, one.uri): one for source in lock.sources for one in source.objects},
        )

    def records(self, label: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Split and record of every document."""
        paths = [(split, path) for split in SPLITS for path in shards(self.documents, split)]
        with progress(label, len(paths), "shards") as shown:
            for split, path in paths:
                for record in read_shard(path):
                    yield split, record
                shown.advance()


def _objects(first: Lock, second: Lock) -> dict[str, Objects]:
    then, now = (
        {source.name: {one.uri: one.sha256 for one in source.objects} for source in lock.sources}
        for lock in (first, second)
    )
    found = {}
    for name in dict.fromkeys((*then, *now)):
        before, after = then.get(name, {}), now.get(name, {})
        objects = Objects(
            tuple(uri for uri in after if uri not in before),
            tuple(uri for uri in before if uri not in after),
            tuple(uri for uri in after if uri in before and before[uri] != after[uri]),
        )
        if objects.added or objects.removed or objects.changed:
            found[name] = objects
    return found


def _documents(first: _Side, second: _Side, sources: dict[str, Objects]) -> Changes:
    reasons: dict[tuple[str, str], Reason] = {}

    def count(kind: str, why: str, record: dict[str, Any]) -> None:
        found = reasons.setdefault((kind, why), Reason(kind, why))
        found.documents += 1
        if len(found.samples) < SAMPLES:
            found.samples.append(Sample(record["id"], record["origin"]))

    known = {bytes.fromhex(record["id"]): _mark(split, record) for split, record in first.records("first")}
    total, both, added = len(known), 0, 0
    for split, record in second.records("second"):
        identity = bytes.fromhex(record["id"])
        mark = known.get(identity)
        if mark is None:
            added += 1
            count("added", why(record, first, second, _ADDED), record)
            continue
        both += 1
        if mark[0] != SPLITS.index(split):
            count("moved", f"from {SPLITS[mark[0]]} to {split}", record)
        elif mark != _mark(split, record):
            count("elsewhere", "an equal document of another object was read first", record)
        known[identity] = b""
    if both < total:
        for _, record in first.records("first again"):
            if known[bytes.fromhex(record["id"])]:
                count("dropped", why(record, second, first, _DROPPED), record)
    order = sorted(reasons.values(), key=lambda one: (one.kind, -one.documents, one.why))
    return Changes(sources, total, both + added, both, tuple(order))


# How a reason reads, seen from the run that has the document and from the one that has it not.
_DROPPED = {
    "source": "its source is no longer there",
    "object": "its object is no longer in the sources",
    "changed": "its object changed",
    "read": "its source is read otherwise",
    "large": "ingest.max_document_bytes drops it",
    "rule": "ingest.{} drops it",
    "version": "ingest {} does not make it of its object",
    "unknown": "for no reason that the recipe gives",
}
_ADDED = {
    "source": "its source is new",
    "object": "its object is new",
    "changed": "its object changed",
    "read": "its source was read otherwise",
    "large": "ingest.max_document_bytes dropped it",
    "rule": "ingest.{} dropped it",
    "version": "ingest {} did not make it of its object",
    "unknown": "for no reason that the recipe gives",
}


def why(record: dict[str, Any], without: _Side, having: _Side, words: Mapping[str, str]) -> str:
    """Why the run `without` has no document that the run `having` has."""
    source = without.sources.get(record["source"])
    if source is None:
        return words["source"]
    name = (record["source"], record["origin"])
    if name not in without.objects:
        return words["object"]
    if name in having.objects and without.objects[name].sha256 != having.objects[name].sha256:
        return words["changed"]
    data = record["text"].encode()
    rule = rule_against(record["text"], data, source.kind, without.section)
    if rule is not None:
        return words["rule"].format(rule)
    if len(data) > without.section.max_document_bytes:
        return words["large"]
    before = having.sources.get(record["source"])
    if before is not None and (before.read, before.text_field) != (source.read, source.text_field):
        return words["read"]
    return words["version"].format(without.version) if without.version != having.version else words["unknown"]


def _mark(split: str, record: dict[str, Any]) -> bytes:
    """Split and origin of a document, in nine bytes."""
    origin = f"{record['source']} {record['origin']}".encode()
    return bytes([SPLITS.index(split)]) + hashlib.blake2b(origin, digest_size=8).digest()
