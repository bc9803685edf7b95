"""Web archives: what of them is a document, and archives that are cut short, damaged or made to do harm."""

import base64
import gzip
import hashlib
from pathlib import Path
from typing import Any

import pytest

from cairn.errors import SourceError
from tests.components.corpus import Corpus, ledger, packed, records, source, texts

SENTENCE = "The café opened at eight, and the people who came first sat down in the sun by the window."
PAGE = f"<html><body><article><p>{SENTENCE}</p></article></body></html>".encode()
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HTTP = "application/http; msgtype=response"


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    monkeypatch.chdir(tmp_path)
    return Corpus(tmp_path)


def record(kind: str, block: bytes, content: str = HTTP, length: int | None = None, digest: str = "") -> bytes:
    digest = digest or "sha1:" + base64.b32encode(hashlib.sha1(block).digest()).decode()
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: https://example.org/{kind}\r\n"
        f"WARC-Date: 2026-05-01T12:00:00Z\r\nWARC-Block-Digest: {digest}\r\nContent-Type: {content}\r\n"
        f"Content-Length: {len(block) if length is None else length}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def response(body: bytes, status: int = 200, content: str = "text/html", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {content}", *headers, "", ""]
    return record("response", "\r\n".join(lines).encode() + body)


def page(number: int) -> bytes:
    return f"<p>Page {number}. {SENTENCE}</p>".encode()


def told(corpus: Corpus, data: bytes, name: str = "a.warc", **section: Any) -> str:
    """The error that ingest raises over this archive."""
    corpus.put(name, data)
    corpus.snapshot(source("text"), refresh=True)
    with pytest.raises(SourceError) as raised:
        corpus.ingest(**section)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("packing", ["", ".gz", ".zst", ".xz"])
def test_pages_of_an_archive_are_documents_packed_one_by_one_or_not(corpus: Corpus, packing: str) -> None:
    made = [
        record("warcinfo", b"software: none\r\n", "application/warc-fields"),
        record("request", REQUEST, "application/http; msgtype=request"),
        response(page(1)),
        record("metadata", b"fetchTimeMs: 5\r\n", "application/warc-fields"),
        response(page(2), 200, "Text/HTML; charset=utf-8"),
        record("conversion", f"Plain text. {SENTENCE}".encode(), "text/plain"),
        record("resource", page(3), "text/html"),
    ]
    data = b"".join(packed(one, packing) if packing else one for one in made)
    corpus.put(f"a.warc{packing}", data)
    corpus.snapshot(source("text", fields={"url": "WARC-Target-URI", "date": "warc-date", "language": "WARC-Absent"}))
    documents = corpus.ingest()
    expected = [f"Page 1. {SENTENCE}", f"Page 2. {SENTENCE}", f"Plain text. {SENTENCE}", f"Page 3. {SENTENCE}"]
    assert texts(documents) == expected
    said = [one["said"] for one in records(documents)]
    assert said[0] == {"url": "https://example.org/response", "date": "2026-05-01T12:00:00Z"}
    assert ledger(documents)["sources"]["text"]["in"]["documents"] == 4


def test_the_text_that_others_took_from_an_archive_is_read(corpus: Corpus) -> None:
    made = [record("warcinfo", b"", "application/warc-fields"), record("conversion", SENTENCE.encode(), "text/plain")]
    corpus.put("a.warc.wet.gz", b"".join(map(gzip.compress, made)))
    corpus.snapshot(source("text"))
    assert texts(corpus.ingest()) == [SENTENCE]


