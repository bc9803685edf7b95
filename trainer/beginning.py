"""The weights that training begins with, where they are not drawn: those of a checkpoint or a Hugging Face directory.

Looked at before anything starts: whether they are the bytes that the recipe means, and of the model and the tokenizer
that it trains.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from cairn.errors import ArtifactError, StageError
from cairn.lineage.artifact import read_artifact
from trainer.manifest import read_manifest
from trainer.recipe import InitFrom, ModelShape, Training
from trainer.tokens import Tokens

NAMED = 3  # fields that differ and are named


def check_beginning(training: Training, tokens: Tokens) -> None:
    """Refuse weights that are not what the recipe says, or of another model.

    Raises StageError, in one line, with what to change.
    """
    asked = training.init_from
    if asked is None:
        return
    folder = Path(asked.path)
    try:
        found = read_artifact(folder, address=False).digest
    except ArtifactError as error:
        raise StageError(f"pretrain.init_from: {error} (a folder of links: copy it with cp -rL)") from None
    if found != asked.sha256:
        raise StageError(
            f"pretrain.init_from: {folder} has the digest {found}, sha256 says {asked.sha256}: write the first if "
            "these are the weights that you mean"
        )
    try:
        shape, vocab_size, tokenizers = _described(folder)
    except ArtifactError as error:
        raise StageError(f"pretrain.init_from: {error}") from None
    ours = _fields(training.model)
    theirs = _fields(shape)
    # Rotary positions have no weights: a longer context is often why training goes on.
    free = {"context"} if shape.positions == "rope" else set()
    differ = [name for name in ours if ours[name] != theirs[name] and name not in free]
    if differ:
        told = ", ".join(f"{name} {theirs[name]} (the recipe: {ours[name]})" for name in differ[:NAMED])
        more = f" and {len(differ) - NAMED} more" if len(differ) > NAMED else ""
        raise StageError(f"pretrain.init_from: {folder} is of another model: {told}{more}: change pretrain.model")
    file = folder / "tokenizer.json"
    where = f"{file}, tokenize.tokenizer_sha256: '{tokenizers[0]}'" if file.exists() else "its tokenizer.json"
    way_out = f"to tokenize with its tokenizer, set tokenize.tokenizer: {where}"
    if vocab_size != tokens.vocab_size:
        raise StageError(
            f"pretrain.init_from: {folder} has a vocabulary of {vocab_size}, the tokens one of {tokens.vocab_size}: "
            f"{way_out}"
        )
    if tokens.tokenizer not in tokenizers:
        raise StageError(
            f"pretrain.init_from: {folder} was trained with the tokenizer {tokenizers[0][:12]}, the tokens were made "
            f"with {tokens.tokenizer[:12]}: {way_out}"
        )


def weights(asked: InitFrom, shape: ModelShape) -> Iterator[tuple[str, Tensor]]:
    """The weights by name, fp32, whole, on the CPU.

    Raises ArtifactError when one is missing, too many, of another shape or dtype, or holds a value that is not finite.
    """
    import torch

    from trainer.checkpoint import load_checkpoint
    from trainer.guard import check_numbers
    from trainer.model import Transformer

    folder = Path(asked.path)
    if (folder / "checkpoint.json").exists():
        manifest, found = load_checkpoint(folder)
        vocab_size = int(manifest["vocab_size"])
    else:
        from trainer.huggingface import from_huggingface

        found = from_huggingface(folder, shape)
        vocab_size = len(found["embedding.weight"])
    with torch.device("meta"):
        wanted = dict(Transformer(shape, vocab_size).named_parameters())
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found or name not in wanted:
            raise ArtifactError(f"{folder}: {'lacks' if name in wanted else 'holds a tensor that is not ours:'} {name}")
        if found[name].dtype != torch.float32:
            raise ArtifactError(
                f"{folder}: {name} is of dtype {str(found[name].dtype).removeprefix('torch.')}, not fp32"
            )
        if found[name].shape != wanted[name].shape:
            sizes = f"{list(found[name].shape)}, not {list(wanted[name].shape)}"
            raise ArtifactError(f"{folder}: {name} has the shape {sizes}")
    check_numbers(found, str(folder))
    yield from found.items()


def _described(folder: Path) -> tuple[ModelShape, int, list[str]]:
    """Shape, size of the vocabulary and tokenizer of what is in a folder: the tokenizer as the sha256 of each file that
    says the same. Raises ArtifactError."""
    if (folder / "checkpoint.json").exists():
        manifest = read_manifest(folder)
        try:
            shape = ModelShape.model_validate(manifest["model"])
            return shape, int(manifest["vocab_size"]), [str(manifest["tokenizer"])]
        except (KeyError, ValueError) as error:
            raise ArtifactError(
                f"{folder / 'checkpoint.json'}: tells of no model: {str(error).splitlines()[0]}"
            ) from None
    if not (folder / "config.json").exists():
        raise ArtifactError(f"{folder}: is neither a checkpoint (checkpoint.json) nor a model directory (config.json)")
    from trainer.huggingface import shape_of

    shape = shape_of(folder)
    try:
        tokenizers = _alike((folder / "tokenizer.json").read_bytes())
    except OSError:
        raise ArtifactError(f"{folder}: has no tokenizer.json to compare with that of the tokens") from None
    return shape, int(json.loads((folder / "config.json").read_bytes())["vocab_size"]), tokenizers


def _alike(data: bytes) -> list[str]:
    """sha256 of a `tokenizer.json`, and of those that make the same ids of every text and the same text of all ids.

    `save_pretrained` of transformers writes the file anew: with a post-processor that adds nothing where there was
    none, and with the settings of its last batch. So those are taken away, and the rest is written as Cairn and the
    library do.
    """
    found = [hashlib.sha256(data).hexdigest()]
    try:
        said = json.loads(data)
        after = said.get("post_processor") or {}
        if after.get("type") == "TemplateProcessing" and not after.get("special_tokens"):
            said["post_processor"] = None
        read = Tokenizer.from_str(json.dumps({**said, "truncation": None, "padding": None}))
    except Exception:  # the library has no exception of its own; what cannot be read is like nothing else
        return found
    pretty, short = read.to_str(pretty=True), read.to_str(pretty=False)
    return found + [hashlib.sha256(text.encode()).hexdigest() for text in (f"{pretty}\n", pretty, short)]


def _fields(shape: ModelShape) -> dict[str, Any]:
    """What a shape is, however it was said."""
    return shape.model_dump(mode="json", exclude={"named", "depth"})
