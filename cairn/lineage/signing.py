"""Keys: who signs, and whose signatures are believed.

`CAIRN_SIGNER` says who signs:

    (unset)                the key in `CAIRN_HOME`, made on first use
    file:PATH              a private key in PEM
    env:VARIABLE           a private key in PEM, in an environment variable, as a Kubernetes secret sets it
    command:PROGRAM ARGS…  a program that has the key, or asks whoever has it: a KMS, a token, a vault
    NAME:ARG               what an installed package offers under that name in the entry point group `cairn.signers`

A program is run twice: with `public-key` as its last argument it prints the public key in PEM; with `sign` it reads the
message and prints its signature in base64, ECDSA with SHA-256 in DER form. It gets the whole message, and not its
digest: the one follows from the other, and tools differ in what they ask for.

Every key is ECDSA P-256. Checking a signature takes public keys alone, and makes none. No error shows key material.
"""

import base64
import binascii
import hashlib
import os
import re
import shlex
import subprocess
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Protocol, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cairn.errors import FULL_DISK, AttestationError, one_line
from cairn.lineage.artifact import written_aside

VARIABLE = "CAIRN_SIGNER"
GROUP = "cairn.signers"
PATIENCE = 120.0  # seconds for a program that signs: one that asks a person for a PIN may take a while
_P256 = "an ECDSA P-256 key"


