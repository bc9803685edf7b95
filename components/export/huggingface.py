"""The Hugging Face directory: configuration, weights, tokenizer, generation settings, model card.

Written by hand, not by `save_pretrained`: that writes a tokenizer class and a rotary base that transformers 4 does not
read (the base silently), and weights that only their owner may read.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cairn.errors import ArtifactError, StageError, one_line
from cairn.lineage.artifact import readable
from components.export.card import card
from components.export.recipe import Export
from trainer.checkpoint import load_checkpoint, weights_of, write_tensors
from trainer.huggingface import config as of_shape
from trainer.huggingface import to_huggingface
from trainer.model import Transformer
from trainer.recipe import ModelShape

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MANIFEST = {"model", "vocab_size", "end_of_text", "tokenizer", "tokens", "step", "tokens_seen", "parameters", "seed"}


def export(section: Export, *, checkpoint: Path, tokenizer: Path, model: Path, work: Path) -> dict[str, float]:
    """Fill `model` and compare it with the trainer's model; the largest difference found, and the number of files.

    Raises:
        ArtifactError: checkpoint and tokenizer do not belong together, or one is damaged.
        StageError: the files do not give the trainer's logits.
    """
    expected = work / "expected.safetensors"
    highest = _expect(write(section, checkpoint=checkpoint, tokenizer=tokenizer, model=model), expected)
    largest, allowed = _difference(model, expected), section.tolerance * max(1.0, highest)
    if not largest <= allowed:
        raise StageError(
            f"the exported model's logits differ from the trainer's by {largest:.3g}; allowed {allowed:.3g}"
        )
    return {"largest_difference": largest, "files": len(list(model.glob("model*.safetensors")))}


def write(section: Export, *, checkpoint: Path, tokenizer: Path, model: Path) -> Transformer:
    """Fill `model`; the trainer's model with the weights of these files, in fp32."""
    manifest, weights = load_checkpoint(checkpoint)
    shape = _shape(checkpoint, manifest, weights)
    text = _tokenizer(tokenizer, manifest["tokenizer"])
    special = _special(shape, manifest, text)
    for name in weights:
        weights[name] = weights[name].to(DTYPES[section.dtype])
    _write_weights(model, to_huggingface(weights, shape), section.shard_bytes)
    contents = {
        "config.json": config(shape, manifest, section.dtype),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **special,
            "model_max_length": shape.context,
            "clean_up_tokenization_spaces": False,
        },
        "special_tokens_map.json": special,
    }
    if shape.causal:
        end = manifest["end_of_text"]
        contents["generation_config.json"] = {"bos_token_id": end, "eos_token_id": end}
    for name, content in contents.items():
        (model / name).write_bytes(readable(content))
    (model / "tokenizer.json").write_bytes(text)
    (model / "README.md").write_text(card(section, manifest, shape, special.get("mask_token")))
    for path in model.iterdir():
        path.chmod(0o644)
    trained = Transformer(shape, manifest["vocab_size"])
    trained.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    return trained


def config(shape: ModelShape, manifest: dict[str, Any], dtype: str) -> dict[str, Any]:
    """`config.json`."""
    end = manifest["end_of_text"]
    of_task: dict[str, Any] = {"use_cache": True}
    if not shape.causal:
        # No token fills a row up in training; these classes would take one of their own vocabulary.
        of_task = {"pad_token_id": None, "cls_token_id": None, "sep_token_id": None}
    return {
        **of_shape(shape),
        **of_task,
        "vocab_size": manifest["vocab_size"],
        "bos_token_id": end,
        "eos_token_id": end,
        "dtype": dtype,
        "torch_dtype": dtype,
    }


def text_of_id(tokenizer: bytes, identity: int, use: str = "ends documents") -> str:
    """The text of an added token, which has a use in training."""
    added = json.loads(tokenizer).get("added_tokens", [])
    found = next((token["content"] for token in added if token["id"] == identity), None)
    if found is None:
        raise ArtifactError(f"tokenizer.json: has no special token with id {identity}, which {use} in training")
    return str(found)


