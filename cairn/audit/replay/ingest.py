"""Ingest: sampled source objects are read and filtered again, and every document is held against the lock.

Of a sampled object every text that the rules keep must be a document of the artifact, equal in every field, or be there
once as the duplicate of an earlier one; and every document that names the object must have come out of it. Of all
documents, sampled or not: the object that it names is in the lock, its id is the sha256 of its text, and its split is
the one that the id decides. With no limit to the sample the stage is run again whole, overlap of held-out text and all.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from cairn.audit.replay.job import Job, UnavailableError
from cairn.audit.replay.whole import run_again
from cairn.audit.verdicts import Finding
from cairn.errors import ArtifactError, SourceError, StoreError
from cairn.lineage.artifact import Member
from cairn.shards import map_shards
from components.ingest.documents import SPLITS, read_shard, shards_in
from components.ingest.ingest import Unit, members_of, read_unit, split_of, unit_folder
from components.ingest.recipe import Split
from components.ingest.stream import opened
from components.snapshot.lock import Lock, LockedObject, LockedSource, read_lock

ODD = 20  # faults of a shard that are told; the others are counted
FIELDS = {"id", "text", "source", "domain", "licence", "bytes", "origin", "raw"}


@dataclass(frozen=True)
class Object:
    """One object as one source reads it."""

    place: int
    """In the order in which ingest reads them: of equal texts, the first is kept."""
    source: LockedSource
    locked: LockedObject
    member: Member | None
    """Where the store keeps it."""

    @property
    def name(self) -> str:
        """Of the object in this source."""
        return name_of(self.source.name, self.locked.uri)


@dataclass(frozen=True)
class Part:
    """One shard of the artifact to look through."""

    shard: Path
    split: str
    plan: Path
    """`places`, `sampled` and `expected`, as JSON."""
    drawn: Split


def replay(job: Job) -> Finding:
    """Read the sample again and look through all documents."""
    path = job.input("sources")
    lock = read_lock(path)
    objects = list(_objects(job, lock, path))
    sampled = set(job.draw([one.name for one in objects]))
    drawn = [one for one in objects if one.name in sampled]
    documents = job.output("documents")
    try:
        if job.sample.size is None:
            odd = job.compare(run_again(job, {"sources": path}))
            whole = f"the stage was run again over all {len(objects):,} objects"
            return (
                job.other(f"{whole} and made other documents", odd) if odd else job.same(f"{whole}, to the same bytes")
            )
        expected = _read_again(job, drawn)
    except SourceError as error:
        _check_bytes(job, drawn)
        return job.other("ingest refuses what it is said to have read", [str(error)])
    uris = len({one.locked.uri for one in objects})
    what = "objects" if uris == len(objects) else f"readings of {uris:,} objects by their sources"
    said = f"{len(drawn):,} of {len(objects):,} {what} were read again (seed {job.sample.seed}), "
    found = _looked_through(job, documents, objects, drawn, expected, said)
    besides = "the overlap of held-out text was not measured again"
    return replace(found, remains=job.remains(len(objects), what, besides))


def name_of(source: str, uri: str) -> str:
    """How an object is called here: two sources may read the same one, each in its own way."""
    return f"{source} {uri}"


def _objects(job: Job, lock: Lock, path: Path) -> Iterator[Object]:
    try:
        members = members_of(job.store, lock.tree, path)
        place = 0
        for source in lock.sources:
            for locked in source.objects:
                yield Object(place, source, locked, members[locked.path] if locked.path is not None else None)
                place += 1
    except (SourceError, StoreError) as error:
        raise UnavailableError(str(error)) from None
    except KeyError as error:
        raise UnavailableError(f"{error} is not in the tree that the lock file names") from None


def _check_bytes(job: Job, objects: Sequence[Object]) -> None:
    """Raises UnavailableError when an object is gone or damaged: then it is no wonder that it cannot be read."""
    for one in objects:
        try:
            with opened(one.locked, one.member, job.store):
                pass
        except (SourceError, StoreError) as error:
            raise UnavailableError(str(error)) from None


def _read_again(job: Job, objects: Sequence[Object]) -> dict[str, dict[int, str]]:
    """What the rules keep of these objects: for each document id, the objects that it is in and the record's sha256."""
    work = job.scratch / "units"
    units = [
        Unit(index, one.source, ((one.locked, one.member),), job.section, job.store, work)
        for index, one in enumerate(objects)
    ]
    expected: dict[str, dict[int, str]] = {}
    done = map_shards(
        read_unit, units, workers=job.resources.workers, done=job.scratch / "units-done", label="replay ingest"
    )
    for one, unit, _ in zip(objects, units, done, strict=True):
        for shard in shards_in(unit_folder(unit)):
            for record in read_shard(shard):
                record.pop("raw_bytes")
                expected.setdefault(record["id"], {})[one.place] = _digest(record)
    return expected


