"""Repair of the small records of a store: each is brought back from another store whose copy of it is sound.

Sound is what an attestation's name (its sha256) and a pointer's own sha256 say. A signpost is sound when it leads to an
attestation that has its stage key; a record of a run and a signature of a model when they have the form of one: nothing
covers their bytes, so the other store is taken at its word. What is sound here is never replaced.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cairn.errors import AttestationError, StoreError
from cairn.lineage.artifact import parsed
from cairn.lineage.roots import digests_in, statement_of
from cairn.lineage.runs import is_record
from cairn.lineage.store import Store

if TYPE_CHECKING:
    from cairn.lineage.verification import Fault

_RECORD = re.compile(r"(attestations|stages|signatures)/[0-9a-f]{64}/[^/]+\.json|runs/[^/]+/[^/]+\.json|models/.+/\d+")


def mended(store: Store, faults: Sequence["Fault"], sources: Sequence[Store]) -> list["Fault"]:
    """The faults again; those of records that a source had, or whose pins it had, are repaired.

    Raises StoreError when a store cannot be reached or written.
    """
    return [fault if fault.repaired else _mend(store, fault, sources) for fault in faults]


def _mend(store: Store, fault: "Fault", sources: Sequence[Store]) -> "Fault":
    if not _RECORD.fullmatch(fault.key):
        return fault
    here = store.read(fault.key)
    if fault.key.startswith("stages/") and here is not None and _is_sound(store, fault.key, here):
        return replace(fault, repaired="the attestation that it leads to was fetched")
    for source in sources:
        data = source.read(fault.key)
        if data is None or not _is_sound(source, fault.key, data):
            continue
        written = _bring(store, source, fault.key, data, here)
        if written:
            return replace(fault, repaired=f"fetched from {source}: {', '.join(written)}")
    return fault


def _bring(store: Store, source: Store, key: str, data: bytes, here: bytes | None) -> list[str]:
    """Write a record, and what it leads to; the keys of what was written."""
    written = []
    kind, _, rest = key.partition("/")
    if kind == "stages":
        subject, name = parsed(data)["subject"], rest.partition("/")[2]
        written += _copy(source, store, f"attestations/{subject}/{name}")
    if kind in ("runs", "models"):
        for digest in sorted(digests_in(parsed(data))):
            written += _copy_pin(source, store, digest)
    if data != here:
        store.write(key, data)
        written.append(key)
    return written


def _copy(source: Store, store: Store, key: str) -> list[str]:
    data = source.read(key)
    if data is None or data == store.read(key) or not _is_sound(source, key, data):
        return []
    store.write(key, data)
    return [key]


def _copy_pin(source: Store, store: Store, digest: str) -> list[str]:
    try:
        artifact = None if store.pin(digest) else source.pin(digest)
    except StoreError:
        return []  # damaged, here or there: a fault of its own
    if artifact is None:
        return []
    store.write_pin(artifact)
    return [f"pins/{digest}.json"]


def _is_sound(source: Store, key: str, data: bytes) -> bool:
    kind, *_, folder, name = key.removesuffix(".json").split("/")
    if kind == "attestations":
        return hashlib.sha256(data).hexdigest() == name and folder in _subjects(data)
    if kind == "stages":
        said = parsed(data)
        subject = said.get("subject") if isinstance(said, dict) else None
        envelope = source.read(f"attestations/{subject}/{name}.json") if isinstance(subject, str) else None
        return (
            envelope is not None
            and _is_sound(source, f"attestations/{subject}/{name}.json", envelope)
            and (folder == _stage_key(envelope))
        )
    if kind == "runs":
        return is_record(data, name)
    if kind == "models":
        try:
            source.value(key.removesuffix(f"/{name}"), int(name))
        except StoreError:
            return False
        return True
    return isinstance(parsed(data), dict)


def _subjects(envelope: bytes) -> list[str]:
    try:
        return [str(one["digest"]["sha256"]) for one in statement_of(envelope)["subject"]]
    except (AttestationError, KeyError, TypeError):
        return []


def _stage_key(envelope: bytes) -> str:
    try:
        return str(statement_of(envelope)["predicate"]["buildDefinition"]["internalParameters"]["stageKey"])
    except (AttestationError, KeyError, TypeError):
        return ""
