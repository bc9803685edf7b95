"""The page: its numbers are those of the files, it needs nothing but itself, and no data can break it."""

import base64
import copy
import hashlib
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cairn.errors import ArtifactError
from cairn.lineage.artifact import readable
from cairn.lineage.stage import Component
from components.report import plots
from components.report.material import READS, Score, read
from components.report.page import checkpoint_of, page, with_times
from components.report.recipe import Report
from components.report.scores import combined
from components.report.times import Times
from components.report.training import _smoothed
from tests.components.page_reader import Page, drawings
from tests.components.report_files import DIGESTS, FILTERED, NAIVE, NONE, Files, tally, training_log

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "goldens" / "report.json"
HOSTILE = "</svg><script>alert(1)</script>\"'&\x00\u202e"
TIMES = Times(
    seconds=178.4, tokens_per_second=21_830, resumed_at=0, peak_gib=1.21, processor="<i>A processor</i>", processes=2,
    threads=1, finished="2026-11-24T07:12:09+00:00", commit="de6a6c0" * 5, changed=True,
    digests={"optimizer": "a" * 64, "sources": "b" * 64},
)  # fmt: skip


def draw(files: Files, folder: Path, **section: int) -> str:
    """The page of these files."""
    return page(Report(**section), files.material(folder))


def two_domains() -> Files:
    """A run over code and text."""
    files = Files(2000)
    files.log = training_log(2000, 10, ("code", "text"))
    for name, factor in (("text", 1.4),):
        scores: dict[str, Any] = copy.deepcopy({"naive": NAIVE, "filtered": FILTERED})
        for score in scores.values():
            for key in ("bits_per_byte", "low", "high"):
                score[key] = round(score[key] * factor, 4)
            score["bytes"] //= 6
        files.scores["bits_per_byte"][name] = scores
        files.ledger["sources"]["stdlib-text"] = {
            "domain": "text",
            "licence": "CC0-1.0",
            "objects": 600,
            "in": tally(9200, 2_900_000),
            "kept": tally(4712, 2_050_000),
            "dropped": {"duplicate": tally(402, 60_000), "gopher.min_alphabetic": tally(4086, 790_000)},
        }
        files.ledger["splits"]["train"]["text"] = tally(4382, 1_893_000)
        files.ledger["splits"]["heldout"]["text"] = tally(330, 81_187)
    return files


# Numbers


def test_every_score_is_on_the_page_as_it_is_in_the_file(tmp_path: Path) -> None:
    files = two_domains()
    head, *rows = Page(draw(files, tmp_path)).table("Bits per byte on held-out text")
    assert head[:6] == ["domain", "text", "documents", "bytes", "model", "95 % interval"]
    assert head[6:8] == ["PPMd order 5", "PPMd order 12"]
    said = {(row[0], row[1]): row[2:] for row in rows}
    assert set(said) == {(domain, text) for domain in ("code", "text") for text in ("all", "filtered")}
    for domain, sets in files.scores["bits_per_byte"].items():
        for text, kind in (("all", "naive"), ("filtered", "filtered")):
            score = sets[kind]
            found = said[domain, text]
            assert found[:2] == [f"{score['documents']:,}", f"{score['bytes']:,}"]
            assert float(found[2]) == score["bits_per_byte"]
            assert [float(bound) for bound in found[3].split(" – ")] == [score["low"], score["high"]]
            names = ("ppmd_5", "ppmd_12", "zstd_19_dict_110k", "zstd_19_dict_1024k")
            assert [float(value) for value in found[4:]] == [score["compressors"][name] for name in names]


def test_the_funnel_is_the_ledger(tmp_path: Path) -> None:
    _, *rows = Page(draw(two_domains(), tmp_path)).table("From what came in to what was kept")
    assert {row[0]: row[2] for row in rows} == {
        "came in": "9,840",
        "− gopher.min_alphabetic": "4,086",
        "− duplicate": "442",
        "− min_document_bytes": "21",
        "kept": "5,291",
        "train to learn from": "4,922",
        "development to watch training by": "11",
        "heldout to score": "358",
    }
    assert [row[4] for row in rows][:2] == ["11.5 MB", "790 kB"]