def _looked_through(
    job: Job,
    documents: Path,
    objects: Sequence[Object],
    drawn: Sequence[Object],
    expected: dict[str, dict[int, str]],
    said: str,
) -> Finding:
    """Hold all documents against the lock, and those of the sample against what came out."""
    plan = job.scratch / "plan.json"
    sampled = [one.place for one in drawn]
    places = {one.name: one.place for one in objects}
    plan.write_bytes(
        orjson.dumps({"places": places, "sampled": sampled, "expected": expected}, option=orjson.OPT_NON_STR_KEYS)
    )
    parts = [Part(shard, split, plan, job.section.split) for split in SPLITS for shard in shards_in(documents / split)]
    results = map_shards(
        look_through, parts, workers=job.resources.workers, done=job.scratch / "parts-done", label="replay documents"
    )
    odd: list[str] = []
    found: dict[str, tuple[int, str]] = {}
    ends: list[tuple[int, int]] = []
    splits: dict[str, Counter[tuple[str, str]]] = {split: Counter() for split in SPLITS}
    sources: Counter[str] = Counter()
    for part, result in zip(parts, results, strict=True):
        odd += result["odd"]
        if result["more"]:
            odd.append(f"{part.split}/{part.shard.name}: and {result['more']} more documents at fault")
        for identity, place, digest in result["found"]:
            if identity in found:
                odd.append(f"document {identity[:12]} is there twice")
            found[identity] = (place, digest)
        ends.append(result["ends"])
        splits[part.split].update({(domain, unit): number for domain, unit, number in result["splits"]})
        sources.update(result["sources"])
    odd += _out_of_order(parts, ends)
    known = {"ledger.json", *(part.shard.relative_to(documents).as_posix() for part in parts)}
    there = {path.relative_to(documents).as_posix() for path in documents.rglob("*") if path.is_file()}
    odd += [f"{path}: is no part of documents" for path in sorted(there - known)]
    names = {one.place: one.name for one in objects}
    odd += _missing(expected, found, names)
    odd += _ledger(documents, splits, sources)
    total = sources.total()
    if odd:
        return job.other(f"{said}and what came out is not what is in the artifact", odd)
    told = (
        f"and the {len(expected):,} documents in them are those of the artifact; all {total:,} documents name an object"
    )
    return job.same(
        f"{said}{told} of the lock, have the sha256 of their text as id, and lie in the split that it decides"
    )


