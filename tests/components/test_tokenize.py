"""Tokenize: shards that lead back to documents, tokenizers that are exact, and the same bytes however it is run."""

import errno
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from cairn.errors import ArtifactError, SourceError, StageError, guard
from cairn.lineage.artifact import digest_of
from cairn.recipe import load as load_recipe
from components.tokenize import encoding
from components.tokenize.bpe import PATTERN, sample
from components.tokenize.encoding import encode, gives_back, pieces
from components.tokenize.recipe import Tokenize
from components.tokenize.tokenize import Unit, encode_shard, tokenize
from tests.components.inputs import (
    END_OF_TEXT,
    Document,
    byte_tokenizer,
    run,
    sentences,
    write_documents,
    write_tokenizer,
)
from trainer.tokens import Tokens

ROOT = Path(__file__).resolve().parents[2]
SECTION = Tokenize(vocab_size=300, shard_tokens=400)
TRAIN = [Document(sentences(number), domain="walks" if number % 3 else "notes") for number in range(40)]
DEVELOPMENT = [Document(sentences(number)) for number in range(40, 44)]
# As GPT-4's tokenizer has it: keeps newlines with the punctuation before them, unlike GPT-2's.
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def write_text(root: Path) -> Path:
    """Documents in several shards of about four each."""
    return write_documents(root / "documents", shard_bytes=2500, train=TRAIN, development=DEVELOPMENT)


def digests(outputs: dict[str, Path]) -> dict[str, str | None]:
    return {name: digest_of(path) for name, path in outputs.items()}


