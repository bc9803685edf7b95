"""The signature of a model: the OpenSSF's tool takes ours, we take theirs, and files that were not signed are named."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_signing
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cairn.errors import AttestationError
from cairn.lineage.artifact import read_artifact
from cairn.lineage.attestation import pae
from cairn.lineage.model_signature import keep_signature, sign_model, verify_model
from cairn.lineage.signing import KeySigner, key_id, signer, trusted_keys
from cairn.lineage.store import Store


class Signed:
    """A model directory, a key pair in files, and the OpenSSF's own tool."""

    def __init__(self, root: Path) -> None:
        self.model, self.signature = root / "model", root / "model.sig"
        (self.model / "sub").mkdir(parents=True)
        for name, content in (("config.json", "{}"), ("model.safetensors", "weights"), ("sub/same.json", "{}")):
            (self.model / name).write_text(content)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.keys = {key_id(self.key.public_key()): self.key.public_key()}
        form = serialization.PrivateFormat.PKCS8
        pem = self.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        (root / "key.pem").write_bytes(pem)
        public = serialization.PublicFormat.SubjectPublicKeyInfo
        (root / "key.pub").write_bytes(self.key.public_key().public_bytes(serialization.Encoding.PEM, public))

    def sign(self) -> None:
        """By ours."""
        self.signature.write_bytes(sign_model(read_artifact(self.model), "model", KeySigner(self.key)))

    def verify(self) -> str:
        """By ours."""
        return verify_model(self.signature.read_bytes(), read_artifact(self.model), self.keys)

    def theirs(self, what: str, *more: str) -> subprocess.CompletedProcess[str]:
        """By theirs."""
        key = ["--private_key", "key.pem"] if what == "sign" else ["--public_key", "key.pub"]
        words = ["model_signing", what, "key", "model", "--signature", str(self.signature), *key, *more]
        place = self.model.parent
        return subprocess.run([sys.executable, "-m", *words], cwd=place, capture_output=True, text=True, check=False)


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return Signed(tmp_path)


@pytest.mark.parametrize("place", ["beside", "inside"])
def test_the_tool_of_the_openssf_takes_our_signature(signed: Signed, place: str) -> None:
    if place == "inside":
        signed.signature = signed.model / "model.sig"
    signed.sign()
    told = signed.theirs("verify")
    assert told.returncode == 0, told.stderr
    assert signed.verify() == key_id(signed.key.public_key())
    (signed.model / "config.json").write_text("{ }")
    told = signed.theirs("verify")
    assert told.returncode != 0
    assert "config.json" in told.stdout + told.stderr


@pytest.mark.parametrize("place", ["beside", "inside"])
def test_we_take_theirs(signed: Signed, place: str) -> None:
    if place == "inside":
        signed.signature = signed.model / "model.sig"
    (signed.model / ".gitattributes").write_text("left out by theirs\n")
    assert signed.theirs("sign").returncode == 0
    assert signed.verify() == key_id(signed.key.public_key())
    (signed.model / "sub" / "same.json").write_text("{ }")
    with pytest.raises(AttestationError, match=r"the model is not what was signed: changed: sub/same\.json$"):
        signed.verify()


def change(model: Path) -> None:
    (model / "config.json").write_text("{ }")


def add(model: Path) -> None:
    (model / "sub" / "pickle.bin").write_text("")


def drop(model: Path) -> None:
    (model / "model.safetensors").unlink()


def rename(model: Path) -> None:
    (model / "model.safetensors").rename(model / "weights")


def swap(model: Path) -> None:
    (model / "model.safetensors").rename(model / "aside")
    (model / "config.json").rename(model / "model.safetensors")
    (model / "aside").rename(model / "config.json")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (change, "changed: config.json"),
        (add, "not signed: sub/pickle.bin"),
        (drop, "missing: model.safetensors"),
        (rename, "renamed: model.safetensors to weights"),
        (swap, "changed: config.json, model.safetensors"),
    ],
)
def test_a_file_that_is_not_what_was_signed_is_named(signed: Signed, damage: Callable[[Path], None], told: str) -> None:
    signed.sign()
    damage(signed.model)
    with pytest.raises(AttestationError) as raised:
        signed.verify()
    assert str(raised.value) == f"the model is not what was signed: {told}"
    assert signed.theirs("verify").returncode != 0


def test_what_their_signature_leaves_out_or_hashes_otherwise_is_refused_in_words(signed: Signed) -> None:
    hashing: Any = model_signing.hashing  # half of its functions have no types
    signing: Any = model_signing.signing
    paths = signed.model.parent
    assert signed.theirs("sign", "--ignore-paths", "model/config.json").returncode == 0
    with pytest.raises(AttestationError, match=r"leaves out config\.json: sign all files"):
        signed.verify()
    for config, told in (
        (hashing.Config().use_file_serialization(hashing_algorithm="blake2"), "has blake2b of files"),
        (hashing.Config().use_shard_serialization(), "has sha256 of shards"),
    ):
        by = signing.Config().use_elliptic_key_signer(private_key=paths / "key.pem").set_hashing_config(config)
        by.sign(signed.model, signed.signature)
        with pytest.raises(AttestationError, match=f"{told}: only sha256 of files can be checked here"):
            signed.verify()


