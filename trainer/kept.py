"""States that are kept on the way, as two files each, which become part of the optimizer artifact, so that others can
train on from them: canonical safetensors, the same bytes on any number of processes, and a manifest."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from cairn.errors import ArtifactError
from cairn.lineage.artifact import readable, written_aside
from trainer.checkpoint import write_tensors
from trainer.manifest import FORMAT, sealed
from trainer.metrics import is_logged
from trainer.place import CHUNK, Place

DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "I64": "int64"}
"""What safetensors calls the dtypes of a state."""


def keep_state(folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """Write the state after `step` steps for good; the sha256 of its tensors. Twice the same state is the same bytes.

    Args:
        facts: what `TrainingLog.settle` said, under `log`: which lines the state came with.
    """
    target = kept_at(folder, step)
    with written_aside(target) as aside:
        write_tensors(aside, tensors)
    digest = _sha256(target)
    with written_aside(target.with_suffix(".json")) as aside:
        aside.write_bytes(readable({"format": FORMAT, "step": step, "sha256": digest, **facts}))
    return digest


def kept_at(folder: Path, step: int) -> Path:
    """Where the tensors of a kept state lie; its manifest lies beside them and ends in `.json`."""
    return folder / f"{step:08d}.safetensors"


def check_kept(folder: Path, kept: Mapping[str, str]) -> None:
    """Raises ValueError when a state that was kept is no longer there, or no longer what it was.

    Args:
        kept: the sha256 of its tensors, by step.
    """
    for step, digest in kept.items():
        target = kept_at(folder, int(step))
        if not target.with_suffix(".json").exists() or not target.exists() or _sha256(target) != digest:
            raise ValueError(f"the state that was kept at step {step} is lost")


def hand_over_kept(folder: Path, kept: Mapping[str, str], artifact: Path) -> None:
    """Put the kept states into an artifact. They stay in the work folder too: a run may be killed after this."""
    for step in kept:
        for source in (kept_at(folder, int(step)), kept_at(folder, int(step)).with_suffix(".json")):
            target = artifact / source.name
            target.parent.mkdir(exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                os.link(source, target)  # costs nothing: both lie in one work folder
            except OSError:
                shutil.copyfile(source, target)


def send(folder: Path, step: int, place: Place) -> None:
    """Copy a kept state to where the checkpoints in progress lie, for who goes on without this work folder."""
    for path in (kept_at(folder, step), kept_at(folder, step).with_suffix(".json")):
        place.write(path.name, lambda path=path: _parts(path))  # type: ignore[misc]


def fetch(folder: Path, kept: Mapping[str, str], place: Place) -> None:
    """Copy back what `send` sent of the kept states that are not here. What cannot be had, `check_kept` will miss."""
    folder.mkdir(parents=True, exist_ok=True)
    for step in kept:
        for path in (kept_at(folder, int(step)), kept_at(folder, int(step)).with_suffix(".json")):
            if not path.exists():
                with suppress(FileNotFoundError), written_aside(path) as aside:
                    place.copy(path.name, aside)


def _parts(path: Path) -> Iterator[memoryview]:
    with open(path, "rb") as file:
        while piece := file.read(CHUNK):
            yield memoryview(piece)


def take_up(state: Path, log: bytes, work: Path) -> int:
    """Prepare an empty work folder so that a trainer goes on from a kept state; the step that it was kept at.

    Args:
        state: its tensors, with the manifest beside them.
        log: the `training.jsonl` of the run that kept it.

    Raises:
        ArtifactError: the state is not what its manifest says, or the log does not begin with the lines it came with.
    """
    path = state.with_suffix(".json")
    try:
        manifest = json.loads(path.read_bytes())
        step, said = int(manifest["step"]), manifest["log"]
        begun = log[: said["length"]]
        sound = manifest["format"] == FORMAT and _sha256(state) == manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ArtifactError(f"{path}: is not the manifest of a kept state") from None
    if not sound:
        raise ArtifactError(f"{state}: is not the state that its manifest tells of")
    work.mkdir(parents=True, exist_ok=True)
    (work / "training.jsonl").write_bytes(begun)
    if not is_logged(work / "training.jsonl", said):
        raise ArtifactError(f"{path}: came with other lines than training.jsonl begins with")
    target = work / "checkpoints" / f"{step:08d}"
    target.mkdir(parents=True)
    shutil.copyfile(state, target / state.name)
    (target / "training.jsonl").write_bytes(begun)
    files = {
        state.name: {"sha256": manifest["sha256"], "size": state.stat().st_size},
        "training.jsonl": {"sha256": said["sha256"], "size": said["length"]},
    }
    # Whoever takes up the state knows of which recipe it is: the artifact it lies in is attested.
    of_run = {"made_for": {}, "processes": 1, "log": said, "kept": {}, "line": None}
    progress = sealed({"step": step, "files": files, "tensors": _tensors_in(state), **of_run})
    (target / "manifest.json").write_bytes(progress)
    return step


def _tensors_in(file: Path) -> dict[str, Any]:
    """What a checkpoint in progress says of tensors that lie in a safetensors file: their bytes follow its header."""
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
    tensors = {}
    for name, said in header.items():
        if name == "__metadata__":
            continue
        begin, end = said["data_offsets"]
        shape = said["shape"]
        part = {"offset": [0] * len(shape), "shape": shape, "file": file.name, "at": 8 + length + begin}
        dtype = DTYPES[said["dtype"]]
        tensors[name] = {"dtype": dtype, "shape": shape, "parts": [{**part, "size": end - begin}]}
    return tensors


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
