"""What is looked at in an attestation: its envelope, its signature, what it has to say, and whether it can be true.

Nothing here follows a claim any further; `walk` does. A record that is not what it should be is a finding.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from cairn.audit.verdicts import Finding, Verdict
from cairn.errors import AttestationError, StoreError, one_line
from cairn.lineage.attestation import Attestation, open_envelope, verify
from cairn.lineage.store import Store

DIGEST = re.compile("[0-9a-f]{64}")
SLACK = timedelta(minutes=5)
"""By how much the clocks of two machines may differ."""


@dataclass
class Record:
    """One attestation as it lies in the store, and what was found of it."""

    identifier: str
    """Of its file: what its sha256 should be."""
    subject: str
    """The digest under which it lies."""
    findings: list[Finding]
    attested: Attestation | None = None
    """None where no trusted key signed exactly this."""
    strangers: tuple[str, ...] = ()
    """Ids of the keys that signed it, where none of them is trusted and nothing else is wrong with it."""

    @property
    def where(self) -> str:
        """Its place in the store."""
        return f"attestations/{self.subject}/{self.identifier}.json"


def read_record(subject: str, name: str, data: bytes, keys: Mapping[str, ec.EllipticCurvePublicKey]) -> Record:
    """What an envelope is worth: its form, its name, its signature, and whether it speaks of `subject`."""
    where = f"attestations/{subject}/{name}"
    record = Record(name.removesuffix(".json"), subject, [])
    say = record.findings.append
    if sha256(data).hexdigest() != record.identifier:
        say(Finding(Verdict.TAMPERED, f"{where}: its bytes are not those that its name is the sha256 of"))
    try:
        open_envelope(data, keys)
    except AttestationError as error:
        signers = _signers(data)
        if signers and not keys.keys() & set(signers):
            by = ", ".join(signers)
            record.strangers = () if record.findings else tuple(signers)
            say(Finding(Verdict.UNSIGNED, f"{where}: no trusted key signed it", (f"signed by: {by}",)))
        elif signers == []:
            say(Finding(Verdict.UNSIGNED, f"{where}: nobody signed it"))
        else:
            say(Finding(Verdict.TAMPERED, f"{where}: {one_line(error)}"))
        return record
    try:
        attested = verify(data, keys)
    except AttestationError as error:
        say(Finding(Verdict.INCOMPLETE, f"{where}: {one_line(error)}"))
        return record
    if subject not in attested.outputs.values():
        of = tuple(f"it speaks of: {name} {digest}" for name, digest in attested.outputs.items())
        say(Finding(Verdict.TAMPERED, f"{where}: is of something else: it was put here to be taken for another", of))
        return record
    say(Finding(Verdict.ATTESTED, f"signed by the trusted key {attested.key_id[:12]}"))
    record.attested = attested
    lacking = attested.missing()
    if lacking:
        say(Finding(Verdict.INCOMPLETE, f"does not say {_listed(lacking)}", tuple(lacking)))
    return record


def stage_key(attested: Attestation) -> Finding | None:
    """Whether the stage key is that of what the attestation says went in."""
    made = attested.expected_key()
    if made == attested.stage_key:
        return None
    wrong = "its stage key is not that of the component, version, inputs, recipe section and packages that it names"
    return Finding(Verdict.TAMPERED, wrong, (f"says: {attested.stage_key}", f"follows: {made}"))


def signpost(store: Store, record: Record, attested: Attestation) -> list[Finding]:
    """Whether the stage key leads to the attestation, and every output does."""
    found, key = [], f"stages/{attested.stage_key}/{record.identifier}.json"
    try:
        data = store.read(key)
        if data is None:
            found.append(Finding(Verdict.MISSING, f"{key}: no signpost leads from the stage key to the attestation"))
        elif not _leads_to(data, attested.outputs.values()):
            found.append(Finding(Verdict.TAMPERED, f"{key}: does not lead to the attestation"))
    except StoreError as error:
        found.append(Finding(Verdict.MISSING, one_line(error)))
    for name, digest in attested.outputs.items():
        place = f"attestations/{digest}/{record.identifier}.json"
        if digest == record.subject:
            continue
        try:
            data = store.read(place)
        except StoreError as error:
            found.append(Finding(Verdict.MISSING, one_line(error)))
            continue
        if data is None:
            found.append(Finding(Verdict.MISSING, f"{place}: the attestation does not lie under its output {name}"))
        elif sha256(data).hexdigest() != record.identifier:
            found.append(Finding(Verdict.TAMPERED, f"{place}: is not the attestation that its name says"))
    return found


def conflicts(
    store: Store, record: Record, attested: Attestation, keys: Mapping[str, ec.EllipticCurvePublicKey]
) -> list[Finding]:
    """Other trusted attestations under the same stage key that made other bytes."""
    found = []
    folder = f"stages/{attested.stage_key}"
    try:
        names = [name for name in store.list(folder) if name != f"{record.identifier}.json"]
    except StoreError as error:
        return [Finding(Verdict.MISSING, one_line(error))]
    for name in names:
        try:
            post = store.read(f"{folder}/{name}") or b""
            subject = _at(_parsed(post), "subject")
            envelope = store.read(f"attestations/{subject}/{name}") if isinstance(subject, str) else None
            if envelope is None:
                found.append(Finding(Verdict.TAMPERED, f"{folder}/{name}: leads to no attestation"))
                continue
            other = verify(envelope, keys)
        except StoreError as error:
            found.append(Finding(Verdict.MISSING, one_line(error)))
            continue
        except (AttestationError, ValueError):
            continue  # not believed; where it says that it made something that is walked to, that is told there
        if other.stage_key != attested.stage_key or other.outputs == attested.outputs:
            continue
        said = f"{attested.component}: two attestations under one stage key name other outputs"
        found.append(Finding(Verdict.CONFLICT, said, tuple(_apart(record.identifier, attested, name[:-5], other))))
    return found


def times(attested: Attestation, makers: Mapping[str, Sequence[Attestation]], now: datetime) -> list[Finding]:
    """Whether it can have run when it says.

    Args:
        makers: for each input that is an artifact, the trusted attestations that it was made by.
    """
    why = "a clock was set back, or the attestation is not of this run"
    began, ended = moment(attested.started), moment(attested.finished)
    if began is None or ended is None:
        return [Finding(Verdict.INCOMPLETE, "does not say when it ran in a form that can be read", ("metadata",))]
    found = []
    if ended < began:
        found.append(Finding(Verdict.CONFLICT, f"ended ({ended.isoformat()}) before it began: {why}"))
    if ended > now + SLACK:
        found.append(Finding(Verdict.CONFLICT, f"says that it ended at {ended.isoformat()}, which is to come: {why}"))
    if itself := set(attested.inputs.values()) & set(attested.outputs.values()):
        found.append(Finding(Verdict.CONFLICT, "says that it made what it was made from", tuple(sorted(itself))))
    for name, made_by in makers.items():
        ends = [end for one in made_by if (end := moment(one.finished)) is not None]
        if ends and began + SLACK < min(ends):
            said = f"began ({began.isoformat()}) before its input {name} was made ({min(ends).isoformat()}): {why}"
            found.append(Finding(Verdict.CONFLICT, said))
    return found


def attempts(attested: Attestation, strict_code: bool) -> list[Finding]:
    """Whether the launches that it went on from were of the same code, and tell of themselves."""
    found = []
    launches = attested.attempts
    damaged = tuple(f"attempts[{index}]" for index, one in enumerate(launches) if "damaged" in one)
    if damaged:
        found.append(Finding(Verdict.INCOMPLETE, "what an earlier launch wrote of itself could not be read", damaged))
    if launches and launches[-1].get("invocation") != attested.invocation:
        found.append(Finding(Verdict.CONFLICT, "the last of its attempts is not the launch that finished it"))
    codes = dict.fromkeys(str(one["code"]) for one in launches if one.get("code"))
    if codes.keys() - {attested.code.sha256}:
        said = f"{len(launches)} launches worked on it, with different code under one version"
        told = tuple(f"{one.get('started')}: code {one.get('code')}, commit {one.get('commit')}" for one in launches)
        found.append(Finding(Verdict.CONFLICT if strict_code else Verdict.ATTESTED, said, told))
    return found


def moment(said: str) -> datetime | None:
    """A time in an attestation, in UTC; None where it cannot be read."""
    try:
        read = datetime.fromisoformat(said)
    except ValueError:
        return None
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)


def guarded(checks: Iterable[Callable[[], Iterable[Finding] | None]]) -> list[Finding]:
    """The findings of some checks. What is signed may still have another form than ours: then that is the finding."""
    found: list[Finding] = []
    for check in checks:
        try:
            found += check() or ()
        except (KeyError, TypeError, AttributeError, ValueError, IndexError, StopIteration, RecursionError) as error:
            said = f"is not written as an attestation of a stage: {type(error).__name__} {one_line(error)}"
            found.append(Finding(Verdict.INCOMPLETE, said))
    return found


def _apart(first: str, one: Attestation, second: str, other: Attestation) -> Iterable[str]:
    outputs = sorted(one.outputs.keys() | other.outputs.keys())
    for name in outputs:
        yield f"{name}: {one.outputs.get(name)} by {first[:12]}, {other.outputs.get(name)} by {second[:12]}"
    base = "predicate.buildDefinition.internalParameters."
    for what in ("environment.processor.model", "environment.processor.flags", "environment.machine",
                 "environment.arithmetic", "environment.resources", "environment.image", "facts.threads",
                 "facts.world_size"):  # fmt: skip
        values = _at(one.statement, base + what), _at(other.statement, base + what)
        if values[0] != values[1]:
            yield f"{what}: {json.dumps(values[0])} and {json.dumps(values[1])}"
    if one.code.sha256 != other.code.sha256:
        yield f"code: {one.code.sha256} and {other.code.sha256}"


def _leads_to(signpost: bytes, digests: Iterable[str]) -> bool:
    return _at(_parsed(signpost), "subject") in set(digests)


def _signers(envelope: bytes) -> list[str] | None:
    """The key ids that an envelope names; None when it cannot be read."""
    listed = _at(_parsed(envelope), "signatures")
    if not isinstance(listed, list) or not all(isinstance(_at(one, "keyid"), str) for one in listed):
        return None
    return [_at(one, "keyid") for one in listed]


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _at(value: Any, dotted: str) -> Any:
    """What is at a dotted name in nested mappings; None where there is no such thing."""
    for part in dotted.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def _listed(names: Sequence[str]) -> str:
    shown = [name if "[" in name else name.rpartition(".")[2] for name in names]
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")