def look_through(part: Part) -> dict[str, Any]:
    """Read one shard of the artifact; what is at fault in it, and which documents of the sample are in it."""
    plan = _plan(part.plan)
    places, sampled, expected = plan["places"], set(plan["sampled"]), plan["expected"]
    odd: list[str] = []
    found: list[tuple[str, int, str]] = []
    splits: Counter[tuple[str, str]] = Counter()
    sources: Counter[str] = Counter()
    more, first, last = 0, -1, -1
    for record in _records(part.shard):
        fault = _fault(record, part, places)
        if fault is None:
            identity, place = record["id"], places[name_of(record["source"], record["origin"])]
            splits[record["domain"], "documents"] += 1
            splits[record["domain"], "bytes"] += record["bytes"]
            sources[record["source"]] += 1
            first = place if first < 0 else first
            if place < last:
                fault = f"document {identity[:12]} stands behind one of an object that comes after its own"
            last = max(last, place)
            if place in sampled and str(place) not in expected.get(identity, {}):
                fault = f"document {identity[:12]} did not come out of {record['origin']}, which it names"
            if identity in expected:
                record.pop("overlap", None)
                found.append((identity, place, _digest(record)))
        if fault is not None:
            more += len(odd) >= ODD
            odd += [f"{part.split}/{part.shard.name}: {fault}"] if len(odd) < ODD else []
    return {
        "odd": odd,
        "more": more,
        "ends": (first, last),
        "found": found,
        "splits": [(domain, unit, number) for (domain, unit), number in splits.items()],
        "sources": dict(sources),
    }


@lru_cache(maxsize=1)  # it names every object of the lock, and a process looks through many shards
def _plan(path: Path) -> dict[str, Any]:
    plan: dict[str, Any] = orjson.loads(path.read_bytes())
    return plan


def _records(shard: Path) -> Iterator[Any]:
    """The records, or None in place of what cannot be read any more."""
    try:
        yield from read_shard(shard)
    except ArtifactError:
        yield None


def _fault(record: Any, part: Part, places: dict[str, int]) -> str | None:
    """What is wrong with a document, whatever object it is from."""
    if not isinstance(record, dict) or not record.keys() >= FIELDS or not isinstance(record["text"], str):
        return "there is something that is no document"
    text = record["text"].encode("utf-8", "surrogatepass")
    identity = hashlib.sha256(text).hexdigest()
    if record["id"] != identity:
        return f"document {str(record['id'])[:12]} has another text than its id says"
    if record["bytes"] != len(text):
        return f"document {identity[:12]} says that it has {record['bytes']} bytes, and has {len(text)}"
    if split_of(identity, part.drawn) != part.split:
        return f"document {identity[:12]} belongs to another split"
    if name_of(record["source"], record["origin"]) not in places:
        return (
            f"document {identity[:12]} names {record['origin']}, which is not in the lock of source {record['source']}"
        )
    return None


def _out_of_order(parts: Sequence[Part], ends: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Shards that are not in the order of the lock, told by their first and last documents."""
    for split in SPLITS:
        last = -1
        for part, (first, until) in zip(parts, ends, strict=True):
            if part.split == split:
                if first < last:
                    yield f"{split}/{part.shard.name}: stands behind documents of objects that come after its own"
                last = max(last, until)


def _missing(
    expected: dict[str, dict[int, str]], found: dict[str, tuple[int, str]], names: dict[int, str]
) -> Iterator[str]:
    """Documents of the sample that are not in the artifact as they should be."""
    for identity, origins in expected.items():
        first = min(origins)
        if identity not in found:
            yield f"document {identity[:12]} of {names[first]} is missing"
            continue
        place, digest = found[identity]
        if place > first:
            yield f"document {identity[:12]} is kept as one of {names[place]}, and is in {names[first]} before"
        elif place in origins and digest != origins[place]:
            yield f"document {identity[:12]} of {names[place]} has other fields than came out"


def _ledger(documents: Path, splits: dict[str, Counter[tuple[str, str]]], sources: Counter[str]) -> Iterator[str]:
    """Where the ledger tells other numbers than the documents."""
    try:
        ledger = orjson.loads((documents / "ledger.json").read_bytes())
        for split, counted in splits.items():
            told = {(domain, unit): row[unit] for domain, row in ledger["splits"][split].items() for unit in row}
            if told != dict(counted):
                yield f"ledger.json tells other numbers of the split {split} than its documents"
        for name, row in ledger["sources"].items():
            if row["kept"]["documents"] != sources[name]:
                yield f"ledger.json tells {row['kept']['documents']} documents of {name}, and there are {sources[name]}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        yield "ledger.json is no ledger"


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(record)).hexdigest()