def test_the_kept_text_is_told_by_domain_source_licence_and_split(tmp_path: Path) -> None:
    read_page = Page(draw(two_domains(), tmp_path))
    for caption, names in {
        "By domain": ["code", "text"],
        "By source": ["stdlib-code", "stdlib-text"],
        "By licence": ["PSF-2.0", "CC0-1.0"],
    }.items():
        _, *rows = read_page.table(caption)
        assert [[row[0], *row[2:]] for row in rows] == [
            [names[0], "80.4 %", "8.4 MB", "579"],
            [names[1], "19.6 %", "2.05 MB", "4,712"],
        ]
    assert [row[0] for row in read_page.table("By split")] == ["split", "train", "heldout", "development"]


def test_the_headline_is_parameters_tokens_compute_and_the_score_beside_the_best_compressor(tmp_path: Path) -> None:
    read_page = Page(draw(Files(1900), tmp_path))
    assert read_page.key_figure("Bits per byte") == [
        "1.343",
        "held-out text, filtered",
        "95 % interval 1.282 – 1.410",
        "best compressor 1.225, PPMd order 12",
    ]
    assert read_page.key_figure("Parameters") == ["2.66 M", "2 layers of width 256", "Qwen3ForCausalLM"]
    assert read_page.key_figure("Tokens seen") == ["3.89 M", "1.6 passes over 2.45 M"]
    assert read_page.key_figure("Compute")[0] == "6.2×10¹³"
    assert read_page.root.all("h1")[0].text == "cairn-tiny"


def test_the_score_of_several_domains_is_weighted_by_bytes_and_that_of_one_is_its_own() -> None:
    one = Score(documents=3, bytes=300, bits_per_byte=1.2, low=1.1, high=1.4, compressors={"a": 1.0, "b": 2.0})
    other = Score(documents=1, bytes=100, bits_per_byte=2.0, low=1.8, high=2.2, compressors={"a": 3.0})
    both = combined([one, other, Score(documents=0, bytes=0)])
    assert (both.documents, both.bytes) == (4, 400)
    assert both.bits_per_byte == pytest.approx(0.75 * 1.2 + 0.25 * 2.0)
    assert both.low == pytest.approx(both.bits_per_byte - math.hypot(0.75 * 0.1, 0.25 * 0.2))
    assert both.high == pytest.approx(both.bits_per_byte + math.hypot(0.75 * 0.2, 0.25 * 0.2))
    assert both.compressors == {"a": pytest.approx(1.5)}
    alone = combined([one])
    assert alone.low == pytest.approx(one.low)
    assert alone.high == pytest.approx(one.high)


def test_the_steps_of_the_table_and_of_the_pointer_are_those_of_the_log(tmp_path: Path) -> None:
    files = two_domains()
    html = draw(files, tmp_path)
    read_page = Page(html)
    by_step = {line["step"]: line for line in files.log if isinstance(line, dict)}
    _, *rows = read_page.table("Training")
    assert [int(row[0].replace(",", "")) for row in rows] == [1, 250, 500, 750, 1000, 1250, 1500, 1750, 2000]
    for row in rows[1:]:
        line = by_step[int(row[0].replace(",", ""))]
        assert int(row[1].replace(",", "")) == line["tokens"]
        wanted = [line["loss"], line["lr"], line["grad_norm"]]
        wanted += [line[f"development_bits_per_byte.{domain}"] for domain in ("code", "text")]
        assert [float(cell) for cell in row[2:]] == [float(f"{value:.4g}") for value in wanted]
    (data,) = [script for script in read_page.root.all("script") if script.attributes.get("id") == "training-data"]
    pointed = json.loads(data.raw)
    assert pointed["names"] == ["loss", "learning rate", "gradient norm", "code bits per byte", "text bits per byte"]
    for step, values in zip(pointed["steps"], pointed["values"], strict=True):
        assert float(values[0]) == float(f"{by_step[step]['loss']:.4g}")
    (readout,) = read_page.root.all("p", "readout")
    last = dict(zip(pointed["names"], pointed["values"][-1], strict=True))
    assert readout.text == " · ".join(["step 2,000", *(f"{name} {value}" for name, value in last.items())])


