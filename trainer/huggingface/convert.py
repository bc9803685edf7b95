"""Weights and shapes from our names to those of Hugging Face, and back."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cairn.errors import ArtifactError, one_line
from trainer.architecture import class_of
from trainer.huggingface.bert import BERT
from trainer.huggingface.family import OF_ACTIVATION, Family
from trainer.huggingface.gpt import GPT1, GPT2
from trainer.huggingface.llama import LLAMA, OLMO2, QWEN3
from trainer.huggingface.modernbert import MODERNBERT
from trainer.model import Transformer
from trainer.recipe import ModelShape

FAMILIES = {
    "Qwen3ForCausalLM": QWEN3,
    "LlamaForCausalLM": LLAMA,
    "Olmo2ForCausalLM": OLMO2,
    "GPT2LMHeadModel": GPT2,
    "OpenAIGPTLMHeadModel": GPT1,
    "ModernBertForMaskedLM": MODERNBERT,
    "BertForMaskedLM": BERT,
}
# Keys of config.json that the logits do not depend on, besides those that a class does not know.
FREE = frozenset(
    """
    architectures attention_dropout attention_probs_dropout_prob attn_pdrop bos_token_id chunk_size_feed_forward
    classifier_dropout classifier_pooling cls_token_id deterministic_flash_attn dtype embd_pdrop embedding_dropout
    eos_token_id hidden_dropout_prob id2label initializer_cutoff_factor initializer_range label2id local_attention
    max_window_layers mlp_dropout name_or_path _name_or_path output_attentions output_hidden_states pad_token_id
    pretraining_tp problem_type resid_pdrop return_dict sep_token_id sparse_pred_ignore_index sparse_prediction
    summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
    task_specific_params torch_dtype transformers_version type_vocab_size use_cache vocab_size
    """.split()
)
HEAD_BIAS = ("head", "bias")
# Heads of other tasks, which a checkpoint may hold beside what the class has.
OTHER_HEADS = ("bert.pooler.", "cls.seq_relationship.")


def config(shape: ModelShape) -> dict[str, Any]:
    """The part of config.json that follows from the shape."""
    name = class_of(shape)
    return {"architectures": [name], "model_type": FAMILIES[name].model_type, **FAMILIES[name].config(shape)}


def to_huggingface(weights: Mapping[str, Tensor], shape: ModelShape) -> dict[str, Tensor]:
    """The weights under the names, and in the layout, of the class that holds the shape."""
    family = FAMILIES[class_of(shape)]
    kinds = {tensor.dtype for tensor in weights.values()}
    dtype = kinds.pop() if len(kinds) == 1 else torch.float32
    found = {name: torch.zeros(size, dtype=dtype) for name, size in family.zeros(shape).items()}
    for theirs, ours, turned in _names(family, weights):
        joined = weights[ours[0]] if len(ours) == 1 else torch.cat([weights[name] for name in ours])
        found[theirs] = joined.T.contiguous() if turned else joined
    return found


def from_huggingface(folder: Path, shape: ModelShape) -> dict[str, Tensor]:
    """The weights in a model directory, in fp32, under our names.

    Args:
        folder: of a model whose class is that of `shape`.

    Raises:
        ArtifactError: it does not load, or its weights are not those of the shape.
    """
    model = _load(folder, shape)
    theirs = model.state_dict()
    vocab_size = model.get_input_embeddings().weight.shape[0]
    with torch.device("meta"):
        wanted = dict(Transformer(shape, vocab_size).named_parameters())
    found: dict[str, Tensor] = {}
    taken = set()
    for name, ours, turned in _names(FAMILIES[class_of(shape)], wanted):
        if name not in theirs:
            raise ArtifactError(f"{folder}: has no weight {name}, which pretrain.model asks for")
        whole = theirs[name].T if turned else theirs[name]
        rows = [len(wanted[part]) for part in ours]
        asked = (sum(rows), *wanted[ours[0]].shape[1:])
        if whole.shape != asked:
            raise ArtifactError(f"{folder}: {name} is {tuple(whole.shape)}, and pretrain.model asks for {asked}")
        found.update(zip(ours, whole.split(rows), strict=True))
        taken.add(theirs[name].data_ptr())
    types = theirs.get("bert.embeddings.token_type_embeddings.weight")
    if types is not None:
        # Every token of packed text is of the first type: what is added to each position alike.
        found["positions.weight"] = found["positions.weight"] + types[0]
        taken.add(types.data_ptr())
    left = sorted(name for name, weight in theirs.items() if weight.data_ptr() not in taken)
    if left:
        raise ArtifactError(f"{folder}: pretrain.model has no place for its {left[0]}")
    return {name: tensor.detach().clone().contiguous() for name, tensor in found.items()}


def shape_of(folder: Path) -> ModelShape:
    """The shape of the model in a directory, from its config.json.

    Raises ArtifactError when its class is none of ours, or does what no shape does.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoConfig

    path = folder / "config.json"
    try:
        said = AutoConfig.from_pretrained(folder)
    except Exception as error:
        raise ArtifactError(f"{path}: tells of no model: {one_line(error)[:200]}") from None
    family = next((one for one in FAMILIES.values() if one.model_type == said.model_type), None)
    if family is None:
        known = ", ".join(one.model_type for one in FAMILIES.values())
        raise ArtifactError(f"{path}: model_type {said.model_type!r} is none of {known}")
    try:
        shape = ModelShape.model_validate(family.shape(said))
    except ValueError as error:
        raise ArtifactError(f"{path}: no shape of ours: {one_line(error)[:300]}") from None
    ours = type(said)(**family.config(shape)).to_dict()
    theirs = said.to_dict()
    for key in sorted(type(said)().to_dict().keys() - FREE):
        if ours[key] != theirs[key] and not _alike(ours[key], theirs[key], key, shape):
            raise ArtifactError(f"{path}: {key} is {theirs[key]!r}; what is trained here has {ours[key]!r}")
    return shape


