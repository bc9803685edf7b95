"""Engines that encode: the ids of `tokenizers`, for every text and every tokenizer that they are used for."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from cairn.errors import RecipeError, StageError
from cairn.lineage.artifact import digest_of
from cairn.resources import ENGINES, Resources
from components.tokenize import encoding, engines
from components.tokenize.byte_level import CL100K, GPT2, LETTERS, O200K, ByteLevel, NotByteLevelError
from components.tokenize.engines import REFERENCE, Choice, Encoder, choose, installed
from components.tokenize.recipe import Tokenize
from components.tokenize.tokenize import Unit, encode_shard, tokenize
from tests.components.inputs import END_OF_TEXT, Document, byte_tokenizer, sentences, write_documents, write_tokenizer

FAST = [
    pytest.param(engine, marks=pytest.mark.skipif(not installed(engine), reason=f"{engine} is not installed"))
    for engine in ENGINES[:-1]
]
TRAIN = [Document(sentences(number)) for number in range(30)]
STRANGE = (
    "".join(map(chr, range(0x20, 0x3000, 7)))
    + "日本語 Ελληνικά don't DON'T I'ſ 🏔️👨‍👩‍👧 \r\n\n\t  x 12345 ²½Ⅷ\u00a0\u3000.\n"
)


def trained(pattern: str, behaviour: str = "isolated") -> dict[str, Any]:
    """The content of a tokenizer.json of a small byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behaviour), level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[END_OF_TEXT], initial_alphabet=level.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(
        [document.text for document in TRAIN] + [STRANGE, ". \n\n, \n ...\n don't"] * 3, trainer
    )
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content


CONTENTS = {"gpt-2": trained(GPT2), "cl100k": trained(CL100K), "o200k": trained(O200K)}


def data_of(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode()


def same(encoder: Encoder, other: Encoder, text: str) -> bool:
    """Whether a text has the same ids, which give it back."""
    ids = encoder.encode(text)
    return np.array_equal(ids, other.encode(text)) and encoder.gives_back(text, ids)


# The ids of tokenizers


@pytest.mark.parametrize("engine", FAST)
@pytest.mark.parametrize("name", CONTENTS)
def test_every_engine_gives_the_ids_of_tokenizers(engine: str, name: str) -> None:
    data = data_of(CONTENTS[name])
    assert choose(data, engine) == Choice(engine)
    fast, reference = (Encoder(data, END_OF_TEXT, one) for one in (engine, REFERENCE))
    for text in ("", STRANGE, END_OF_TEXT, f"a{END_OF_TEXT}b", *(document.text for document in TRAIN)):
        assert same(fast, reference, text), text

    pieces = [
        "'s",
        "'S",
        "'ll",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u00a0",
        "\u3000",
        "a",
        "Aß",
        "é",
        "e\u0301",
        "日",
        "١",
        "1",
        ".",
        "!?",
        "\u200d",
        "/",
    ]
    texts = st.one_of(st.text(), st.lists(st.sampled_from(pieces), max_size=12).map("".join))

    @given(texts)
    @settings(max_examples=150, deadline=None)
    def alike(text: str) -> None:
        assert same(fast, reference, text)

    alike()


@pytest.mark.parametrize("engine", FAST)
def test_a_long_text_in_pieces_has_the_same_ids(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "PIECE", 200)
    data = data_of(CONTENTS["gpt-2"])
    fast, reference = (Encoder(data, END_OF_TEXT, one) for one in (engine, REFERENCE))
    for text in ("".join(document.text for document in TRAIN), "x" * 5000, "日" * 1000, " \n" * 1000):
        assert same(fast, reference, text)


@pytest.mark.parametrize("engine", FAST)
def test_a_letter_that_is_newer_than_an_engine_may_know_is_left_to_tokenizers(engine: str) -> None:
    content = byte_tokenizer()
    data, new = data_of(content), "a new letter: \u088f"
    encoder = Encoder(data, END_OF_TEXT, engine)
    assert unicodedata.category("\u0378") == "Cn"

    def never(text: str) -> Any:
        raise AssertionError(text)

    assert encoder._fast is not None
    object.__setattr__(encoder._fast, "ranks", never)
    for text in ("\u0378", *([new] if unicodedata.category("\u088f") == "Cn" else ())):
        assert encoder.gives_back(text, encoder.encode(text))
    with pytest.raises(StageError, match=f"{engine} fails: é: set CAIRN_TOKENIZER_ENGINE=tokenizers"):
        encoder.encode("é")


def kinds(first: int, stop: int) -> tuple[dict[str, Any], list[str]]:
    """A tokenizer whose ids show how a pattern takes each letter of a range, and a text for each letter."""
    letters = [chr(code) for code in range(first, stop) if unicodedata.category(chr(code)) not in ("Cn", "Cs")]
    merges: dict[str, str] = {}
    for letter in letters:
        spelled = "".join(LETTERS[byte] for byte in letter.encode())
        for length in range(1, len(spelled)):
            merges.setdefault(spelled[: length + 1], f"{spelled[:length]} {spelled[length]}")
    for letter in letters:
        spelled = "".join(LETTERS[byte] for byte in letter.encode())
        for before in (*"a1!A'", LETTERS[32]):
            merges.setdefault(before + spelled, f"{before} {spelled}")
    texts = [f"a{c}a 1{c}1 !{c}! {c} A{c}A {c}{c} '{c} a'{c} {c}a  {c}" for c in letters]
    return byte_tokenizer(list(merges.values())), texts


def assert_letters_are_of_one_kind(engine: str, first: int, stop: int) -> None:
    content, texts = kinds(first, stop)
    regex = {"type": "Split", "pattern": {"Regex": O200K}, "behavior": "Isolated", "invert": False}
    level = {**content["pre_tokenizer"], "use_regex": False}
    for pattern in (CL100K, O200K):
        split = {**regex, "pattern": {"Regex": pattern}}
        data = data_of({**content, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}})
        fast, reference = (Encoder(data, END_OF_TEXT, one) for one in (engine, REFERENCE))
        assert [text for text in texts if not same(fast, reference, text)] == []