def test_what_is_no_page_is_dropped_and_counted(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    made = {
        "not_text": response(b"\x89PNG", 200, "image/png"),
        "http_status": response(b"<p>gone</p>", 404),
        "http_encoding": response(b"\x01\x02", 200, "text/html", "Content-Encoding: br"),
        "no_text": response(b"<p></p>"),
        "warc_digest": record("conversion", b"changed", "text/plain", digest="sha1:" + "A" * 32),
        "invalid_utf8": record("conversion", b"caf\xe9", "text/plain"),
        "max_document_bytes": response(b"<p>" + b"y" * 5000),
    }
    corpus.put("a.warc", b"".join(made.values()) + response(page(1)))
    corpus.snapshot(source("text"))
    documents = corpus.ingest(invalid_utf8="drop", max_document_bytes=4000)
    assert texts(documents) == [f"Page 1. {SENTENCE}"]
    dropped = ledger(documents)["sources"]["text"]["dropped"]
    assert {reason: count["documents"] for reason, count in dropped.items()} == dict.fromkeys(made, 1)
    said = capsys.readouterr().err
    assert "ingest: text/a.warc: record 5: its bytes do not have the digest that it names (sha1:AAAA" in said
    assert "text/a.warc: record 7: a document of " in said


def chunked(body: bytes) -> bytes:
    parts = [body[place : place + 30] for place in range(0, len(body), 30)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (gzip.compress(PAGE), ["Content-Encoding: gzip"]),
        (chunked(PAGE), ["Transfer-Encoding: chunked"]),
        (chunked(gzip.compress(PAGE)), ["Transfer-Encoding: chunked", "Content-Encoding: gzip"]),
        (PAGE, ["Transfer-Encoding: chunked"]),
        (PAGE.replace("é".encode(), b"\xe9"), ["Content-Type: text/html; charset=ISO-8859-1"]),
    ],
)
def test_a_page_is_read_as_it_was_sent(corpus: Corpus, body: bytes, headers: list[str]) -> None:
    corpus.put("a.warc", response(body, 200, "text/html", *headers))
    corpus.snapshot(source("text"))
    assert texts(corpus.ingest()) == [SENTENCE]


def test_a_page_that_unpacks_to_more_than_a_document_may_is_dropped(corpus: Corpus) -> None:
    corpus.put("a.warc", response(gzip.compress(bytes(10_000_000)), 200, "text/html", "Content-Encoding: gzip"))
    corpus.put("b.txt", "kept")
    corpus.snapshot(source("text"))
    documents = corpus.ingest(max_document_bytes=1_000_000)
    assert "max_document_bytes" in ledger(documents)["sources"]["text"]["dropped"]


WHOLE = response(page(1))
SECOND = response(page(2))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (WHOLE + SECOND[:-150], f"record 2 at byte {len(WHOLE)}: is cut short: has "),
        (WHOLE + SECOND[:60], f"record 2 at byte {len(WHOLE)}: is cut short: its headers do not end"),
        (WHOLE + b"garbage\r\n", f"record 2 at byte {len(WHOLE)}: begins with b'garbage\\r\\n', not with WARC/1.0"),
        (b"WARC/1.0\r\nWARC-Type: response\r\n\r\n", "record 1 at byte 0: has no Content-Length"),
        (b"WARC/1.0\r\nContent-Length: -5\r\n\r\n", "record 1 at byte 0: has no Content-Length"),
        (b"WARC/1.0\r\n" + b"a: b\r\n" * 200_000, "record 1 at byte 0: has more than 1,048,576 bytes of headers"),
        (record("response", b"HTTP/1.1 200\r\n\r\n", length=5) + WHOLE, "record 2 at byte "),
        (record("conversion", b"short", "text/plain", length=10**17), "record 1 at byte 0: is cut short: has 9 of its"),
    ],
)
def test_an_archive_that_is_cut_short_or_damaged_is_told_with_the_record(
    corpus: Corpus, data: bytes, message: str
) -> None:
    assert told(corpus, data).startswith(f"text/a.warc: {message}")


def test_an_archive_whose_last_member_is_cut_short_is_told(corpus: Corpus) -> None:
    data = gzip.compress(WHOLE) + gzip.compress(SECOND)[:-9]
    assert told(corpus, data, "a.warc.gz") == "text/a.warc.gz: is cut short: the .gz stream ends too early"


def test_an_empty_archive_holds_no_text(corpus: Corpus) -> None:
    assert told(corpus, b"") == "the sources hold no text at all: look at snapshot.sources"
