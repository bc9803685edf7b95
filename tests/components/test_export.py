"""Export: the files give the trainer's logits in every shape that can be trained, and files that do not are refused."""

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from cairn.errors import ArtifactError, CairnError, RecipeError, StageError
from cairn.lineage import attestation, signing
from cairn.lineage.artifact import digest_of
from cairn.lineage.store import Store
from cairn.recipe import load as load_recipe
from components.export.huggingface import write
from components.export.loading import load_model
from components.export.recipe import Export
from tests.components.inputs import (
    DEFAULT,
    END_OF_TEXT,
    MASK,
    SHAPE,
    Model,
    byte_tokenizer,
    run,
    write_checkpoint,
    write_model,
    write_tokenizer,
)
from trainer.huggingface.llama import BLOCK
from trainer.model import Transformer
from trainer.recipe import ModelShape

ROOT = Path(__file__).resolve().parents[2]
SHAPES = {
    "grouped queries": SHAPE,
    "untied": SHAPE.model_copy(update={"tied": False}),
    "one key head": SHAPE.model_copy(update={"kv_heads": 1}),
    "as many key heads, untied, no norm of queries": SHAPE.model_copy(
        update={"kv_heads": 4, "tied": False, "qk_norm": "none"}
    ),
    "no norm of queries": SHAPE.model_copy(update={"qk_norm": "none"}),
    "wide heads": SHAPE.model_copy(update={"head_dim": 16}),
    "another rotary base": SHAPE.model_copy(update={"rope_theta": 500.0}),
    "another rotary base, no norm of queries": SHAPE.model_copy(update={"rope_theta": 500.0, "qk_norm": "none"}),
    "another epsilon": SHAPE.model_copy(update={"norm_eps": 0.05}),
}
SMALL: dict[str, Any] = {
    "layers": 2,
    "width": 32,
    "heads": 4,
    "kv_heads": 4,
    "head_dim": 8,
    "mlp_width": 128,
    "context": 24,
}
NAMED = {
    "tiny": "Qwen3ForCausalLM",
    "gpt1": "OpenAIGPTLMHeadModel",
    "gpt2-124m": "GPT2LMHeadModel",
    "bert-base": "BertForMaskedLM",
    "llama-1b": "LlamaForCausalLM",
}


def exported(root: Path, section: Export = DEFAULT, shape: ModelShape = SHAPE) -> Model:
    return write_model(root, section, shape, merges=["t h", "th e"])


