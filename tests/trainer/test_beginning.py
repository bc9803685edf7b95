"""Weights to begin with: whether they are those that the recipe means."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from cairn.errors import ArtifactError, StageError
from cairn.lineage.artifact import read_artifact, readable
from cairn.lineage.store import Store
from components.pretrain.beginning import keep
from tests.trainer.tokens import counting
from trainer.beginning import check_beginning, weights
from trainer.checkpoint import save_weights, weights_of
from trainer.huggingface import config, to_huggingface
from trainer.manifest import FORMAT
from trainer.model import Transformer
from trainer.recipe import InitFrom, ModelShape, Training
from trainer.tokens import Tokens

SHAPE = ModelShape(layers=1, width=16, heads=2, kv_heads=1, head_dim=8, mlp_width=32, context=16)
TOKENIZER = b"{}"
TOLD = {"tokenizer": hashlib.sha256(TOKENIZER).hexdigest()}


def training(folder: Path, **changes: Any) -> Training:
    """A recipe that begins with what is in a folder, as it is."""
    said = {"path": str(folder), "sha256": read_artifact(folder, address=False).digest}
    model = {**SHAPE.model_dump(mode="json"), **changes}
    sizes = {"steps": 1, "batch": 1, "micro_batch": 1}
    return Training.model_validate_json(json.dumps({"model": model, "init_from": said, **sizes}))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    folder = counting(tmp_path_factory.mktemp("tokens") / "tokens")
    said = json.loads((folder / "tokens.json").read_bytes())
    (folder / "tokens.json").write_bytes(readable({**said, **TOLD}))
    return Tokens.open(folder)


@pytest.fixture
def model(tokens: Tokens) -> Transformer:
    made = Transformer(SHAPE, tokens.vocab_size)
    made.initialize(5)
    return made


@pytest.fixture
def checkpoint(tmp_path: Path, model: Transformer, tokens: Tokens) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_weights(folder, "model", weights_of(model))
    said = {"vocab_size": tokens.vocab_size, "tokenizer": tokens.tokenizer}
    manifest = {"format": FORMAT, "model": SHAPE.model_dump(mode="json"), **said}
    (folder / "checkpoint.json").write_bytes(readable(manifest))
    return folder


@pytest.fixture
def directory(tmp_path: Path, model: Transformer, tokens: Tokens) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(to_huggingface(weights_of(model), SHAPE), folder / "model.safetensors", metadata={"format": "pt"})
    said = {**config(SHAPE), "vocab_size": tokens.vocab_size, "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(said))
    (folder / "tokenizer.json").write_bytes(TOKENIZER)
    return folder


@pytest.mark.parametrize("kind", ["checkpoint", "directory"])
def test_training_begins_with_exactly_these_weights(
    kind: str, model: Transformer, tokens: Tokens, request: pytest.FixtureRequest
) -> None:
    asked = training(request.getfixturevalue(kind))
    check_beginning(asked, tokens)
    assert asked.init_from is not None
    found = dict(weights(asked.init_from, asked.model))
    assert found.keys() == weights_of(model).keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights_of(model).items())


def test_a_longer_context_is_no_other_model_where_positions_are_rotary(checkpoint: Path, tokens: Tokens) -> None:
    check_beginning(training(checkpoint, context=32), tokens)


def edited(folder: Path, **changes: Any) -> Path:
    path = folder / ("checkpoint.json" if (folder / "checkpoint.json").exists() else "config.json")
    path.write_bytes(readable({**json.loads(path.read_bytes()), **changes}))
    return folder


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            lambda folder: training(folder, mlp_width=64, tied=False),
            "of another model: mlp_width 32 (the recipe: 64), tied True (the recipe: False): change pretrain.model",
        ),
        (lambda folder: training(edited(folder, vocab_size=70)), "has a vocabulary of 70, the tokens one of 64"),
        (lambda folder: training(edited(folder, tokenizer="ab" * 32)), "with the tokenizer abababababab, the tokens"),
        (lambda folder: training(edited(folder, model={})), "checkpoint.json: tells of no model"),
    ],
)
def test_weights_of_another_model_or_tokenizer_are_refused(
    asked: Callable[[Path], Training], said: str, checkpoint: Path, tokens: Tokens
) -> None:
    with pytest.raises(StageError) as refused:
        check_beginning(asked(checkpoint), tokens)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_other_bytes_than_the_recipe_means_are_refused_and_their_digest_told(checkpoint: Path, tokens: Tokens) -> None:
    asked = training(checkpoint)
    edited(checkpoint, seed=1)
    found = read_artifact(checkpoint, address=False).digest
    with pytest.raises(StageError, match=f"has the digest {found}, sha256 says "):
        check_beginning(asked, tokens)


def test_a_model_directory_of_another_tokenizer_or_without_one_is_refused(directory: Path, tokens: Tokens) -> None:
    (directory / "tokenizer.json").write_bytes(b"[]")
    with pytest.raises(StageError, match="tokenize with its tokenizer"):
        check_beginning(training(directory), tokens)
    (directory / "tokenizer.json").unlink()
    with pytest.raises(StageError, match=r"has no tokenizer\.json to compare"):
        check_beginning(training(directory), tokens)


def test_a_tokenizer_that_transformers_wrote_anew_is_the_same_and_one_that_adds_tokens_is_not(
    directory: Path, tmp_path: Path
) -> None:
    made = Tokenizer(models.BPE({"a": 1, "b": 2, "ab": 3, "<|endoftext|>": 0}, [("a", "b")]))
    made.add_special_tokens(["<|endoftext|>"])
    ours = f"{made.to_str(pretty=True)}\n".encode()
    folder = counting(tmp_path / "tokens")
    said = {**json.loads((folder / "tokens.json").read_bytes()), "tokenizer": hashlib.sha256(ours).hexdigest()}
    (folder / "tokens.json").write_bytes(readable(said))
    tokens, file = Tokens.open(folder), directory / "tokenizer.json"
    file.write_bytes(ours)
    PreTrainedTokenizerFast(tokenizer_file=str(file)).save_pretrained(directory)  # type: ignore[no-untyped-call]
    assert file.read_bytes() != ours
    check_beginning(training(directory), tokens)

    made.post_processor = processors.TemplateProcessing("<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    made.save(str(file))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(StageError) as refused:
        check_beginning(training(directory), tokens)
    assert f"set tokenize.tokenizer: {file}, tokenize.tokenizer_sha256: '{digest}'" in str(refused.value)


def test_a_folder_that_is_missing_or_something_else_is_refused(tmp_path: Path, tokens: Tokens) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("x")
    with pytest.raises(StageError, match=r"neither a checkpoint \(checkpoint\.json\) nor a model directory"):
        check_beginning(training(tmp_path / "other"), tokens)
    asked = training(tmp_path / "other")
    (tmp_path / "other").rename(tmp_path / "moved")
    with pytest.raises(StageError, match="other: no such artifact"):
        check_beginning(asked, tokens)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda found: found.pop("norm.weight"), "lacks norm.weight"),
        (lambda found: found.update(more=torch.ones(1)), "holds a tensor that is not ours: more"),
        (
            lambda found: found.update({"norm.weight": torch.ones(16).half()}),
            "norm.weight is of dtype float16, not fp32",
        ),
        (lambda found: found.update({"norm.weight": torch.ones(8)}), "norm.weight has the shape [8], not [16]"),
        (lambda found: found["norm.weight"].fill_(torch.nan), "norm.weight holds a value that is not finite"),
    ],
)
def test_tensors_that_cannot_be_the_weights_are_named(
    spoil: Callable[[dict[str, Tensor]], Any], said: str, checkpoint: Path
) -> None:
    file = next(checkpoint.glob("*.safetensors"))
    found = load_file(file)
    spoil(found)
    save_file(found, file)
    with pytest.raises(ArtifactError) as refused:
        list(weights(InitFrom(path=str(checkpoint), sha256="0" * 64), SHAPE))
    assert said in str(refused.value)


def test_the_store_keeps_what_training_begins_with_and_nothing_that_was_refused(
    checkpoint: Path, tokens: Tokens, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(str(tmp_path / "store"))
    asked = training(checkpoint)
    assert asked.init_from is not None
    digest = asked.init_from.sha256
    folder = tmp_path / "tokens"
    counting(folder)
    (folder / "tokens.json").write_bytes(readable({**json.loads((folder / "tokens.json").read_bytes()), **TOLD}))
    wrong = asked.model_copy(update={"init_from": InitFrom(path=str(checkpoint), sha256="0" * 64)})
    with pytest.raises(StageError, match=f"has the digest {digest}"):
        keep(InitFrom(path=str(checkpoint), sha256="0" * 64), wrong, folder, store)
    assert not store.has(digest)
    noted = keep(asked.init_from, asked, folder, store)
    assert noted.annotations == {"kind": "beginning", "path": str(checkpoint), "given": True}
    assert store.has(digest)
    assert f"goes to the store ({digest[:12]})" in capsys.readouterr().err
    keep(asked.init_from, asked, folder, store)
    assert capsys.readouterr().err == ""
