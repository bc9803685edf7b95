"""Documents from source objects: read, normalise, filter, remove duplicates, split, and account for all of it.

Units of objects are read in parallel and kept as they are finished. What follows takes them in the order of the lock
file, so the bytes do not depend on how many workers there were or in which order they were done.
"""

import hashlib
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cairn.errors import SourceError
from cairn.lineage.artifact import Member, readable, remove
from cairn.lineage.store import Store
from cairn.shards import map_shards
from components.ingest.documents import SPLITS, ShardWriter, read_shard, shards_in
from components.ingest.overlap import measure_overlap
from components.ingest.reading import Reader, Refused, Text
from components.ingest.recipe import Ingest, Split
from components.ingest.rules import reason
from components.snapshot.lock import LockedObject, LockedSource, read_lock

UNIT_BYTES = 4_000_000  # of source objects; a unit is what is done again after a kill
WARNINGS = 10  # shown; the ledger counts every drop
# Reasons that no key of the recipe turns off.
NO_KEY = (
    "lone_surrogate", "not_python", "help_topics", "no_text", "not_text", "http_status", "http_encoding", "warc_digest",
)  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """Objects of one source that are read together."""

    index: int
    source: LockedSource
    objects: tuple[tuple[LockedObject, Member | None], ...]
    section: Ingest
    store: Store
    folder: Path


@dataclass
class Count:
    """Documents, and bytes of the raw text, under each heading of the ledger."""

    documents: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)

    def add(self, heading: str, size: int, documents: int = 1) -> None:
        """Count a document, or several."""
        self.documents[heading] += documents
        self.bytes[heading] += size

    def row(self, heading: str) -> dict[str, int]:
        """One line of the ledger."""
        return {"documents": self.documents[heading], "bytes": self.bytes[heading]}


def ingest(section: Ingest, *, sources: Path, documents: Path, store: Store, work: Path, workers: int) -> None:
    """Fill `documents`: three splits of shards, and `ledger.json`.

    Args:
        sources: the lock file. Objects come from the store, or from the store that pins them.
        work: keeps the units that are finished.

    Raises:
        SourceError: an object is missing, damaged or not what the lock says, or nothing was kept.
    """
    lock = read_lock(sources)
    members = members_of(store, lock.tree, sources)
    units = list(_units(lock.sources, members, section, store, work / "units"))
    counts = {source.name: Count() for source in lock.sources}
    warnings: list[str] = []
    for unit, result in zip(
        units, map_shards(read_unit, units, workers=workers, done=work / "done", label="ingest"), strict=True
    ):
        count = counts[unit.source.name]
        for heading, (number, size) in result["count"].items():
            count.add(heading, size, number)
        warnings += result["warnings"]
    _warn(warnings)
    held = work / "held"
    remove(held)
    splits = _deduplicate_and_split(section, units, counts, documents / "train", held)
    if not splits["train"].documents.total():
        raise SourceError(_nothing_kept(counts))
    measure_overlap(documents, held, shard_bytes=section.shard_bytes, work=work / "overlap", workers=workers)
    ledger = _ledger(lock.sources, counts, splits)
    for name, row in ledger["sources"].items():
        print(f"ingest: {name}: {_told(row)}", file=sys.stderr)
    (documents / "ledger.json").write_bytes(readable(ledger))


def read_unit(unit: Unit) -> dict[str, Any]:
    """Read, normalise and filter the objects of a unit. What passes goes to a shard in the work folder."""
    count = Count()
    warnings = []
    unit.folder.mkdir(parents=True, exist_ok=True)
    target = unit_folder(unit)
    remove(target)
    reader = Reader(unit.source, unit.section, unit.store, unit.folder)
    with ShardWriter(target, shard_bytes=1 << 62) as shard:
        for locked, member in unit.objects:
            for found in reader.read(locked, member):
                if isinstance(found, Refused):
                    count.add("in", found.size)
                    count.add(found.reason, found.size)
                    if found.warning:
                        warnings.append(found.warning)
                    continue
                raw = found.text.encode("utf-8", "surrogatepass")
                count.add("in", len(raw))
                record = _document(found, raw, unit, locked, count)
                if record is not None:
                    shard.write(record)
    return {"count": {h: (count.documents[h], count.bytes[h]) for h in count.documents}, "warnings": warnings}


def _document(found: Text, raw: bytes, unit: Unit, locked: LockedObject, count: Count) -> dict[str, Any] | None:
    """The record of a text, or None after its drop was counted."""
    section = unit.section
    text = unicodedata.normalize("NFC", found.text)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        count.add("lone_surrogate", len(raw))
        return None
    dropped = rule_against(text, data, unit.source.kind, section)
    if dropped is not None:
        count.add(dropped, len(raw))
        return None
    return {
        "id": hashlib.sha256(data).hexdigest(),
        "text": text,
        "source": unit.source.name,
        "domain": unit.source.domain,
        "licence": unit.source.licence,
        "bytes": len(data),
        "origin": locked.uri,
        "raw": hashlib.sha256(raw).hexdigest(),
        "raw_bytes": len(raw),
        **({"said": found.said} if found.said else {}),
    }


def rule_against(text: str, data: bytes, kind: str, section: Ingest) -> str | None:
    """The key of the recipe that drops a final text, or None when it is kept.

    Args:
        data: its UTF-8.
        kind: of its source, prose or code.
    """
    if not data or len(data) < (section.min_document_bytes or 0):
        return "min_document_bytes"
    return reason(text, section) if kind == "prose" else None


