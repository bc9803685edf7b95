"""Evaluate: bits against a computation token by token, compressors against themselves, and intervals by brute force."""

import itertools
import json
import math
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyppmd
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from cairn.errors import ArtifactError, RecipeError, StageError
from cairn.lineage.artifact import digest_of
from cairn.recipe import load as load_recipe
from components.evaluate import bits as bits_module
from components.evaluate.bits import Scorer
from components.evaluate.bootstrap import interval
from components.evaluate.compressors import compress
from components.evaluate.continuation import Continuation, load
from components.evaluate.recipe import Evaluate
from tests.components.inputs import SHAPE, Document, Model, run, sentences, write_documents, write_model
from trainer.recipe import ModelShape

MERGES = ["t h", "th e", "Ġ the"]
SECTION = Evaluate(
    ppmd_orders=(5,), zstd_dictionaries=(1024,), resamples=200, prompts=2, prompt_tokens=6, continuation_tokens=9
)
TRAIN = [Document(sentences(number)) for number in range(60)]
HELD_OUT = [
    Document(sentences(100), "walks"),
    Document(sentences(101, lines=2), "notes", overlap=0.19),
    Document("The cairn.", "walks"),
    Document(sentences(102), "walks", overlap=0.2),
    Document("日本 naïve", "notes", overlap=0.5),
    Document(sentences(103, lines=9), "walks"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model with weights that say something of every token, and a tokenizer with longer tokens than bytes."""
    return write_model(tmp_path_factory.mktemp("model"), merges=MERGES)


@pytest.fixture(scope="module")
def scorer(model: Model) -> Scorer:
    return Scorer(model.folder, threads=1)


def evaluated(root: Path, model: Path, section: Evaluate = SECTION, workers: int = 1) -> Path:
    """The scores of the held-out documents above."""
    documents = write_documents(root / "documents", train=TRAIN, heldout=HELD_OUT)
    return run("evaluate", section, root, {"model": model, "documents": documents}, workers)["scores"]


@pytest.fixture(scope="module")
def scores(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluated(tmp_path_factory.mktemp("scores"), model.folder)


def table(scores: Path) -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = json.loads((scores / "scores.json").read_bytes())["bits_per_byte"]
    return found


def rows(scores: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (scores / "documents.jsonl").read_text().splitlines()]


# Bits


def one_by_one(model: Model, ids: Sequence[int], stride: int) -> float:
    """Bits of a document by the definition: every token by itself, given those before it in the first window that
    reaches it. Windows of `context` tokens begin every `stride` tokens."""
    total = 0.0
    for position in range(1, len(ids)):
        start = 0
        while position > start + model.trained.shape.context:
            start += stride
        with torch.no_grad():
            logits = model.trained(torch.tensor([list(ids[start:position])]))[0, -1].double()
        total -= float(torch.log_softmax(logits, 0)[ids[position]]) / math.log(2)
    return total


@pytest.mark.parametrize("stride", [1, 5, SHAPE.context // 2, SHAPE.context])
def test_the_bits_of_a_document_are_those_of_its_tokens_one_by_one(model: Model, scorer: Scorer, stride: int) -> None:
    text = scorer.encode(sentences(7, lines=3))
    assert len(text) > 3 * SHAPE.context
    lengths = (1, 2, SHAPE.context, SHAPE.context + 1, SHAPE.context + 2, 3 * SHAPE.context + 7)
    documents = [text[:length] for length in lengths]
    found = scorer.bits(documents, stride)
    assert found[0] == 0.0
    for ids, mine in zip(documents, found, strict=True):
        assert mine == pytest.approx(one_by_one(model, ids.tolist(), stride), rel=1e-5)


def test_a_class_without_fused_attention_and_without_a_memory_is_scored_and_goes_on(tmp_path: Path) -> None:
    sizes = {"layers": 2, "width": 16, "heads": 2, "kv_heads": 2, "head_dim": 8, "mlp_width": 64, "context": 16}
    made = write_model(tmp_path, shape=ModelShape.model_validate({"named": "gpt1", **sizes}))
    scorer = Scorer(made.folder, threads=1)
    assert type(scorer.model).__name__ == "OpenAIGPTLMHeadModel"
    ids = scorer.encode("The cairn.")
    with torch.no_grad():
        logits = made.trained(torch.from_numpy(ids.astype(np.int64))[None, :-1])[0]
    nats = torch.nn.functional.cross_entropy(logits, torch.from_numpy(ids[1:].astype(np.int64)), reduction="sum")
    assert scorer.bits([ids], stride=8) == [pytest.approx(float(nats) / math.log(2), rel=1e-5)]
    loaded = load(made.folder, 1)
    assert isinstance(loaded, Continuation)
    written = list(loaded.stream("The", tokens=20, temperature=0, top_k=None, seed=0))
    assert len(written) == 20
    window = loaded.encode("The")
    for token, _ in written:
        assert token == greedy(made, window, 1)[0]
        window = [*window, token]
        window = window[-8:] if len(window) > 16 else window


def test_every_token_is_scored_once_and_from_enough_context(scorer: Scorer) -> None:
    for length, stride in itertools.product((1, 2, 31, 32, 33, 34, 64, 65, 200), (1, 7, 16, 32)):
        scored = [
            position
            for window in scorer.windows(0, length, stride)
            for position in range(window.scored, window.stop)
            if window.stop - window.start <= scorer.context + 1
            and position - window.start >= min(position, scorer.context + 1 - stride)
        ]
        assert scored == list(range(1, length))


def test_the_order_and_size_of_batches_does_not_matter(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, model: Model
) -> None:
    documents = [scorer.encode(document.text) for document in [*HELD_OUT, *TRAIN[:9]]]
    expected = scorer.bits(documents, 16)
    assert scorer.bits(documents[::-1], 16)[::-1] == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr(bits_module, "BATCH_TOKENS", 40)
    assert Scorer(model.folder, 1).bits(documents, 16) == pytest.approx(expected, rel=1e-6)


def test_a_model_that_knows_nothing_needs_the_logarithm_of_its_vocabulary_for_every_token(tmp_path: Path) -> None:
    uniform = write_model(tmp_path, merges=MERGES, spread=0)
    scores = evaluated(tmp_path, uniform.folder)
    loaded = Scorer(uniform.folder, 1)
    for domain, found in table(scores).items():
        held = [document for document in HELD_OUT if document.domain == domain]
        tokens = sum(len(loaded.encode(document.text)) - 1 for document in held)
        size = sum(document.size for document in held)
        assert tokens < size
        assert found["naive"]["bits_per_byte"] == pytest.approx(math.log2(257 + 3) * tokens / size, abs=1e-4)


def test_a_document_that_spells_the_end_of_text_is_scored_as_text(scorer: Scorer) -> None:
    ids = scorer.encode("<|endoftext|> is not an end")
    assert np.count_nonzero(ids == scorer.end_of_text) == 1


# Scores


def test_the_table_holds_for_each_domain_what_the_documents_hold(model: Model, scorer: Scorer, scores: Path) -> None:
    bits = scorer.bits([scorer.encode(document.text) for document in HELD_OUT], SHAPE.context // 2)
    assert rows(scores) == [
        {
            "id": document.identity,
            "domain": document.domain,
            "bytes": document.size,
            "overlap": document.overlap,
            "bits": pytest.approx(found, abs=0.006),
        }
        for document, found in zip(HELD_OUT, bits, strict=True)
    ]
    for domain, kinds in table(scores).items():
        for kind, row in kinds.items():
            kept = [
                (found, document.size)
                for document, found in zip(HELD_OUT, bits, strict=True)
                if document.domain == domain and (kind == "naive" or document.overlap < 0.2)
            ]
            assert row["documents"] == len(kept)
            assert row["bytes"] == sum(size for _, size in kept)
            assert row["bits_per_byte"] == pytest.approx(sum(b for b, _ in kept) / row["bytes"], abs=1e-3)
            assert row["low"] <= row["bits_per_byte"] <= row["high"]
            assert set(row["compressors"]) == {"ppmd_5", "zstd_19_dict_1k"}
    assert {(d, k): row["documents"] for d, kinds in table(scores).items() for k, row in kinds.items()} == {
        ("walks", "naive"): 4,
        ("walks", "filtered"): 3,
        ("notes", "naive"): 2,
        ("notes", "filtered"): 1,
    }
    setting = json.loads((scores / "scores.json").read_bytes())["setting"]
    assert setting == {"context": SHAPE.context, "stride": SHAPE.context // 2, "leak_threshold": 0.2}


def test_scores_are_the_same_bytes_again_and_with_two_workers(model: Model, scores: Path, tmp_path: Path) -> None:
    assert digest_of(evaluated(tmp_path, model.folder, workers=2)) == digest_of(scores)


def test_a_domain_of_which_everything_leaked_has_no_filtered_score(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = evaluated(tmp_path, model.folder, SECTION.model_copy(update={"leak_threshold": 0.1}))
    assert table(scores)["notes"]["filtered"] == {"documents": 0, "bytes": 0}
    assert table(scores)["notes"]["naive"]["documents"] == 2
    assert {sample["domain"] for sample in json.loads((scores / "samples.json").read_bytes())} == {"walks"}
    said = capsys.readouterr().err
    assert "evaluate: notes filtered: no documents" in said
    row = table(scores)["walks"]["filtered"]
    assert f"evaluate: walks filtered: {row['bits_per_byte']:.3f} [{row['low']:.3f}, {row['high']:.3f}] bits" in said


def test_a_run_without_held_out_documents_says_what_to_do(model: Model, tmp_path: Path) -> None:
    documents = write_documents(tmp_path / "documents", train=TRAIN)
    with pytest.raises(StageError, match=r"no document is held out: raise ingest\.split\.heldout, or add text"):
        run("evaluate", SECTION, tmp_path, {"model": model.folder, "documents": documents})
    assert not (tmp_path / "artifacts").exists()


# Samples


def greedy(model: Model, ids: Sequence[int], length: int) -> list[int]:
    """The most likely token, again and again, until the end of the text."""
    made: list[int] = []
    while len(made) < length:
        with torch.no_grad():
            made.append(int(model.trained(torch.tensor([[*ids, *made]]))[0, -1].argmax()))
        if made[-1] == 0:
            break
    return made


def test_samples_are_the_beginnings_of_filtered_documents_continued_greedily(
    model: Model, scorer: Scorer, scores: Path
) -> None:
    expected = []
    for domain in ("notes", "walks"):
        clean = [document for document in HELD_OUT if document.domain == domain and document.overlap < 0.2]
        for document in clean[: SECTION.prompts]:
            ids = scorer.encode(document.text)[: 1 + SECTION.prompt_tokens].tolist()
            expected.append(
                {
                    "domain": domain,
                    "document": document.identity,
                    "prompt": scorer.tokenizer.decode(ids[1:]),
                    "continuation": scorer.tokenizer.decode(greedy(model, ids, SECTION.continuation_tokens)),
                }
            )
    assert len(expected) == 3
    assert json.loads((scores / "samples.json").read_bytes()) == expected


@pytest.mark.parametrize(("prompt", "length"), [(3, 500), (500, 3), (SHAPE.context - 2, 4), (SHAPE.context, 1)])
def test_a_prompt_and_its_continuation_stay_within_the_context(
    model: Model, scorer: Scorer, prompt: int, length: int
) -> None:
    ids = scorer.encode(sentences(5))
    begun, continued = scorer.continuation(ids, prompt, length)
    taken = ids[: min(prompt + 1, SHAPE.context - 1)].tolist()
    assert begun == scorer.tokenizer.decode(taken[1:])
    assert continued == scorer.tokenizer.decode(greedy(model, taken, min(length, SHAPE.context - len(taken))))
    assert continued


# Intervals


def test_the_interval_has_the_percentiles_of_all_resamples() -> None:
    bits, sizes = [10.0, 40.0, 90.0, 20.0], [10, 20, 30, 5]
    rates = [
        sum(bits[i] for i in drawn) / sum(sizes[i] for i in drawn) for drawn in itertools.product(range(4), repeat=4)
    ]
    expected = np.percentile(rates, [2.5, 97.5])
    assert interval(bits, sizes, resamples=20_000, seed=1) == pytest.approx(tuple(expected), abs=0.02)


def test_the_interval_covers_the_truth_in_about_95_of_100_samples() -> None:
    chance = np.random.default_rng(7)
    covered = 0
    for seed in range(300):
        sizes = chance.integers(100, 3000, 80)
        bits = sizes * chance.normal(1.5, 0.3, 80)
        low, high = interval(bits.tolist(), sizes.tolist(), resamples=200, seed=seed)
        covered += low <= 1.5 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_the_interval_is_decided_by_its_seed() -> None:
    bits, sizes = [1.0, 5.0, 9.0], [2, 3, 4]
    assert interval(bits, sizes, 50, 3) == interval(bits, sizes, 50, 3)
    assert interval(bits, sizes, 50, 3) != interval(bits, sizes, 50, 4)
    assert interval([6.0], [4], 50, 0) == (1.5, 1.5)


# Compressors

TEXTS = {"walks naive": [sentences(200), sentences(201)], "notes naive": ["日本 naïve", "", "The cairn"]}


def joined(texts: Sequence[str]) -> bytes:
    return "".join(texts).encode()


def ppmd(order: int, data: bytes) -> int:
    """Bytes that PPMd makes of the data, from a fresh start."""
    encoder = pyppmd.Ppmd7Encoder(order, 1 << 30)
    return len(encoder.encode(data)) + len(encoder.flush())


def test_ppmd_costs_what_the_text_adds_to_the_compressed_training_text(tmp_path: Path) -> None:
    documents = write_documents(tmp_path / "documents", shard_bytes=4000, train=TRAIN)
    found = compress(documents, TEXTS, (5, 12), (), 1 << 30, tmp_path / "work", workers=1)
    train = joined([document.text for document in TRAIN])
    assert found == {
        f"ppmd_{order}": {
            name: 8 * (ppmd(order, train + joined(text)) - ppmd(order, train)) / len(joined(text))
            for name, text in TEXTS.items()
        }
        for order in (12, 5)
    }
    assert found["ppmd_12"]["walks naive"] < 0.5 * 8 * ppmd(12, joined(TEXTS["walks naive"])) / 700


@settings(max_examples=25)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=12), st.integers(1, 2000))
def test_compressors_are_primed_with_the_end_of_the_training_text(sizes: list[int], prime: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        train = [Document(sentences(number, lines=9)[:size]) for number, size in enumerate(sizes)]
        documents = write_documents(Path(folder, "documents"), train=train)
        compress(documents, {}, (), (), prime, Path(folder, "work"), workers=1)
        assert Path(folder, "work", "train.txt").read_bytes() == joined([d.text for d in train])[-prime:]


def test_zstd_has_a_dictionary_of_the_training_text(tmp_path: Path) -> None:
    read = [Document(sentences(number)) for number in range(400)]
    documents = write_documents(tmp_path / "documents", train=read)
    found = compress(documents, TEXTS, (), (4096,), 1 << 30, tmp_path / "work", workers=1)["zstd_19_dict_4k"]
    train = joined([document.text for document in read])
    samples: list[bytes | bytearray | memoryview] = [
        train[start : start + 4096] for start in range(0, len(train), 4096)
    ]
    dictionary = zstandard.train_dictionary(4096, samples, k=1024, d=8)
    for name, text in TEXTS.items():
        packed = zstandard.ZstdCompressor(19, dict_data=dictionary).compress(joined(text))
        assert zstandard.ZstdDecompressor(dict_data=dictionary).decompress(packed) == joined(text)
        assert found[name] == 8 * len(packed) / len(joined(text))
    assert found["walks naive"] < 8 * len(zstandard.compress(joined(TEXTS["walks naive"]), 19)) / 700


def test_too_little_text_for_a_dictionary_is_the_dictionary_itself(tmp_path: Path) -> None:
    documents = write_documents(tmp_path / "documents", train=[Document("The cairn marks the path.")])
    texts = {"same": ["The cairn marks the path."], "other": ["日本 ναι ñandú ößä çê"]}
    found = compress(documents, texts, (), (4096,), 1 << 30, tmp_path / "work", workers=1)["zstd_19_dict_4k"]
    assert found["same"] < 0.6 * found["other"]


class Dying:
    """An encoder that does not survive its second text."""

    def __init__(self, order: int, memory: int) -> None:
        self.died: Callable[[], object] = lambda: os.kill(os.getpid(), signal.SIGKILL)
        self.primed = False

    def encode(self, data: bytes) -> bytes:
        if self.primed:
            self.died()
        self.primed = True
        return b""

    def flush(self) -> bytes:
        return b""


class Failing(Dying):
    def __init__(self, order: int, memory: int) -> None:
        super().__init__(order, memory)
        self.died = lambda: (_ for _ in ()).throw(MemoryError())


@pytest.mark.parametrize("encoder", [Dying, Failing])
def test_a_compressor_that_runs_out_of_memory_is_told_and_its_copy_does_not_live_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: type[Dying]
) -> None:
    monkeypatch.setattr(pyppmd, "Ppmd7Encoder", encoder)
    documents = write_documents(tmp_path / "documents", train=TRAIN)
    this, told = os.getpid(), tmp_path / "told"
    try:
        compress(documents, TEXTS, (5,), (), 1 << 30, tmp_path / "work", workers=1)
    except BaseException as error:
        with open(told, "a") as file:
            file.write(f"{os.getpid()}: {error}\n")
        if os.getpid() != this:
            os._exit(1)  # a copy that came this far has told so
    assert told.read_text() == (
        f"{this}: a compressor was killed (out of memory?): lower evaluate.ppmd_orders or prime_bytes\n"
    )


def test_compressors_that_are_done_are_not_run_again_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = write_documents(tmp_path / "documents", train=TRAIN)
    arguments = (documents, TEXTS, (5, 6), (1024,), 1 << 30, tmp_path / "work", 1)
    expected = compress(*arguments)
    (tmp_path / "work" / "done" / "2.json").unlink()
    monkeypatch.setattr(pyppmd, "Ppmd7Encoder", Dying)
    assert compress(*arguments) == expected


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("ppmd_orders: [1]", "ppmd_orders.0: input should be greater than or equal to 2"),
        ("ppmd_orders: [5, 65]", "ppmd_orders.1: input should be less than or equal to 64"),
        ("zstd_dictionaries: [1000]", "zstd_dictionaries.0: input should be a multiple of 1024"),
        ("seed: -1", "seed: input should be greater than or equal to 0"),
    ],
)
def test_settings_that_no_compressor_has_are_told(tmp_path: Path, keys: str, told: str) -> None:
    path = tmp_path / "evaluate.yaml"
    path.write_text(f"{keys}\n")
    with pytest.raises(RecipeError, match=re.escape(told)):
        load_recipe(Evaluate, path)


# A model that is none


def edit(file: str, **changes: object) -> Callable[[Path], None]:
    """Changes keys of a JSON file."""

    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))

    return change


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def without_a_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: shutil.rmtree(folder), "does not load as a model"),
        (lambda folder: (folder / "config.json").unlink(), "does not load as a model"),
        (lambda folder: (folder / "model.safetensors").unlink(), "does not load as a model"),
        (
            lambda folder: (folder / "tokenizer.json").unlink(),
            "tokenizer.json: cannot be read: No such file or directory",
        ),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json: is not a tokenizer: "),
        (cut_short, "does not load as a model"),
        (without_a_weight, "does not load as a model: weights do not fit the class: .*missing_keys.*up_proj"),
        (edit("config.json", model_type="nonesuch"), "does not load as a model"),
        (edit("config.json", vocab_size=250), "does not load as a model: weights do not fit the class"),
        (edit("config.json", bos_token_id=None), "its config.json does not say bos_token_id, without which"),
    ],
)
def test_a_directory_that_is_no_whole_model_is_told_in_one_line(
    model: Model, tmp_path: Path, change: Callable[[Path], None], told: str
) -> None:
    folder = shutil.copytree(model.folder, tmp_path / "model")
    change(folder)
    with pytest.raises(ArtifactError, match=f"^{re.escape(str(folder))}: {told}") as raised:
        Scorer(folder, 1)
    assert "\n" not in str(raised.value)


def test_a_tokenizer_with_more_ids_than_the_model_is_told(model: Model, tmp_path: Path) -> None:
    folder = shutil.copytree(model.folder, tmp_path / "model")
    content = json.loads((folder / "tokenizer.json").read_bytes())
    content["added_tokens"].append({**content["added_tokens"][0], "id": 260, "content": "<extra>"})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="its tokenizer has ids beyond the model's vocabulary of 260"):
        Scorer(folder, 1)


def test_a_model_that_does_not_load_leaves_nothing_behind(model: Model, tmp_path: Path) -> None:
    folder = shutil.copytree(model.folder, tmp_path / "model")
    cut_short(folder)
    with pytest.raises(ArtifactError, match="does not load as a model"):
        evaluated(tmp_path, folder)
    assert not (tmp_path / "artifacts").exists()
