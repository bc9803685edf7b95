"""Snapshot: what the lock says of its objects, held against what is upstream today.

What is upstream may have changed since, or gone: that is why it was copied, and no fault. But an object that its own
store keeps under a version cannot have other bytes today.
"""

import hashlib
from collections.abc import Iterator
from typing import BinaryIO

from cairn.audit.replay.job import Job
from cairn.audit.verdicts import Finding, Verdict
from cairn.errors import SourceError
from cairn.lineage.artifact import CHUNK
from cairn.lineage.graph import dependencies
from components.snapshot.lock import Lock, LockedObject, LockedSource, read_lock
from components.snapshot.objects import Found, find, open_version
from components.snapshot.recipe import Source


def replay(job: Job) -> Finding:
    """Read the sampled objects where they came from."""
    lock = read_lock(job.output("sources"))
    objects = lock.objects()
    attested = {one.name: one.digest for one in dependencies(job.attested) if one.kind == "object"}
    odd = [
        f"{uri}: the lock says {locked.sha256[:12]}, the attestation {said[:12]}"
        for uri, locked in objects.items()
        if (said := attested.get(uri, locked.sha256)) != locked.sha256
    ]
    drawn = [objects[uri] for uri in job.draw(sorted(objects))]
    upstream = dict(_upstream(lock, {locked.uri for locked in drawn if locked.version is None}))
    gone, changed = [], []
    for locked in drawn:
        digest = _digest(locked, upstream.get(locked.uri))
        if digest is None:
            gone.append(locked.uri)
        elif digest != locked.sha256 and locked.version is not None:
            odd.append(f"{locked.uri}: its store keeps other bytes under version {locked.version}")
        elif digest != locked.sha256:
            changed.append(locked.uri)
    said = f"{len(drawn):,} of {len(objects):,} objects were looked for upstream (seed {job.sample.seed})"
    if odd:
        return job.wrong(said, odd)
    if not gone and not changed:
        return Finding(Verdict.REPRODUCED, f"{said}: the same bytes", (), job.remains(len(objects), "objects"))
    same = len(drawn) - len(gone) - len(changed)
    told = f"{said}: {same:,} are the same, {len(changed):,} changed since, {len(gone):,} are gone; that is no fault"
    shown = [f"changed: {uri}" for uri in changed[:3]] + [f"gone: {uri}" for uri in gone[:3]]
    return Finding(Verdict.ATTESTED, told, tuple(shown))


def _upstream(lock: Lock, wanted: set[str]) -> Iterator[tuple[str, Found]]:
    """What is there today of the wanted objects, by URI."""
    for source in lock.sources:
        if any(one.uri in wanted for one in source.objects):
            try:
                yield from ((one.uri, one) for one in find(_source(source), source.name) if one.uri in wanted)
            except SourceError:
                continue  # nothing is there any more, which is told of its objects


def _source(locked: LockedSource) -> Source:
    return Source.model_validate(locked.model_dump(exclude={"objects"}))


def _digest(locked: LockedObject, found: Found | None) -> str | None:
    """The sha256 of the object as it is upstream; None when it is not to be had."""
    try:
        if locked.version is not None:
            return _sha256(open_version(locked.uri, locked.version))
        return None if found is None else _sha256(found.filesystem.open(found.path, "rb"))
    except Exception:
        # File systems raise what their libraries do. What cannot be read is gone, for whoever asks from here.
        return None


def _sha256(stream: BinaryIO) -> str:
    sha256 = hashlib.sha256()
    with stream:
        while chunk := stream.read(CHUNK):
            sha256.update(chunk)
    return sha256.hexdigest()
