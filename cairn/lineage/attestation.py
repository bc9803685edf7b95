"""Attestations: signed statements of which digests went in, which came out, and how.

The statement (`statement.py`) is in a DSSE envelope signed with ECDSA P-256, the form that cosign and other verifiers
read; whose key it is, `signing.py` says. A signature proves who said it, never that it happened; only a replay does
that.

Reference: secure-systems-lab/dsse v1.0.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from cairn.errors import AttestationError
from cairn.lineage.artifact import canonical
from cairn.lineage.signing import Signer, key_id, trusted_keys
from cairn.lineage.statement import Resource, check_form, stage_key
from cairn.lineage.store import Store, records

SHA256 = "[0-9a-f]{64}"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
CODE, DIFFERENCE, LOCK = "code", "difference", "lock"  # kinds of dependencies that are no inputs
BEGINNING = "beginning"  # what is no input either: weights that the section names, by their digest
ENVIRONMENT = ("python", "system", "machine", "processor", "memory", "packages", "resources")
# What there need not be: then a null, or nothing in it, says so.
MAY_BE_NONE = ("accelerators", "driver", "image", "arithmetic")
OF_A_SOURCE = ("licence_evidence", "opt_out")
# What the work of a stage has to say of itself, without which it cannot be run again with the same bits.
FACTS: Mapping[str, tuple[str, ...]] = {"pretrain": ("seed", "world_size", "threads", "mesh")}
# Of the first stages, which look at objects outside the store.
LOOKS_AT_OBJECTS = ("snapshot", "ingest")


@dataclass(frozen=True)
class Code:
    """Which code it was."""

    sha256: str
    commit: str | None
    """Of Git; None where there was no checkout."""
    dirty: bool
    """Whether it differed from the commit."""
    difference: str | None = None
    """Digest of what it differed by, a patch that the store keeps."""


@dataclass(frozen=True)
class Attestation:
    """A statement whose signature and form were checked.

    What a statement does not say is empty here; `missing` names it.
    """

    statement: Mapping[str, Any]
    key_id: str

    @property
    def outputs(self) -> dict[str, str]:
        """Output name to digest."""
        return {subject["name"]: subject["digest"]["sha256"] for subject in self.statement["subject"]}

    @property
    def addresses(self) -> dict[str, str]:
        """Output name to its address in DVC's layout, which a digest does not prove; of those that it says."""
        said = {one["name"]: (one.get("annotations") or {}).get("md5") for one in self.statement["subject"]}
        return {name: md5 for name, md5 in said.items() if md5 is not None}

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Name to digest of the artifacts that the stage was run on."""
        return {one["name"]: one["digest"]["sha256"] for one in self._dependencies if _kind(one) == ""}

    @cached_property
    def beginnings(self) -> dict[str, str]:
        """Name to digest of the artifacts whose weights training began with. The section names them by digest."""
        return {one["name"]: one["digest"]["sha256"] for one in self._dependencies if _kind(one) == BEGINNING}

    @cached_property
    def given(self) -> dict[str, str]:
        """Digest to path of those beginnings that were given from outside: no attestation that was believed told, when
        training began, what made them."""
        said = ((one, one.get("annotations") or {}) for one in self._dependencies if _kind(one) == BEGINNING)
        return {one["digest"]["sha256"]: str(noted.get("path")) for one, noted in said if noted.get("given") is True}

    @cached_property
    def objects(self) -> tuple[Resource, ...]:
        """The source objects that the stage read, with what is known of each: size, the path in the tree of copied
        objects or the version in its own store, and under `sources` what was said of each source that it belongs to:
        name, licence, licence_evidence, opt_out."""
        said = self._internal.get("sources") or {}
        found = []
        for one in self._dependencies:
            if _kind(one) != "object":
                continue
            noted = dict(one.get("annotations") or {})
            noted["sources"] = [{"name": name, **(said.get(name) or {})} for name in noted.get("sources", ())]
            found.append(Resource(None, one["digest"]["sha256"], one["uri"], noted))
        return tuple(found)

    @cached_property
    def locks(self) -> dict[str, str]:
        """Name to digest of the locks of requirements, which the store keeps."""
        return {one["name"]: one["digest"]["sha256"] for one in self._dependencies if _kind(one) == LOCK}

    @cached_property
    def code(self) -> Code:
        """Cairn's own code at the time."""
        digest, noted = next(iter(self._digests(CODE)), ""), self._said_of_code
        dirty = noted.get("dirty")
        return Code(digest, noted.get("commit"), dirty is not None, dirty)

    @property
    def component(self) -> str:
        """Name of the component, which is that of the stage."""
        return str(self._definition["externalParameters"]["component"])

    @property
    def version(self) -> str:
        """Of the component."""
        return str(self._definition["externalParameters"].get("version") or "")

    @property
    def section(self) -> Any:
        """The section of the recipe, defaults filled in."""
        return self._definition["externalParameters"].get("section")

    @property
    def stage_key(self) -> str:
        """What it was made under."""
        return str(self._internal["stageKey"])

    @property
    def packages(self) -> dict[str, str]:
        """Versions of the bit-affecting packages."""
        return dict(self._internal.get("packages") or {})

    @property
    def environment(self) -> dict[str, Any]:
        """Interpreter, hardware, image, all packages, settings that steer arithmetic."""
        return dict(self._internal.get("environment") or {})

    @property
    def facts(self) -> dict[str, Any]:
        """What the work said of itself: speed, world size, where it was resumed."""
        return dict(self._internal.get("facts") or {})

    @property
    def attempts(self) -> tuple[Mapping[str, Any], ...]:
        """Every launch that worked on it, the oldest first; the last is the one that finished it."""
        return tuple(self._internal.get("attempts") or ())

    @property
    def invocation(self) -> str:
        """The id of the launch that finished it."""
        return str(self._metadata.get("invocationId") or "")

    @property
    def started(self) -> str:
        """When that launch began: ISO 8601, UTC."""
        return str(self._metadata.get("startedOn") or "")

    @property
    def finished(self) -> str:
        """When the stage ended: ISO 8601, UTC."""
        return str(self._metadata.get("finishedOn") or "")

    def expected_key(self) -> str:
        """The stage key that follows from what was signed. Another than `stage_key` shows that the section, an input or
        a version was edited by whoever signed it."""
        looked_at = {one.uri or "": one.sha256 for one in self.objects}
        return stage_key(self.component, self.version, self.inputs or looked_at, self.section, self.packages)

    def missing(self) -> list[str]:
        """Dotted names of what it does not say and should.

        A commit, an image, evidence for a licence and an opt-out need not be there, and a statement that says so lacks
        nothing: what follows from that is for its reader to judge. Locks are not asked for, because installed code
        has none beside it and all packages are named.
        """
        internal, environment, facts = self._internal, self.environment, self.facts
        needed: dict[str, Any] = {
            "version": self.version,
            "section": self.section is not None,
            "stageKey": self.stage_key,
            "packages": internal.get("packages") is not None,
            **{f"environment.{name}": environment.get(name) for name in ENVIRONMENT},
            **{f"facts.{name}": facts.get(name) not in (None, "", {}) for name in FACTS.get(self.component, ())},
            "attempts": self.attempts,
            **{f"environment.{name}": name in environment for name in MAY_BE_NONE},
            "code": self.code.sha256,
            **{f"code.{name}": name in self._said_of_code for name in ("commit", "dirty")},
            "invocationId": self.invocation,
            "startedOn": self.started,
            "finishedOn": self.finished,
        }
        if self.code.difference is not None:
            needed["difference"] = self.code.difference in self._digests(DIFFERENCE)
        if self.component in LOOKS_AT_OBJECTS:
            needed["objects"] = self.objects
        if self.component != "snapshot":
            needed["inputs"] = self.inputs
        found = [name for name, said in needed.items() if not said]
        for one in self.objects:
            noted = one.annotations or {}
            absent = [] if isinstance(noted.get("size"), int) else ["size"]
            absent += [] if noted.get("path") or noted.get("version") else ["path"]
            sources = noted["sources"]
            absent += [] if sources and all(source.get("licence") for source in sources) else ["licence"]
            absent += [name for name in OF_A_SOURCE if any(name not in source for source in sources)]
            found += [f"objects[{one.uri}].{name}" for name in absent]
        return found

    @property
    def _said_of_code(self) -> Mapping[str, Any]:
        said: Mapping[str, Any] = next((one for one in self._dependencies if _kind(one) == CODE), {})
        return said.get("annotations") or {}

    def _digests(self, kind: str) -> list[str]:
        """Of the dependencies of a kind."""
        return [one["digest"]["sha256"] for one in self._dependencies if _kind(one) == kind]

    @property
    def _definition(self) -> Any:
        return self.statement["predicate"]["buildDefinition"]

    @property
    def _internal(self) -> Any:
        return self._definition["internalParameters"]

    @property
    def _dependencies(self) -> Any:
        return self._definition["resolvedDependencies"]

    @property
    def _metadata(self) -> Any:
        return self.statement["predicate"]["runDetails"].get("metadata") or {}


