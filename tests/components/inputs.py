"""What stages take, made by hand in the form of their artifacts, and a stage run as its door runs it."""

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers

from cairn.lineage.stage import Component, run_stage
from cairn.lineage.store import Store
from cairn.recipe import Section
from cairn.resources import Resources
from components.export.huggingface import write
from components.export.recipe import Export
from components.ingest.documents import ShardWriter
from tests.pipelines.project import NOUNS, VERBS
from trainer.checkpoint import save_weights, weights_of
from trainer.manifest import FORMAT
from trainer.model import Transformer
from trainer.recipe import ModelShape

END_OF_TEXT = "<|endoftext|>"
MASK = "<|mask|>"
# No size is a multiple of another that it could be taken for.
SHAPE = ModelShape(layers=2, width=24, heads=4, kv_heads=2, head_dim=8, mlp_width=40, context=32)

DEFAULT = Export()


def run(name: str, section: Section, root: Path, inputs: Mapping[str, Path], workers: int = 1) -> dict[str, Path]:
    """Run a stage in a project at `root`; its outputs by name. Raises what the stage raises."""
    component = Component.of(f"components.{name}")
    outputs = {output: root / "artifacts" / output for output in component.outputs}
    run_stage(
        component,
        section,
        importlib.import_module(f"components.{name}.__main__").work,
        inputs=inputs,
        outputs=outputs,
        store=Store(str(root / "store")),
        resources=Resources(workers=workers, processes=1),
        home=root / ".cairn",
    )
    return outputs


# Documents


@dataclass(frozen=True)
class Document:
    """One document of a split."""

    text: str
    domain: str = "walks"
    overlap: float = 0.0
    """Share of its word 8-grams that occur in train; told of held-out and development documents only."""

    @property
    def identity(self) -> str:
        """The id that ingest gives it."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.text.encode())


def sentences(number: int, lines: int = 6) -> str:
    """English-like sentences, others for every number, the same on every machine."""
    made = []
    for line in range(lines):
        draw = (number * 7919 + line * 104_729) % 1_000_003
        noun, verb, other = NOUNS[draw % 15], VERBS[draw // 15 % 12], NOUNS[draw // 180 % 15]
        made.append(f"The {noun} {verb} the {other}, and the {other} {verb} number {draw % 977}.\n")
    return "".join(made)


def write_documents(root: Path, shard_bytes: int = 1 << 20, **splits: Sequence[Document]) -> Path:
    """A documents artifact; splits that are not given are empty."""
    for split, documents in splits.items():
        with ShardWriter(root / split, shard_bytes) as shard:
            for document in documents:
                record = {
                    "id": document.identity,
                    "text": document.text,
                    "source": f"{document.domain}-source",
                    "domain": document.domain,
                    "licence": "CC0-1.0",
                    "bytes": document.size,
                }
                shard.write(record if split == "train" else {**record, "overlap": document.overlap})
    root.mkdir(exist_ok=True)
    (root / "ledger.json").write_text('{"format": "cairn-documents-v1"}')
    return root


# A tokenizer


def byte_tokenizer(merges: Sequence[str] = (), mask: bool = False) -> dict[str, Any]:
    """A byte-level BPE as the content of a tokenizer.json: one token for every byte, then the merges, written as
    `"t h"`; the end-of-text token is 0, the mask token, if there is one, the last."""
    vocabulary = {END_OF_TEXT: 0}
    for token in [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in merges)]:
        vocabulary[token] = len(vocabulary)
    special = [END_OF_TEXT]
    if mask:
        vocabulary[MASK] = len(vocabulary)
        special.append(MASK)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": vocabulary[token], "content": token, **flags} for token in special],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": list(merges)},
    }


def write_tokenizer(root: Path, content: Mapping[str, Any] | None = None) -> Path:
    """A tokenizer artifact."""
    root.mkdir(parents=True)
    (root / "tokenizer.json").write_text(json.dumps(byte_tokenizer() if content is None else content))
    return root


# A checkpoint, and the model that is exported from it


def write_checkpoint(root: Path, tokenizer: Path, shape: ModelShape = SHAPE, spread: int = 1) -> Path:
    """A checkpoint artifact of a model that was never trained.

    Its weights are small fractions that fp32 holds exactly, computed without a random generator: the same bytes on
    every machine and with every library. `spread` 0 makes every matrix zero.
    """
    root.mkdir(parents=True)
    data = (tokenizer / "tokenizer.json").read_bytes()
    vocab_size = max(json.loads(data)["model"]["vocab"].values()) + 1
    weights = weights_of(Transformer(shape, vocab_size))
    for number, (name, tensor) in enumerate(sorted(weights.items())):
        index = torch.arange(tensor.numel(), dtype=torch.int64)
        fractions = ((index * 7919 + number * 104_729) % 1_000_003 % 255 - 127).double() / 512
        around = 1.0 if tensor.dim() == 1 and not name.endswith("bias") else 0.0
        weights[name] = (around + spread * fractions).float().view(tensor.shape)
    save_weights(root, "model", weights)
    manifest = {
        "format": FORMAT,
        "model": shape.model_dump(mode="json"),
        "vocab_size": vocab_size,
        "end_of_text": 0,
        "tokenizer": hashlib.sha256(data).hexdigest(),
        "tokens": "7" * 64,
        "step": 12,
        "tokens_seen": 12_345,
        "parameters": shape.parameters(vocab_size),
        "seed": 3,
        "precision": "fp32",
    }
    if not shape.causal:
        manifest["mask"] = json.loads(data)["model"]["vocab"][MASK]
    (root / "checkpoint.json").write_text(json.dumps(manifest))
    return root


@dataclass(frozen=True)
class Model:
    """A model directory, and the trainer's model with its weights."""

    folder: Path
    trained: Transformer


def write_model(
    root: Path, section: Export = DEFAULT, shape: ModelShape = SHAPE, merges: Sequence[str] = (), spread: int = 1
) -> Model:
    """A model artifact, exported from a checkpoint made by hand without the check in a process of its own."""
    tokenizer = write_tokenizer(root / "tokenizer", byte_tokenizer(merges, mask=not shape.causal))
    checkpoint = write_checkpoint(root / "checkpoint", tokenizer, shape, spread)
    folder = root / "model"
    folder.mkdir()
    return Model(folder, write(section, checkpoint=checkpoint, tokenizer=tokenizer, model=folder))
