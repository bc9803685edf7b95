"""What is looked at in an attestation: its envelope, its signature, what it has to say, and whether it can be true.

Nothing here follows a claim any further; `walk` does. A record that is not what it should be is a finding.
"""

import base64
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
from cairn.lineage.attestation import BUILD_TYPE, Attestation, verify
from cairn.lineage.stage import Component
from cairn.lineage.store import Store, identity
from pipelines.stages import NAMES

SLACK = timedelta(minutes=5)
"""By how much the clocks of two machines may differ."""
CODE, LOCKS, DIFFERENCE = "cairn", re.compile(r"requirements.*\.lock"), re.compile(r"cairn\.(diff|patch)")
REQUIRED = (
    "subject",
    "predicate.buildDefinition.buildType",
    "predicate.buildDefinition.externalParameters.component",
    "predicate.buildDefinition.externalParameters.version",
    "predicate.buildDefinition.externalParameters.section",
    "predicate.buildDefinition.internalParameters.stageKey",
    "predicate.buildDefinition.internalParameters.packages",
    "predicate.buildDefinition.internalParameters.environment.python",
    "predicate.buildDefinition.internalParameters.environment.machine",
    "predicate.buildDefinition.internalParameters.environment.processor.model",
    "predicate.buildDefinition.internalParameters.facts",
    "predicate.buildDefinition.resolvedDependencies",
    "predicate.runDetails.builder.id",
    "predicate.runDetails.metadata.invocationId",
    "predicate.runDetails.metadata.startedOn",
    "predicate.runDetails.metadata.finishedOn",
)
FACTS = {"pretrain": ("seed", "world_size", "threads", "precision", "step"), "snapshot": ("tree",)}


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

    @property
    def is_sound(self) -> bool:
        """Whether it is trusted and says all that a walk needs."""
        return self.attested is not None and not missing(self.attested)


