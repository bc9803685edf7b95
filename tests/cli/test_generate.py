"""`cairn generate`: going on with a text, alike from a checkpoint and from its export."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import Cairn, on_a_terminal
from tests.pipelines.project import Project


def text(cairn: Cairn, project: Project, *words: str) -> str:
    said = cairn("generate", *words, at=project.root)
    assert said.code == 0, said.err
    return said.out


def test_the_same_seed_writes_the_same_text_and_another_seed_another(cairn: Cairn, built: Project) -> None:
    asked = ("The cairn", "--tokens", "40", "--model", "artifacts/checkpoint")
    first = text(cairn, built, *asked, "--seed", "1")
    assert first.startswith("The cairn")
    assert text(cairn, built, *asked, "--seed", "1") == first
    assert text(cairn, built, *asked, "--seed", "2") != first


def test_next_to_no_temperature_is_none(cairn: Cairn, built: Project) -> None:
    asked = ("The stone", "--tokens", "20", "--model", "artifacts/checkpoint", "--temperature")
    assert (
        text(cairn, built, *asked, "1e-320") == text(cairn, built, *asked, "1e-200") == text(cairn, built, *asked, "0")
    )


@pytest.mark.parametrize("how", [("--temperature", "0"), ("--seed", "3"), ("--seed", "4", "--top-k", "0")])
def test_checkpoint_and_export_write_the_same_text_beyond_the_context_too(
    cairn: Cairn, built: Project, how: tuple[str, ...]
) -> None:
    # The context is 64 tokens: the cache of the export begins anew several times.
    asked = ("The stone", "--tokens", "200", "--json", *how)
    trained = json.loads(text(cairn, built, *asked, "--model", "artifacts/checkpoint"))
    exported = json.loads(text(cairn, built, *asked))
    assert exported["model"] == "artifacts/model"
    assert trained["text"] == exported["text"]
    assert trained["tokens"] == exported["tokens"]


def test_what_is_streamed_is_the_whole_text(cairn: Cairn, built: Project) -> None:
    asked = ("The stone", "--tokens", "30", "--model", "artifacts/checkpoint")
    said = json.loads(text(cairn, built, *asked, "--json"))
    assert text(cairn, built, *asked) == f"The stone{said['text']}\n"
    assert len(said["tokens"]) <= 30


def test_a_prompt_from_stdin_that_is_longer_than_the_context_is_cut_at_its_beginning(
    cairn: Cairn, built: Project
) -> None:
    prompt = (built.root / "text" / "0001.txt").read_text()
    asked = ("generate", "-", "--tokens", "5", "--temperature", "0", "--model", "artifacts/checkpoint")
    said = cairn(*asked, at=built.root, stdin=prompt)
    assert said.code == 0
    assert "the model sees the last 64" in said.err
    assert said.out.startswith(prompt)
    # What was cut does not matter.
    changed = cairn(*asked, at=built.root, stdin="A quite different beginning. " + prompt[400:])
    assert said.out.removeprefix(prompt) == changed.out.removeprefix("A quite different beginning. " + prompt[400:])


def test_without_a_prompt_a_document_begins(cairn: Cairn, built: Project) -> None:
    said = text(cairn, built, "--tokens", "20", "--model", "artifacts/checkpoint")
    assert said.startswith("The ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model nowhere", "nowhere: no such folder: name a model with --model"),
        ("--model text", "text: does not load as a model: "),
        ("--model artifacts/tokens", "artifacts/tokens: does not load as a model: "),
    ],
)
def test_what_is_no_model_is_told(cairn: Cairn, built: Project, words: str, message: str) -> None:
    said = cairn("generate", "The", *words.split(), at=built.root)
    assert said.code == 2
    assert said.err.splitlines()[-1].startswith(f"error: {message}")


@pytest.mark.parametrize(("prompt", "place"), [("ab\udcff", "the prompt"), ("-", "stdin")])
def test_a_prompt_that_is_no_text_is_told(cairn: Cairn, built: Project, prompt: str, place: str) -> None:
    said = cairn("generate", prompt, at=built.root, stdin=b"ab\xff")
    assert said.code == 2
    assert said.err == f"error: {place}: is not UTF-8 (byte 2): convert it, as with `iconv -t utf-8`\n"


def test_a_seed_that_torch_does_not_take_is_told(cairn: Cairn, built: Project) -> None:
    said = cairn("generate", "The", "--seed", str(2**63), at=built.root)
    assert said.code == 2
    assert said.err.startswith("error: Invalid value for '--seed'")
    assert said.err.count("\n") == 1


def test_a_terminal_is_shown_what_would_steer_it(cairn: Cairn, built: Project) -> None:
    asked = ("generate", "The \x1b[2J\u202ecairn", "--tokens", "1", "--model", "artifacts/checkpoint")
    shown = on_a_terminal(*asked, at=built.root, columns=80)
    assert shown.startswith("The ␛[2J⟨U+202E⟩cairn")
    # A file or another program gets the text as it is.
    assert cairn(*asked, at=built.root).out.startswith("The \x1b[2J\u202ecairn")


def test_before_there_is_a_model_the_way_to_one_is_told(cairn: Cairn, tmp_path: Path) -> None:
    said = cairn("generate", "The", at=tmp_path)
    assert said.code == 2
    assert said.err.startswith("error: artifacts/model: no model here yet: `cairn run` makes one")


def test_a_damaged_checkpoint_and_a_strange_tokenizer_are_told(cairn: Cairn, built: Project, tmp_path: Path) -> None:
    shutil.copytree(built.root / "artifacts" / "checkpoint", tmp_path / "checkpoint")
    asked = ("generate", "The", "--model", "checkpoint")
    assert "tokenizer/tokenizer.json: no such file: a checkpoint is used with" in cairn(*asked, at=tmp_path).err
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    assert "is not the tokenizer that the checkpoint was trained with" in cairn(*asked, at=tmp_path).err
    weights = next((tmp_path / "checkpoint").glob("model-*"))
    weights.write_bytes(weights.read_bytes()[:1000])
    said = cairn(*asked, at=tmp_path)
    assert said.code == 2
    assert "checkpoint: is not a sound checkpoint" in said.err


def test_ctrl_c_ends_it_with_130_and_no_traceback(built: Project) -> None:
    process = built.start("cairn", "generate", "The", "--tokens", "1000000", "--model", "artifacts/checkpoint")
    assert process.stdout
    assert process.stdout.read(40)
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in rest