def read_ids(tokens: Path, shard: dict[str, Any]) -> npt.NDArray[Any]:
    """The ids of one token shard."""
    dtype = {"uint16": "<u2", "uint32": "<u4"}[json.loads((tokens / "tokens.json").read_bytes())["dtype"]]
    return np.fromfile(tokens / f"{shard['name']}.bin", dtype)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tokenizer and tokens of the text above, made by one worker that nothing disturbed."""
    root = tmp_path_factory.mktemp("made")
    return run("tokenize", SECTION, root, {"documents": write_text(root)})


def trained(pattern: str) -> Tokenizer:
    """A small byte-level BPE over the text above, with a pre-tokenizer of its own."""
    tokenizer = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[END_OF_TEXT], initial_alphabet=level.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([document.text for document in TRAIN] + [". \n\n, \n ...\n"] * 9, trainer)
    return encoding.ordinary(tokenizer.to_str().encode(), "trained")


TOKENIZERS = {"gpt-2": trained(PATTERN), "cl100k": trained(CL100K)}


# Shards


def test_every_position_leads_back_to_its_document(made: dict[str, Path]) -> None:
    tokenizer = Tokenizer.from_file(str(made["tokenizer"] / "tokenizer.json"))
    said = json.loads((made["tokens"] / "tokens.json").read_bytes())
    end = tokenizer.token_to_id(END_OF_TEXT)
    assert said["end_of_text"] == end
    for split, documents in (("train", TRAIN), ("development", DEVELOPMENT)):
        found: list[str] = []
        shards = said["splits"][split]["shards"]
        for shard in shards:
            ids = read_ids(made["tokens"], shard)
            ends = np.fromfile(made["tokens"] / f"{shard['name']}.ends", "<u8")
            rows = pq.read_table(made["tokens"] / f"{shard['name']}.parquet").to_pylist()
            assert (len(ids), len(rows)) == (shard["tokens"], shard["documents"])
            assert shard["bytes"] == sum(row["bytes"] for row in rows)
            for position in range(len(ids)):
                row = rows[int(np.searchsorted(ends, position, side="right"))]
                assert row["offset"] <= position < row["offset"] + row["length"]
            for row, stop in zip(rows, ends.tolist(), strict=True):
                document = documents[len(found)]
                assert row["offset"] + row["length"] == stop
                assert ids[stop - 1] == end
                assert tokenizer.decode(ids[row["offset"] : stop - 1].tolist()) == document.text
                assert {name: row[name] for name in ("document", "domain", "source", "licence", "bytes")} == {
                    "document": document.identity,
                    "domain": document.domain,
                    "source": f"{document.domain}-source",
                    "licence": "CC0-1.0",
                    "bytes": document.size,
                }
                found.append(row["document"])
        assert found == [document.identity for document in documents]
    # More shards than shards of documents: a long one is divided.
    assert len(said["splits"]["train"]["shards"]) > len(list((made["tokens"].parents[1] / "documents/train").iterdir()))


def test_the_trainer_reads_the_shards_as_one_stream(made: dict[str, Path]) -> None:
    tokens = Tokens.open(made["tokens"])
    tokenizer = (made["tokenizer"] / "tokenizer.json").read_bytes()
    assert tokens.tokenizer == hashlib.sha256(tokenizer).hexdigest()
    assert tokens.vocab_size == SECTION.vocab_size
    loaded = Tokenizer.from_str(tokenizer.decode())
    text = loaded.decode(tokens.train.read(0, len(tokens.train)).tolist(), skip_special_tokens=False)
    assert text == "".join(f"{document.text}{END_OF_TEXT}" for document in TRAIN)


def test_two_workers_make_the_bytes_that_one_makes(made: dict[str, Path], tmp_path: Path) -> None:
    assert digests(run("tokenize", SECTION, tmp_path, {"documents": write_text(tmp_path)}, workers=2)) == digests(made)


def test_an_empty_development_split_is_no_shards(tmp_path: Path) -> None:
    made = run("tokenize", SECTION, tmp_path, {"documents": write_documents(tmp_path / "documents", train=TRAIN)})
    tokens = Tokens.open(made["tokens"])
    assert len(tokens.development) == 0
    assert len(tokens.train) > 0


@pytest.mark.parametrize(("size", "dtype"), [(1 << 16, "uint16"), ((1 << 16) + 1, "uint32")])
def test_the_largest_id_added_tokens_included_decides_the_size_of_a_number(
    tmp_path: Path, size: int, dtype: str
) -> None:
    content = byte_tokenizer()
    vocabulary = content["model"]["vocab"]
    del vocabulary[END_OF_TEXT]
    vocabulary.update({f"<{number}>": number for number in range(257, size - 1)} | {"<zero>": 0})
    content["added_tokens"][0]["id"] = size - 1
    section = use(write_tokenizer(tmp_path / "given", content))
    made = run("tokenize", section, tmp_path, {"documents": write_documents(tmp_path / "documents", train=TRAIN)})
    said = json.loads((made["tokens"] / "tokens.json").read_bytes())
    assert (said["dtype"], said["vocab_size"], said["end_of_text"]) == (dtype, size, size - 1)
    tokens = Tokens.open(made["tokens"])
    ends = [sum(document.size + 1 for document in TRAIN[: number + 1]) for number in range(len(TRAIN))]
    assert tokens.train.document_ends.tolist() == ends
    assert {int(tokens.train.read(stop - 1, stop)[0]) for stop in ends} == {size - 1}


# Text to ids and back


@given(st.text())
def test_any_text_comes_back_from_its_ids(text: str) -> None:
    for tokenizer in TOKENIZERS.values():
        assert gives_back(tokenizer, text, encode(tokenizer, text))


def test_bytes_that_the_training_text_lacks_have_tokens_too(made: dict[str, Path], tmp_path: Path) -> None:
    strange = "".join(map(chr, range(0x250))) + "日本語 Ελληνικά 🏔️👨‍👩‍👧 \u0000\r\n\t\ufeff\U0010ffff"
    assert all(ord(letter) < 128 for document in TRAIN for letter in document.text)
    vocabulary = json.loads((made["tokenizer"] / "tokenizer.json").read_bytes())["model"]["vocab"]
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= set(vocabulary)
    documents = write_documents(tmp_path / "documents", train=[*TRAIN, Document(strange)], development=DEVELOPMENT)
    again = run("tokenize", use(made["tokenizer"]), tmp_path, {"documents": documents})
    tokens = Tokens.open(again["tokens"])
    last = tokens.train.read(int(tokens.train.document_ends[-2]), len(tokens.train) - 1)
    assert Tokenizer.from_file(str(made["tokenizer"] / "tokenizer.json")).decode(last.tolist()) == strange


def test_a_document_that_spells_the_end_of_text_is_ordinary_text(tmp_path: Path) -> None:
    about = Document(f"A document ends with {END_OF_TEXT}. {END_OF_TEXT}{END_OF_TEXT}\n")
    made = run(
        "tokenize", SECTION, tmp_path, {"documents": write_documents(tmp_path / "documents", train=[about, *TRAIN])}
    )
    tokens = Tokens.open(made["tokens"])
    stream = tokens.train.read(0, len(tokens.train))
    assert np.count_nonzero(stream == tokens.end_of_text) == 1 + len(TRAIN)
    tokenizer = Tokenizer.from_file(str(made["tokenizer"] / "tokenizer.json"))
    assert tokenizer.decode(stream[: tokens.train.document_ends[0] - 1].tolist(), skip_special_tokens=False) == (
        about.text
    )


WORDS = st.one_of(
    st.from_regex(r"[a-zäß日]{1,6}", fullmatch=True),
    st.from_regex(r"[0-9.,;'!]{1,4}", fullmatch=True),
    st.sampled_from(["\n", "\n\n", ".\n", "  ", "\t", "don't", "The cairn", "marks the path"]),
)


@given(st.lists(WORDS, min_size=6, max_size=40).map(" a cairn ".join))
def test_a_large_text_in_pieces_has_the_ids_of_the_whole(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        whole = {name: encode(tokenizer, text).tolist() for name, tokenizer in TOKENIZERS.items()}
        patch.setattr(encoding, "PIECE", 24)
        cut = list(pieces(text))
        assert "".join(cut) == text
        assert len(cut) >= len(text) // 48
        assert max(map(len, cut)) <= 48
        assert {name: encode(tokenizer, text).tolist() for name, tokenizer in TOKENIZERS.items()} == whole


@given(st.text(min_size=60, max_size=200))
def test_a_large_text_without_words_is_cut_too_and_comes_back(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "PIECE", 16)
        assert max(map(len, pieces(text))) <= 32
        for tokenizer in TOKENIZERS.values():
            assert gives_back(tokenizer, text, encode(tokenizer, text))


def test_a_document_of_millions_of_letters_takes_bounded_memory(tmp_path: Path) -> None:
    program = (
        "import json, sys\n"
        "from cairn.resources import peak_rss\n"
        "from components.tokenize.encoding import encode, load\n"
        "tokenizer, _ = load(open(sys.argv[1], 'rb').read(), '<|endoftext|>', 'given')\n"
        "text = 'The cairn marks the path. ' * 200_000\n"
        "before = peak_rss()\n"
        "ids = encode(tokenizer, text)\n"
        "print(json.dumps({'ids': len(ids), 'gib': peak_rss() - before}))\n"
    )
    tokenizer = write_tokenizer(tmp_path / "given") / "tokenizer.json"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tokenizer)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    told = json.loads(done.stdout)
    assert told["ids"] == 26 * 200_000
    # In one piece, a byte-level tokenizer took 1.1 GB for these 5.2 MB.
    assert told["gib"] < 0.25


# The vocabulary


def test_a_vocabulary_that_the_text_does_not_support_is_told_with_the_size_that_it_does(tmp_path: Path) -> None:
    documents = write_text(tmp_path)
    with pytest.raises(StageError) as raised:
        run("tokenize", Tokenize(vocab_size=50_000), tmp_path, {"documents": documents})
    told = re.fullmatch(
        r"tokenize\.vocab_size is 50000, but [\d,]+ bytes of train text support only (\d+) tokens: "
        r"set it to (\d+) or less, or add text",
        str(raised.value),
    )
    assert told, raised.value
    assert not (tmp_path / "artifacts").exists()
    made = run("tokenize", Tokenize(vocab_size=int(told[2])), tmp_path, {"documents": documents})
    assert Tokens.open(made["tokens"]).vocab_size == int(told[1])


def test_an_end_of_text_that_is_a_word_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="a text that spells 'the' would end a document there"):
        run(
            "tokenize", SECTION.model_copy(update={"end_of_text": "the"}), tmp_path, {"documents": write_text(tmp_path)}
        )


def test_the_tokenizer_is_trained_on_an_even_sample_of_at_most_so_many_bytes(tmp_path: Path) -> None:
    long = [Document("".join(sentences(number * 1000 + part) for part in range(12)), "books") for number in range(120)]
    short = [Document(f"{sentences(number, lines=1)}{number}", "notes") for number in range(1500)]
    train = [*long[:60], *short, *long[60:]]
    total = sum(document.size for document in train)
    documents = write_documents(tmp_path / "documents", train=train)
    for share in (0.1, 0.5):
        limit = int(total * share)
        texts, size = sample(documents, limit)
        drawn = list(texts)
        assert size == sum(len(text.encode()) for text in drawn)
        assert limit - max(document.size for document in train) < size <= limit
        for kind in (long, short):
            of_kind = {document.text for document in kind}
            taken = sum(len(text.encode()) for text in drawn if text in of_kind)
            assert taken / sum(document.size for document in kind) == pytest.approx(share, abs=0.06)
    texts, size = sample(documents, total)
    assert (len(list(texts)), size) == (len(train), total)
    backwards = write_documents(tmp_path / "backwards", train=train[::-1])
    assert set(sample(backwards, limit)[0]) == set(drawn)


def test_a_sample_smaller_than_a_document_is_told(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"tokenize\.train_bytes is 10, less than one document has: raise it"):
        run("tokenize", SECTION.model_copy(update={"train_bytes": 10}), tmp_path, {"documents": write_text(tmp_path)})


# A tokenizer that is given


def use(tokenizer: Path, **changes: Any) -> Tokenize:
    """A section that names the file in a folder, with its digest."""
    path = tokenizer / "tokenizer.json"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Tokenize(**{"tokenizer": str(path), "tokenizer_sha256": digest, **changes})


def test_a_given_tokenizer_is_used_as_it_is_to_the_byte(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "given", byte_tokenizer(merges=["t h", "th e"]))
    path = folder / "tokenizer.json"
    path.write_bytes(json.dumps(json.loads(path.read_text()), indent=1).replace("\n", "\r\n").encode())
    made = run("tokenize", use(folder), tmp_path, {"documents": write_text(tmp_path)})
    assert (made["tokenizer"] / "tokenizer.json").read_bytes() == path.read_bytes()
    tokens = Tokens.open(made["tokens"])
    assert tokens.tokenizer == hashlib.sha256(path.read_bytes()).hexdigest()
    saved = sum(2 * document.text.count("the") + len(re.findall("th(?!e)", document.text)) for document in TRAIN)
    assert len(tokens.train) == sum(document.size + 1 for document in TRAIN) - saved


def test_truncation_and_padding_that_a_given_file_carries_along_do_not_touch_documents(tmp_path: Path) -> None:
    carried = {
        "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 5000},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": END_OF_TEXT,
        },
    }
    folder = write_tokenizer(tmp_path / "given", byte_tokenizer() | carried)
    made = run("tokenize", use(folder), tmp_path, {"documents": write_text(tmp_path)})
    assert len(Tokens.open(made["tokens"]).train) == sum(document.size + 1 for document in TRAIN)


def refused(tmp_path: Path, section: Tokenize) -> str:
    """What a stage that must not run says; it leaves nothing behind."""
    with pytest.raises((SourceError, StageError)) as raised:
        run("tokenize", section, tmp_path, {"documents": write_text(tmp_path)})
    assert not (tmp_path / "artifacts").exists()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_given_tokenizer_that_is_another_is_refused(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "given")
    path = folder / "tokenizer.json"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    told = refused(tmp_path, use(folder, tokenizer_sha256="0" * 64))
    assert told == (f"tokenize.tokenizer: {path}: has sha256 {digest}, tokenize.tokenizer_sha256 says otherwise")


def test_a_given_tokenizer_that_is_missing_or_none_is_named(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "given")
    path = folder / "tokenizer.json"
    section = use(folder)
    path.unlink()
    assert refused(tmp_path / "1", section) == f"tokenize.tokenizer: {path}: cannot be read: No such file or directory"
    path.mkdir()
    assert refused(tmp_path / "2", section) == f"tokenize.tokenizer: {path}: cannot be read: Is a directory"
    path.rmdir()
    for number, data in enumerate((b'{"version": "1.0"}', b"\xff\xfe", b"")):
        path.write_bytes(data)
        assert refused(tmp_path / f"none-{number}", use(folder)).startswith(
            f"tokenize.tokenizer: {path}: is not a tokenizer: "
        )


def test_a_given_tokenizer_without_a_token_to_end_documents_is_told_which_key_to_set(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "given")
    told = refused(tmp_path / "1", use(folder, end_of_text="</s>"))
    assert told.endswith("has no token '</s>': set tokenize.end_of_text to the one that it has")
    content = byte_tokenizer()
    content["added_tokens"][0]["special"] = False
    told = refused(tmp_path / "2", use(write_tokenizer(tmp_path / "not-special", content)))
    assert f"a text that spells '{END_OF_TEXT}' would end a document there" in told


# A mask token

MASK = "<|mask|>"


def test_a_trained_tokenizer_gets_a_mask_token_that_no_text_spells_and_that_takes_the_space_before_it(
    tmp_path: Path,
) -> None:
    about = Document(f"The mask is {MASK} here. {MASK}{MASK}\n")
    documents = write_documents(tmp_path / "documents", train=[about, *TRAIN])
    made = run("tokenize", SECTION.model_copy(update={"mask_token": MASK}), tmp_path, {"documents": documents})
    tokenizer = Tokenizer.from_file(str(made["tokenizer"] / "tokenizer.json"))
    tokens = Tokens.open(made["tokens"])
    assert (tokens.vocab_size, tokens.mask) == (SECTION.vocab_size, tokenizer.token_to_id(MASK))
    assert not (tokens.train.read(0, len(tokens.train)) == tokens.mask).any()
    # As a user of the exported model writes it.
    before, after = (tokenizer.encode(text).ids for text in ("The", " marks"))
    assert tokenizer.encode(f"The {MASK} marks").ids == [*before, tokens.mask, *after]


def test_without_a_mask_token_nothing_is_told_of_one(made: dict[str, Path]) -> None:
    assert "mask" not in json.loads((made["tokens"] / "tokens.json").read_bytes())
    assert Tokens.open(made["tokens"]).mask is None


def test_a_given_tokenizer_must_have_the_mask_token(tmp_path: Path) -> None:
    told = refused(tmp_path / "1", use(write_tokenizer(tmp_path / "given"), mask_token=MASK))
    assert told.endswith(
        f"has no token '{MASK}': set tokenize.mask_token to the one that it has, or let tokenize train a tokenizer "
        "(tokenizer: null)"
    )
    content = byte_tokenizer()
    content["added_tokens"].append({**content["added_tokens"][0], "content": MASK, "id": 257, "special": False})
    told = refused(tmp_path / "2", use(write_tokenizer(tmp_path / "not-special", content), mask_token=MASK))
    assert f"a text that spells '{MASK}' would be masked there" in told
    content["added_tokens"][1]["special"] = True
    section = use(write_tokenizer(tmp_path / "special", content), mask_token=MASK)
    made = run("tokenize", section, tmp_path, {"documents": write_text(tmp_path)})
    assert Tokens.open(made["tokens"]).mask == 257


@pytest.mark.parametrize(
    "normalizer", [{"type": "Lowercase"}, {"type": "Strip", "strip_left": True, "strip_right": True}]
)
def test_a_given_tokenizer_that_changes_the_text_is_refused_with_the_document(
    tmp_path: Path, normalizer: dict[str, Any]
) -> None:
    folder = write_tokenizer(tmp_path / "given", byte_tokenizer() | {"normalizer": normalizer})
    told = refused(tmp_path, use(folder))
    assert f"document {TRAIN[0].identity[:12]}: the tokenizer does not give back its text" in told


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("tokenizer: t.json", "a given tokenizer needs tokenizer_sha256"),
        (f"tokenizer_sha256: '{'0' * 64}'", "there is no tokenizer: add one"),
        ("{tokenizer: t.json, tokenizer_sha256: abc}", "tokenizer_sha256: string should match"),
        ("vocab_size: 256", "vocab_size: input should be greater than or equal to 257"),
        ("{vocab_size: 257, mask_token: <|mask|>}", "256 bytes, the end-of-text token and the mask token are 258"),
        ("mask_token: <|endoftext|>", "mask_token and end_of_text are both '<|endoftext|>'"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_told(tmp_path: Path, keys: str, told: str) -> None:
    path = tmp_path / "section.yaml"
    path.write_text(f"{keys}\n")
    with pytest.raises(Exception, match=re.escape(told)):
        load_recipe(Tokenize, path)


# What goes wrong


def test_a_damaged_shard_of_documents_is_named_with_its_line(tmp_path: Path) -> None:
    documents = write_text(tmp_path)
    shard = documents / "train" / "00002.jsonl.zst"
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match=r"train/00002\.jsonl\.zst: line \d+: is (cut short|damaged)"):
        run("tokenize", SECTION, tmp_path, {"documents": documents})
    # With a tokenizer that is given, it is a worker that finds it.
    with pytest.raises(ArtifactError, match=r"train/00002\.jsonl\.zst: line \d+: is (cut short|damaged)"):
        run("tokenize", use(write_tokenizer(tmp_path / "given")), tmp_path, {"documents": documents}, workers=2)
    assert not (tmp_path / "artifacts").exists()


def test_a_folder_that_is_no_documents_artifact_is_told(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.txt").write_text("text")
    with pytest.raises(ArtifactError, match="is not a documents artifact: run the ingest stage first"):
        run("tokenize", SECTION, tmp_path, {"documents": tmp_path / "documents"})


def test_the_door_ends_with_2_and_one_line(tmp_path: Path) -> None:
    recipe = (ROOT / "recipes" / "tiny.yaml").read_text()
    (tmp_path / "params.yaml").write_text(recipe)
    write_text(tmp_path)
    command = [sys.executable, "-m", "components.tokenize", "--input", "documents=documents"]
    command += ["--output", "tokenizer=out/tokenizer", "--output", "tokens=out/tokens"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(
        r"tokenize: running .*\ntokenize: training .*\n"
        r"error: tokenize\.vocab_size is 4096, but 14,893 bytes of train text support only \d+ tokens: .*\n",
        done.stderr,
    ), done.stderr
    assert not (tmp_path / "out").exists()


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond `room` bytes: the kernel answers writes as it does when a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# The tokenizer alone has some 5 kB, and the ids of the one shard 28.
@pytest.mark.parametrize("room", [1_000, 15_000])
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], room: int
) -> None:
    documents = write_documents(tmp_path / "documents", train=TRAIN)
    section = use(write_tokenizer(tmp_path / "given"))
    before = signal.getsignal(signal.SIGTERM)

    def door() -> int:
        with full_disk(room):
            run("tokenize", section, tmp_path, {"documents": documents})
        return 0

    assert guard(door) == 2
    signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err.splitlines()[-1].endswith("File too large: free some disk and run again")
    assert not (tmp_path / "artifacts").exists()


def test_a_file_system_without_hard_links_gets_the_same_bytes(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert digests(run("tokenize", SECTION, tmp_path, {"documents": write_text(tmp_path)})) == digests(made)


CHILD = """
import os, signal, sys
from pathlib import Path
import components.tokenize.tokenize as stage
from tests.components.test_tokenize import SECTION, run
root, finished = Path(sys.argv[1]), int(sys.argv[2])
encode, called = stage.encode_shard, []
def die_after(unit):
    if len(called) == finished:
        os.kill(os.getpid(), signal.SIGKILL)
    called.append(unit)
    return encode(unit)
