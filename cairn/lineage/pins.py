"""The form of a pin: what an artifact holds and where its bytes lie, in the layout of a DVC remote.

A pin is the only map from sha256, which proves, to md5, which is an address and never a proof.
"""

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cairn.errors import ArtifactError
from cairn.lineage.artifact import Artifact, Member, readable, written_aside

_MD5, _SHA256 = re.compile("[0-9a-f]{32}"), re.compile("[0-9a-f]{64}")


def address(md5: str) -> str:
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def directory_listing(artifact: Artifact) -> bytes:
    # The bytes that dvc_data.hashfile.tree.Tree.as_bytes makes; the address is their md5, so they must be equal.
    entries = sorted(({"md5": m.md5, "relpath": m.path} for m in artifact.members), key=lambda entry: entry["relpath"])
    return json.dumps(entries, sort_keys=True).encode()


def directory_address(artifact: Artifact) -> str:
    return hashlib.md5(directory_listing(artifact), usedforsecurity=False).hexdigest() + ".dir"


def write_pin_file(path: Path, artifact: Artifact) -> None:
    """Write a pin as a file of its own: what a store keeps under `pins/`, and the digest that it is kept under."""
    with written_aside(path) as aside:
        aside.write_bytes(readable({"digest": artifact.digest, **pin_of(artifact)}))


def read_pin_file(path: Path) -> Artifact:
    """The artifact that a pin file describes. Raises ArtifactError when the file is missing or no sound pin."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from None
    artifact = read_pin(data)
    if artifact is None or json.loads(data).get("digest") != artifact.digest:
        raise ArtifactError(f"{path}: is not a pin, or was changed or cut short: run the stage that writes it again")
    return artifact


def pin_of(artifact: Artifact) -> dict[str, Any]:
    return {
        "directory": artifact.is_directory,
        "md5": directory_address(artifact) if artifact.is_directory else artifact.members[0].md5,
        "size": artifact.size,
        "members": [asdict(member) for member in artifact.members],
    }


def read_pin(data: bytes) -> Artifact | None:
    """The artifact that the bytes of a pin describe, or None when they are no pin."""
    try:
        pin = json.loads(data)
        artifact = Artifact(tuple(Member(**member) for member in pin["members"]), bool(pin["directory"]))
        # Of the md5 addresses the digest says nothing; each is there twice.
        whole = all(pin[name] == said for name, said in pin_of(artifact).items())
        return artifact if whole and artifact.digest and all(map(_is_sound, artifact.members)) else None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return None


def _is_sound(member: Member) -> bool:
    """Whether a member can be asked for: a pin may come from anybody, and its paths are written to."""
    parts = member.path.split("/")
    inside = not {"", ".", ".."} & set(parts) and "\\" not in member.path and "\0" not in member.path
    return inside and bool(_MD5.fullmatch(member.md5) and _SHA256.fullmatch(member.sha256)) and member.size >= 0