def _deduplicate_and_split(
    section: Ingest, units: Sequence[Unit], counts: dict[str, Count], train: Path, held: Path
) -> dict[str, Count]:
    """Keep the first document of each id. Those to train on go to their shards, the others aside; counts by domain."""
    seen: set[bytes] = set()
    splits = {split: Count() for split in SPLITS}
    with ExitStack() as opened:
        writers = {
            split: opened.enter_context(ShardWriter(train if split == "train" else held / split, section.shard_bytes))
            for split in SPLITS
        }
        for unit in units:
            count = counts[unit.source.name]
            for path in shards_in(unit_folder(unit)):
                for record in read_shard(path):
                    size = record.pop("raw_bytes")
                    identity = bytes.fromhex(record["id"])
                    if identity in seen:
                        count.add("duplicate", size)
                        continue
                    seen.add(identity)
                    count.add("kept", size)
                    split = split_of(record["id"], section.split)
                    splits[split].add(record["domain"], record["bytes"])
                    writers[split].write(record)
    return splits


def split_of(identity: str, split: Split) -> str:
    """The split of a document: decided by its id and the seed alone."""
    drawn = int.from_bytes(hashlib.sha256(f"{split.seed} {identity}".encode()).digest()[:8], "big") / 2**64
    if drawn < split.heldout:
        return "heldout"
    return "development" if drawn < split.heldout + split.development else "train"


def _ledger(sources: Sequence[LockedSource], counts: dict[str, Count], splits: dict[str, Count]) -> dict[str, Any]:
    """What came in, and what became of it. Bytes of sources are of raw text, bytes of splits of final text."""
    rows = {}
    for source in sources:
        count = counts[source.name]
        reasons = sorted(set(count.documents) - {"in", "kept"})
        for tally in (count.documents, count.bytes):
            if tally["in"] != tally["kept"] + sum(tally[heading] for heading in reasons):
                raise RuntimeError(f"source {source.name}: what came in is not what was kept and dropped: {tally}")
        rows[source.name] = {
            "domain": source.domain,
            "licence": source.licence,
            "objects": len(source.objects),
            "in": count.row("in"),
            "kept": count.row("kept"),
            "dropped": {heading: count.row(heading) for heading in reasons},
        }
    kept = sum(count.documents["kept"] for count in counts.values())
    if kept != sum(count.documents.total() for count in splits.values()):
        raise RuntimeError("the splits together are not what was kept")
    by_split = {
        split: {domain: count.row(domain) for domain in sorted(count.documents)} for split, count in splits.items()
    }
    return {"format": "cairn-documents-v1", "sources": rows, "splits": by_split}


def _told(row: dict[str, Any]) -> str:
    """What became of a source, in one line: a source that quietly came to nothing is the worst thing to miss."""
    came, kept = row["in"], row["kept"]
    dropped = sorted(row["dropped"].items(), key=lambda item: -item[1]["bytes"])[:3]
    told = ", ".join(f"{_size(count['bytes'])} by {reason}" for reason, count in dropped)
    line = f"{kept['documents']:,} of {came['documents']:,} documents kept"
    line += f", {_size(kept['bytes'])} of {_size(came['bytes'])}" + (f"; dropped {told}" if told else "")
    return line if kept["documents"] or not came["documents"] else f"NOTHING is left of it: {line}"


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size:,} bytes"


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings[:WARNINGS]:
        print(f"ingest: {warning}", file=sys.stderr)
    if len(warnings) > WARNINGS:
        print(f"ingest: and {len(warnings) - WARNINGS} more: the ledger counts all", file=sys.stderr)


def _nothing_kept(counts: dict[str, Count]) -> str:
    total, size = Counter[str](), 0
    for count in counts.values():
        total.update(count.documents)
        size += count.bytes["in"]
    came, kept = total.pop("in", 0), total.pop("kept", 0)
    if not size:
        return "the sources hold no text at all: look at snapshot.sources"
    if kept:
        return f"all {kept} documents that were kept are held out: lower ingest.split.heldout, or add text"
    told = ", ".join(f"{number} by {heading}" for heading, number in total.most_common(3))
    keys = [heading for heading in total if heading not in NO_KEY]
    way_out = "loosen these keys of the ingest section" if keys else "look at snapshot.sources"
    return f"none of {came} documents was kept: {told}: {way_out}"


def members_of(store: Store, tree: str | None, sources: Path) -> dict[str, Member]:
    """Where the store keeps each copied object, by its path in the tree. Raises SourceError when it has none of it."""
    if tree is None:
        return {}
    artifact = store.pin(tree)
    if artifact is None:
        raise SourceError(
            f"{sources}: the store {store} does not hold its objects: point CAIRN_STORE to the one that does, or "
            "run `cairn snapshot`"
        )
    return {member.path: member for member in artifact.members}


def _units(
    sources: Sequence[LockedSource], members: dict[str, Member], section: Ingest, store: Store, folder: Path
) -> Iterator[Unit]:
    index = 0
    for source in sources:
        batch: list[tuple[LockedObject, Member | None]] = []
        size = 0
        for number, locked in enumerate(source.objects, 1):
            member = members.get(locked.path) if locked.path is not None else None
            if locked.path is not None and member is None:
                raise SourceError(f"{locked.uri}: is not in the tree that the lock file names: run `cairn snapshot`")
            batch.append((locked, member))
            size += locked.size
            if size >= UNIT_BYTES or number == len(source.objects):
                yield Unit(index, source, tuple(batch), section, store, folder)
                index += 1
                batch, size = [], 0


def unit_folder(unit: Unit) -> Path:
    """Where the records of a unit are kept."""
    return unit.folder / f"{unit.index:06d}"