def difference(made: Model) -> float:
    """The largest difference of a logit, of all logits over two sequences of the whole context."""
    trained = made.trained
    shape = (2, trained.shape.context)
    tokens = torch.randint(0, len(trained.embedding.weight), shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = trained(tokens), load_model(made.folder, "eager")(tokens).logits
    # A model that says the same of every position would be no test.
    assert expected.std(0).max() > 0.1
    assert expected.std(1).max() > 0.1
    return float((expected - found).abs().max())


@pytest.mark.parametrize("name", SHAPES)
def test_the_files_give_the_logits_of_the_trained_model(tmp_path: Path, name: str) -> None:
    shape = SHAPES[name]
    made = exported(tmp_path, shape=shape)
    config = json.loads((made.folder / "config.json").read_bytes())
    assert config["architectures"] == ["Qwen3ForCausalLM" if shape.qk_norm == "head" else "LlamaForCausalLM"]
    assert type(load_model(made.folder, "eager")).__name__ == config["architectures"][0]
    # transformers 5 reads the second, 4 the first.
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == shape.rope_theta
    assert difference(made) < 1e-5


MODERNBERT = ModelShape(**SMALL, causal=False, norm="layernorm", qk_norm="none", activation="gelu")
OLMO2 = ModelShape(**SMALL, norm_placement="output", qk_norm="width", tied=False)


@pytest.mark.parametrize("name", [*NAMED, "modernbert", "olmo2"])
def test_every_class_is_exported_at_small_size(tmp_path: Path, name: str) -> None:
    others = {"modernbert": (MODERNBERT, "ModernBertForMaskedLM"), "olmo2": (OLMO2, "Olmo2ForCausalLM")}
    shape, wanted = others.get(name) or (ModelShape.model_validate({"named": name, **SMALL}), NAMED[name])
    made = exported(tmp_path, shape=shape)
    loaded = load_model(made.folder, "eager")
    assert type(loaded).__name__ == wanted
    assert json.loads((made.folder / "config.json").read_bytes())["architectures"] == [wanted]
    assert difference(made) < 1e-5
    assert loaded.config.max_position_embeddings == shape.context
    assert (loaded.config.bos_token_id, loaded.config.eos_token_id) == (0, 0)
    assert (made.folder / "generation_config.json").exists() == shape.causal


@pytest.mark.parametrize("name", NAMED)
def test_every_weight_of_a_class_has_the_dtype_that_is_asked_for(tmp_path: Path, name: str) -> None:
    shape = ModelShape.model_validate({"named": name, **SMALL})
    made = exported(tmp_path, Export(dtype="bfloat16", shard_bytes=10_000), shape)
    dtypes = set()
    for path in made.folder.glob("model-*.safetensors"):
        with safe_open(path, "pt") as file:
            dtypes |= {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118
    assert dtypes == {torch.bfloat16}
    assert difference(made) < 1e-5


@pytest.mark.parametrize("name", ["bert-base", "modernbert"])
def test_padding_that_attention_leaves_out_does_not_change_a_masked_model(tmp_path: Path, name: str) -> None:
    shape = MODERNBERT if name == "modernbert" else ModelShape.model_validate({"named": name, **SMALL})
    made = exported(tmp_path, shape=shape)
    loaded, tokenizer = load_model(made.folder), AutoTokenizer.from_pretrained(made.folder)
    batch = tokenizer(["the other", "the other thing: naïve"], padding=True, return_tensors="pt")
    assert not batch.attention_mask.all()
    with torch.no_grad():
        alone = made.trained(batch.input_ids[:1, : int(batch.attention_mask[0].sum())])
        torch.testing.assert_close(loaded(**batch).logits[:1, : alone.shape[1]], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("change", [{"rope_theta": 10_000.0}, {"norm_eps": 1e-6}])
def test_the_comparison_would_notice_another_rotary_base_or_epsilon(tmp_path: Path, change: dict[str, float]) -> None:
    shape = SHAPE.model_copy(update={"rope_theta": 500.0, "norm_eps": 0.05})
    made = exported(tmp_path, shape=shape)
    other = Transformer(shape.model_copy(update=change), len(made.trained.embedding.weight))
    other.load_state_dict(made.trained.state_dict())
    assert difference(Model(made.folder, other)) > 1e-2


def test_bf16_weights_are_compared_as_they_are_in_the_files(tmp_path: Path) -> None:
    made = exported(tmp_path, Export(dtype="bfloat16"))
    with safe_open(made.folder / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    config = json.loads((made.folder / "config.json").read_bytes())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    assert difference(made) < 1e-5
    assert 2 * (made.folder / "model.safetensors").stat().st_size < 1.2 * size_of(exported(tmp_path / "fp32").folder)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


@pytest.mark.parametrize("limit", [20_000, 1])
def test_large_weights_lie_in_several_files_with_an_index(tmp_path: Path, limit: int) -> None:
    made = exported(tmp_path, Export(shard_bytes=limit))
    index = json.loads((made.folder / "model.safetensors.index.json").read_bytes())
    files = sorted(path.name for path in made.folder.glob("model-*.safetensors"))
    assert len(files) > 2
    assert files == [f"model-{number:05d}-of-{len(files):05d}.safetensors" for number in range(1, len(files) + 1)]
    held = {}
    for file in files:
        with safe_open(made.folder / file, "pt") as opened:
            tensors = {name: opened.get_tensor(name).nbytes for name in opened.keys()}  # noqa: SIM118
        assert tensors
        assert len(tensors) == 1 or sum(tensors.values()) <= limit
        held.update(dict.fromkeys(tensors, file))
    assert index["weight_map"] == held
    assert index["metadata"]["total_size"] == 4 * sum(p.numel() for p in made.trained.parameters())
    assert not (made.folder / "model.safetensors").exists()
    assert difference(made) < 1e-5


def test_everyone_may_read_the_files_and_they_are_the_same_every_time(tmp_path: Path) -> None:
    made = exported(tmp_path / "once")
    assert {stat.S_IMODE(path.stat().st_mode) for path in made.folder.iterdir()} == {0o644}
    assert digest_of(made.folder) == digest_of(exported(tmp_path / "elsewhere" / "again").folder)


def test_everyone_may_read_the_files_of_somebody_who_keeps_new_files_private(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        made = exported(tmp_path)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in made.folder.iterdir()} == {0o644}


def test_the_tokenizer_that_users_load_is_the_one_of_training(tmp_path: Path) -> None:
    made = exported(tmp_path)
    text = "the other thing: naïve 日本 🏔️\n\t  don't ,  . 'll\u0000"
    plain, loaded = Tokenizer.from_file(str(made.folder / "tokenizer.json")), AutoTokenizer.from_pretrained(made.folder)
    ids = plain.encode(text, add_special_tokens=False).ids
    assert loaded(text).input_ids == ids
    assert loaded.decode(ids) == text
    assert (loaded.bos_token, loaded.eos_token) == (END_OF_TEXT, END_OF_TEXT)
    assert (loaded.bos_token_id, loaded.eos_token_id) == (0, 0)
    assert loaded.model_max_length == SHAPE.context
    # transformers 4 does not know the class that transformers 5 would write.
    said = json.loads((made.folder / "tokenizer_config.json").read_bytes())
    assert said["tokenizer_class"] == "PreTrainedTokenizerFast"
    generation = json.loads((made.folder / "generation_config.json").read_bytes())
    assert generation == {"bos_token_id": 0, "eos_token_id": 0}


# The model card


def front(card: str) -> dict[str, Any]:
    """The YAML between the first two lines of dashes."""
    _, text, _ = card.split("---\n", 2)
    found: dict[str, Any] = YAML(typ="safe").load(text)
    return found


def test_the_card_says_what_the_artifacts_say(tmp_path: Path) -> None:
    made = exported(tmp_path, Export(name="walks-2"))
    card = (made.folder / "README.md").read_text()
    manifest = json.loads((tmp_path / "checkpoint" / "checkpoint.json").read_bytes())
    assert card.count("# walks-2\n") == 1
    for row in (
        f"| parameters | {sum(p.numel() for p in made.trained.parameters()):,} |",
        "| layers, width, heads | 2, 24, 4 |",
        "| context | 32 tokens |",
        "| vocabulary | 259 |",
        "| tokens seen in training | 12,345 |",
        "| steps | 12 |",
        "| seed | 3 |",
    ):
        assert f"\n{row}\n" in card
    assert manifest["tokens"] in card
    assert manifest["tokenizer"] == hashlib.sha256((made.folder / "tokenizer.json").read_bytes()).hexdigest()
    assert manifest["tokenizer"] in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("licence", "told"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("CC-BY-4.0", {"license": "cc-by-4.0"}),
        ("0BSD", {"license": "0bsd"}),
        ("LicenseRef-house-rules", {"license": "other", "license_name": "LicenseRef-house-rules"}),
        ("MIT OR Apache-2.0", {"license": "other", "license_name": "MIT OR Apache-2.0"}),
    ],
)
def test_the_licence_in_the_card_is_text_that_model_hubs_read(
    tmp_path: Path, licence: str, told: dict[str, str]
) -> None:
    said = front((exported(tmp_path, Export(licence=licence)).folder / "README.md").read_text())
    assert said == {
        **told,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["base-model", "cairn"],
    }


@pytest.mark.parametrize("licence", ["MIT\nlicense: other", 'a"b', "my own", "", "- MIT", "MIT: yes"])
def test_a_licence_that_would_break_the_card_is_refused_in_the_recipe(tmp_path: Path, licence: str) -> None:
    path = tmp_path / "export.yaml"
    path.write_text(json.dumps({"licence": licence}))
    with pytest.raises(RecipeError, match="is not an SPDX expression, such as"):
        load_recipe(Export, path)


def test_the_code_in_the_card_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = exported(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (made.folder / "README.md").read_text(), re.DOTALL)
    exec(code.replace("path/to/this/directory", str(made.folder)), {})
    assert capsys.readouterr().out.startswith(f"{END_OF_TEXT}The")


def test_the_card_of_a_masked_model_fills_its_mask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = exported(tmp_path, shape=MODERNBERT)
    card = (made.folder / "README.md").read_text()
    assert front(card)["pipeline_tag"] == "fill-mask"
    assert f"The mask token is `{MASK}`" in card
    tokenizer = AutoTokenizer.from_pretrained(made.folder)
    assert (tokenizer.mask_token, tokenizer.mask_token_id, tokenizer.pad_token) == (MASK, 259, END_OF_TEXT)
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(code.replace("path/to/this/directory", str(made.folder)), {})
    guesses = capsys.readouterr().out.splitlines()
    assert len(guesses) == 5
    assert all(re.match(r"\d\.\d{3} ", guess) for guess in guesses)


# What is refused


def broken(tmp_path: Path, change: Callable[[Path, Path], None]) -> str:
    """What `write` says to a checkpoint and tokenizer that `change` was let loose on."""
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    checkpoint = write_checkpoint(tmp_path / "checkpoint", tokenizer)
    change(checkpoint, tokenizer)
    (tmp_path / "model").mkdir()
    with pytest.raises(ArtifactError) as raised:
        write(Export(), checkpoint=checkpoint, tokenizer=tokenizer, model=tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []
    assert "\n" not in str(raised.value)
    return str(raised.value)


def manifest(**changes: object) -> Callable[[Path, Path], None]:
    """Changes keys of checkpoint.json; None takes one away."""

    def change(checkpoint: Path, _: Path) -> None:
        said = {**json.loads((checkpoint / "checkpoint.json").read_bytes()), **changes}
        kept = {key: value for key, value in said.items() if value is not None}
        (checkpoint / "checkpoint.json").write_text(json.dumps(kept))

    return change


def test_a_tokenizer_of_another_run_is_refused(tmp_path: Path) -> None:
    def change(_: Path, tokenizer: Path) -> None:
        path = tokenizer / "tokenizer.json"
        path.write_text(path.read_text() + "\n")

    assert "tokenizer.json: is not the tokenizer that the checkpoint was trained with" in broken(tmp_path, change)


def test_a_missing_tokenizer_is_told(tmp_path: Path) -> None:
    told = broken(tmp_path, lambda _, tokenizer: (tokenizer / "tokenizer.json").unlink())
    assert told.endswith("tokenizer.json: no such file: run the tokenize stage first")


def test_damaged_weights_are_told(tmp_path: Path) -> None:
    def change(checkpoint: Path, _: Path) -> None:
        (path,) = checkpoint.glob("*.safetensors")
        path.write_bytes(path.read_bytes()[:-100])

    assert "checkpoint: is not a sound checkpoint" in broken(tmp_path, change)


def test_missing_weights_are_told(tmp_path: Path) -> None:
    def change(checkpoint: Path, _: Path) -> None:
        (path,) = checkpoint.glob("*.safetensors")
        path.rename(checkpoint / "model-00001-of-00002.safetensors")

    assert "files of the checkpoint are missing" in broken(tmp_path, change)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": "cairn-checkpoint-v0"}, "is of format 'cairn-checkpoint-v0'; this version reads"),
        ({"seed": None, "model": None}, "checkpoint.json: does not say model, seed: run the pretrain stage again"),
        ({"model": {"layers": 2}}, "checkpoint.json: tells of no model"),
        ({"vocab_size": -3}, "checkpoint.json: tells of no model"),
        (
            {"vocab_size": 300},
            "embedding.weight is (257, 24), and the model of checkpoint.json has (300, 24): run the pretrain stage",
        ),
        (
            {"model": SHAPE.model_copy(update={"layers": 1}).model_dump(mode="json")},
            "blocks.1.attention.key.weight is (16, 24), and the model of checkpoint.json has no such weight",
        ),
        (
            {"model": SHAPE.model_copy(update={"tied": False}).model_dump(mode="json")},
            "head.weight is missing, and the model of checkpoint.json has (257, 24)",
        ),
        ({"end_of_text": 300}, "tokenizer.json: has no special token with id 300"),
    ],
)
def test_a_manifest_that_does_not_fit_is_told(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    assert told in broken(tmp_path, manifest(**changes))


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (None, "checkpoint.json: does not say mask: run the pretrain stage again"),
        (300, "tokenizer.json: has no special token with id 300, which stands for a masked one in training"),
    ],
)
def test_a_masked_model_without_its_mask_token_is_refused(tmp_path: Path, mask: int | None, told: str) -> None:
    made = inputs(tmp_path, MODERNBERT)
    manifest(mask=mask)(made["checkpoint"], made["tokenizer"])
    (tmp_path / "model").mkdir()
    with pytest.raises(ArtifactError, match=re.escape(told)):
        write(Export(), **made, model=tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


def test_a_checkpoint_that_is_not_there_is_told(tmp_path: Path) -> None:
    told = broken(tmp_path, lambda checkpoint, _: (checkpoint / "checkpoint.json").unlink())
    assert told.endswith("checkpoint.json: no such file: run the pretrain stage first")


# The whole stage, with the check in a process of its own


def inputs(root: Path, shape: ModelShape = SHAPE) -> dict[str, Path]:
    tokenizer = write_tokenizer(root / "tokenizer", byte_tokenizer(mask=not shape.causal))
    return {"tokenizer": tokenizer, "checkpoint": write_checkpoint(root / "checkpoint", tokenizer, shape)}


def test_the_door_exports_and_attests_how_far_the_logits_are(tmp_path: Path) -> None:
    inputs(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "recipes" / "tiny.yaml").read_text())
    command = [sys.executable, "-m", "components.export", "--input", "checkpoint=checkpoint"]
    command += ["--input", "tokenizer=tokenizer", "--output", "model=artifacts/model"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CAIRN_STORE": "store"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    model = tmp_path / "artifacts" / "model"
    digest = digest_of(model)
    assert digest
    ((_, envelope),) = attestation.made(Store(str(tmp_path / "store")), digest)
    definition = attestation.verify(envelope, signing.trusted_keys()).statement["predicate"]["buildDefinition"]
    parity = definition["internalParameters"]["facts"]["parity"]
    assert parity["files"] == 1
    assert 0 < parity["largest_difference"] < 1e-5


def test_weights_under_a_wrong_name_are_refused_and_nothing_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With as many key heads as query heads the two have one shape: only the logits can tell.
    shape = SHAPE.model_copy(update={"kv_heads": 4})
    monkeypatch.setitem(BLOCK, "attention.query", "model.layers.{}.self_attn.k_proj")
    monkeypatch.setitem(BLOCK, "attention.key", "model.layers.{}.self_attn.q_proj")
    with pytest.raises(
        StageError, match=r"the exported model's logits differ from the trainer's by \d.*; allowed 0\.000"
    ):
        run("export", Export(), tmp_path, inputs(tmp_path, shape))
    assert not (tmp_path / "artifacts").exists()
    assert not list((tmp_path / "store").rglob("attestations/*"))


def test_a_masked_model_is_checked_in_a_process_of_its_own(tmp_path: Path) -> None:
    made = run("export", Export(), tmp_path, inputs(tmp_path, MODERNBERT))
    assert (made["model"] / "config.json").exists()


def test_files_that_do_not_load_are_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BLOCK, "mlp.up", "model.layers.{}.mlp.upwards")
    with pytest.raises(StageError) as raised:
        run("export", Export(), tmp_path, inputs(tmp_path))
    told = str(raised.value)
    assert re.match(
        r"the exported files do not load: .*model: does not load as a model: weights do not fit the class: .*up_proj",
        told,
    ), told
    assert "\n" not in told
    assert not (tmp_path / "artifacts").exists()


def test_a_check_that_was_killed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killer = tmp_path / "python"
    killer.write_text("#!/bin/sh\nkill -9 $$\n")
    killer.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killer))
    with pytest.raises(CairnError, match=r"was killed by signal 9 \(out of memory\?\): run again with more memory"):
        run("export", Export(), tmp_path, inputs(tmp_path))
    assert not (tmp_path / "artifacts").exists()