# One file that needs nothing


def test_nothing_is_fetched_and_only_our_own_style_and_script_take_effect(tmp_path: Path) -> None:
    html = with_times(draw(two_domains(), tmp_path), TIMES)
    read_page = Page(html)
    for element in read_page.elements():
        assert element.tag not in ("link", "img", "iframe", "object", "embed", "base", "form", "a", "use", "image")
        assert not set(element.attributes) & {"src", "href", "srcset", "style", "action", "data", "xlink:href"}
        assert not any(name.startswith("on") for name in element.attributes)
    (style,) = read_page.root.all("style")
    script = read_page.root.all("script")[-1]
    assert "url(" not in style.raw
    assert "@import" not in style.raw
    assert not re.search(r"fetch|XMLHttpRequest|import\(|WebSocket|localStorage|cookie", script.raw)
    (policy,) = [
        element.attributes["content"]
        for element in read_page.root.all("meta")
        if element.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(part.raw.encode()).digest()).decode()}'" for part in (style, script)
    ]
    assert policy == f"default-src 'none'; style-src {hashes[0]}; script-src {hashes[1]}; base-uri 'none'"


def test_it_can_be_read_by_those_who_do_not_see_it(tmp_path: Path) -> None:
    html = draw(two_domains(), tmp_path)
    read_page = Page(html)
    assert read_page.root.all("html")[0].attributes["lang"] == "en"
    assert [element.tag for element in read_page.elements() if element.tag in ("h1", "h2", "h3")] == [
        "h1", "h2", "h2", "h2", "h3", "h3", "h2", "h2", "h3", "h3",
    ]  # fmt: skip
    identities = [element.attributes["id"] for element in read_page.elements() if "id" in element.attributes]
    assert len(identities) == len(set(identities))
    for drawn in read_page.root.all("svg"):
        if drawn.attributes.get("aria-hidden") != "true":
            named = (drawn.attributes["aria-labelledby"] or "").split()
            assert len(named) == 2
            assert set(named) <= set(identities)
            assert drawn.all("title")[0].text
            assert drawn.all("desc")[0].text
    for table in read_page.root.all("table"):
        assert all(cell.attributes["scope"] for cell in table.all("th"))


def test_every_drawing_is_well_formed(tmp_path: Path) -> None:
    drawn = drawings(draw(two_domains(), tmp_path))
    assert len(drawn) > 4
    for one in drawn:
        ElementTree.fromstring(one)


def test_the_same_files_give_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    inputs = two_domains().write(tmp_path)
    program = (
        "import sys, hashlib\nfrom pathlib import Path\n"
        "from components.report.material import read\nfrom components.report.page import page\n"
        "from components.report.recipe import Report\n"
        f"inputs = {{name: Path({str(tmp_path)!r}) / name for name in {list(inputs)!r}}}\n"
        f"print(hashlib.sha256(page(Report(), read(inputs, {DIGESTS!r})).encode()).hexdigest())"
    )
    digests = set()
    for seed in ("0", "1"):
        surroundings = {**os.environ, "PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo" if seed == "1" else "UTC"}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=surroundings)
        digests.add(done.stdout)
    assert len(digests) == 1