def _kind(dependency: Mapping[str, Any]) -> str:
    """What a dependency is: nothing for an input."""
    if dependency.get("name") is None:
        return "object"
    return str((dependency.get("annotations") or {}).get("kind") or "")


def sign(statement: Mapping[str, Any], signer: Signer) -> bytes:
    """The DSSE envelope of a statement, as JSON."""
    payload = canonical(statement)
    signature = signer.sign(pae(payload))
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key_id(signer.public_key), "sig": base64.b64encode(signature).decode()}],
    }
    return canonical(envelope)


def verify(envelope: bytes, keys: Mapping[str, ec.EllipticCurvePublicKey]) -> Attestation:
    """The statement in an envelope that one of `keys` signed.

    Raises AttestationError when the envelope or the statement is malformed, or no trusted key signed exactly these
    bytes.
    """
    payload, name = open_envelope(envelope, keys)
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError):
        raise AttestationError("its statement is malformed: it is no JSON") from None
    check_form(said)
    return Attestation(said, name)


def open_envelope(envelope: bytes, keys: Mapping[str, ec.EllipticCurvePublicKey]) -> tuple[bytes, str]:
    """The payload of a DSSE envelope that one of `keys` signed, and that key's id.

    Raises AttestationError when the envelope is malformed, or no trusted key signed exactly these bytes.
    """
    try:
        parsed = json.loads(envelope)
        payload = base64.b64decode(parsed["payload"], validate=True)
        signatures = [(str(s["keyid"]), base64.b64decode(s["sig"], validate=True)) for s in parsed["signatures"]]
        is_statement = parsed["payloadType"] == PAYLOAD_TYPE
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        raise AttestationError("not a DSSE envelope") from None
    if not is_statement:
        raise AttestationError("its payload is not an in-toto statement")
    known = [(name, signature) for name, signature in signatures if name in keys]
    if not known:
        raise AttestationError("signed by no trusted key")
    for name, signature in known:
        try:
            keys[name].verify(signature, pae(payload), ec.ECDSA(hashes.SHA256()))
            return payload, name
        except InvalidSignature:
            continue
    raise AttestationError("its signature does not fit its content: it was changed")


def pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


# In the store


def publish(store: Store, envelope: bytes, subjects: Sequence[str], stage_key: str) -> str:
    """Put an envelope where it is found by the digest of what was made and by stage key; return its id (sha256)."""
    identifier = hashlib.sha256(envelope).hexdigest()
    for digest in subjects:
        store.write(f"attestations/{digest}/{identifier}.json", envelope)
    # Last: whoever finds it under the stage key finds everything else.
    store.write(_signpost(stage_key, identifier), canonical({"subject": subjects[0]}))
    return identifier


def finish_publishing(store: Store, digests: Iterable[str], keys: Mapping[str, ec.EllipticCurvePublicKey]) -> None:
    """Publish to the end what a kill cut short: what was made again has the same digests, and an audit would miss the
    signpost of the attestation from before."""
    for digest in digests:
        for identifier, said in believed(store, digest, keys):
            if said is None or not re.fullmatch(SHA256, said.stage_key):
                continue
            envelope = store.read(f"attestations/{digest}/{identifier}.json")
            if envelope is not None and store.read(_signpost(said.stage_key, identifier)) is None:
                publish(store, envelope, list(said.outputs.values()), said.stage_key)


def made_under(store: Store, stage_key: str) -> Iterator[tuple[str, bytes]]:
    """Id and envelope of every attestation that was published under a stage key. Signatures are not checked."""
    for name, data in records(store, f"stages/{stage_key}"):
        try:
            subject = json.loads(data)["subject"]
            if not re.fullmatch(SHA256, subject):  # it is made part of a path
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise AttestationError(f"{store}/stages/{stage_key}/{name}: cannot be read: remove it") from None
        envelope = store.read(f"attestations/{subject}/{name}")
        if envelope is not None:
            yield name.removesuffix(".json"), envelope


def made(store: Store, digest: str) -> Iterator[tuple[str, bytes]]:
    """Id and envelope of every attestation that says how the artifact of this digest was made."""
    for name, data in records(store, f"attestations/{digest}"):
        yield name.removesuffix(".json"), data


def _signpost(stage_key: str, identifier: str) -> str:
    return f"stages/{stage_key}/{identifier}.json"


def believed(
    store: Store, digest: str, keys: Mapping[str, ec.EllipticCurvePublicKey]
) -> Iterator[tuple[str, Attestation | None]]:
    """Id and content of every attestation of how the artifact of this digest was made. None stands for what is not
    believed: nobody in `keys` signed it, it is of something else, or its name is not the sha256 of its bytes (two under
    one id would hide each other)."""
    for identifier, envelope in made(store, digest):
        try:
            said = verify(envelope, keys)
        except AttestationError:
            yield identifier, None
            continue
        sound = digest in said.outputs.values() and hashlib.sha256(envelope).hexdigest() == identifier
        yield identifier, said if sound else None


def maker(store: Store, digest: str, keys: Mapping[str, ec.EllipticCurvePublicKey] | None = None) -> Attestation | None:
    """The newest believed attestation of how the artifact of this digest was made; None when there is none.

    Args:
        keys: those that are trusted; None is those of this machine.
    """
    # A signer may be a program, which takes its time: it is asked for its key only where there is something to check.
    if keys is None and not store.list(f"attestations/{digest}"):
        return None
    runs = (said for _, said in believed(store, digest, trusted_keys() if keys is None else keys))
    return max(filter(None, runs), key=lambda one: one.finished, default=None)
