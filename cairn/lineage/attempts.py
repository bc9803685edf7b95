"""Attempts: every launch that worked on a stage, written down in its work folder as it begins.

Training that is killed is gone on with by the next launch, perhaps by other code and on another machine. The
attestation lists all of them, the oldest first, so that an audit sees it.
"""

import json
import os
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cairn.errors import one_line
from cairn.lineage import environment
from cairn.lineage.artifact import canonical
from cairn.lineage.statement import timestamp
from cairn.resources import Resources

NAME = "attempts.jsonl"
FAILED = "failed"
"""Beside it: why the last launch failed, in one line. A launch that was killed leaves none."""


@dataclass(frozen=True)
class Launch:
    """The launch that works on a stage now."""

    invocation: str
    began: datetime
    attempts: tuple[Mapping[str, Any], ...]
    """All launches, the oldest first; this is the last. A line that could not be read is `{"damaged": its number}`."""


def begin(folder: Path, packages: Mapping[str, str], resources: Resources) -> Launch:
    """Write this launch down in the work folder `folder`, on the disk before any work.

    Code, locks and environment are read now: what begins is what is attested, whatever is checked out meanwhile.

    Args:
        packages: versions of the bit-affecting packages, which are part of the stage key.
    """
    invocation, began, code = str(uuid.uuid4()), datetime.now(UTC), environment.code()
    environment.lock_files()
    said = environment.fingerprint(resources)
    attempt = {
        "invocation": invocation,
        "started": timestamp(began),
        "code": code["sha256"],
        "commit": code["commit"],
        "dirty": code["dirty"],
        "packages": dict(packages),
        **{name: said[name] for name in ("processor", "memory", "accelerators", "driver", "image", "resources")},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    data = path.read_bytes() if path.exists() else b""
    with open(path, "ab") as log:
        # A launch that was killed while it wrote has left half a line.
        log.write(b"\n" * (bool(data) and not data.endswith(b"\n")) + canonical(attempt) + b"\n")
        log.flush()
        os.fsync(log.fileno())
    return Launch(invocation, began, (*_earlier(path, data), attempt))


@contextmanager
def failure_noted(folder: Path) -> Iterator[None]:
    """Leave a note of an error in the work folder: whoever asks how far the work is learns that it was not killed."""
    note = folder / FAILED
    note.unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        with suppress(OSError):  # the disk may be full: what is raised says so
            note.write_text(one_line(error) or type(error).__name__, encoding="utf-8")
        raise


def _earlier(path: Path, data: bytes) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            said = json.loads(line)
            canonical(said)  # what a damaged line holds may be no number, or no text, that can be written again
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            print(f"{path}:{number}: cannot be read: the attestation will say so", file=sys.stderr, flush=True)
            said = {"damaged": number}
        found.append(said)
    return found