class Signer(Protocol):
    """Whoever can sign."""

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """What its signatures are checked with; on the curve P-256."""

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`: ECDSA with SHA-256, in DER form. Raises AttestationError."""


@dataclass(frozen=True)
class KeySigner:
    """Signs with a private key that this process holds."""

    key: ec.EllipticCurvePrivateKey

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The key's other half."""
        return self.key.public_key()

    def sign(self, message: bytes) -> bytes:
        """ECDSA with SHA-256, in DER form."""
        return self.key.sign(message, ec.ECDSA(hashes.SHA256()))


@dataclass(frozen=True)
class CommandSigner:
    """Signs by a program."""

    words: tuple[str, ...]

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """What the program says that its key is; asked once in a process."""
        return _public_key_of(self.words)

    def sign(self, message: bytes) -> bytes:
        """What the program makes of the message."""
        try:
            return base64.b64decode(b"".join(_run(self.words, "sign", message).split()), validate=True)
        except binascii.Error:
            raise AttestationError(f"{VARIABLE}: {self.words[0]} sign: did not print a signature in base64") from None


@dataclass(frozen=True)
class _Checked:
    """A signer that is not ours. What it signed is checked before anybody relies on it: a key that was rotated between
    two calls would otherwise give attestations that nobody believes."""

    signer: Signer
    name: str

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        return _p256(self.signer.public_key, f"{VARIABLE}: {self.name}")

    def sign(self, message: bytes) -> bytes:
        signature = self.signer.sign(message)
        try:
            self.public_key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, TypeError):
            raise AttestationError(
                f"{VARIABLE}: {self.name}: its signature does not fit its public key: it has to be ECDSA with "
                "SHA-256, in DER form, by the key that it names"
            ) from None
        return signature


def signer() -> Signer:
    """Whoever signs here, as `CAIRN_SIGNER` says. Raises AttestationError in one line when there is none."""
    said = os.environ.get(VARIABLE, "")
    if not said:
        return KeySigner(_own_key())
    kind, separator, rest = said.partition(":")
    if not (separator and rest and re.fullmatch(r"[A-Za-z0-9_.-]+", kind)) or "PRIVATE KEY" in rest or "\n" in rest:
        # Not shown: it may be the key itself.
        raise AttestationError(f"{VARIABLE}: write it as file:PATH, env:VARIABLE, command:PROGRAM or NAME:ARG")
    if kind == "file":
        return KeySigner(_read_private_key(Path(rest)))
    if kind == "env":
        return KeySigner(_key_in_environment(rest))
    if kind == "command":
        words = _words(rest)
        return _Checked(CommandSigner(words), words[0])
    return _Checked(_installed(kind, rest), kind)


def trusted_keys() -> dict[str, ec.EllipticCurvePublicKey]:
    """Key id to key: the signer's own, the one in `CAIRN_HOME`, and there every `trusted-*.pem` and `trusted/*.pem`: a
    Kubernetes secret that is mounted as `CAIRN_HOME` can hold files and no folder.

    Makes no key: where there is none, only others are believed.
    """
    keys: list[ec.EllipticCurvePublicKey] = []
    if os.environ.get(VARIABLE):
        keys.append(signer().public_key)
    public = home() / "signing-key.pub.pem"
    if key_path().exists():
        keys.append(_read_private_key(key_path()).public_key())
    elif public.exists():
        keys.append(_read_public_key(public))
    others = (path for pattern in ("trusted/*.pem", "trusted-*.pem") for path in home().glob(pattern))
    keys += read_public_keys(sorted(others)).values()
    return {key_id(key): key for key in keys}


def read_public_keys(paths: Iterable[Path]) -> dict[str, ec.EllipticCurvePublicKey]:
    """Key id to key, of public keys in PEM. Raises AttestationError, naming the file that holds none."""
    return {key_id(key): key for key in map(_read_public_key, paths)}


def key_id(key: ec.EllipticCurvePublicKey) -> str:
    """sha256 of the key's DER form (SubjectPublicKeyInfo)."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


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


# Below: where keys come from


def _own_key() -> ec.EllipticCurvePrivateKey:
    """The key in `CAIRN_HOME`, made on first use with mode 0600."""
    path = key_path()
    try:
        if not path.exists():
            _make_key(path)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        raise AttestationError(
            f"{path}: no signing key can be kept there: {error.strerror}: name another folder as CAIRN_HOME"
        ) from None
    return _read_private_key(path)


def _make_key(path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(private)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(aside, path)
    except FileExistsError:
        return  # another process was first; its key is the key
    finally:
        aside.unlink()
    beside = path.parent / "signing-key.pub.pem"
    if beside.exists():  # of a key that is gone; what it signed stays believed
        beside.rename(path.parent / f"trusted-{key_id(_read_public_key(beside))[:12]}.pem")
    with written_aside(beside) as written:
        written.write_bytes(public)


def _read_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise AttestationError(
            f"{path}: the signing key cannot be read: {error.strerror}: name another by CAIRN_HOME or {VARIABLE}"
        ) from None
    return _private_key(pem, str(path))


def _key_in_environment(variable: str) -> ec.EllipticCurvePrivateKey:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise AttestationError(f"{VARIABLE}: env: is followed by the name of a variable, not by the key")
    pem = os.environ.get(variable)
    if not pem:
        raise AttestationError(f"{VARIABLE}: the environment variable {variable} is not set: it has to hold the key")
    return _private_key(pem.encode(), f"environment variable {variable}")


def _private_key(pem: bytes, where: str) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        raise AttestationError(f"{where}: not a private key in PEM without a password: put another there") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise AttestationError(f"{where}: is not {_P256}: put another there")
    return key


def _read_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise AttestationError(f"{path}: the public key cannot be read: {error.strerror}") from None
    return _public_key(pem, str(path))


def _public_key(pem: bytes, where: str) -> ec.EllipticCurvePublicKey:
    if b"PRIVATE KEY" in pem:
        raise AttestationError(f"{where}: is a private key: `openssl pkey -pubout` makes the public one of it")
    try:
        return _p256(serialization.load_pem_public_key(pem), where)
    except ValueError:  # what the library says of it is of no use to who named the wrong file
        raise AttestationError(
            f"{where}: not a public key: one in PEM begins with -----BEGIN PUBLIC KEY-----"
        ) from None


def _p256(key: object, where: str) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise AttestationError(f"{where}: is not {_P256}")
    return key


def _words(command: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command))
    except ValueError:
        words = ()
    if not words:
        raise AttestationError(f"{VARIABLE}: command: is followed by a program and its arguments; a quote is open")
    return words


@cache
def _public_key_of(words: tuple[str, ...]) -> ec.EllipticCurvePublicKey:
    return _public_key(_run(words, "public-key", b""), f"{VARIABLE}: {words[0]} public-key")


def _run(words: tuple[str, ...], asked: str, message: bytes) -> bytes:
    """What the program prints. Arguments are never shown: one may be a token."""
    where = f"{VARIABLE}: {words[0]} {asked}"
    try:
        done = subprocess.run([*words, asked], input=message, capture_output=True, timeout=PATIENCE, check=False)
    except OSError as error:
        raise AttestationError(f"{where}: cannot be run: {error.strerror}: name a program that signs") from None
    except subprocess.TimeoutExpired:
        raise AttestationError(f"{where}: gave no answer in {PATIENCE:.0f} seconds: try it by hand") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        said = lines[-1] if lines and b"PRIVATE KEY" not in done.stderr else "try it by hand"
        # A program may repeat what it did not understand.
        for word in sorted(filter(None, words[1:]), key=len, reverse=True):
            said = said.replace(word, "…")
        raise AttestationError(f"{where}: ended with {done.returncode}: {one_line(said)[:200]}")
    return done.stdout


def _installed(name: str, argument: str) -> Signer:
    found = next(iter(metadata.entry_points(group=GROUP, name=name)), None)
    if found is None:
        names = sorted({"file", "env", "command", *(one.name for one in metadata.entry_points(group=GROUP))})
        raise AttestationError(f"{VARIABLE}: no signer {name!r} is installed: there are {', '.join(names)}")
    try:
        return cast(Callable[[str], Signer], found.load())(argument)
    except (ImportError, AttributeError) as error:
        raise AttestationError(f"{VARIABLE}: {name}: cannot be loaded: {one_line(error)}") from None
