"""The signature of a model, for those who have nothing else: what the OpenSSF's `model-signing` reads and writes.

A Sigstore bundle v0.3 around a DSSE envelope; in it an in-toto statement that names every file with its sha256. It is
kept in the store, and beside the model: never inside, because an ECDSA signature is another one each time, and the key
is no part of the recipe. A `model.sig` inside the directory, where others put theirs, is not taken for content.

References: github.com/sigstore/model-transparency, predicate v1.0; sigstore/protobuf-specs, bundle v0.3.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cairn.errors import AttestationError, StoreError
from cairn.lineage.artifact import Artifact, canonical, read_artifact, written_aside
from cairn.lineage.attestation import PAYLOAD_TYPE, pae
from cairn.lineage.signing import Signer, key_id, signer, trusted_keys
from cairn.lineage.statement import STATEMENT_TYPE
from cairn.lineage.store import Store, records

NAME = "model.sig"
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
# What `model_signing` leaves out unless told not to. Files of other names must all be signed.
LEFT_OUT = {NAME, ".git", ".gitattributes", ".github", ".gitignore"}
# All that a bundle with a key may hold.
FIELDS = {
    "mediaType", "verificationMaterial", "publicKey", "hint", "tlogEntries",
    "dsseEnvelope", "payload", "payloadType", "signatures", "sig", "keyid",
}  # fmt: skip
SHOWN = 5  # names of files in a message


def sign_model(artifact: Artifact, name: str, by: Signer) -> bytes:
    """The signature of a model directory, to be written as `model.sig`."""
    members = sorted((m for m in artifact.members if m.path != NAME), key=lambda m: PurePosixPath(m.path))
    said = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": _root([member.sha256 for member in members])}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [NAME],
            },
            "resources": [{"name": m.path, "algorithm": "sha256", "digest": m.sha256} for m in members],
        },
    }
    payload = canonical(said)
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        # The bundle names the key, by its hint; here `model_signing` writes nothing.
        "signatures": [{"sig": base64.b64encode(by.sign(pae(payload))).decode(), "keyid": ""}],
    }
    return canonical(
        {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": hint_of(by.public_key)}, "tlogEntries": []},
            "dsseEnvelope": envelope,
        }
    )


def verify_model(bundle: bytes, artifact: Artifact, keys: Mapping[str, ec.EllipticCurvePublicKey]) -> str:
    """Make sure that one of `keys` signed exactly the files of a model; return that key's id.

    Raises AttestationError when the signature is none, is by no trusted key, or is of other files, which are named.
    """
    payload, name = _opened(bundle, keys)
    signed, left_out = _signed_files(payload)
    there = {member.path: member.sha256 for member in artifact.members if member.path != NAME}
    missing = sorted(signed.keys() - there.keys())
    extra = sorted(path for path in there.keys() - signed.keys() if not left_out & set(_above(path)))
    changed = sorted(path for path in signed.keys() & there.keys() if signed[path] != there[path])
    renamed = []
    for path in list(missing):
        other = next((one for one in extra if there[one] == signed[path]), None)
        if other is not None:
            missing.remove(path)
            extra.remove(other)
            renamed.append(f"{path} to {other}")
    wrong = {"changed": changed, "missing": missing, "renamed": renamed, "not signed": extra}
    if any(wrong.values()):
        told = "; ".join(f"{how}: {_few(names)}" for how, names in wrong.items() if names)
        raise AttestationError(f"the model is not what was signed: {told}")
    return name


def keep_signature(store: Store, artifact: Artifact, name: str) -> bytes:
    """The signature of a model that is in the store: one that a trusted key made, else a new one, which is kept."""
    keys = trusted_keys()
    for _, bundle in records(store, f"signatures/{artifact.digest}"):
        try:
            verify_model(bundle, artifact, keys)
            return bundle
        except AttestationError:
            continue
    by = signer()
    bundle = sign_model(artifact, name, by)
    store.write(f"signatures/{artifact.digest}/{key_id(by.public_key)}.json", bundle)
    return bundle


def sign_outputs(
    names: Iterable[str], made: Mapping[str, str], store: Store, places: Mapping[str, Path] | None = None
) -> None:
    """See to it that the store has the signatures of the outputs that are taken away without it, and that each lies
    beside its output: `model.sig` beside `model`. Also of what was made before: a kill may have come between its
    attestation and this.

    Args:
        made: output name to digest.
        places: where outputs lie; None where there is but the store.

    Raises StoreError when the store holds no pin for one that lies nowhere else.
    """
    for name in names:
        artifact = store.pin(made[name]) or (read_artifact(places[name]) if places else None)
        if artifact is None:
            raise StoreError(f"{store}: holds no pin for {made[name]}, the {name} to be signed")
        bundle = keep_signature(store, artifact, name)
        beside = beside_of(places[name]) if places else None
        if beside is not None and not (beside.is_file() and beside.read_bytes() == bundle):
            with written_aside(beside) as aside:
                aside.write_bytes(bundle)


def beside_of(model: Path) -> Path:
    """Where the signature of the model directory lies: `model.sig` beside `model`."""
    return model.with_name(f"{model.name}.sig")


def is_signed(model: Path, artifact: Artifact, keys: Mapping[str, ec.EllipticCurvePublicKey]) -> bool:
    """Whether the signature that lies beside a model is there, and is of what the model holds. After `dvc checkout` of
    another model it is not: DVC does not know of it."""
    try:
        return bool(verify_model(beside_of(model).read_bytes(), artifact, keys))
    except (OSError, AttestationError):
        return False


def _opened(bundle: bytes, keys: Mapping[str, ec.EllipticCurvePublicKey]) -> tuple[bytes, str]:
    """The signed bytes of a bundle, and the id of the key that signed them."""
    try:
        said = json.loads(bundle, object_pairs_hook=_each_once)
        kind, material, envelope = said["mediaType"], said["verificationMaterial"], said["dsseEnvelope"]
        has_key = "publicKey" in material
        key_hint = material["publicKey"].get("hint") if has_key else ""
        (signed,) = envelope["signatures"]
        payload, signature = _from_base64(envelope["payload"]), _from_base64(signed["sig"])
        is_statement = envelope["payloadType"] == PAYLOAD_TYPE
        fields = {*said, *material, *(material["publicKey"] if has_key else ()), *envelope, *signed}
        idle = material.get("tlogEntries", []) == [] and signed.get("keyid", "") in ("", key_hint)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise AttestationError("not a model signature: it is no Sigstore bundle with a DSSE envelope") from None
    if kind != MEDIA_TYPE or not is_statement:
        raise AttestationError(f"not a model signature that can be read: it has to be {MEDIA_TYPE}")
    if not has_key or key_hint == "":
        raise AttestationError("the model signature names a certificate: only those by a key can be checked here")
    # No signature covers the bundle itself. What does not belong there could be taken for signed.
    if odd := sorted(fields - FIELDS):
        raise AttestationError(f"the model signature was written to: no such bundle holds {odd[0]!r}")
    if not idle:
        raise AttestationError("the model signature was written to: its log entries and keyid have to be empty")
    # Older versions of `model_signing` name no key.
    named = {name: key for name, key in keys.items() if key_hint is None or key_hint == hint_of(key)}
    for name, key in named.items():
        try:
            key.verify(signature, pae(payload), ec.ECDSA(hashes.SHA256()))
            return payload, name
        except InvalidSignature:
            continue
    if named and key_hint is not None:
        raise AttestationError("the model signature does not fit its content: it was changed")
    raise AttestationError("the model is signed by no trusted key")


def _signed_files(payload: bytes) -> tuple[dict[str, str], set[str]]:
    """Path to sha256 of the files that a statement names, and the paths that it leaves out."""
    try:
        said = json.loads(payload)
        kinds = said["_type"], said["predicateType"]
        (subject,) = said["subject"]
        form: Any = said["predicate"]["serialization"]
        method, hash_type = form["method"], form["hash_type"]
        left_out = {str(path) for path in form.get("ignore_paths", ())}
        resources = [(str(one["name"]), one["algorithm"], str(one["digest"])) for one in said["predicate"]["resources"]]
        root = _root([digest for _, _, digest in resources])
        consistent = subject["digest"]["sha256"] == root
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise AttestationError("the statement of the model signature is malformed") from None
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise AttestationError(f"the model signature is of another kind: {kinds[1]!r}, not {PREDICATE_TYPE}")
    if method != "files" or hash_type != "sha256" or any(algorithm != "sha256" for _, algorithm, _ in resources):
        raise AttestationError(
            f"the model signature has {hash_type} of {method}: only sha256 of files can be checked here: sign it anew"
        )
    files = {name: digest for name, _, digest in resources}
    if len(files) != len(resources) or not consistent:
        raise AttestationError("the model signature contradicts itself: its files do not come to its own digest")
    if unsigned := sorted(left_out - LEFT_OUT):
        raise AttestationError(f"the model signature leaves out {_few(unsigned)}: sign all files")
    return files, left_out


def _root(digests: Sequence[str]) -> str:
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Where a name is there twice, programs differ in which value they take."""
    said = dict(pairs)
    if len(said) != len(pairs):
        raise ValueError("a name is there twice")
    return said


def _from_base64(text: str) -> bytes:
    """Raises ValueError where the text is not what a program would write, such as with bits left over."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("not canonical")
    return data


def hint_of(key: ec.EllipticCurvePublicKey) -> str:
    """How a bundle names a key: sha256 of its PEM form."""
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def _above(path: str) -> list[str]:
    """A path and the folders that it is in."""
    return [path, *map(str, PurePosixPath(path).parents)]


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