@pytest.mark.golden
def test_the_bytes_of_a_version_stay_what_they_are(tmp_path: Path) -> None:
    material = two_domains().material(tmp_path)
    drawn = page(Report(), material) + plots.training(material.log) + plots.development(material, 12)
    made = {"version": Component.of("components.report").version, "sha256": hashlib.sha256(drawn.encode()).hexdigest()}
    known = json.loads(GOLDEN.read_bytes()) if GOLDEN.exists() else {}
    if os.environ.get("CAIRN_WRITE_GOLDENS") and made["version"] != known.get("version"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_bytes(readable(made))
        return
    assert made == known, "raise the version in components/report/metadata.yaml, then run `make goldens`"


def test_it_loads_nothing_heavy() -> None:
    program = (
        "import sys, components.report.page, components.report.material, components.report.plots\n"
        "print(sorted({'torch', 'numpy', 'pyarrow', 'transformers', 'kfp', 'dvc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_how_much_text_a_token_stands_for_is_told_by_domain_and_source(tmp_path: Path) -> None:
    files = two_domains()
    split = files.tokens["splits"]["train"]
    # Ten words of four letters and a space, in 25 tokens and one that ends the document; and text without words.
    split["domains"] = {
        "prose": {"documents": 1, "bytes": 50, "words": 10, "tokens": 26},
        "blank": {"documents": 1, "bytes": 2, "words": 0, "tokens": 1},
    }
    split["sources"] = {f"s{number}": {"documents": 1, "bytes": 8, "words": 1, "tokens": 3} for number in range(40)}
    rows = {
        row.all("th")[0].text: [cell.text for cell in row.all("td")]
        for table in Page(draw(files, tmp_path / "told")).root.all("table")
        if table.all("caption")[0].text in ("Tokens by domain", "Tokens by source")
        for row in table.all("tbody")[0].all("tr")
    }
    assert (rows["prose"], rows["blank"]) == (["25", "2.00", "2.50"], ["0", "–", "–"])
    assert rows["s0"] == ["2", "4.00", "2.00"]
    (rest,) = [name for name in rows if "other source" in name]
    assert rows[rest] == [str(2 * int(rest.split()[0])), "4.00", "2.00"]
    for group in ("domains", "sources"):
        del split[group]
    assert "Tokens by domain" not in draw(files, tmp_path / "before")


# Data that tries


def hostile() -> Files:
    """Markup in every place that data can reach."""
    files = Files(50, every=1)
    text = json.dumps(files.scores).replace('"code"', json.dumps(HOSTILE)).replace("ppmd_5", "</title><b>")
    files.scores = json.loads(text)
    files.ledger = json.loads(
        json.dumps(files.ledger)
        .replace('"code"', json.dumps(HOSTILE))
        .replace('"stdlib-code"', json.dumps(HOSTILE + "source"))
        .replace('"PSF-2.0"', json.dumps(HOSTILE))
        .replace('"duplicate"', json.dumps(HOSTILE))
        .replace('"train"', json.dumps("</table>" + HOSTILE))
    )
    files.samples = [
        {"domain": HOSTILE, "document": HOSTILE, "prompt": HOSTILE * 3, "continuation": "</pre>" + HOSTILE}
    ]
    files.card = f"# {HOSTILE}\n"
    files.config = {"architectures": [HOSTILE]}
    files.manifest["precision"] = HOSTILE
    files.tokens["tokenizer"] = HOSTILE
    files.log = training_log(50, 1, (HOSTILE, "<!--times-->"))
    return files


def shape(html: str) -> list[str]:
    """The names of all elements, in order."""
    return [element.tag for element in Page(html).elements()]


def test_markup_in_the_data_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    tame = hostile()
    for name, value in vars(tame).items():
        said = json.dumps(value)
        for word, markup in enumerate((json.dumps(HOSTILE)[1:-1], "<!--times-->", "</title><b>", "</table>", "</pre>")):
            said = said.replace(markup, f"word{word}")
        setattr(tame, name, json.loads(said))
    obeyed = shape(draw(tame, tmp_path / "tame"))
    html = draw(hostile(), tmp_path / "hostile")
    # A name of other words may be broken at other places, and cut; nothing else differs.
    assert [name for name in shape(html) if name != "wbr"] == [name for name in obeyed if name != "wbr"]
    assert "\x00" not in html
    assert "\u202e" not in html
    assert "<script>alert" not in html
    assert html.count("<!--") == 4
    assert Page(html).root.all("h1")[0].text == "</svg><script>alert(1)</script>\"'&␀⟨U+202E⟩"
    for one in drawings(html):
        ElementTree.fromstring(one)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sample_and_any_name_leaves_the_page_whole(tmp_path: Path, text: str) -> None:
    files = Files(3, every=1)
    files.samples = [{"domain": text, "document": text, "prompt": text, "continuation": text}]
    files.scores["bits_per_byte"] = {text: {"naive": NAIVE, "filtered": FILTERED}}
    html = draw(files, tmp_path)
    assert [name for name in shape(html) if name not in ("wbr",)].count("script") == 2
    for one in drawings(html):
        ElementTree.fromstring(one)


def test_a_run_of_one_step_is_drawn(tmp_path: Path) -> None:
    files = Files(1)
    read_page = Page(draw(files, tmp_path))
    assert [row[0] for row in read_page.table("Training")] == ["step", "1"]
    (caption,) = [c.text for c in read_page.root.all("figcaption") if "logged step" in c.text]
    assert caption.startswith("The run has one logged step.")
    wide = next(drawn for drawn in read_page.root.all("svg") if drawn.attributes.get("id") == "training-wide")
    # One mark in each panel: a line through one point would hardly be seen.
    assert [mark.attributes["class"] for mark in wide.all("circle")] == ["accent", "d0", "plain", "plain"]
    middle = {text.text for text in wide.all("text") if text.attributes.get("text-anchor") == "middle"}
    assert middle == {"1"}, "the only step is the only tick"
    assert not any(text.text.startswith("-") for text in wide.all("text")), "a learning rate below zero"


def test_a_log_without_a_line_is_said(tmp_path: Path) -> None:
    files = Files(1)
    files.log = ""
    assert "The training log has no line." in Page(draw(files, tmp_path)).root.text


def test_numbers_that_are_none_are_gaps_and_are_counted(tmp_path: Path) -> None:
    files = Files(300, every=1)
    lines = [json.dumps(line) for line in training_log(300, 1)]
    lines[100] = '{"step": 101, "tokens": 206848, "loss": NaN, "grad_norm": Infinity, "lr": 0.01}'
    lines[101] = '{"step": 102, "tokens": 208896, "loss": null, "grad_norm": -Infinity}'
    lines[102] = '{"step": 103}'
    files.log = "\n".join(lines) + "\n"
    html = draw(files, tmp_path)
    assert "At 3 logged steps the loss is missing or not a number" in Page(html).root.text
    raw = re.findall(r'<path class="curve accent raw" d="([^"]*)"', html)
    assert [path.count("M") for path in raw] == [2, 2]
    assert not re.search(r'="[^"]*\b(nan|inf)\b', html)


def test_losses_at_the_end_of_what_a_float_can_say_are_drawn(tmp_path: Path) -> None:
    files = Files(300, every=1)
    lines: Any = files.log
    for index, loss in ((100, 1e308), (101, -1e308), (102, 10**400)):
        lines[index]["loss"] = loss
    lines[200]["grad_norm"] = 5e-324
    html = draw(files, tmp_path)
    assert "At 1 logged step the loss is missing or not a number" in Page(html).root.text
    assert not re.search(r'="[^"]*\b(nan|inf)\b', html)


def test_after_a_run_that_blew_up_for_a_while_the_smoothed_line_is_right_again(tmp_path: Path) -> None:
    calm, wild = Files(600, every=1), Files(600, every=1)
    for index, (tame, line) in enumerate(zip(calm.log, wild.log, strict=True)):
        assert isinstance(tame, dict)
        assert isinstance(line, dict)
        tame["loss"] = 1000.0 if 100 <= index < 200 else 2.5 + index % 2
        line["loss"] = 1e30 if 100 <= index < 200 else tame["loss"]
    smoothed = [_smoothed(files.material(tmp_path / str(index)).log.loss) for index, files in enumerate((calm, wild))]
    assert smoothed[0][300:] == smoothed[1][300:]
    assert all(2.4 < value < 3.6 for value in smoothed[1][300:])


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ('"12"', 'step "12" is not a whole number above 2'),
        ("2.5", "step 2.5 is not a whole number above 2"),
        ("NaN", "step NaN is not a whole number above 2"),
        ("Infinity", "step Infinity is not a whole number above 2"),
        ("true", "step true is not a whole number above 2"),
        ("2", "step 2 is not a whole number above 2"),
        ("1" + "0" * 400, "step 1000"),
    ],
)
def test_a_step_that_is_no_whole_number_or_goes_back_is_one_line(tmp_path: Path, step: str, said: str) -> None:
    files = Files(10)
    files.log = f'{{"step": 2, "loss": 3.0}}\n{{"step": {step}, "loss": 2.0}}\n'
    with pytest.raises(ArtifactError) as caught:
        files.material(tmp_path)
    assert f"training.jsonl: line 2: is damaged: {said}" in str(caught.value)
    assert str(caught.value).endswith(": run the pretrain stage again")
    assert "\n" not in str(caught.value)


