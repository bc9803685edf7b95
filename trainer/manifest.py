"""What checkpoints say of themselves. No torch here: whoever only asks does not load it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cairn.errors import ArtifactError
from cairn.lineage.artifact import canonical, parsed, readable

FORMAT = "cairn-checkpoint-v1"
IN_PROGRESS = "cairn-progress-v1"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint artifact. Raises ArtifactError when it is missing, damaged or of another format."""
    path = folder / "checkpoint.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        if manifest["format"] != FORMAT:
            raise ArtifactError(f"{path}: is of format {manifest['format']!r}; this version reads {FORMAT}")
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file: run the pretrain stage first") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{folder}: is not a sound checkpoint: {error}") from None
    return manifest


def sealed(manifest: Mapping[str, Any]) -> bytes:
    """The `manifest.json` of a checkpoint in progress: with a digest of itself, so that no bit of it can change."""
    whole = {"format": IN_PROGRESS, **manifest}
    return readable({**whole, "sha256": hashlib.sha256(canonical(whole)).hexdigest()})


def unsealed(data: bytes) -> dict[str, Any]:
    """What `sealed` was given. Raises ValueError when the bytes are not those it gave."""
    manifest = parsed(data)
    if isinstance(manifest, dict) and manifest.get("format", IN_PROGRESS) != IN_PROGRESS:
        raise ValueError(f"manifest.json is of format {manifest['format']!r}; this version reads {IN_PROGRESS}")
    if isinstance(manifest, dict):
        manifest.pop("sha256", None)
    if not isinstance(manifest, dict) or sealed(manifest) != data:
        raise ValueError("manifest.json holds other bytes than were saved")
    return manifest