def _alike(ours: Any, theirs: Any, key: str, shape: ModelShape) -> bool:
    """Two ways to say the same."""
    if key == "n_inner":
        return theirs is None and shape.mlp_width == 4 * shape.width
    if key in ("hidden_act", "hidden_activation", "activation_function", "classifier_activation"):
        return OF_ACTIVATION.get(ours) == OF_ACTIVATION.get(theirs)
    return key == "head_dim" and theirs is None and ours * shape.heads == shape.width


def _names(family: Family, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """For each weight of the class: its name, ours that it is made of, and whether it is turned."""
    layers = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    modules = [(ours, theirs, theirs, False) for ours, theirs in family.outside.items()]
    for ours, theirs in family.block.items():
        turned = theirs.partition("{}.")[2] in family.turned
        for layer in sorted(layers, key=int):
            modules.append((" ".join(f"blocks.{layer}.{one}" for one in ours.split()), theirs, layer, turned))
    for ours, theirs, layer, turned in modules:
        for suffix in ("weight", "bias"):
            # The bias of a head whose matrix is the embedding's has a name of its own with us.
            parts = tuple(f"{one}.{suffix}" for one in ours.split()) if (ours, suffix) != HEAD_BIAS else ("logit_bias",)
            if parts[0] in weights:
                yield f"{theirs.format(layer)}.{suffix}", parts, turned and suffix == "weight"


def _load(folder: Path, shape: ModelShape) -> Any:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    auto: Any = AutoModelForCausalLM if shape.causal else AutoModelForMaskedLM
    try:
        model, said = auto.from_pretrained(
            folder,
            dtype=torch.float32,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise ArtifactError(f"{folder}: does not load as a model: {one_line(error)[:200]}") from None
    odd = {
        kind: left
        for kind, names in said.items()
        if (left := sorted(name for name in map(str, names) if not name.startswith(OTHER_HEADS)))
    }
    if odd:
        raise ArtifactError(f"{folder}: does not load as a model: weights do not fit the class: {one_line(odd)[:200]}")
    return model
