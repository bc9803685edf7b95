"""No secret of the environment is in anything that a run leaves, be it done, failed or stopped."""

import base64
import json
from pathlib import Path

import pytest
import zstandard
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cairn.lineage import attestation
from cairn.lineage.artifact import digest_of
from cairn.lineage.signing import key_id
from tests.canary import CANARY, SECRETS, found_in
from tests.components.corpus import Corpus
from tests.pipelines.project import Project


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """A project among secrets."""
    corpus = Corpus(tmp_path / "project")
    corpus.put("a.txt", "what the walker found\n" * 20)
    corpus.write_recipe()
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    return corpus


def test_the_search_finds_a_canary_in_every_form(tmp_path: Path) -> None:
    packed = base64.b64encode(CANARY.encode()).decode()
    (tmp_path / "plain").write_text(f"key={CANARY}")
    (tmp_path / "envelope").write_text(json.dumps({"dsseEnvelope": {"payload": packed}}))
    (tmp_path / CANARY).write_text("")
    (tmp_path / "other").write_text("nothing")
    (tmp_path / "packed").write_bytes(zstandard.compress(CANARY.encode()))
    assert [Path(path).name for path in found_in(tmp_path)] == [CANARY, "envelope", "packed", "plain"]


def test_a_key_in_the_environment_signs_and_is_in_no_file_and_no_message(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    monkeypatch.setenv("CAIRN_SIGNER", "env:KEY_OF_THE_CLUSTER")
    monkeypatch.setenv("KEY_OF_THE_CLUSTER", pem)
    monkeypatch.setenv("CAIRN_DEBUG", "1")
    printed = corpus.door("snapshot") + corpus.door("ingest")
    digest = digest_of(corpus.root / "artifacts" / "documents")
    ((_, envelope),) = attestation.made(corpus.store, digest or "")
    public = key.public_key()
    assert attestation.verify(envelope, {key_id(public): public}).attempts
    # Failures are told, with a traceback: a source that is gone, a damaged key, a key where its place is named.
    corpus.put("b.txt", b"\xff" * 100)
    printed += corpus.door("snapshot", "--refresh") + corpus.door("ingest", code=2)
    for wrong in (pem[:80] + pem[90:], pem.replace("PRIVATE", "PUBLIC")):
        monkeypatch.setenv("KEY_OF_THE_CLUSTER", wrong)
        printed += corpus.door("ingest", code=2)
    for wrong in (pem, f"env:{pem}", f"file:{pem}:"):
        monkeypatch.setenv("CAIRN_SIGNER", wrong)
        printed += corpus.door("ingest", code=2)
    inside = [line for line in pem.splitlines() if line and not line.startswith("-----")]
    assert len(inside) == 3
    words = (CANARY, *inside)
    assert [word for word in words if word in printed] == []
    assert found_in(corpus.root, words=words) == []


def test_no_secret_is_in_anything_that_a_whole_run_leaves(built: Project) -> None:
    printed = (built.root.parent / "printed").read_text()
    assert "pretrain: " in printed
    assert CANARY not in printed
    assert found_in(built.root) == []
    assert len([path for path in (built.root / ".cairn" / "store").rglob("*.json") if path.is_file()]) > 20
