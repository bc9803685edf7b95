"""Every format that is read, plain and packed; what is kept of a record besides its text; and bad input of each."""

import io
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from cairn.errors import SourceError
from components.ingest.columns import arrow_rows
from components.ingest.recipe import Limits
from components.ingest.unpacking import Budget
from components.snapshot.lock import LockedSource
from tests.components.corpus import Corpus, jsonl, ledger, packed, records, source, texts

PACKED = ["", ".gz", ".zst", ".xz"]
RECORDS = [
    {"page": {"body": "The first.", "lang": "en"}, "n": 1, "at": datetime(2026, 5, 1, 12, tzinfo=UTC)},
    {"page": {"body": "Le second, plus long.", "lang": None}, "n": 2, "at": None},
]


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    monkeypatch.chdir(tmp_path)
    return Corpus(tmp_path)


def as_jsonl(made: list[dict[str, Any]]) -> bytes:
    return jsonl(*made)


def as_parquet(made: list[dict[str, Any]], **options: Any) -> bytes:
    written = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(made), written, **options)
    return written.getvalue()


def as_arrow(made: list[dict[str, Any]] | pyarrow.Table, stream: bool = False, compression: str | None = None) -> bytes:
    table = made if isinstance(made, pyarrow.Table) else pyarrow.Table.from_pylist(made)
    written = io.BytesIO()
    new = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with new(written, table.schema, options=pyarrow.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=2)
    return written.getvalue()


def as_arrow_stream(made: list[dict[str, Any]]) -> bytes:
    return as_arrow(made, stream=True)


def as_packed_arrow(made: list[dict[str, Any]]) -> bytes:
    return as_arrow(made, compression="zstd")


TABLES: dict[str, Callable[..., bytes]] = {
    "jsonl": as_jsonl, "ndjson": as_jsonl, "parquet": as_parquet, "arrow": as_arrow,
    "stream.arrow": as_arrow_stream, "packed.arrow": as_packed_arrow,
}  # fmt: skip


def told(corpus: Corpus, name: str, data: bytes, named: dict[str, Any] | None = None, **section: Any) -> str:
    """The error that ingest raises over this file."""
    corpus.put(name, data)
    corpus.snapshot(source("text", **(named or {})))
    with pytest.raises(SourceError) as raised:
        corpus.ingest(**section)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("packing", PACKED)
def test_every_format_gives_the_same_documents_packed_or_not(corpus: Corpus, packing: str) -> None:
    fields = {"language": "page.lang", "date": "at", "id": "n"}
    for suffix, write in TABLES.items():
        data = write(RECORDS)
        corpus.put(f"{suffix}/a.{suffix}{packing}", packed(data, packing) if packing else data)
    corpus.snapshot(*(source(f"text/{s}", s, text_field="page.body", fields=fields) for s in TABLES))
    documents = corpus.ingest()
    # Equal texts are one document: the first source has them, the others have said the same.
    assert texts(documents) == ["The first.", "Le second, plus long."]
    date = "2026-05-01T12:00:00+00:00"
    assert [record["said"] for record in records(documents)] == [
        {"id": "1", "language": "en", "date": date},
        {"id": "2"},
    ]
    for row in ledger(documents)["sources"].values():
        assert row["in"] == {"documents": 2, "bytes": 31}


@pytest.mark.parametrize("suffix", [suffix for suffix in TABLES if suffix != "jsonl"])
def test_what_a_record_says_is_the_same_in_every_format(corpus: Corpus, suffix: str) -> None:
    corpus.put(f"a.{suffix}", TABLES[suffix](RECORDS))
    corpus.snapshot(source("text", text_field="page.body", fields={"date": "at", "url": "n"}))
    first, second = records(corpus.ingest())
    assert first["said"] == {"date": "2026-05-01T12:00:00+00:00", "url": "1"}
    assert second["said"] == {"url": "2"}
    assert first["licence"] == "CC0-1.0"


@pytest.mark.parametrize("suffix", TABLES)
def test_a_field_whose_name_has_dots_goes_before_a_path(corpus: Corpus, suffix: str) -> None:
    corpus.put(f"a.{suffix}", TABLES[suffix]([{"page.body": "flat", "page": {"body": "nested"}}]))
    corpus.snapshot(source("text", text_field="page.body"))
    assert texts(corpus.ingest()) == ["flat"]


def test_without_fields_a_document_says_nothing_more(corpus: Corpus) -> None:
    corpus.put("a.jsonl", jsonl({"text": "a", "url": "b"}))
    corpus.snapshot(source("text"))
    assert [sorted(record) for record in records(corpus.ingest())] == [
        ["bytes", "domain", "id", "licence", "origin", "raw", "source", "text"]
    ]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"page": "flat"}, "a.jsonl:1: field 'page' is text, not an object with a field 'body'"),
        ({"page": {"b": 1}}, "a.jsonl:1: has no field 'page.body'; 'page' has b: set text_field of source 'text'"),
        ({"p": 1}, "a.jsonl:1: has no field 'page.body'; it has p: set text_field of source 'text'"),
        ({"page": {"body": 7}}, "a.jsonl:1: field 'page.body' is a number, not text"),
        ({"page": {"body": "a"}, "u": [1]}, "a.jsonl:1: field 'u' is a list, not text, a number or a date"),
        ({"page": {"body": "a"}, "u": True}, "a.jsonl:1: field 'u' is true or false, not text, a number or a date"),
        (
            {"page": {"body": "a"}, "u": "x" * 10_001},
            "a.jsonl:1: field 'u' has 10,001 characters; at most 10,000 are kept",
        ),
    ],
)
def test_a_field_that_is_not_what_the_recipe_says_is_told(corpus: Corpus, record: dict[str, Any], message: str) -> None:
    named = {"text_field": "page.body", "fields": {"url": "u"}}
    assert told(corpus, "a.jsonl", jsonl(record), named) == f"text/{message}"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            {"text_field": "page.text"},
            "has no column 'page.text'; 'page' has body, lang: set text_field of source 'text'",
        ),
        ({"text_field": "n.text"}, "column 'n' is int64: it has no fields"),
        ({"text_field": "page"}, "column 'page' is struct<body: string, lang: string>, not text"),
        (
            {"text_field": "page.body", "fields": {"url": "u"}},
            "has no column 'u'; it has at, n, page: set fields of source 'text'",
        ),
        ({"text_field": "page.lang"}, "row 2: column 'page.lang' is null, not text"),
        (
            {"text_field": "page.body", "fields": {"url": "page"}},
            "row 1: field 'page' is an object, not text, a number or a date",
        ),
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_column_that_is_not_what_the_recipe_says_is_told(
    corpus: Corpus, suffix: str, named: dict[str, Any], message: str
) -> None:
    assert told(corpus, f"a.{suffix}", TABLES[suffix](RECORDS), named) == f"text/a.{suffix}: {message}"


