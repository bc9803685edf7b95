"""Web pages: their main text, their encodings, and pages made to take forever."""

import time
from pathlib import Path
from typing import Any

import pytest

from cairn.errors import SourceError
from components.ingest.html import Unread, text_of_page
from components.ingest.recipe import Html
from tests.components.corpus import Corpus, ledger, packed, source, texts

SENTENCE = "The café opened at eight, and the people who came first sat down in the sun by the window."
PAGE = f"""<!DOCTYPE html><html><head><title>Not text</title><style>p {{}}</style></head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/about">About</a></li></ul></nav>
<main><article><h1>A morning</h1><p>{SENTENCE}</p><p>{SENTENCE.upper()}</p>
<pre>code  {{
    indented
}}</pre></article></main>
<script>document.write("<p>never</p>")</script><footer>Copyright 2026</footer></body></html>"""


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    monkeypatch.chdir(tmp_path)
    return Corpus(tmp_path)


def text(page: str | bytes, charset: str | None = None, **section: Any) -> str | Unread:
    return text_of_page(page.encode() if isinstance(page, str) else page, charset, Html(**section))


@pytest.mark.parametrize("packing", ["", ".gz", ".zst", ".xz"])
def test_the_main_text_of_a_page_is_a_document(corpus: Corpus, packing: str) -> None:
    data = PAGE.encode()
    corpus.put(f"a.html{packing}", packed(data, packing) if packing else data)
    corpus.put("b.HTM", "<p>" + SENTENCE)
    corpus.snapshot(source("text"))
    page, fragment = sorted(texts(corpus.ingest()), key=len, reverse=True)
    assert page == f"A morning\n\n{SENTENCE}\n\n{SENTENCE.upper()}\n\ncode  {{\n    indented\n}}"
    assert fragment == SENTENCE


def test_all_that_is_shown_can_be_asked_for() -> None:
    shown = text(PAGE, main_content=False)
    assert isinstance(shown, str)
    assert "About" in shown
    assert "Copyright" in shown
    assert "never" not in shown


@pytest.mark.parametrize(
    "page", ["", "   \n", "<html><head><title>x</title></head><body></body></html>", "<script>x</script>"]
)
def test_a_page_without_text_is_dropped_and_counted(corpus: Corpus, page: str) -> None:
    corpus.put("a.html", page)
    corpus.put("b.txt", "kept")
    corpus.snapshot(source("text"))
    documents = corpus.ingest()
    assert texts(documents) == ["kept"]
    assert ledger(documents)["sources"]["text"]["dropped"] == {"no_text": {"documents": 1, "bytes": len(page)}}


def test_pages_of_which_none_has_text_are_told(corpus: Corpus) -> None:
    corpus.put("a.html", "<p></p>")
    corpus.snapshot(source("text"))
    with pytest.raises(SourceError, match=r"^none of 1 documents was kept: 1 by no_text: look at snapshot\.sources$"):
        corpus.ingest()


@pytest.mark.parametrize(
    ("declared", "encoding", "charset"),
    [
        ("", "utf-8", None),
        ('<meta charset="iso-8859-1">', "cp1252", None),
        ('<META http-equiv=Content-Type content="text/html; charset=Latin1">', "cp1252", None),
        ("<meta charset=utf-16>", "utf-8", None),
        ("<meta charset=made-up>", "utf-8", None),
        ("<meta charset=unicode_escape>", "utf-8", None),
        ("<meta charset=utf-8>", "cp1252", "windows-1252"),
        ("", "utf-8-sig", "iso-8859-1"),
        ("", "utf-16", None),
    ],
)
def test_a_page_is_decoded_as_it_says(declared: str, encoding: str, charset: str | None) -> None:
    assert text(f"<head>{declared}</head><p>{SENTENCE}".encode(encoding), charset) == SENTENCE


def test_a_page_that_is_not_what_it_says_is_told_or_dropped(corpus: Corpus) -> None:
    corpus.put("a.html", b"<meta charset=utf-8><p>caf\xe9")
    corpus.put("b.txt", "kept")
    corpus.snapshot(source("text"))
    with pytest.raises(SourceError) as raised:
        corpus.ingest()
    assert str(raised.value) == (
        "text/a.html: byte 26: is not UTF-8 (unexpected end of data): convert it, or set ingest.invalid_utf8: drop"
    )
    assert texts(corpus.ingest("dropped", invalid_utf8="drop")) == ["kept"]


MANY = " ".join(f"a{number}=1" for number in range(100_000))
DEEP = "a page nested 20,003 deep is dropped: ingest.html.max_depth is 256"


@pytest.mark.parametrize(
    ("page", "reason", "told"),
    [
        ("<div>" * 20_000 + "x", "html.max_depth", DEEP),
        ("<div>" * 20_000 + "x" + "</div>" * 20_000, "html.max_depth", DEEP),
        (
            f"<!-- <a title=' --><p {MANY}>x",
            "html.max_attributes",
            "a page with 100,000 attributes in one tag is dropped: ingest.html.max_attributes is 1,000",
        ),
        (
            f"<script><a title='</script><p {MANY}>x",
            "html.max_attributes",
            "a page with 100,000 attributes in one tag is dropped: ingest.html.max_attributes is 1,000",
        ),
    ],
    ids=["open", "closed", "behind a comment", "behind a script"],
)
def test_a_page_made_to_take_forever_is_dropped_at_once(page: str, reason: str, told: str) -> None:
    began = time.process_time()
    assert text(page) == Unread(reason, told)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "page", ["<!--" * 100_000, "<script>" * 100_000, "<a x='" * 50_000, "<p" * 200_000, "<a <a <a" * 50_000]
)
def test_tags_that_never_end_take_no_longer_than_others(page: str) -> None:
    began = time.process_time()
    text(page)
    assert time.process_time() - began < 2


def test_a_dropped_page_is_told_with_its_object(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    corpus.put("a.html", "<b>" * 300 + "x")
    corpus.put("b.txt", "kept")
    corpus.snapshot(source("text"))
    dropped = ledger(corpus.ingest())["sources"]["text"]["dropped"]
    assert dropped == {"html.max_depth": {"documents": 1, "bytes": 901}}
    told = "text/a.html: a page nested 303 deep is dropped: ingest.html.max_depth is 256"
    assert f"ingest: {told}\n" in capsys.readouterr().err
    assert "x" in texts(corpus.ingest("deeper", html={"max_depth": 400}))


def test_tags_that_need_no_end_are_not_taken_for_nested_ones() -> None:
    assert text("<ul>" + f"<li>{SENTENCE}" * 400 + "</ul>" + "<br>" * 400) != Unread("html.max_depth")
    rows = text("<table>" + f"<tr><td>{SENTENCE}" * 400 + "</table>")
    assert isinstance(rows, str)
    assert rows.count("café") == 400