stage.encode_shard = die_after
run("tokenize", SECTION, root, {"documents": root / "documents"})
"""


def test_a_killed_run_goes_on_without_training_the_tokenizer_again_and_makes_the_same_bytes(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path), "3"], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "artifacts").exists()

    def never(*_: object) -> bytes:
        raise AssertionError("the tokenizer was trained, and is trained again")

    monkeypatch.setattr("components.tokenize.tokenize.train", never)
    encoded = []

    def count(unit: Unit) -> dict[str, Any]:
        encoded.append(unit.shard.name)
        return encode_shard(unit)

    monkeypatch.setattr("components.tokenize.tokenize.encode_shard", count)
    again = run("tokenize", SECTION, tmp_path, {"documents": tmp_path / "documents"})
    shards = [
        path.name for split in ("train", "development") for path in sorted((tmp_path / "documents" / split).iterdir())
    ]
    assert encoded == shards[3:]
    assert digests(again) == digests(made)


def zeroed(path: Path) -> None:
    """As a file system may leave a file whose size reached the disk before its bytes."""
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("suffix", [".bin", ".ends", ".parquet"])
@pytest.mark.parametrize("damage", [zeroed, Path.unlink])
def test_a_finished_shard_whose_bytes_are_lost_is_encoded_again(
    made: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    suffix: str,
) -> None:
    documents = write_text(tmp_path)

    def outputs(name: str) -> dict[str, Path]:
        folders = {output: tmp_path / name / output for output in ("tokenizer", "tokens")}
        for folder in folders.values():
            folder.mkdir(parents=True)
        return folders

    def fill(folders: dict[str, Path]) -> None:
        tokenizer, tokens = folders["tokenizer"], folders["tokens"]
        tokenize(SECTION, documents=documents, tokenizer=tokenizer, tokens=tokens, work=tmp_path / "work", workers=1)

    fill(outputs("first"))
    damage(tmp_path / "work" / "shards" / "train" / "00001" / f"00000{suffix}")
    again = outputs("again")
    fill(again)
    assert "what is kept of train/00001.jsonl.zst is damaged, it is encoded again" in capsys.readouterr().err
    assert digests(again) == digests(made)


def test_a_shard_is_on_the_disk_before_its_result_vouches_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = write_text(tmp_path)
    synced: list[str] = []
    fsync = os.fsync

    def note(number: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{number}")).name)
        fsync(number)

    monkeypatch.setattr(os, "fsync", note)
    run("tokenize", use(write_tokenizer(tmp_path / "given"), shard_tokens=400), tmp_path, {"documents": documents})
    word = next(index for index, name in enumerate(synced) if name.startswith(".0.json"))
    assert {"00000.bin", "00000.ends", "00000.parquet"} <= set(synced[:word])
