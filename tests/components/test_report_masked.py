"""The page of a model that guesses masked tokens: the numbers of its files, and no word that is not true of it."""

import copy
import csv
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from components.report import plots
from components.report.page import page
from components.report.recipe import Report
from tests.components.page_reader import Page, drawings
from tests.components.report_files import Files, training_log

ARCHITECTURE = "ModernBertForMaskedLM"
HOSTILE = "</pre><script>alert(1)</script>"


def measure(value: float) -> dict[str, float]:
    return {"value": value, "low": round(value - 0.05, 4), "high": round(value + 0.0731, 4)}


def scored(bits: float, tokens: int) -> dict[str, Any]:
    measures = {"bits_per_byte": bits, "bits_per_token": 3 * bits, "accuracy": 0.4321}
    return {
        "documents": 28,
        "tokens": tokens,
        "bytes": 3 * tokens,
        **{name: measure(value) for name, value in measures.items()},
    }


def masked_files() -> Files:
    """A run of a masked model over two domains."""
    files = Files(900)
    lines = training_log(900, 10, ())
    for index, line in enumerate(lines):
        line["loss.code"], line["loss.text"] = line["loss"] - 0.5, line["loss"] + 0.5
        line["skipped"] = index // 30
        if line["step"] % 250 == 0:
            for domain in ("code", "text"):
                line[f"development_masked_loss_15.{domain}"] = 3.25 + line["step"] / 1e4
                line[f"development_masked_loss_30.{domain}"] = 9.75
    files.log = lines
    files.manifest["model"] = {
        **files.manifest["model"],
        "causal": False,
        "norm": "layernorm",
        "qk_norm": "none",
        "activation": "gelu",
    }
    files.config = {"architectures": [ARCHITECTURE]}
    files.scores = {
        "masked": {
            rate: {
                "code": {"naive": scored(bits, 9000), "filtered": scored(bits + 0.2, 6000)},
                "text": {"naive": scored(bits + 0.4, 3000), "filtered": scored(bits + 0.6, 2000)},
            }
            for rate, bits in (("0.15", 1.1), ("0.3", 1.3))
        },
        "setting": {"context": 256, "stride": 128, "leak_threshold": 0.2, "seed": 0},
    }
    pieces = [{"text": "The "}, {"was": "cairn", "guess": "cairn"}, {"was": " marks", "guess": HOSTILE}, {"text": "."}]
    files.samples = [{"domain": "text", "document": "4d58cd9dcb5a" + "0" * 52, "pieces": pieces}]  # type: ignore[dict-item]
    return files


@pytest.fixture
def html(tmp_path: Path) -> str:
    return page(Report(), masked_files().material(tmp_path))


def test_every_score_is_on_the_page_as_it_is_in_the_file(html: str) -> None:
    _, *rows = Page(html).table("Masked tokens of held-out text, with 95 % intervals")
    found = {(row[0], row[1]): row[2:] for row in rows}
    masked = masked_files().scores["masked"]
    for rate, percent in (("0.15", "15"), ("0.3", "30")):
        for domain in ("code", "text"):
            for said, kind in (("all", "naive"), ("filtered", "filtered")):
                score = masked[rate][domain][kind]
                row = found.pop((domain, f"{said}, {percent} % masked"))
                assert row[:3] == [f"{score[name]:,}" for name in ("documents", "tokens", "bytes")]
                for name, cell in zip(("bits_per_byte", "bits_per_token", "accuracy"), row[3:], strict=True):
                    assert cell == "{value:.4f} [{low:.4f}, {high:.4f}]".format(**score[name])
    assert not found


def test_the_head_tells_what_the_model_is_and_its_filtered_score_at_the_first_rate(html: str) -> None:
    read = Page(html)
    value, *notes = read.key_figure("Bits per masked byte")
    assert value == f"{(1.3 * 18000 + 1.7 * 6000) / 24000:.3f}"
    assert notes[0] == "held-out text, filtered, all 2 domains, 15 % of the tokens masked"
    assert notes[2] == "43.2 % of the masked tokens guessed"
    assert read.key_figure("Parameters")[2] == ARCHITECTURE
    assert "<bdi>Modern<wbr/>Bert<wbr/>For<wbr/>MaskedLM</bdi>" in html
    assert "A bidirectional language model, which fills in masked tokens," in read.root.text


