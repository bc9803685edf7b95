"""What training ends with: safetensors in a canonical order and in files of fixed size, whatever the number of
processes was. Checkpoints in progress are in progress.py, states that are kept on the way in kept.py."""

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cairn.errors import FULL_DISK, ArtifactError
from trainer.manifest import read_manifest

FILE_BYTES = 1 << 30


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
