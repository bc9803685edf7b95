"""Attestations, checked by programs that know nothing of Cairn and refuse a flipped bit, and read by one that checks no
signature."""

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from google.protobuf.json_format import ParseDict, ParseError
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

from cairn.lineage import attestation
from cairn.lineage.artifact import digest_of
from cairn.lineage.signing import key_id, signer
from tests.components.corpus import Corpus

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def envelope(tmp_path: Path) -> bytes:
    """The attestation of a snapshot, which has dependencies of every kind."""
    corpus = Corpus(tmp_path / "project")
    for name in ("a.txt", "b.md", "ä ö.txt"):
        corpus.put(name, name)
    corpus.snapshot()
    ((_, envelope),) = attestation.made(corpus.store, digest_of(corpus.lock_file) or "")
    return envelope


def flipped(envelope: bytes, field: str, position: int) -> dict[str, Any]:
    """The envelope with one bit of its payload or signature turned over."""
    said: dict[str, Any] = json.loads(envelope)
    holder = said if field == "payload" else said["signatures"][0]
    data = bytearray(base64.b64decode(holder[field]))
    data[position % len(data)] ^= 1
    holder[field] = base64.b64encode(bytes(data)).decode()
    return said


FLIPS = [("payload", 0), ("payload", 777), ("payload", -1), ("sig", 8), ("sig", -1)]


def test_securesystemslib_verifies_the_envelope(envelope: bytes) -> None:
    public = signer().public_key
    key = SSlibKey.from_crypto(public, keyid=key_id(public))
    assert Envelope.from_dict(json.loads(envelope)).verify([key], 1) == {key_id(public): key}
    for field, position in FLIPS:
        with pytest.raises(VerificationError):
            Envelope.from_dict(flipped(envelope, field, position)).verify([key], 1)


def test_in_toto_reads_the_statement_and_the_provenance(envelope: bytes) -> None:
    said = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    message = ParseDict(said, StatementMessage())
    Statement.copy_from_pb(message).validate()
    assert [subject.name for subject in message.subject] == ["sources"]
    provenance = ParseDict(said["predicate"], Provenance())  # refuses a field that SLSA v1 does not have
    definition = provenance.build_definition
    for dependency in definition.resolved_dependencies:
        ResourceDescriptor.copy_from_pb(dependency).validate()
    uris = [dependency.uri for dependency in definition.resolved_dependencies if dependency.uri]
    assert [Path(uri).name for uri in uris] == ["a.txt", "b.md", "ä ö.txt"]
    assert definition.external_parameters["component"] == "snapshot"
    metadata = provenance.run_details.metadata
    assert metadata.finished_on.ToJsonString() == said["predicate"]["runDetails"]["metadata"]["finishedOn"]
    assert metadata.started_on.seconds <= metadata.finished_on.seconds
    assert provenance.run_details.builder.id == "urn:cairn:runner"
    for strange in ({**said["predicate"], "licence": "CC0-1.0"}, {"buildDefinition": {"stageKey": "k"}}):
        with pytest.raises(ParseError):
            ParseDict(strange, Provenance())


def test_openssl_verifies_it_by_the_lines_of_the_documentation(envelope: bytes, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "keys.md").read_text()
    found = re.search(r"```sh\n(# check ATTESTATION PUBLIC-KEY\n.*?)```", text, re.DOTALL)
    assert found
    (tmp_path / "check").write_text(found[1])
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "key.pub").write_bytes(signer().public_key.public_bytes(serialization.Encoding.PEM, form))

    def check(data: bytes) -> tuple[int, str]:
        (tmp_path / "attestation.json").write_bytes(data)
        words = ["sh", "check", "attestation.json", "key.pub"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    assert check(envelope) == (0, "Verified OK\n")
    assert json.loads((tmp_path / "payload").read_bytes())["_type"] == "https://in-toto.io/Statement/v1"
    for field, position in FLIPS:
        changed = json.dumps(flipped(envelope, field, position), separators=(",", ":"), ensure_ascii=False).encode()
        assert check(changed)[0] != 0
