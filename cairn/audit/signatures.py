"""The signature of a model, for those who have nothing else: in the store, beside the model, or inside its folder."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from cairn.audit.verdicts import Edge, Finding, Node, Verdict
from cairn.errors import AttestationError, StoreError, one_line
from cairn.lineage.artifact import Artifact
from cairn.lineage.model_signature import NAME, beside_of, hint_of, verify_model
from cairn.lineage.store import Store


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
        if found.verdict is Verdict.ATTESTED:  # what is wrong is told of the signature, once
            edge.findings.append(Finding(found.verdict, "every file is signed"))
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
        for place in (path / NAME, beside_of(path)):
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
        hint = _hint(bundle)
        if hint is None or hint in set(map(hint_of, keys.values())):
            return Finding(Verdict.TAMPERED, f"{where}: {one_line(error)}")
        return Finding(Verdict.UNSIGNED, f"{where}: {one_line(error)}", (f"signed by: {named or hint}",))
    if named not in (None, key):
        return Finding(Verdict.TAMPERED, f"{where}: is by the key {key[:12]}, not by the one that it is named after")
    return Finding(Verdict.ATTESTED, f"{where}: all files are signed by the trusted key {key[:12]}")


def _hint(bundle: bytes) -> str | None:
    """What a bundle says of its key; None when it says nothing."""
    try:
        hint = json.loads(bundle)["verificationMaterial"]["publicKey"]["hint"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return hint if isinstance(hint, str) else None
