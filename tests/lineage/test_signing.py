"""Keys: who signs is the environment's to say, what is believed needs public keys alone, and no key is ever shown."""

import os
import re
import stat
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cairn.errors import AttestationError
from cairn.lineage import signing
from cairn.lineage.signing import Signer, key_id, read_public_keys, signer, trusted_keys

# What a KMS client is seen from here: it has the key, prints public halves and signatures, and gives nothing else away.
PROGRAM = """
import base64, sys
from pathlib import Path
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
key = serialization.load_pem_private_key(Path(sys.argv[1]).read_bytes(), password=None)
if sys.argv[-1] == "public-key":
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    print(key.public_key().public_bytes(serialization.Encoding.PEM, form).decode())
else:
    signature = base64.b64encode(key.sign(sys.stdin.buffer.read(), ec.ECDSA(hashes.SHA256()))).decode()
    print(signature[:40] + chr(10) + signature[40:])
"""


def private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def fits(one: Signer, message: bytes) -> bool:
    one.public_key.verify(one.sign(message), message, ec.ECDSA(hashes.SHA256()))
    return True


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAIRN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def program(tmp_path: Path) -> str:
    """A command that signs with the key that the file named by its argument holds."""
    (tmp_path / "sign.py").write_text(PROGRAM)
    return f"{sys.executable} '{tmp_path / 'sign.py'}'"


def test_the_first_use_makes_a_key_that_only_its_owner_can_read(own_home: Path) -> None:
    first = key_id(signer().public_key)
    assert stat.S_IMODE((own_home / "signing-key.pem").stat().st_mode) == 0o600
    assert key_id(signer().public_key) == first
    assert sorted(path.name for path in own_home.iterdir()) == ["signing-key.pem", "signing-key.pub.pem"]
    assert read_public_keys([own_home / "signing-key.pub.pem"]).keys() == {first}


def test_a_new_key_does_not_take_the_place_of_a_public_key_that_is_believed(
    own_home: Path, key: ec.EllipticCurvePrivateKey
) -> None:
    own_home.mkdir()
    (own_home / "signing-key.pub.pem").write_bytes(public_pem(key.public_key()))
    new = key_id(signer().public_key)
    assert trusted_keys().keys() == {new, key_id(key.public_key())}
    assert read_public_keys([own_home / "signing-key.pub.pem"]).keys() == {new}


def test_checking_makes_no_key(own_home: Path) -> None:
    assert trusted_keys() == {}
    assert not own_home.exists()


@pytest.mark.parametrize("place", ["trusted/theirs.pem", "trusted-theirs.pem"])
def test_an_auditor_who_has_public_keys_alone_believes_those(
    own_home: Path, key: ec.EllipticCurvePrivateKey, place: str
) -> None:
    (own_home / place).parent.mkdir(parents=True)
    (own_home / place).write_bytes(public_pem(key.public_key()))
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    (own_home / "signing-key.pub.pem").write_bytes(public_pem(other))
    assert trusted_keys().keys() == {key_id(key.public_key()), key_id(other)}
    assert not (own_home / "signing-key.pem").exists()


def test_whoever_signs_is_believed_and_so_is_the_key_of_before(
    own_home: Path, key: ec.EllipticCurvePrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key_id(signer().public_key)
    monkeypatch.setenv("CAIRN_SIGNER", "env:SECRET")
    monkeypatch.setenv("SECRET", private_pem(key).decode())
    assert key_id(signer().public_key) == key_id(key.public_key())
    assert trusted_keys().keys() == {before, key_id(key.public_key())}


@pytest.mark.parametrize("kind", ["file", "env", "command"])
def test_a_key_in_a_file_an_environment_variable_or_a_program_signs(
    kind: str,
    own_home: Path,
    key: ec.EllipticCurvePrivateKey,
    program: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "a key.pem").write_bytes(private_pem(key))
    monkeypatch.setenv("SECRET", private_pem(key).decode())
    said = {"file": f"{tmp_path}/a key.pem", "env": "SECRET", "command": f"{program} '{tmp_path}/a key.pem'"}
    monkeypatch.setenv("CAIRN_SIGNER", f"{kind}:{said[kind]}")
    assert fits(signer(), b"what happened" * 10_000)
    assert key_id(signer().public_key) == key_id(key.public_key())
    assert trusted_keys().keys() == {key_id(key.public_key())}
    assert not own_home.exists()


def test_an_installed_package_may_offer_a_signer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "vault-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: vault\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[cairn.signers]\nvault = vault_signer:signer_of\n")
    (tmp_path / "vault_signer.py").write_text(
        "from pathlib import Path\n"
        "from cryptography.hazmat.primitives.serialization import load_pem_private_key\n"
        "from cairn.lineage.signing import KeySigner\n"
        "def signer_of(path):\n"
        "    return KeySigner(load_pem_private_key(Path(path).read_bytes(), None))\n"
    )
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "key").write_bytes(private_pem(key))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [one.name for one in metadata.entry_points(group="cairn.signers")] == ["vault"]
    monkeypatch.setenv("CAIRN_SIGNER", f"vault:{tmp_path / 'key'}")
    assert fits(signer(), b"what happened")
    assert key_id(signer().public_key) == key_id(key.public_key())
    monkeypatch.setenv("CAIRN_SIGNER", "kms:1")
    with pytest.raises(AttestationError, match="no signer 'kms' is installed: there are command, env, file, vault"):
        signer()