def test_without_development_compressors_filtered_text_or_samples_the_page_says_so(tmp_path: Path) -> None:
    files = Files(200)
    files.log = training_log(200, 10, ())
    files.samples = []
    bare = {key: value for key, value in NAIVE.items() if key != "compressors"}
    files.scores["bits_per_byte"] = {"code": {"naive": {**bare, "compressors": {}}, "filtered": NONE}}
    read_page = Page(draw(files, tmp_path))
    assert "No development split was scored" in read_page.root.text
    assert "No compressor was run on this text." in read_page.root.text
    assert "There are none: evaluate.prompts is 0, or the leak filter left no document." in read_page.root.text
    assert read_page.key_figure("Bits per byte") == [
        "1.102",
        "held-out text",
        "95 % interval 1.040 – 1.169",
        "no compressor beside it",
    ]
    assert read_page.table("Bits per byte on held-out text")[2][2:] == ["0", "0", "–", "–"]


def test_hundreds_of_domains_are_folded_and_nothing_is_lost(tmp_path: Path) -> None:
    files = Files(300)
    names = [f"domain-{index:03d}-{'x' * 190}" for index in range(300)]
    files.log = training_log(300, 10, tuple(names))
    files.scores["bits_per_byte"] = {
        name: {"naive": {**NAIVE, "bytes": 1000 + index}, "filtered": {**FILTERED, "bytes": 500 + index}}
        for index, name in enumerate(names)
    }
    (source,) = files.ledger["sources"].values()
    files.ledger["sources"] = {f"s-{name}": {**source, "domain": name} for name in names}
    html = draw(files, tmp_path, domains=5)
    read_page = Page(html)
    rows = read_page.table("Bits per byte on held-out text")[1:]
    assert [row[0] for row in rows[::2]] == [*names[:-6:-1], "295 more domains"]
    assert sum(int(row[3].replace(",", "")) for row in rows[::2]) == sum(1000 + index for index in range(300))
    kept = read_page.table("By domain")[1:]
    assert [row[0] for row in kept] == [*names[:5], "295 other domains"]
    assert sum(int(row[4].replace(",", "")) for row in kept) == 300 * 579
    assert "294 smaller domains are not drawn" in read_page.root.text
    assert len(html.encode()) < 400_000


