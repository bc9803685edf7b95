"""Verification of the small records of a store: are they what they are named after, and do they fit each other?

Attestations are named by their sha256 and lie under what they speak of; signposts lead to one of the stage key that
they stand under; run records and pointers name artifacts that were pinned. Who signed is told apart: `trusted`,
`untrusted` (by a key that is not among those given: no fault, somebody else may know it), and changed, which is one.
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from cairn.errors import AttestationError
from cairn.lineage.artifact import parsed
from cairn.lineage.attestation import verify
from cairn.lineage.contents import Contents, Entry, in_parallel
from cairn.lineage.roots import digests_in, pointers, run_records, statement_of
from cairn.lineage.store import Store

Said = tuple[str, str, str]
"""Key of a record, what is wrong with it, and the way out."""
_ATTESTATION = re.compile(r"attestations/([0-9a-f]{64})/([0-9a-f]{64})\.json")
_SIGNPOST = re.compile(r"stages/([0-9a-f]{64})/([0-9a-f]{64})\.json")
BACK = "`cairn store verify --repair --from URL` brings it back from another store, as `cairn store cp --all` does"
_LOST = f"{BACK}; where no store has it, what it said is lost: keep it for whoever asks, aside"
_ASIDE = "move it out of the store: nothing there reads it"
_COPIED = "if it lies under what it speaks of as well, remove it here; else put it there"
_ODD = "ask whoever signed it: no copy can be better, since it is what it is named after; it counts for nothing"


@dataclass
class Records:
    """What was looked at."""

    trusted: int = 0
    untrusted: int = 0
    signposts: int = 0
    runs: int = 0
    models: int = 0
    signatures: int = 0
    faults: list[Said] = field(default_factory=list)


@dataclass(frozen=True)
class _Attested:
    """One attestation, as far as signposts need it."""

    subjects: tuple[str, ...]
    stage_key: str


def verify_records(
    store: Store,
    keys: Mapping[str, ec.EllipticCurvePublicKey],
    digests: Collection[str],
    pinned: Collection[str],
) -> Records:
    """Look at all small records of a store, or at the attestations of some artifacts.

    Args:
        digests: of those artifacts; none is everything.
        pinned: the digests of every artifact that is pinned.
    """
    found, attested = Records(), dict[str, _Attested]()
    folders = [f"attestations/{digest}" for digest in sorted(digests)] or ["attestations"]
    contents = Contents(store.url)

    def look(entry: Entry) -> tuple[Entry, bytes]:
        return entry, store.read(entry.key) or b""

    for folder in folders:
        for entry, envelope in _each(look, contents, folder):
            _look_at_attestation(entry, envelope, keys, found, attested)
    if digests:
        return found
    for entry, data in _each(look, contents, "stages"):
        found.signposts += 1
        if said := _signpost(entry.key, data, attested):
            found.faults.append((entry.key, said, f"{BACK}; without it no stage finds what was made under its key"))
    for key, record in run_records(store).items():
        found.runs += 1
        lost = sorted(_artifacts_of(record) - set(pinned)) if record else []
        if not record:
            found.faults.append((key, "is no record of a run", f"{BACK}; once removed, its run keeps no artifact"))
        elif lost:
            said = f"names what was never pinned: {', '.join(lost)}"
            found.faults.append((key, said, "`--repair --from URL` or `cairn store cp` brings pins"))
    for name, (version, value) in pointers(store).items():
        found.models += 1
        key, named = f"models/{name}/current/{version:08d}", digests_in(value)
        if not named & set(pinned):
            said = f"points to {', '.join(sorted(named)) or 'no artifact'}, which was never pinned here"
            found.faults.append((key, said, f"{BACK}; or publish the model again"))
    for entry, data in _each(look, contents, "signatures"):
        found.signatures += 1
        if not isinstance(parsed(data), dict):
            found.faults.append((entry.key, "is no signature of a model", _LOST))
    return found


def _each(look: Any, contents: Contents, folder: str) -> Iterator[tuple[Entry, bytes]]:
    entries = sorted((one for one in contents.walk(folder) if not one.is_leftover), key=lambda one: one.key)
    yield from in_parallel(look, entries)


def _look_at_attestation(
    entry: Entry,
    envelope: bytes,
    keys: Mapping[str, ec.EllipticCurvePublicKey],
    found: Records,
    attested: dict[str, _Attested],
) -> None:
    named = _ATTESTATION.fullmatch(entry.key)
    if named is None:
        found.faults.append((entry.key, "is not named as an attestation is", _ASIDE))
        return
    digest, identifier = named.groups()
    if hashlib.sha256(envelope).hexdigest() != identifier:
        found.faults.append((entry.key, "changed: it is not the attestation that it is named after", _LOST))
        return
    try:
        statement = statement_of(envelope)
        subjects = tuple(str(one["digest"]["sha256"]) for one in statement["subject"])
        internal = statement["predicate"].get("buildDefinition", {}).get("internalParameters", {})
        signers = {str(one["keyid"]) for one in parsed(envelope)["signatures"]}
    except (AttestationError, KeyError, TypeError, AttributeError) as error:
        why = str(error) if isinstance(error, AttestationError) else "holds no statement of ours"
        found.faults.append((entry.key, why, _ODD))
        return
    if digest not in subjects:
        found.faults.append((entry.key, "speaks of other artifacts than the one that it lies under", _COPIED))
        return
    attested[identifier] = _Attested(subjects, str(internal.get("stageKey", "")))
    if not signers & keys.keys():
        found.untrusted += 1
        return
    try:
        verify(envelope, keys)
    except AttestationError as error:
        found.faults.append((entry.key, str(error), _ODD))
        return
    found.trusted += 1


def _signpost(key: str, data: bytes, attested: Mapping[str, _Attested]) -> str:
    """What is wrong with a signpost; empty when nothing is."""
    named, said = _SIGNPOST.fullmatch(key), parsed(data)
    if named is None or not isinstance(said, dict) or not isinstance(said.get("subject"), str):
        return "is no signpost"
    one = attested.get(named[2])
    if one is None or said["subject"] not in one.subjects:
        return "leads to no attestation that can be read"
    return "" if one.stage_key == named[1] else "leads to an attestation of another stage key"


def _artifacts_of(record: Mapping[str, Any]) -> set[str]:
    """The artifacts that went into a stage and came out, as its run noted them."""
    return {one for part in ("inputs", "outputs") for one in digests_in(record.get(part, {}))}