def test_a_stranger_s_signature_and_a_changed_one_are_not_believed(signed: Signed) -> None:
    signed.sign()
    with pytest.raises(AttestationError, match="signed by no trusted key"):
        verify_model(signed.signature.read_bytes(), read_artifact(signed.model), trusted_keys())
    bundle = json.loads(signed.signature.read_bytes())
    payload = bytearray(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    for position in range(0, len(payload), 11):
        payload[position] ^= 1
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(bytes(payload)).decode()
        with pytest.raises(AttestationError, match="it was changed"):
            verify_model(json.dumps(bundle).encode(), read_artifact(signed.model), signed.keys)
        payload[position] ^= 1


def rename_field(text: str) -> str:
    return text.replace('"keyid"', '"keyie"')


def add_field(text: str) -> str:
    return text.replace('"hint"', '"licence":"CC0-1.0","hint"')


def add_log_entry(text: str) -> str:
    return text.replace('"tlogEntries":[]', '"tlogEntries":[{"logIndex":"7"}]')


def name_a_key(text: str) -> str:
    return text.replace('"keyid":""', '"keyid":"alice"')


def say_it_twice(text: str) -> str:
    return text.replace('"payloadType"', '"payload":"e30=","payloadType"')


def set_an_unused_bit(text: str) -> str:
    """In what base64 leaves over of the payload: it decodes to the same bytes."""
    payload = str(json.loads(text)["dsseEnvelope"]["payload"])
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = payload.rstrip("=")[-1]
    other = payload.rstrip("=")[:-1] + digits[digits.index(last) ^ 1] + "=" * payload.count("=")
    assert base64.b64decode(other) == base64.b64decode(payload)
    return text.replace(payload, other)


@pytest.mark.parametrize("write", [rename_field, add_field, add_log_entry, name_a_key, say_it_twice, set_an_unused_bit])
def test_what_the_signature_does_not_cover_cannot_be_written_to(signed: Signed, write: Callable[[str], str]) -> None:
    (signed.model / "config.json").rename(signed.model / "configuration.json")  # so long that base64 leaves bits over
    signed.sign()
    signed.verify()
    text = signed.signature.read_text()
    signed.signature.write_text(write(text))
    assert signed.signature.read_text() != text
    with pytest.raises(AttestationError, match=r"was written to: |not a model signature: "):
        signed.verify()


@pytest.mark.parametrize(
    "garbage", [b"", b"[]", b"{}", b"[" * 100_000, b'{"mediaType": 1, "verificationMaterial": 2, "dsseEnvelope": 3}']
)
def test_what_is_no_signature_is_said_to_be_none(signed: Signed, garbage: bytes) -> None:
    with pytest.raises(AttestationError, match="not a model signature"):
        verify_model(garbage, read_artifact(signed.model), signed.keys)


def test_a_malformed_statement_that_a_trusted_key_signed_is_told(signed: Signed) -> None:
    ours = sign_model(read_artifact(signed.model), "model", KeySigner(signed.key))
    good = json.loads(base64.b64decode(json.loads(ours)["dsseEnvelope"]["payload"]))
    without_digest = {**good["predicate"], "resources": [{"name": "a", "algorithm": "sha256"}]}
    twice = json.loads(json.dumps(good))
    twice["predicate"]["resources"] *= 2
    for said, told in (
        ({}, "malformed"),
        ([], "malformed"),
        ({**good, "subject": []}, "malformed"),
        ({**good, "predicate": without_digest}, "malformed"),
        ({**good, "predicateType": "https://slsa.dev/provenance/v1"}, "is of another kind"),
        ({**good, "subject": [{"name": "model", "digest": {"sha256": "0" * 64}}]}, "contradicts itself"),
        (twice, "contradicts itself"),
    ):
        bundle = json.loads(ours)
        payload = json.dumps(said).encode()
        signature = KeySigner(signed.key).sign(pae(payload))
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
        bundle["dsseEnvelope"]["signatures"] = [{"sig": base64.b64encode(signature).decode(), "keyid": ""}]
        with pytest.raises(AttestationError, match=told):
            verify_model(json.dumps(bundle).encode(), read_artifact(signed.model), signed.keys)


def test_the_store_keeps_one_signature_and_a_stranger_s_is_passed_over(signed: Signed, store: Store) -> None:
    artifact = store.put(signed.model)
    theirs = sign_model(artifact, "model", KeySigner(signed.key))
    store.write(f"signatures/{artifact.digest}/{key_id(signed.key.public_key())}.json", theirs)
    kept = keep_signature(store, artifact, "model")
    assert kept != theirs
    assert verify_model(kept, artifact, trusted_keys()) == key_id(signer().public_key)
    assert keep_signature(store, artifact, "model") == kept