def test_a_hundred_thousand_steps_stay_small(tmp_path: Path) -> None:
    files = Files(100_000, every=1)
    lines: Any = files.log
    lines[54_321]["loss"] = 77.5
    html = draw(files, tmp_path)
    assert len(html.encode()) < 1_000_000
    # The one step that stands out is in both drawings, at their top.
    for path in re.findall(r'<path class="curve accent raw" d="([^"]*)"', html):
        heights = [float(point.split(" ")[1]) for point in re.split("[ML]", path)[1:]]
        assert len(heights) < 4 * 760
        assert min(heights) < 40
        assert sum(height < 60 for height in heights) == 1


# Artifacts that are not what they should be


@pytest.mark.parametrize(
    ("artifact", "change", "said"),
    [
        ("manifest", {"format": "cairn-checkpoint-v2"}, "is of format 'cairn-checkpoint-v2'; this version reads cairn"),
        ("ledger", {"format": "cairn-documents-v9"}, "is of format 'cairn-documents-v9'; this version reads cairn"),
        ("tokens", {"format": None}, "tokens.json: is of format None; this version reads cairn-tokens-v1"),
        ("manifest", {"parameters": "many"}, "parameters: Input should be a valid integer: run the pretrain stage"),
        ("scores", {"setting": {}}, "scores.json: setting.context: Field required: run the evaluate stage again"),
    ],
)
def test_another_format_is_one_line(tmp_path: Path, artifact: str, change: dict[str, Any], said: str) -> None:
    files = Files(10)
    getattr(files, artifact).update(change)
    with pytest.raises(ArtifactError) as caught:
        files.material(tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", [f"{artifact}/{name}" for artifact, names in READS.items() for name in names])
def test_a_missing_file_is_named_with_the_stage_that_makes_it(tmp_path: Path, path: str) -> None:
    inputs = Files(10).write(tmp_path)
    (tmp_path / path).unlink()
    with pytest.raises(ArtifactError, match=rf"{re.escape(path)}: no such file: run the \w+ stage first"):
        read(inputs, DIGESTS)


@pytest.mark.parametrize("path", [f"{a}/{name}" for a, names in READS.items() for name in names if name != "README.md"])
def test_a_damaged_file_is_named(tmp_path: Path, path: str) -> None:
    inputs = Files(10).write(tmp_path)
    whole = (tmp_path / path).read_bytes()
    (tmp_path / path).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError) as caught:
        read(inputs, DIGESTS)
    assert "\n" not in str(caught.value)
    assert path.partition("/")[0] in str(caught.value)


