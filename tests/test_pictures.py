"""The pictures of the documentation: they stand alone, show the run that they are drawn from, and are all there."""

import json
import os
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cairn.errors import ArtifactError
from components.report.wording import whole
from tests.components.report_files import Files, training_log
from tests.components.test_report import HOSTILE, two_domains
from tests.pipelines.project import ROOT, Project
from tools.pictures import PICTURES, draw, pictures

SVG = "{http://www.w3.org/2000/svg}"
SHOWN = re.compile(r"!\[[^\]]+\]\(([^)]+)\)")


def texts(picture: str) -> list[str]:
    """What is written in a picture."""
    return ["".join(text.itertext()) for text in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def test_a_picture_stands_alone_on_its_own_ground_in_both_colour_schemes(tmp_path: Path) -> None:
    drawn = pictures(two_domains().material(tmp_path), most=12)
    assert set(drawn) == {"bits-per-byte.svg", "training.svg", "data.svg"}
    for picture in drawn.values():
        root = ElementTree.fromstring(picture)
        style, ground = root[0], root[1]
        assert root.tag == f"{SVG}svg"
        left, top, width, height = (root.get("viewBox") or "").split()
        assert (left, top, width, height) == ("0", "0", ground.get("width"), ground.get("height"))
        assert ground.get("class") == "ground"
        assert "prefers-color-scheme: dark" in (style.text or "")
        assert set(re.findall(r"var\((--\w+)\)", style.text or "")) <= set(re.findall(r"(--\w+):", style.text or ""))
        # As an image it may fetch nothing; whatever named a place outside would be missing from it.
        assert not re.search(r"\b(href|src)=|url\(|@import|<script", picture)
        for element in root.iter():
            for name in (element.get("class") or "").split():
                assert name in ("wide", "readable", "bar") or f".{name}" in (style.text or ""), name


def test_the_numbers_of_a_picture_are_those_of_the_run(tmp_path: Path) -> None:
    files = two_domains()
    drawn = pictures(files.material(tmp_path), most=12)
    scores = files.scores["bits_per_byte"]
    said = texts(drawn["bits-per-byte.svg"])
    assert {f"{scores[domain][kind]['bits_per_byte']:.3f}" for domain in scores for kind in scores[domain]} <= set(said)
    assert said[-3:] == ["the model and its 95 % interval", "the best compressor", "the other compressors"]
    assert texts(drawn["training.svg"])[-2:] == ["code", "text"]
    came = sum(source["in"]["documents"] for source in files.ledger["sources"].values())
    told = texts(drawn["data.svg"])
    assert told[told.index("came in") + 1] == whole(came)
    assert told[told.index("− duplicate") + 1] == "442"
    assert told[told.index("heldout") + 1] == "358"


def test_markup_in_a_name_is_text_in_a_picture(tmp_path: Path) -> None:
    files = Files(50, every=1)
    files.scores = json.loads(json.dumps(files.scores).replace('"code"', json.dumps(HOSTILE)))
    files.ledger = json.loads(json.dumps(files.ledger).replace('"duplicate"', json.dumps(HOSTILE)))
    files.log = training_log(50, 1, (HOSTILE,))
    for picture in pictures(files.material(tmp_path), most=12).values():
        assert any("</svg><script>" in text for text in texts(picture))
        assert "<script" not in picture


def test_a_run_is_drawn_and_the_page_shows_its_status_and_its_digests(built: Project, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "index.md"
    shutil.copy(ROOT / "docs" / "index.md", page)
    paths = draw(built.root, tmp_path)
    first = {path: (tmp_path / path).read_bytes() for path in paths}
    assert PICTURES / "training.svg" in first
    text = page.read_text()
    shown = text.partition("<!-- cairn status -->\n```\n$ cairn status\n")[2].partition("```\n<!-- /cairn status -->")[
        0
    ]
    assert shown == built.run("cairn", "status")
    for name, digest in built.digests().items():
        assert set(re.findall(rf"\b{name} ([0-9a-f]{{12}})\b", text)) <= {(digest or "")[:12]}, name
    draw(built.root, tmp_path)
    assert {path: (tmp_path / path).read_bytes() for path in paths} == first


def test_a_run_that_is_not_done_is_not_drawn(built: Project, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "index.md", tmp_path / "docs")
    half = tmp_path / "half"
    half.mkdir()
    shutil.copy(built.root / "params.yaml", half)
    os.symlink(built.root / "text", half / "text")
    with pytest.raises(ArtifactError, match=r"half: snapshot is missing: `cairn run` there first"):
        draw(half, tmp_path)
    assert not (tmp_path / PICTURES).exists()


def test_every_picture_that_a_page_shows_is_there_and_every_one_there_is_shown() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = {(page.parent / path).resolve() for page in pages for path in SHOWN.findall(page.read_text())}
    assert shown == set((ROOT / PICTURES).glob("*")), "run `python tools/pictures.py PROJECT`"