@pytest.mark.parametrize("engine", FAST)
def test_letters_are_of_the_same_kind_to_every_engine(engine: str) -> None:
    assert_letters_are_of_one_kind(engine, 0x80, 0x900)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("engine", FAST)
def test_all_letters_of_unicode_are_of_the_same_kind_to_every_engine(engine: str) -> None:
    for first in (*range(0x80, 0xE000, 0x1000), *range(0xF900, 0x34000, 0x1000), 0xE0000):
        assert_letters_are_of_one_kind(engine, first, first + 0x1000)


# Tokenizers that are left to tokenizers


def changed(**changes: Any) -> dict[str, Any]:
    return byte_tokenizer(["t h", "th e"]) | changes


def model(**changes: Any) -> dict[str, Any]:
    content = byte_tokenizer(["t h", "th e"])
    return content | {"model": content["model"] | changes}


def with_merges(*merges: str) -> dict[str, Any]:
    made = dict.fromkeys(merge.replace(" ", "") for merge in merges)
    content = byte_tokenizer([f"{token[:-1]} {token[-1]}" for token in made])
    content["model"]["merges"] = list(merges)
    return content


def with_one_id_for_two() -> dict[str, Any]:
    content = byte_tokenizer(["t h", "th e"])
    content["model"]["vocab"]["the"] -= 1
    return content


def without_a_byte() -> dict[str, Any]:
    content = byte_tokenizer()
    content["model"]["vocab"]["<other>"] = content["model"]["vocab"].pop(LETTERS[7])
    return content


def not_special() -> dict[str, Any]:
    content = byte_tokenizer()
    content["added_tokens"].append({**content["added_tokens"][0], "content": "<tool>", "id": 257, "special": False})
    return content


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (lambda: changed(normalizer={"type": "NFC"}), "it has a normalizer, NFC"),
        (not_special, "text can spell its added token '<tool>', which is not special"),
        (lambda: changed(pre_tokenizer=None), "does not end its pre-tokenizer with ByteLevel"),
        (lambda: trained(r"\w+|\W"), "its pre-tokenizer cuts text in a way that is not known"),
        (lambda: trained(GPT2, "removed"), "its pre-tokenizer cuts text in a way that is not known"),
        (
            lambda: changed(pre_tokenizer={**byte_tokenizer()["pre_tokenizer"], "add_prefix_space": True}),
            "or adds a space",
        ),
        (lambda: changed(decoder={"type": "Fuse"}), "its decoder is not ByteLevel"),
        (lambda: model(byte_fallback=True), "its model has byte_fallback"),
        (lambda: model(dropout=0.1), "its model has dropout"),
        (without_a_byte, "1 of the 256 bytes have no token"),
        (with_one_id_for_two, "two of its tokens have one id"),
        (lambda: model(ignore_merges=True), f"no merge makes the token '{END_OF_TEXT}'"),
        # "the" is made in one way by the list, and in another by its bytes.
        (lambda: with_merges("h e", "t h", "th e"), "merges do not give the token 'the'"),
        (lambda: with_merges("t h", "th e", "h e", "t he"), "the token 'the' is made by merges at several places"),
    ],
)
def test_a_tokenizer_that_no_other_engine_holds_exactly_is_left_to_tokenizers(
    content: Callable[[], dict[str, Any]], why: str
) -> None:
    data = data_of(content())
    Tokenizer.from_str(data.decode())  # it is one
    with pytest.raises(NotByteLevelError) as raised:
        ByteLevel.read(data)
    assert why in str(raised.value)


