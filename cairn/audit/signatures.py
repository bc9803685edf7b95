"""The signature of a model, for those who have nothing else: in the store, beside the model, or inside its folder."""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cairn.audit.verdicts import Edge, Finding, Node, Verdict
from cairn.errors import AttestationError, StoreError, one_line
from cairn.lineage.artifact import Artifact
from cairn.lineage.model_signature import NAME, verify_model
from cairn.lineage.store import Store

FIELDS = frozenset(
    {"mediaType", "verificationMaterial", "dsseEnvelope", "publicKey", "hint", "tlogEntries", "payload", "payloadType",
     "signatures", "sig", "keyid"}
)  # fmt: skip


def of_model(
    model: Node, artifact: Artifact, folders: list[Path], store: Store, keys: Mapping[str, ec.EllipticCurvePublicKey]
) -> Iterator[tuple[Node, Edge]]:
    """Every signature that claims to be of a model, as a node and the edge to it.

    Args:
        artifact: what the model holds.
        folders: where it lies.
    """
    for where, named, bundle in _found(model.digest, folders, store):
        digest = hashlib.sha256(bundle or b"").hexdigest()
        name = f"signature by {named[:12]}" if named else Path(where).name
        node = Node(f"signature:{where}", "signature", name, digest)
        edge = Edge(model.id, node.id, "signed by")
        unread = Finding(Verdict.MISSING, f"{where}: cannot be read")
        found = unread if bundle is None else _judge(bundle, where, named, artifact, keys)
        node.findings.append(found)
        sound = found.verdict is Verdict.ATTESTED
        edge.findings.append(Finding(found.verdict, "every file is signed" if sound else f"{where}: not believed"))
        yield node, edge


def _found(digest: str, folders: list[Path], store: Store) -> Iterator[tuple[str, str | None, bytes | None]]:
    """Where a signature is, the key id in its name, and its bytes."""
    folder = f"signatures/{digest}"
    try:
        for name in store.list(folder):
            yield f"{folder}/{name}", name.removesuffix(".json"), store.read(f"{folder}/{name}")
    except StoreError:
        yield folder, None, None
    for path in folders:
        for place in (path / NAME, path.with_name(f"{path.name}.sig")):
            if place.is_file():
                try:
                    yield str(place), None, place.read_bytes()
                except OSError:
                    yield str(place), None, None


def _judge(
    bundle: bytes, where: str, named: str | None, artifact: Artifact, keys: Mapping[str, ec.EllipticCurvePublicKey]
) -> Finding:
    try:
        key = verify_model(bundle, artifact, keys)
    except AttestationError as error:
        stranger = _hint(bundle) not in {None, *map(_hint_of, keys.values())}
        return Finding(Verdict.UNSIGNED if stranger else Verdict.TAMPERED, f"{where}: {one_line(error)}")
    if named not in (None, key):
        return Finding(Verdict.TAMPERED, f"{where}: is by the key {key[:12]}, not by the one that it is named after")
    if odd := sorted(set(_oddities(json.loads(bundle)))):
        return Finding(Verdict.TAMPERED, f"{where}: was written to: no such bundle holds {odd[0]}", tuple(odd))
    return Finding(Verdict.ATTESTED, f"{where}: all files are signed by the trusted key {key[:12]}")


def _oddities(value: Any) -> Iterator[str]:
    """What the signature does not cover and no program writes: unknown fields, and base64 with bits left over."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name not in FIELDS:
                yield name
            if name in ("payload", "sig") and isinstance(inner, str) and not _is_canonical(inner):
                yield f"{name}: bits that mean nothing"
            yield from _oddities(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _oddities(inner)


def _is_canonical(text: str) -> bool:
    try:
        return base64.b64encode(base64.b64decode(text, validate=True)).decode() == text
    except binascii.Error:
        return False


def _hint(bundle: bytes) -> str | None:
    """What a bundle says of its key; None when it says nothing."""
    try:
        hint = json.loads(bundle)["verificationMaterial"]["publicKey"]["hint"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return hint if isinstance(hint, str) else None


def _hint_of(key: ec.EllipticCurvePublicKey) -> str:
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()
