"""What an attacker, or an accident, does to a project and its store; and what an audit says of it."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cairn.audit.verdicts import Audit, Edge, Node
from cairn.audit.walk import audit
from cairn.lineage import attestation, signing
from cairn.lineage.artifact import digest_of
from cairn.lineage.store import Store
from pipelines.stages import place
from tests.pipelines.project import Project


def store_of(project: Project) -> Store:
    """The project's store, with its DVC cache."""
    return Store(str(project.root / ".cairn" / "store"), mirrors=(str(project.root / ".dvc" / "cache"),))


def audited(project: Project, said: str = "artifacts/model", **options: Any) -> Audit:
    """An audit of one of the project's artifacts, as `cairn audit` does it there."""
    given = {"store": store_of(project), "keys": signing.trusted_keys(), "root": project.root, **options}
    return audit(str(project.root / said), **given)


def wrong(found: Audit) -> list[str]:
    """Every wrong finding in one line: its verdict, what it is about, what was said, and the details."""
    return [
        " | ".join([finding.verdict.value, _named(holder), finding.said, *finding.details])
        for holder, finding in found.wrong
    ]


def names(found: Audit, verdict: str, *words: str) -> bool:
    """Whether one wrong finding has this verdict and all these words."""
    return any(line.startswith(verdict) and all(word in line for word in words) for line in wrong(found))


def digest(project: Project, artifact: str) -> str:
    """The digest of one of the project's artifacts."""
    found = digest_of(project.root / place(artifact))
    assert found is not None
    return found


def envelope_of(project: Project, artifact: str) -> Path:
    """The file of the attestation of how an artifact was made."""
    (path,) = (project.root / ".cairn/store/attestations" / digest(project, artifact)).glob("*.json")
    return path


def statement_of(project: Project, artifact: str) -> dict[str, Any]:
    """What that attestation says."""
    envelope = json.loads(envelope_of(project, artifact).read_bytes())
    said: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))
    return said


def attest(project: Project, said: dict[str, Any], signer: signing.Signer | None = None) -> str:
    """Sign and publish a statement; the id of the attestation."""
    envelope = attestation.sign(said, signer or signing.signer())
    subjects = [subject["digest"]["sha256"] for subject in said["subject"]]
    key = said["predicate"]["buildDefinition"]["internalParameters"]["stageKey"]
    return attestation.publish(store_of(project), envelope, subjects, key)


def attest_instead(
    project: Project, artifact: str, change: Callable[[dict[str, Any]], None], signer: signing.Signer | None = None
) -> None:
    """Put another attestation in the place of the one that says how an artifact was made."""
    said = statement_of(project, artifact)
    forget(project, artifact)
    change(said)
    attest(project, said, signer)


def forget(project: Project, artifact: str) -> None:
    """Remove the attestation of how an artifact was made, with all that leads to it."""
    name = envelope_of(project, artifact).name
    for path in [*(project.root / ".cairn/store").rglob(name)]:
        path.unlink()


def key_in(folder: Path) -> tuple[signing.KeySigner, Path]:
    """A key of somebody else: what signs with it, and its public half in a file."""
    key = ec.generate_private_key(ec.SECP256R1())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "public.pem"
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(key.public_key().public_bytes(*form))
    return signing.KeySigner(key), path


def write(path: Path, data: bytes) -> None:
    """Write to a file that DVC or somebody else may have made read-only."""
    path.chmod(0o644)
    path.write_bytes(data)


def _named(holder: Node | Edge) -> str:
    return f"{holder.id} {holder.name}" if isinstance(holder, Node) else f"{holder.tail} {holder.head}"