def test_it_reads_only_the_files_that_it_says(tmp_path: Path) -> None:
    inputs = Files(10).write(tmp_path)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {f"{artifact}/{name}" for artifact, names in READS.items() for name in names}
    read(inputs, DIGESTS)


# What only an attestation may tell


def test_the_artifact_tells_no_time_and_the_copy_does(tmp_path: Path) -> None:
    html = draw(Files(20), tmp_path)
    assert "They are in the attestation of the training run; cairn report shows them here." in Page(html).root.text
    filled = with_times(html, TIMES)
    read_page = Page(filled)
    assert read_page.key_figure("Time") == ["2m58s", "of training", "done 2026-11-24 07:12 UTC"]
    assert read_page.key_figure("Speed") == ["21.8 k", "tokens per second"]
    assert read_page.key_figure("Machine") == [
        "<i>A processor</i>",
        "2 processes, 1 thread each",
        "1.21 GiB at most",
        "code de6a6c0de6a6, with changes",
    ]
    assert read_page.table("By the attestations")[1:] == [["optimizer", "a" * 64], ["sources", "b" * 64]]
    # All else is the artifact as it is.
    places = re.compile(r"<!--(times|around)-->.*?<!--/\1-->", re.DOTALL)
    assert len(places.findall(html)) == 2
    assert places.sub("", html) == places.sub("", filled)
    assert with_times(filled, TIMES) == filled


def test_a_resumed_run_says_from_where_its_time_counts(tmp_path: Path) -> None:
    html = draw(Files(20), tmp_path)
    resumed = Times(**{**vars(TIMES), "resumed_at": 1250, "commit": None})
    read_page = Page(with_times(html, resumed))
    assert read_page.key_figure("Time")[1] == "from step 1,250, where it was resumed"
    assert read_page.key_figure("Machine")[1:] == ["2 processes, 1 thread each", "1.21 GiB at most"]


def test_without_an_attestation_the_copy_says_that_the_time_is_not_known(tmp_path: Path) -> None:
    html = draw(Files(20), tmp_path)
    assert "its time is not known" in Page(with_times(html, None)).root.text


def test_the_page_names_the_checkpoint_whose_attestation_has_the_times(tmp_path: Path) -> None:
    assert checkpoint_of(draw(Files(20), tmp_path)) == DIGESTS["checkpoint"]


def test_another_page_is_no_report() -> None:
    for fill in (lambda html: with_times(html, TIMES), checkpoint_of):
        with pytest.raises(ArtifactError, match=r"report.html: is not a report of the form cairn-report-v1"):
            fill("<html><body>hello</body></html>")
