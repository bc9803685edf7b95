"""Attestations: signed statements of which digests went in, which came out, and how.

The statement is in-toto Statement v1 with the SLSA provenance v1 predicate, in a DSSE envelope signed with ECDSA P-256
(the form that cosign and other verifiers read). The first run makes a local key. A signature proves who said it, never
that it happened; only a replay does that.

References: in-toto/attestation spec v1; slsa.dev/spec/v1.0/provenance; secure-systems-lab/dsse v1.0.
"""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cairn.errors import FULL_DISK, AttestationError, one_line
from cairn.lineage.artifact import canonical
from cairn.lineage.store import Store, records

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:cairn:stage:v1"


@dataclass(frozen=True)
class Resource:
    """Something that went into a stage or came out of it (an in-toto ResourceDescriptor)."""

    name: str
    sha256: str
    uri: str | None = None
    annotations: Mapping[str, Any] | None = None

    def descriptor(self) -> dict[str, Any]:
        """The form it takes in a statement."""
        described: dict[str, Any] = {"name": self.name, "digest": {"sha256": self.sha256}}
        if self.uri is not None:
            described["uri"] = self.uri
        if self.annotations:
            described["annotations"] = dict(self.annotations)
        return described


@dataclass(frozen=True)
class Code:
    """Which code it was."""

    sha256: str
    commit: str | None
    """Of Git; None where there was no checkout."""
    dirty: bool
    """Whether it differed from the commit."""


@dataclass(frozen=True)
class Attestation:
    """A statement whose signature was checked."""

    statement: Mapping[str, Any]
    key_id: str

    @property
    def outputs(self) -> dict[str, str]:
        """Output name to digest."""
        return {subject["name"]: subject["digest"]["sha256"] for subject in self.statement["subject"]}

    @property
    def inputs(self) -> dict[str, str]:
        """Name to digest of everything the stage depended on."""
        return {one["name"]: one["digest"]["sha256"] for one in self._definition["resolvedDependencies"]}

    @property
    def component(self) -> str:
        """Name of the component, which is that of the stage."""
        return str(self._definition["externalParameters"]["component"])

    @property
    def version(self) -> str:
        """Of the component."""
        return str(self._definition["externalParameters"]["version"])

    @property
    def section(self) -> Any:
        """The section of the recipe, defaults filled in."""
        return self._definition["externalParameters"]["section"]

    @property
    def stage_key(self) -> str:
        """What it was made under."""
        return str(self._definition["internalParameters"]["stageKey"])

    @property
    def packages(self) -> dict[str, str]:
        """Versions of the bit-affecting packages."""
        return dict(self._definition["internalParameters"]["packages"])

    @property
    def facts(self) -> dict[str, Any]:
        """What the work said of itself: speed, world size, where it was resumed."""
        return dict(self._definition["internalParameters"]["facts"])

    @property
    def code(self) -> Code:
        """Cairn's own code at the time."""
        said = next(one for one in self._definition["resolvedDependencies"] if one["name"] == "cairn")
        noted = said.get("annotations", {})
        return Code(said["digest"]["sha256"], noted.get("commit"), noted.get("dirty") is not None)

    @property
    def finished(self) -> str:
        """When the stage ended: ISO 8601, UTC."""
        return str(self.statement["predicate"]["runDetails"]["metadata"]["finishedOn"])

    @property
    def _definition(self) -> Any:
        return self.statement["predicate"]["buildDefinition"]


# Keys


def home() -> Path:
    """Where this person's keys lie: `CAIRN_HOME`, else `cairn` in the user's configuration folder."""
    if place := os.environ.get("CAIRN_HOME"):
        return Path(place)
    try:
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "cairn"
    except RuntimeError:  # a container may run as a user that has no home
        raise AttestationError("no home folder to keep the signing key in: name one as CAIRN_HOME") from None


def key_path() -> Path:
    """Where this person's signing key lies, or will."""
    return home() / "signing-key.pem"