@pytest.mark.parametrize("kind", [pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()])
@pytest.mark.parametrize("stream", [True, False])
def test_every_kind_of_text_in_an_arrow_file_is_read(corpus: Corpus, kind: Any, stream: bool) -> None:
    expected = ["first", "", "second, longer than what a view holds itself", "third"]
    tables = {"plain": pyarrow.array(expected, kind)}
    if kind == pyarrow.string():
        tables["dictionary"] = pyarrow.array(expected, kind).dictionary_encode()
    for name, column in tables.items():
        corpus.put(f"{name}.arrow", as_arrow(pyarrow.table({"text": column}), stream))
        corpus.snapshot(source(f"text/{name}.arrow"), refresh=True)
        assert texts(corpus.ingest(name)) == [text for text in expected if text]


@pytest.mark.parametrize("write", [as_arrow, as_arrow_stream, as_packed_arrow])
def test_an_arrow_file_cut_anywhere_is_told(corpus: Corpus, write: Callable[..., bytes]) -> None:
    data = write([{"text": f"row {number}"} for number in range(9)])
    for end in (0, 5, 100, len(data) // 2, len(data) - 1):
        message = told(corpus, f"{end}/a.arrow", data[:end])
        assert message.startswith((f"text/{end}/a.arrow: is cut short: ", f"text/{end}/a.arrow: is not a whole arrow"))
        (corpus.text / f"{end}" / "a.arrow").unlink()
        corpus.lock_file.unlink()


@pytest.mark.parametrize("write", [as_arrow, as_arrow_stream, as_packed_arrow])
def test_an_arrow_file_whose_bytes_are_changed_is_told_or_read_but_never_crashes(
    tmp_path: Path, write: Callable[..., bytes]
) -> None:
    data = write([{"text": f"row {number}"} for number in range(9)])
    made = {**source("a.arrow"), "read": "auto", "kind": "prose", "text_field": "text", "objects": ()}
    taken = LockedSource.model_validate(made)
    read = 0
    for place in range(8, len(data) - 8, 5):
        path = tmp_path / "a.arrow"
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        with open(path, "rb") as copy, suppress(SourceError):
            read += len([row.data.to_pybytes() for row in arrow_rows(copy, taken, Budget("a.arrow", Limits()))]) > 0
    assert read > 10  # a change of a letter is seen by nobody but the lock


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_column_of_text_that_is_not_utf8_is_told_or_dropped(corpus: Corpus, suffix: str) -> None:
    bad = pyarrow.array([b"fine", b"caf\xe9"]).view(pyarrow.string())
    written = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": bad}), written)
    data = written.getvalue() if suffix == "parquet" else as_arrow(pyarrow.table({"text": bad}))
    message = told(corpus, f"a.{suffix}", data)
    assert message.startswith(f"text/a.{suffix}: row 2: byte 3: is not UTF-8 (unexpected end of data): convert it, or")
    assert texts(corpus.ingest("dropped", invalid_utf8="drop")) == ["fine"]


def test_two_columns_of_one_name_are_told(corpus: Corpus) -> None:
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    assert told(corpus, "a.arrow", as_arrow(table)) == ("text/a.arrow: has 2 columns 'text': give each its own name")


def test_newlines_of_all_kinds_end_the_same_records(corpus: Corpus) -> None:
    corpus.put("a.jsonl", b'{"text": "one"}\r\n\r\n{"text": "two\\r\\nlines"}\n\n{"text": "three"}')
    corpus.put("b.md", b"unix\nwindows\r\nmac\rend")
    corpus.snapshot()
    assert texts(corpus.ingest()) == ["one", "two\r\nlines", "three", "unix\nwindows\r\nmac\rend"]


def test_a_dictionary_of_one_long_value_is_refused(corpus: Corpus) -> None:
    """3 kB, of which each of a thousand rows is 70 MB."""
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1000, pyarrow.int32()), ["y" * 70_000_000])
    written = io.BytesIO()
    pyarrow.parquet.write_table(
        pyarrow.table({"text": column}),
        written,
        compression="zstd",
        store_schema=False,
        dictionary_pagesize_limit=1 << 30,
    )
    assert len(written.getvalue()) < 10_000
    assert told(corpus, "a.parquet", written.getvalue()) == (
        "text/a.parquet: unpacks to more than 500 times its size (a decompression bomb?): take it out, or raise "
        "ingest.limits.max_ratio"
    )
