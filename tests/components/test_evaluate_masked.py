"""Masked tokens: bits against a computation place by place, which tokens are masked, and how many bytes they are."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cairn.errors import ArtifactError, SourceError, StageError
from cairn.lineage.artifact import digest_of
from components.evaluate import bits as bits_module
from components.evaluate.bits import Scorer
from components.evaluate.comparison import compare, read_scores
from components.evaluate.continuation import load
from components.evaluate.filling import Filling
from components.evaluate.masked import MaskedScorer, Places, mask_token
from components.evaluate.recipe import Evaluate
from components.evaluate.summary import summary
from components.export.loading import load_model
from tests.components.inputs import MASK, Document, Model, run, sentences, write_documents, write_model
from trainer.recipe import ModelShape

CONTEXT = 32
SHAPE = ModelShape(
    layers=2, width=24, heads=4, kv_heads=4, head_dim=6, mlp_width=40, context=CONTEXT,
    causal=False, norm="layernorm", qk_norm="none", activation="gelu",
)  # fmt: skip
MERGES = ["t h", "th e", "Ġ the"]
SECTION = Evaluate(mask_rates=(0.15, 0.3), resamples=100, prompts=2, prompt_tokens=6, continuation_tokens=9)
HELD_OUT = [
    Document(sentences(100), "walks"),
    Document(sentences(101, lines=2), "notes", overlap=0.19),
    Document("The cairn.", "walks"),
    Document(sentences(102), "walks", overlap=0.2),
    Document("日本 naïve", "notes", overlap=0.5),
    Document("x", "walks"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_model(tmp_path_factory.mktemp("model"), shape=SHAPE, merges=MERGES)


@pytest.fixture(scope="module")
def scorer(model: Model) -> MaskedScorer:
    return MaskedScorer(Scorer(model.folder, threads=1), model.folder)


def evaluated(root: Path, model: Path, section: Evaluate = SECTION) -> Path:
    documents = write_documents(root / "documents", train=[Document(sentences(0))], heldout=HELD_OUT)
    return run("evaluate", section, root, {"model": model, "documents": documents})["scores"]


@pytest.fixture(scope="module")
def scores(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluated(tmp_path_factory.mktemp("scores"), model.folder)


def told(scores: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (scores / "documents.jsonl").read_text().splitlines()]


# Bits


def one_by_one(model: Any, ids: Sequence[int], at: Places, mask: int, stride: int) -> tuple[float, int]:
    """Bits and hits of the masked places by the definition: each from the window, of those that begin every `stride`
    tokens and one that ends with the document, in which the nearer edge that is no edge of the document is furthest.
    One window by itself, without padding."""
    hidden = np.array(ids, np.int64)
    hidden[at] = mask
    last = max(0, len(ids) - CONTEXT)
    starts = [*range(0, last, stride), last]
    bits, hits = 0.0, 0
    for place in at.tolist():
        room = [
            min(
                place - start if start else math.inf,
                start + CONTEXT - 1 - place if start != last else math.inf,
            )
            for start in starts
        ]
        inside = [index for index, start in enumerate(starts) if start <= place < start + CONTEXT]
        start = starts[max(inside, key=lambda index: (room[index], index))]
        with torch.no_grad():
            logits = model(torch.from_numpy(hidden[start : start + CONTEXT])[None]).logits[0, place - start].double()
        bits -= float(torch.log_softmax(logits, 0)[ids[place]]) / math.log(2)
        hits += int(logits.argmax()) == ids[place]
    return bits, hits


@pytest.mark.parametrize("stride", [5, 16, CONTEXT])
def test_the_bits_of_masked_tokens_are_those_of_each_in_its_window(
    model: Model, scorer: MaskedScorer, stride: int
) -> None:
    naive = load_model(model.folder, attention="eager")
    text = scorer.scorer.encode(sentences(7, lines=3))
    documents = [text[:length] for length in (1, 2, CONTEXT, CONTEXT + 1, 2 * CONTEXT + 7)]
    at = [scorer.places(f"{number}", len(ids), 0.4, seed=0) for number, ids in enumerate(documents)]
    found = scorer.score(documents, at, stride)
    assert (found[0].tokens, found[0].bits) == (0, 0.0)
    for ids, places, mine in zip(documents, at, found, strict=True):
        bits, hits = one_by_one(naive, ids.tolist(), places, scorer.mask, stride)
        assert mine.bits == pytest.approx(bits, rel=1e-5)
        assert (mine.tokens, mine.hits) == (len(places), hits)
        # A byte-level token spells each byte as one character.
        spelled = [str(scorer.scorer.tokenizer.id_to_token(int(ids[place]))) for place in places]
        assert mine.bytes == sum(map(len, spelled))


def test_every_place_is_scored_once_and_seen_from_both_sides(scorer: MaskedScorer) -> None:
    for length in (1, 2, 31, 32, 33, 48, 64, 65, 200):
        for stride in (1, 7, 16, 32):
            windows = scorer.windows(0, length, stride)
            assert [place for one in windows for place in range(one.first, one.last)] == list(range(length))
            for one in windows:
                assert one.start <= one.first <= one.last <= one.stop
                assert one.stop - one.start <= CONTEXT
                # Half of what two windows share is on either side, but for the ends of the document.
                if one.start:
                    before = max(other.start for other in windows if other.start < one.start)
                    assert one.first - one.start >= (before + CONTEXT - one.start) // 2


def test_the_order_and_size_of_batches_does_not_matter(
    scorer: MaskedScorer, monkeypatch: pytest.MonkeyPatch, model: Model
) -> None:
    documents = [scorer.scorer.encode(document.text) for document in HELD_OUT]
    at = [scorer.places(document.identity, len(ids), 0.3, 0) for document, ids in zip(HELD_OUT, documents, strict=True)]
    expected = [found.bits for found in scorer.score(documents, at, 16)]
    again = scorer.score(documents[::-1], at[::-1], 16)[::-1]
    assert [found.bits for found in again] == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr(bits_module, "BATCH_TOKENS", 40)
    small = MaskedScorer(Scorer(model.folder, 1), model.folder).score(documents, at, 16)
    assert [found.bits for found in small] == pytest.approx(expected, rel=1e-6)


def test_a_model_that_knows_nothing_needs_the_logarithm_of_its_vocabulary_for_every_masked_token(
    tmp_path: Path,
) -> None:
    uniform = write_model(tmp_path, shape=SHAPE, merges=MERGES, spread=0)
    for line in told(evaluated(tmp_path, uniform.folder)):
        for found in line["masked"].values():
            assert found["bits"] == pytest.approx(found["tokens"] * math.log2(258 + 3), abs=0.01)


# Places


def test_places_follow_from_document_and_seed_and_a_lower_rate_has_some_of_a_higher(scorer: MaskedScorer) -> None:
    few, many = (scorer.places("a", 201, rate, 0) for rate in (0.15, 0.3))
    assert (len(few), len(many)) == (30, 60)
    assert set(few) < set(many)
    assert many.min() >= 1, "the end-of-text token before a document is no part of it"
    assert many.max() <= 200
    assert scorer.places("a", 201, 0.3, 0).tolist() == many.tolist()
    assert scorer.places("a", 201, 0.3, 1).tolist() != many.tolist()
    assert scorer.places("b", 201, 0.3, 0).tolist() != many.tolist()
    assert scorer.places("a", 1, 0.3, 0).tolist() == []
    assert scorer.places("a", 2, 0.01, 0).tolist() == [1]


def test_every_place_is_as_likely_as_another(scorer: MaskedScorer) -> None:
    drawn = np.bincount(np.concatenate([scorer.places(f"{n}", 21, 0.25, 0) for n in range(2000)]), minlength=21)
    assert drawn[0] == 0
    assert abs(drawn[1:] - 500).max() < 100  # five standard deviations


def test_a_document_that_spells_the_mask_token_is_scored_as_text(scorer: MaskedScorer) -> None:
    assert scorer.mask not in scorer.scorer.encode(f"{MASK} is no mask").tolist()


# Scores


def test_the_table_holds_for_each_rate_and_domain_what_the_documents_hold(scores: Path) -> None:
    said, lines = json.loads((scores / "scores.json").read_bytes()), told(scores)
    assert [line["id"] for line in lines] == [document.identity for document in HELD_OUT]
    assert said["setting"] == {"context": CONTEXT, "stride": CONTEXT // 2, "leak_threshold": 0.2, "seed": 0}
    assert list(said["masked"]) == ["0.15", "0.3"]
    for rate, domains in said["masked"].items():
        assert list(domains) == ["notes", "walks"]
        for domain, kinds in domains.items():
            for kind, row in kinds.items():
                mine = [
                    line["masked"][rate]
                    for line in lines
                    if line["domain"] == domain and (kind == "naive" or line["overlap"] < 0.2)
                ]
                tokens, size, bits, hits = (
                    sum(one[key] for one in mine) for key in ("tokens", "bytes", "bits", "hits")
                )
                assert (row["documents"], row["tokens"], row["bytes"]) == (len(mine), tokens, size)
                for measure, value in (
                    ("bits_per_byte", bits / size),
                    ("bits_per_token", bits / tokens),
                    ("accuracy", hits / tokens),
                ):
                    assert row[measure]["value"] == round(value, 4)
                    assert row[measure]["low"] <= row[measure]["value"] <= row[measure]["high"]


def test_scores_are_the_same_bytes_again_and_no_compressor_stands_beside(
    model: Model, scores: Path, tmp_path: Path
) -> None:
    assert digest_of(evaluated(tmp_path, model.folder)) == digest_of(scores)
    assert sorted(path.name for path in scores.iterdir()) == ["documents.jsonl", "samples.json", "scores.json"]
    assert "compressors" not in (scores / "scores.json").read_text()


def test_samples_are_the_beginnings_of_filtered_documents_with_the_likeliest_tokens(
    model: Model, scorer: MaskedScorer, scores: Path
) -> None:
    naive = load_model(model.folder, attention="eager")
    samples = json.loads((scores / "samples.json").read_bytes())
    by_id = {document.identity: document for document in HELD_OUT}
    assert [sample["domain"] for sample in samples] == ["notes", "walks", "walks"]
    for sample in samples:
        document = by_id[sample["document"]]
        ids = scorer.scorer.encode(document.text)[:16]
        at = scorer.places(document.identity, len(ids), 0.15, 0)
        masked = ids.astype(np.int64)
        masked[at] = scorer.mask
        with torch.no_grad():
            guesses = naive(torch.from_numpy(masked)[None]).logits[0, at].argmax(-1).tolist()
        decode = scorer.scorer.tokenizer.decode
        asked = [piece for piece in sample["pieces"] if "was" in piece]
        assert [piece["guess"] for piece in asked] == [decode([guess], skip_special_tokens=False) for guess in guesses]
        assert "".join(piece.get("text", "") + piece.get("was", "") for piece in sample["pieces"]) == decode(
            ids[1:].tolist()
        )


def test_a_domain_of_which_everything_leaked_has_no_filtered_score(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = evaluated(tmp_path, model.folder, SECTION.model_copy(update={"leak_threshold": 0.1}))
    table = json.loads((scores / "scores.json").read_bytes())["masked"]["0.15"]
    assert table["notes"]["filtered"] == {"documents": 0, "tokens": 0, "bytes": 0}
    assert "evaluate: notes filtered, 15 % masked: no documents" in capsys.readouterr().err


def test_what_people_see_has_every_rate_domain_and_set(scores: Path) -> None:
    said = json.loads((scores / "scores.json").read_bytes())["masked"]
    shown = summary(lambda _, path: (scores / path).read_bytes())  # type: ignore[arg-type]
    for rate, percent in (("0.15", "15"), ("0.3", "30")):
        for domain in ("notes", "walks"):
            row = said[rate][domain]["naive"]
            name = f"{percent}_{domain}_naive"
            assert shown.metrics[f"bits_per_masked_byte_{name}"] == row["bits_per_byte"]["value"]
            assert shown.metrics[f"accuracy_{name}"] == row["accuracy"]["value"]
    assert len(shown.metrics) == 2 * 2 * 2 * 2
    assert shown.page.count("\n| ") == 2 + 8  # the header and its ruler


# Comparison


def test_a_run_beside_itself_does_not_differ_and_beside_a_worse_one_it_does(scores: Path, tmp_path: Path) -> None:
    worse = tmp_path / "worse"
    worse.mkdir()
    (worse / "scores.json").write_bytes((scores / "scores.json").read_bytes())
    lines = told(scores)
    for number, line in enumerate(lines):
        found = line["masked"]["0.15"]
        found["bits"] += found["bytes"] * (0.5 + 0.1 * number)
        line["masked"]["0.3"]["bits"] = 0.0  # the first rate is what is compared
    (worse / "documents.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    one, other = read_scores(scores), read_scores(worse)
    assert one.setting["masked"] == 0.15
    for row in compare(one, one):
        assert (row.difference, row.verdict) == (0.0, "not clearly different")
    rows = {(row.domain, row.set): row for row in compare(one, other)}
    assert rows["walks", "naive"].verdict == "worse"
    assert rows["walks", "naive"].documents == 4
    difference = rows["walks", "naive"].difference
    assert difference is not None
    assert 0.5 <= difference <= 1.0


def test_documents_in_which_other_tokens_were_masked_are_not_compared(
    model: Model, scores: Path, tmp_path: Path
) -> None:
    other = read_scores(evaluated(tmp_path, model.folder, SECTION.model_copy(update={"seed": 9})))
    one = read_scores(scores)
    same = sum(other.documents[name].bytes == found.bytes for name, found in one.documents.items())
    rows = [row for row in compare(one, other) if row.set == "naive"]
    assert sum(row.documents for row in rows) == same < len(HELD_OUT)
    assert one.setting != other.setting


# Filling in


def test_checkpoint_and_export_fill_in_the_same_tokens(model: Model, scorer: MaskedScorer) -> None:
    prompt = f"The {MASK} marks{MASK}the path"
    naive = load_model(model.folder, attention="eager")
    ids = [scorer.scorer.end_of_text]
    for part in ("The", MASK, " marks", MASK, "the path"):
        ids += [scorer.mask] if part == MASK else scorer.scorer.tokenizer.encode(part).ids
    with torch.no_grad():
        chances = torch.softmax(naive(torch.tensor([ids])).logits[0].double(), -1)
    places = [index for index, token in enumerate(ids) if token == scorer.mask]
    for folder in (model.folder, model.folder.parent / "checkpoint"):
        loaded = load(folder, 1)
        assert isinstance(loaded, Filling)
        guesses = loaded.fill(prompt, 4)
        assert [len(one) for one in guesses] == [4, 4]
        for place, one in zip(places, guesses, strict=True):
            assert [guess.token for guess in one] == chances[place].topk(4).indices.tolist()
            assert [guess.probability for guess in one] == pytest.approx(
                chances[place].topk(4).values.tolist(), rel=1e-4
            )
        # The space before a mask token is the token's own, for the exported tokenizer too.
        assert loaded.fill(prompt.replace(" <", "<", 1), 4) == guesses
        assert loaded.around(f"a {MASK} b{MASK}\n  {MASK} c") == ["a", " b", "\n ", " c"]
        with pytest.raises(SourceError, match=re.escape(f"the prompt: has no {MASK}: write it where")):
            loaded.fill("The cairn", 4)
        with pytest.raises(SourceError, match=r"the prompt: has \d+ tokens, the model sees 32: shorten it"):
            loaded.fill(f"{MASK}{sentences(1)}", 4)


# Damage


def test_a_model_without_a_mask_token_is_refused(model: Model, scorer: MaskedScorer, tmp_path: Path) -> None:
    for content in ("{}", "[1]", "no json", '{"mask_token": "<never>"}', '{"mask_token": 7}'):
        (tmp_path / "tokenizer_config.json").write_text(content)
        with pytest.raises(ArtifactError, match=r"tokenizer_config\.json: tells no mask token"):
            mask_token(tmp_path, scorer.scorer.tokenizer)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"mask_token": {"content": MASK}}))
    assert mask_token(tmp_path, scorer.scorer.tokenizer) == scorer.mask


def test_a_tokenizer_whose_tokens_are_no_bytes_is_refused(
    scorer: MaskedScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = scorer.scorer.encode("The cairn")
    monkeypatch.setattr(scorer, "_bytes", scorer._bytes + 1)
    with pytest.raises(StageError, match="do not add up to the bytes of the text"):
        scorer.score([ids], [np.array([1])], 16)