def signing_key() -> ec.EllipticCurvePrivateKey:
    """This person's key, made on first use with mode 0600. Raises AttestationError when the file is no such key, or
    none can be made there."""
    path = key_path()
    try:
        if not path.exists():
            _make_key(path)
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        raise AttestationError(
            f"{path}: no signing key can be kept there: {error.strerror}: name another folder as CAIRN_HOME"
        ) from None
    except (ValueError, TypeError) as error:
        raise AttestationError(
            f"{path}: not a private key without a password ({error}): move it away to get a new one"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise AttestationError(f"{path}: is not an ECDSA P-256 key: move it away to get a new one")
    return key


def trusted_keys() -> dict[str, ec.EllipticCurvePublicKey]:
    """Key id to key: this person's own, and every `*.pem` in the `trusted` folder beside it."""
    keys = [signing_key().public_key()]
    for path in sorted((home() / "trusted").glob("*.pem")):
        try:
            key = serialization.load_pem_public_key(path.read_bytes())
        except (OSError, ValueError) as error:
            raise AttestationError(f"{path}: not a public key: {one_line(error)}") from None
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise AttestationError(f"{path}: is not an ECDSA public key")
        keys.append(key)
    return {key_id(key): key for key in keys}


def key_id(key: ec.EllipticCurvePublicKey) -> str:
    """sha256 of the key's DER form (SubjectPublicKeyInfo)."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _make_key(path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(private)
    try:
        os.link(aside, path)
    except FileExistsError:
        return  # another process was first; its key is the key
    finally:
        aside.unlink()
    (path.parent / "signing-key.pub.pem").write_bytes(public)


# Statements


def statement(
    *,
    outputs: Sequence[Resource],
    dependencies: Sequence[Resource],
    parameters: Mapping[str, Any],
    internal: Mapping[str, Any],
    run: Mapping[str, Any],
    builder: Mapping[str, Any],
) -> dict[str, Any]:
    """An in-toto Statement with SLSA provenance.

    Args:
        outputs: the subjects.
        dependencies: inputs, source objects, code and locks.
        parameters: what the person chose: stage, component and recipe section.
        internal: what followed: stage key, environment, facts of the run.
        run: invocation id and times.
        builder: who ran it.
    """
    return {
        "_type": STATEMENT_TYPE,
        "subject": [resource.descriptor() for resource in outputs],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": dict(parameters),
                "internalParameters": dict(internal),
                "resolvedDependencies": [resource.descriptor() for resource in dependencies],
            },
            "runDetails": {"builder": dict(builder), "metadata": dict(run)},
        },
    }


def sign(statement: Mapping[str, Any], key: ec.EllipticCurvePrivateKey) -> bytes:
    """The DSSE envelope of a statement, as JSON."""
    payload = canonical(statement)
    signature = key.sign(_pae(payload), ec.ECDSA(hashes.SHA256()))
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key_id(key.public_key()), "sig": base64.b64encode(signature).decode()}],
    }
    return canonical(envelope)


def verify(envelope: bytes, keys: Mapping[str, ec.EllipticCurvePublicKey]) -> Attestation:
    """The statement in an envelope that one of `keys` signed.

    Raises AttestationError when the envelope is malformed, or no trusted key signed exactly these bytes.
    """
    try:
        parsed = json.loads(envelope)
        payload = base64.b64decode(parsed["payload"], validate=True)
        signatures = [(s["keyid"], base64.b64decode(s["sig"], validate=True)) for s in parsed["signatures"]]
        is_statement = parsed["payloadType"] == PAYLOAD_TYPE
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise AttestationError("not a DSSE envelope") from None
    if not is_statement:
        raise AttestationError("its payload is not an in-toto statement")
    known = [(name, signature) for name, signature in signatures if name in keys]
    if not known:
        raise AttestationError("signed by no trusted key")
    for name, signature in known:
        try:
            keys[name].verify(signature, _pae(payload), ec.ECDSA(hashes.SHA256()))
            return Attestation(json.loads(payload), name)
        except InvalidSignature:
            continue
    raise AttestationError("its signature does not fit its content: it was changed")


def _pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


# In the store


def publish(store: Store, envelope: bytes, subjects: Sequence[str], stage_key: str) -> str:
    """Put an envelope where it is found by the digest of what was made and by stage key; return its id (sha256)."""
    identifier = hashlib.sha256(envelope).hexdigest()
    for digest in subjects:
        store.write(f"attestations/{digest}/{identifier}.json", envelope)
    # Last: whoever finds it under the stage key finds everything else.
    store.write(f"stages/{stage_key}/{identifier}.json", canonical({"subject": subjects[0]}))
    return identifier


def made_under(store: Store, stage_key: str) -> Iterator[tuple[str, bytes]]:
    """Id and envelope of every attestation that was published under a stage key. Signatures are not checked."""
    for name, data in records(store, f"stages/{stage_key}"):
        try:
            subject = json.loads(data)["subject"]
        except (ValueError, KeyError, TypeError):
            raise AttestationError(f"{store}/stages/{stage_key}/{name}: cannot be read: remove it") from None
        envelope = store.read(f"attestations/{subject}/{name}")
        if envelope is not None:
            yield name.removesuffix(".json"), envelope


def made(store: Store, digest: str) -> Iterator[tuple[str, bytes]]:
    """Id and envelope of every attestation that says how the artifact of this digest was made."""
    for name, data in records(store, f"attestations/{digest}"):
        yield name.removesuffix(".json"), data


def maker(store: Store, digest: str) -> Attestation | None:
    """The newest trusted attestation of how the artifact of this digest was made; what nobody trusted signed is passed
    over. None when there is none."""
    envelopes = [envelope for _, envelope in made(store, digest)]
    # Asked for only when needed: the first call makes a key where there is none.
    keys = trusted_keys() if envelopes else {}
    found = []
    for envelope in envelopes:
        try:
            found.append(verify(envelope, keys))
        except AttestationError:
            continue
    runs = [one for one in found if digest in one.outputs.values() and one._definition["buildType"] == BUILD_TYPE]
    return max(runs, key=lambda one: one.finished, default=None)
