"""What a checkpoint artifact says of itself: `checkpoint.json`. No torch here: whoever only asks does not load it."""

import json
from pathlib import Path
from typing import Any

from cairn.errors import ArtifactError

FORMAT = "cairn-checkpoint-v1"


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