def _special(shape: ModelShape, manifest: dict[str, Any], tokenizer: bytes) -> dict[str, str]:
    """The special tokens that a user's tokenizer has to know."""
    end = text_of_id(tokenizer, manifest["end_of_text"])
    special = {"bos_token": end, "eos_token": end}
    if not shape.causal:
        # Rows of unlike length are filled up with what attention is told to leave out: any token does.
        mask = text_of_id(tokenizer, manifest["mask"], "stands for a masked one")
        special |= {"mask_token": mask, "pad_token": end}
    return special


def _shape(checkpoint: Path, manifest: dict[str, Any], weights: dict[str, Tensor]) -> ModelShape:
    """The shape that the manifest tells, if the weights have it. Raises ArtifactError."""
    path = checkpoint / "checkpoint.json"
    missing = sorted(MANIFEST - manifest.keys())
    if missing:
        raise ArtifactError(f"{path}: does not say {', '.join(missing)}: run the pretrain stage again")
    try:
        shape = ModelShape.model_validate_json(json.dumps(manifest["model"]))
        with torch.device("meta"):
            wanted = {
                name: tensor.shape for name, tensor in weights_of(Transformer(shape, manifest["vocab_size"])).items()
            }
    except (ValueError, TypeError, RuntimeError) as error:
        raise ArtifactError(f"{path}: tells of no model: {one_line(error)}") from None
    if not shape.causal and "mask" not in manifest:
        raise ArtifactError(f"{path}: does not say mask: run the pretrain stage again")
    found = {name: tensor.shape for name, tensor in weights.items()}
    if found != wanted:
        odd = min(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        what = f"{tuple(found[odd])}" if odd in found else "missing"
        asked = f"{tuple(wanted[odd])}" if odd in wanted else "no such weight"
        raise ArtifactError(
            f"{checkpoint}: {odd} is {what}, and the model of checkpoint.json has {asked}: run the pretrain stage again"
        )
    return shape


def _tokenizer(folder: Path, sha256: str) -> bytes:
    path = folder / "tokenizer.json"
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file: run the tokenize stage first") from None
    if hashlib.sha256(text).hexdigest() != sha256:
        raise ArtifactError(f"{path}: is not the tokenizer that the checkpoint was trained with: run all stages again")
    return text


def _write_weights(folder: Path, tensors: dict[str, Tensor], limit: int) -> None:
    """Write `model.safetensors`, or several files with an index."""
    files: list[dict[str, Tensor]] = [{}]
    size = 0
    for name in sorted(tensors):
        if files[-1] and size + tensors[name].nbytes > limit:
            files.append({})
            size = 0
        files[-1][name] = tensors[name]
        size += tensors[name].nbytes
    if len(files) == 1:
        write_tensors(folder / "model.safetensors", files[0])
        return
    index = {}
    for number, file in enumerate(files, 1):
        path = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        write_tensors(folder / path, file)
        index.update(dict.fromkeys(file, path))
    total = sum(tensor.nbytes for tensor in tensors.values())
    (folder / "model.safetensors.index.json").write_bytes(
        readable({"metadata": {"total_size": total}, "weight_map": index})
    )


def _expect(trained: Transformer, expected: Path) -> float:
    """Write the trainer's logits over two sequences of the whole context; the largest of them."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, len(trained.embedding.weight), (2, trained.shape.context), generator=generator)
    with torch.no_grad():
        logits = trained(tokens)
    write_tensors(expected, {"tokens": tokens, "logits": logits})
    return float(logits.abs().max())


def _difference(model: Path, expected: Path) -> float:
    """Load the files in a fresh process, as a user would; the largest difference from the logits expected."""
    command = [sys.executable, "-m", "components.export.parity", str(model), str(expected)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    expected.unlink()
    if done.returncode < 0:
        raise StageError(
            f"the process that loads the exported files was killed by signal {-done.returncode} (out of memory?): "
            "run again with more memory"
        )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise StageError(f"the exported files do not load: {said[-1].removeprefix('error: ')}")
    return float(json.loads(done.stdout.splitlines()[-1])["largest_difference"])