@pytest.mark.parametrize("engine", FAST)
def test_a_token_that_may_be_made_in_two_ways_at_once_is_held(engine: str) -> None:
    # As the files have it that were made from tiktoken's ranks, such as that of Llama 3.
    data = data_of(with_merges("t h", "h e", "th e", "t he", "e r", "the r", "th er"))
    fast, reference = (Encoder(data, END_OF_TEXT, one) for one in (engine, REFERENCE))
    for text in ("the there ther her thhe heth other", "ttheerr thth hehe"):
        assert same(fast, reference, text)


# The choice


def test_the_fastest_that_is_installed_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of(byte_tokenizer())
    there = [engine for engine in ENGINES if installed(engine)]
    assert choose(data, None).engine == there[0]
    assert choose(data, REFERENCE) == Choice(REFERENCE)
    monkeypatch.setattr(engines, "installed", lambda engine: engine == REFERENCE)
    assert str(choose(data, None)).endswith("(faster with `pip install gigatoken`)")
    with pytest.raises(StageError) as raised:
        choose(data, "tiktoken")
    assert str(raised.value) == (
        "environment variable CAIRN_TOKENIZER_ENGINE='tiktoken': tiktoken is not installed: `pip install tiktoken`, or "
        "leave it out"
    )


@pytest.mark.parametrize("engine", FAST)
def test_why_a_tokenizer_is_left_to_tokenizers_is_told(engine: str) -> None:
    found = choose(data_of(changed(normalizer={"type": "NFC"})), engine)
    assert found == Choice(REFERENCE, f"{engine} cannot hold this tokenizer: it has a normalizer, NFC")


def test_an_engine_that_there_is_not_is_told_with_those_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAIRN_TOKENIZER_ENGINE", "sentencepiece")
    with pytest.raises(RecipeError) as raised:
        Resources.from_environment()
    assert str(raised.value) == (
        "environment variable CAIRN_TOKENIZER_ENGINE='sentencepiece': must be one of gigatoken, tiktoken, tokenizers"
    )
    monkeypatch.setenv("CAIRN_TOKENIZER_ENGINE", "tiktoken")
    assert Resources.from_environment().engine == "tiktoken"


# The stage


def run(root: Path, engine: str, documents: Path, content: dict[str, Any] | None = None) -> list[str | None]:
    """Digests of what the work makes with an engine."""
    section = Tokenize(vocab_size=300, shard_tokens=400)
    if content is not None:
        path = write_tokenizer(root / "given", content) / "tokenizer.json"
        section = Tokenize(tokenizer=str(path), tokenizer_sha256=digest_of(path), shard_tokens=400)
    folders = [root / engine / name for name in ("tokenizer", "tokens", "work")]
    for folder in folders:
        folder.mkdir(parents=True)
    tokenize(
        section, documents=documents, tokenizer=folders[0], tokens=folders[1], work=folders[2], workers=1, engine=engine
    )
    return [digest_of(folder) for folder in folders[:2]]


@pytest.mark.parametrize("engine", FAST)
def test_every_engine_makes_the_same_bytes(engine: str, tmp_path: Path) -> None:
    strange = [Document(STRANGE), Document(f"About {END_OF_TEXT}.\n"), Document("new: \u088f\n")]
    documents = write_documents(tmp_path / "documents", 2500, train=[*TRAIN, *strange], development=TRAIN[:2])
    assert run(tmp_path, engine, documents) == run(tmp_path, REFERENCE, documents)


class Wrong:
    """An engine that gives another id for the sixth token of a text."""

    def __init__(self, right: Callable[[str], Any]) -> None:
        self._right = right

    def __call__(self, text: str) -> Any:
        ranks = np.array(self._right(text))
        ranks[5] = 65
        return ranks


@pytest.mark.parametrize("engine", FAST)
def test_an_engine_that_differs_is_fatal_and_told_with_the_way_out(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = write_documents(tmp_path / "documents", train=TRAIN)
    tokenizer = write_tokenizer(tmp_path / "given") / "tokenizer.json"
    encoder = Encoder(tokenizer.read_bytes(), END_OF_TEXT, engine)
    assert encoder._fast is not None
    object.__setattr__(encoder._fast, "ranks", Wrong(encoder._fast.ranks))
    monkeypatch.setattr("components.tokenize.tokenize.encoder_of", lambda *_: encoder)
    shard = documents / "train" / "00000.jsonl.zst"
    unit = Unit(shard, "train", 0, tokenizer, END_OF_TEXT, "uint16", tmp_path / "shards", 400, engine)
    with pytest.raises(StageError) as raised:
        encode_shard(unit)
    right = encoding.ordinary(tokenizer.read_bytes(), "given").encode(TRAIN[0].text).ids[5]
    wrong = int(ByteLevel.read(tokenizer.read_bytes()).ids[65])
    assert str(raised.value) == (
        f"{shard}: document {TRAIN[0].identity[:12]}: token 5, at character 5, is {wrong} with {Choice(engine)} and "
        f"{right} with {Choice(REFERENCE)}: set CAIRN_TOKENIZER_ENGINE=tokenizers"
    )