def read_record(subject: str, name: str, data: bytes, keys: Mapping[str, ec.EllipticCurvePublicKey]) -> Record:
    """What an envelope is worth: its form, its name, its signature, and whether it speaks of `subject`."""
    where = f"attestations/{subject}/{name}"
    record = Record(name.removesuffix(".json"), subject, [])
    say = record.findings.append
    if sha256(data).hexdigest() != record.identifier:
        say(Finding(Verdict.TAMPERED, f"{where}: its bytes are not those that its name is the sha256 of"))
    try:
        envelope = json.loads(data)
        signers = [str(one["keyid"]) for one in envelope["signatures"]]
        base64.b64decode(envelope["payload"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError):
        say(Finding(Verdict.TAMPERED, f"{where}: is no envelope that can be read"))
        return record
    try:
        attested = verify(data, keys)
        if not isinstance(attested.statement, dict):
            raise AttestationError("holds no statement")
    except (AttestationError, ValueError, RecursionError) as error:
        if not keys.keys() & set(signers):
            by = ", ".join(signers) or "nobody"
            say(Finding(Verdict.UNSIGNED, f"{where}: no trusted key signed it", (f"signed by: {by}",)))
        else:
            say(Finding(Verdict.TAMPERED, f"{where}: {one_line(error)}"))
        return record
    said = Finding(Verdict.ATTESTED, f"signed by the trusted key {attested.key_id[:12]}")
    if subject not in subjects(attested).values():
        of = tuple(f"it speaks of: {name} {digest}" for name, digest in subjects(attested).items())
        say(Finding(Verdict.TAMPERED, f"{where}: is of something else: it was put here to be taken for another", of))
        return record
    say(said)
    record.attested = attested
    lacking = missing(attested)
    if lacking:
        say(Finding(Verdict.INCOMPLETE, f"does not say {_listed(lacking)}", tuple(lacking)))
    return record


def missing(attested: Attestation) -> list[str]:
    """Dotted names of what an attestation has to say and does not."""
    lacking = [name for name in REQUIRED if _at(attested.statement, name) in (None, "", [])]
    component = _at(attested.statement, "predicate.buildDefinition.externalParameters.component")
    facts = _at(attested.statement, "predicate.buildDefinition.internalParameters.facts")
    wanted = FACTS.get(component, ()) if isinstance(component, str) else ()
    lacking += [f"facts.{name}" for name in wanted if not isinstance(facts, dict) or name not in facts]
    named = [one.get("name") for one in dependencies(attested)]
    if CODE not in named:
        lacking.append(f"resolvedDependencies.{CODE}")
    return lacking


def subjects(attested: Attestation) -> dict[str, str]:
    """Output name to digest, as far as it is written in the form that a statement has."""
    found = {}
    listed = attested.statement.get("subject")
    for one in listed if isinstance(listed, list) else []:
        digest = _at(one, "digest.sha256")
        if isinstance(digest, str):
            found[str(one.get("name"))] = digest
    return found


def dependencies(attested: Attestation) -> list[dict[str, Any]]:
    """Everything that a stage says it depended on and that has a digest."""
    listed = _at(attested.statement, "predicate.buildDefinition.resolvedDependencies")
    listed = listed if isinstance(listed, list) else []
    return [one for one in listed if isinstance(_at(one, "digest.sha256"), str) and isinstance(one.get("name"), str)]


def is_surrounding(name: str) -> bool:
    """Whether a dependency is code or a lock of packages: no part of the stage key."""
    return name == CODE or bool(LOCKS.fullmatch(name) or DIFFERENCE.fullmatch(name))


def inputs(attested: Attestation) -> dict[str, str]:
    """Name to digest of what the stage key was made from: artifacts, or in a snapshot the objects by their URI."""
    named = {str(one["name"]): str(one["digest"]["sha256"]) for one in dependencies(attested)}
    if attested.component in NAMES and attested.component != "snapshot":
        declared = Component.of(f"components.{attested.component}").inputs
        if set(declared) <= named.keys():
            return {name: named[name] for name in declared}
    return {name: digest for name, digest in named.items() if not is_surrounding(name)}


def stage_key(attested: Attestation) -> Finding | None:
    """Whether the stage key is that of what the attestation says went in."""
    made = identity(
        {
            "component": attested.component,
            "version": attested.version,
            "inputs": inputs(attested),
            "section": attested.section,
            "packages": attested.packages,
        }
    )
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
        elif not _leads_to(data, subjects(attested).values()):
            found.append(Finding(Verdict.TAMPERED, f"{key}: does not lead to the attestation"))
    except StoreError as error:
        found.append(Finding(Verdict.MISSING, one_line(error)))
    for name, digest in subjects(attested).items():
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
        if missing(other) or other.stage_key != attested.stage_key or subjects(other) == subjects(attested):
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
    began, ended = moment(attested, "startedOn"), moment(attested, "finishedOn")
    if began is None or ended is None:
        return [Finding(Verdict.INCOMPLETE, "does not say when it ran in a form that can be read", ("metadata",))]
    found = []
    if ended < began:
        found.append(Finding(Verdict.CONFLICT, f"ended ({ended.isoformat()}) before it began: {why}"))
    if ended > now + SLACK:
        found.append(Finding(Verdict.CONFLICT, f"says that it ended at {ended.isoformat()}, which is to come: {why}"))
    for name, made_by in makers.items():
        ends = [end for one in made_by if (end := moment(one, "finishedOn")) is not None]
        if ends and began + SLACK < min(ends):
            said = f"began ({began.isoformat()}) before its input {name} was made ({min(ends).isoformat()}): {why}"
            found.append(Finding(Verdict.CONFLICT, said))
    return found


def attempts(attested: Attestation) -> list[Finding]:
    """Whether the runs that it went on from were of the same code."""
    facts = attested.facts
    tried = facts.get("attempts") if isinstance(facts, dict) else None
    codes = {str(one["code"]) for one in tried or () if isinstance(one, dict) and one.get("code")}
    if len(codes | {attested.code.sha256}) < 2:
        return []
    said = "it was interrupted, and went on with other code: no one code made this"
    return [Finding(Verdict.CONFLICT, said, tuple(sorted(codes | {attested.code.sha256})))]


def moment(attested: Attestation, name: str) -> datetime | None:
    """A time that it tells, in UTC; None where it cannot be read."""
    try:
        read = datetime.fromisoformat(str(_at(attested.statement, f"predicate.runDetails.metadata.{name}")))
    except ValueError:
        return None
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)


def guarded(checks: Iterable[Callable[[], Iterable[Finding] | None]]) -> list[Finding]:
    """The findings of some checks. What is signed may still have another form than ours: then that is the finding."""
    found: list[Finding] = []
    for check in checks:
        try:
            found += check() or ()
        except (KeyError, TypeError, AttributeError, ValueError, IndexError, StopIteration) as error:
            said = f"is not written as an attestation of a stage: {type(error).__name__} {one_line(error)}"
            found.append(Finding(Verdict.INCOMPLETE, said))
    return found


def is_stage(attested: Attestation) -> bool:
    """Whether it is of a run of a stage."""
    return bool(_at(attested.statement, "predicate.buildDefinition.buildType") == BUILD_TYPE)


def _apart(first: str, one: Attestation, second: str, other: Attestation) -> Iterable[str]:
    outputs = sorted(subjects(one).keys() | subjects(other).keys())
    for name in outputs:
        yield f"{name}: {subjects(one).get(name)} by {first[:12]}, {subjects(other).get(name)} by {second[:12]}"
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
    shown = [name.rpartition(".")[2] for name in names]
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")
