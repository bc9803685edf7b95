"""Checkpoints: work in progress while training runs, and the artifacts it ends with.

In progress: one folder per step in the work folder, complete when its manifest is there, with the sha256 of the
tensors. Kept: the same state as two files, which become part of an artifact, so that others can train on from it.
Finished: safetensors in a canonical order and in files of fixed size, whatever the number of processes was.
"""

import hashlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cairn.errors import FULL_DISK, ArtifactError
from cairn.lineage.artifact import readable, written_aside
from trainer.manifest import FORMAT, read_manifest
from trainer.metrics import is_logged

FILE_BYTES = 1 << 30
KEPT = 2  # checkpoints in progress; the older is there in case the newer is damaged


# In progress


def save_progress(folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Keep the state after `step` steps, and drop all but the last few earlier ones."""
    target = folder / f"{step:08d}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    write_tensors(target / "state.safetensors", tensors)
    digest = _sha256(target / "state.safetensors")
    with written_aside(target / "manifest.json") as aside:
        aside.write_bytes(readable({"step": step, "sha256": digest, **facts}))
    for old in sorted(folder.iterdir())[:-KEPT]:
        shutil.rmtree(old)


def load_progress(
    folder: Path, check: Callable[[dict[str, Any]], None]
) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Manifest and tensors of the newest sound checkpoint, or None. A damaged one is named and passed over.

    Args:
        check: takes a manifest, and raises ValueError when what lies beside the checkpoint does not fit it.
    """
    for path in sorted(folder.glob("*"), reverse=True):
        try:
            manifest = json.loads((path / "manifest.json").read_bytes())
            if _sha256(path / "state.safetensors") != manifest["sha256"]:
                raise ValueError("its bytes are not those that were saved")
            check(manifest)
            return manifest, load_file(path / "state.safetensors")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            print(f"pretrain: checkpoint {path.name} is passed over: {error}", file=sys.stderr, flush=True)
    return None


# Kept


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
    shutil.copyfile(state, target / "state.safetensors")
    progress = {"step": step, "sha256": manifest["sha256"], "log": said, "kept": {}}
    (target / "manifest.json").write_bytes(readable(progress))
    return step


# Finished


def save_weights(folder: Path, stem: str, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors in the order of their names into `stem-00001-of-0000N.safetensors`, a new file when one is full."""
    files: list[dict[str, Tensor]] = [{}]
    size = 0
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        if files[-1] and size + tensor.nbytes > FILE_BYTES:
            files.append({})
            size = 0
        files[-1][name] = tensor
        size += tensor.nbytes
    for index, file in enumerate(files, 1):
        write_tensors(folder / f"{stem}-{index:05d}-of-{len(files):05d}.safetensors", file)


def load_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Manifest and fp32 weights of a checkpoint artifact.

    Raises ArtifactError when it is incomplete, damaged or of another format.
    """
    manifest = read_manifest(folder)
    try:
        files = sorted(folder.glob("model-*.safetensors"))
        if not files or not files[0].name.endswith(f"-of-{len(files):05d}.safetensors"):
            raise ArtifactError(f"{folder}: files of the checkpoint are missing")
        weights: dict[str, Tensor] = {}
        for file in files:
            with safe_open(file, "pt") as opened:
                weights |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return manifest, weights
    except (ValueError, KeyError, SafetensorError) as error:
        raise ArtifactError(f"{folder}: is not a sound checkpoint: {error}") from None


def largest_difference(one: Path, other: Path) -> tuple[float, str]:
    """How far the tensors in the files of two folders are apart, at most, and in which tensor.

    The difference of two values is taken as a share of the largest value of that tensor in `one`; it is infinite where
    a tensor is in one folder only, has another shape, or holds no number.
    """
    found = [
        {name: file for file in sorted(folder.glob("*.safetensors")) for name in _names(file)}
        for folder in (one, other)
    ]
    largest, where = 0.0, "none"
    for name in sorted(found[0].keys() | found[1].keys()):
        share = math.inf
        if name in found[0] and name in found[1]:
            first, second = (_tensor(files[name], name) for files in found)
            if first.shape == second.shape and first.numel():
                difference = float((first.float() - second.float()).abs().max())
                scale = float(first.float().abs().max())
                share = (
                    0.0 if difference == 0 else difference / scale if scale and math.isfinite(difference) else math.inf
                )
        if share > largest:
            largest, where = share, name
    return largest, where


def _names(file: Path) -> list[str]:
    with safe_open(file, "pt") as opened:
        return list(opened.keys())


def _tensor(file: Path, name: str) -> Tensor:
    with safe_open(file, "pt") as opened:
        tensor: Tensor = opened.get_tensor(name)
        return tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file that others can read too. Raises OSError (disk full) where safetensors hides it."""
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number and int(number[1]) in FULL_DISK:
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
        raise
    path.chmod(0o644)  # safetensors 0.8 writes 0600, which the next step's user could not read


def weights_of(model: torch.nn.Module) -> dict[str, Tensor]:
    """The trained values of a model, by name."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