def test_nothing_is_said_that_is_true_of_causal_models_alone(html: str) -> None:
    said = Page(html).root.text
    for words in (
        "Bits per byte on held-out",
        "best compressor",
        "PPMd",
        "goes on from there",
        "nats per token",
        "A base",
    ):
        assert words not in said, words
    assert "AutoModelForMaskedLM" in html
    assert "AutoModelForCausalLM" not in html


def test_a_sample_shows_the_guess_and_what_was_there_where_it_is_another_and_breaks_nothing(html: str) -> None:
    assert HOSTILE not in html
    (sample,) = Page(html).root.all("figure", "sample")
    assert [mark.text for mark in sample.all("mark")] == ["cairn", HOSTILE]
    assert [was.raw for was in sample.all("s")] == [" marks"]


def test_a_line_break_that_was_guessed_is_seen_and_breaks_no_line_that_was_whole(tmp_path: Path) -> None:
    files = masked_files()
    pieces = [{"was": "\n", "guess": "\n"}, {"was": " x", "guess": "\n\n"}, {"was": "\n", "guess": "y"}]
    files.samples = [{"domain": "text", "document": "0" * 64, "pieces": pieces}]  # type: ignore[dict-item]
    (sample,) = Page(page(Report(), files.material(tmp_path))).root.all("figure", "sample")
    assert sample.all("pre")[0].raw == "↵\n↵↵ xy↵\n"


def test_the_loss_is_drawn_by_domain_and_the_steps_left_out_are_counted(html: str) -> None:
    told = next(drawing for drawing in drawings(html) if "training-wide" in drawing)
    assert "Training loss by domain, smoothed, nats per masked token" in told
    assert "Development split, nats per masked token, 15 % masked" in told
    for kind in ("d0", "d1"):
        assert len(re.findall(rf'<(?:path|polyline)[^>]*class="[^"]*\b{kind}"', told)) == 2
    assert "3 steps were left out, because loss or gradient norm stood out (pretrain.skip)." in Page(html).root.text
    _, *rows = Page(html).table("Training")
    assert [row[5] for row in rows if row[0] in ("250", "500")] == ["3.275", "3.3"]


def test_dvc_draws_the_masked_loss(tmp_path: Path) -> None:
    rows = list(csv.DictReader(StringIO(plots.development(masked_files().material(tmp_path), most=12))))
    assert [(row["step"], row["domain"], row["score"]) for row in rows] == [
        (str(step), domain, f"{3.25 + step / 1e4:.10g}") for domain in ("code", "text") for step in (250, 500, 750)
    ]


def test_a_causal_run_of_several_domains_shows_the_loss_of_each_even_without_a_development_split(
    tmp_path: Path,
) -> None:
    files = Files(300)
    lines = training_log(300, 10, ())
    for line in lines[::2]:
        line["loss.law"] = line["loss"]
    files.log = copy.deepcopy(lines)
    said = page(Report(), files.material(tmp_path / "one"))
    assert "Training loss by domain, nats per token" in said
    assert "left out, because" not in said
    assert [item.text for item in Page(said).root.all("ul", "legend")[-1].all("li")] == ["law"]
    files.log = training_log(300, 10)
    assert "Training loss by domain" not in page(Report(), files.material(tmp_path / "other"))


def test_scores_without_documents_or_of_a_rate_alone_make_a_page(tmp_path: Path) -> None:
    files = masked_files()
    nothing = {"documents": 0, "tokens": 0, "bytes": 0}
    files.scores["masked"] = {"0.15": {"code": {"naive": nothing, "filtered": nothing}}}
    files.samples = []
    said = Page(page(Report(), files.material(tmp_path))).root.text
    assert "evaluate.prompts is 0" in said
    assert "no documents" in said