def test_a_program_that_signs_with_another_key_than_it_names_is_not_relied_on(
    tmp_path: Path, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1())))
    monkeypatch.setenv("CAIRN_SIGNER", f"command:{program} {tmp_path / 'first'}")
    one = signer()
    assert one.public_key
    (tmp_path / "second").rename(tmp_path / "first")
    with pytest.raises(AttestationError, match="its signature does not fit its public key"):
        one.sign(b"what happened")


CANARY = "canary-4711"


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        (CANARY, "CAIRN_SIGNER: write it as file:PATH, env:VARIABLE, command:PROGRAM or NAME:ARG"),
        (f"-----BEGIN {CANARY}:x", "CAIRN_SIGNER: write it as file:PATH"),
        ("file:", "CAIRN_SIGNER: write it as file:PATH"),
        (f"env:{CANARY}", "CAIRN_SIGNER: env: is followed by the name of a variable, not by the key"),
        ("env:NOWHERE", "CAIRN_SIGNER: the environment variable NOWHERE is not set: it has to hold the key"),
        ("env:GARBAGE", "environment variable GARBAGE: not a private key in PEM without a password"),
        ("env:RSA", "environment variable RSA: is not an ECDSA P-256 key"),
        (f"command:'{CANARY}", "CAIRN_SIGNER: command: is followed by a program and its arguments; a quote is open"),
        (f"command:no-such-program {CANARY}", "CAIRN_SIGNER: no-such-program public-key: cannot be run: No such file"),
        (f"command:sh -c 'echo locked >&2; exit 3' {CANARY}", "CAIRN_SIGNER: sh public-key: ended with 3: locked"),
        (
            f"command:sh -c 'echo unknown option $0 >&2; exit 3' {CANARY}",
            "CAIRN_SIGNER: sh public-key: ended with 3: unknown option …",
        ),
        (
            f"command:sh -c \"echo BEGIN PRIV''ATE KEY {CANARY} >&2; exit 3\"",
            "CAIRN_SIGNER: sh public-key: ended with 3",
        ),
        (f"command:sh -c 'echo {CANARY}'", "CAIRN_SIGNER: sh public-key: not a public key"),
    ],
)
def test_a_signer_that_cannot_sign_is_told_in_one_line_without_showing_the_key(
    said: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAIRN_SIGNER", said)
    monkeypatch.setenv("GARBAGE", CANARY)
    monkeypatch.setenv("RSA", private_pem(rsa.generate_private_key(65537, 2048)).decode())
    with pytest.raises(AttestationError) as raised:
        signer().public_key  # noqa: B018
    assert str(raised.value).startswith(wrong)
    assert "\n" not in str(raised.value)
    assert CANARY not in str(raised.value)


def test_a_file_that_is_no_key_is_named(own_home: Path) -> None:
    own_home.mkdir()
    (own_home / "signing-key.pem").write_text("not a key")
    for ask in (signer, trusted_keys):
        with pytest.raises(AttestationError, match=r"signing-key\.pem: not a private key"):
            ask()


def test_a_private_key_where_a_public_one_is_asked_for_is_told(tmp_path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    (tmp_path / "key.pem").write_bytes(private_pem(key))
    with pytest.raises(AttestationError, match=r"key\.pem: is a private key: `openssl pkey -pubout`"):
        read_public_keys([tmp_path / "key.pem"])
    with pytest.raises(AttestationError, match=r"nowhere\.pem: the public key cannot be read: No such file"):
        read_public_keys([tmp_path / "nowhere.pem"])


@pytest.mark.parametrize("pem", [b"", b"junk", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_public_key_is_told_without_the_address_of_another_manual(tmp_path: Path, pem: bytes) -> None:
    (tmp_path / "key.pem").write_bytes(pem)
    with pytest.raises(AttestationError, match=r"key\.pem: not a public key in PEM: it has to begin with") as raised:
        read_public_keys([tmp_path / "key.pem"])
    assert "http" not in str(raised.value)


def test_a_program_that_hangs_is_told_of_and_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signing, "QUIET", 0.1)
    monkeypatch.setattr(signing, "PATIENCE", 1.0)
    monkeypatch.setenv("CAIRN_SIGNER", "command:sh -c 'sleep 30; echo late'")
    began = time.monotonic()
    with pytest.raises(AttestationError, match="sh public-key: gave no answer in 1 seconds and was stopped"):
        signer().public_key  # noqa: B018
    assert time.monotonic() - began < 20
    assert capsys.readouterr().err == "CAIRN_SIGNER: sh public-key: waiting for it, up to 1 seconds\n"


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for home in (tmp_path / "file" / "home", Path("/proc/nowhere")):
        monkeypatch.setenv("CAIRN_HOME", str(home))
        with pytest.raises(AttestationError, match=f"^{home}/signing-key.pem: no signing key can be kept there: "):
            signer()


def test_a_signer_for_whom_a_program_speaks_has_its_environment(
    tmp_path: Path, program: str, key: ec.EllipticCurvePrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_bytes(private_pem(key))
    (tmp_path / "kms").write_text(f'#!/bin/sh\nexec {program} "$KMS_KEY" "$@"\n')
    os.chmod(tmp_path / "kms", 0o755)
    monkeypatch.setenv("KMS_KEY", str(tmp_path / "key"))
    monkeypatch.setenv("CAIRN_SIGNER", f"command:{tmp_path / 'kms'}")
    assert fits(signer(), b"what happened")


# What the documented scripts call, as the manuals have it; in their place openssl, with a key of its own.
GCLOUD = """#!/bin/sh
case "$*" in
"kms keys versions get-public-key 1 --key=cairn --keyring=ring --location=europe")
    openssl pkey -in "$KMS_KEY" -pubout ;;
"kms asymmetric-sign --version=1 --key=cairn --keyring=ring --location=europe --digest-algorithm=sha256 "*)
    for word; do case $word in --input-file=*) from=${word#*=} ;; --signature-file=*) to=${word#*=} ;; esac; done
    openssl dgst -sha256 -sign "$KMS_KEY" -out "$to" "$from" ;;
*) echo "unknown: $*" >&2; exit 2 ;;
esac
"""
AWS = """#!/bin/sh
case "$*" in
"kms get-public-key --key-id alias/cairn --query PublicKey --output text")
    openssl pkey -in "$KMS_KEY" -pubout -outform DER | base64 ;;
"kms sign --key-id alias/cairn --message fileb://"*" --message-type DIGEST --signing-algorithm ECDSA_SHA_256 "*)
    openssl pkeyutl -sign -inkey "$KMS_KEY" -in "${6#fileb://}" | base64 -w0 ;;
*) echo "unknown: $*" >&2; exit 2 ;;
esac
"""


@pytest.mark.parametrize(
    ("name", "arguments", "tool"),
    [("gcloud", "1 cairn ring europe", GCLOUD), ("aws", "alias/cairn", AWS)],
)
def test_the_scripts_of_the_documentation_sign(
    name: str, arguments: str, tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "keys.md").read_text()
    (script,) = (one for one in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if f"# cairn-{name} " in one)
    for path, content in ((tmp_path / f"cairn-{name}", script), (tmp_path / name, tool)):
        path.write_text(content)
        path.chmod(0o755)
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "key").write_bytes(private_pem(key))
    monkeypatch.setenv("KMS_KEY", str(tmp_path / "key"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CAIRN_SIGNER", f"command:cairn-{name} {arguments}")
    assert key_id(signer().public_key) == key_id(key.public_key())
    assert fits(signer(), b"what happened" * 10_000)
