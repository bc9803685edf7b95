"""Text that is not what it should be: told in one line that names the place and the way out, and nothing half-written.

What is refused is refused for certain; what can be dropped is dropped and told; nothing takes more memory for being
large.
"""

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from cairn.errors import SourceError
from cairn.lineage.stage import Outcome
from tests.components.corpus import Corpus, jsonl, ledger, packed, parquet, source, texts

MB = 1_000_000


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


def table(corpus: Corpus, **columns: Any) -> bytes:
    return parquet(corpus.root / "made.parquet", columns).read_bytes()


def told(corpus: Corpus, made: dict[str, bytes], **section: Any) -> str:
    """The error that ingest raises over these files."""
    for name, data in made.items():
        corpus.put(name, data)
    corpus.snapshot(source("text"))
    with pytest.raises(SourceError) as raised:
        corpus.ingest(**section)
    assert "\n" not in str(raised.value)
    return str(raised.value)


LINE = b'{"text": "a whole line"}\n'
NOT_JSON = "is not valid JSON (cut short?): "
OR_DROP = "convert it, or set ingest.invalid_utf8: drop"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "a.txt.gz",
            packed(os.urandom(999), ".gz")[:500],
            "text/a.txt.gz: is cut short: the .gz stream ends too early",
        ),
        ("a.txt.gz", b"", "text/a.txt.gz: is cut short: the .gz stream ends too early"),
        ("a.txt.gz", b"plain text", "text/a.txt.gz: cannot be unpacked as .gz: Not a gzipped file (b'pl')"),
        (
            "a.md.zst",
            packed(os.urandom(999), ".zst")[:500],
            "text/a.md.zst: is cut short: the .zst stream ends too early",
        ),
        (
            "a.md.zst",
            b"plain text",
            "text/a.md.zst: cannot be unpacked as .zst: zstd decompressor error: Unknown frame",
        ),
        ("a.jsonl.gz", packed(LINE * 9999, ".gz")[:-9], "text/a.jsonl.gz: is cut short: the .gz stream ends too early"),
        ("a.jsonl", LINE + LINE[:9], f"text/a.jsonl:2: {NOT_JSON}unexpected end of data"),
        ("a.jsonl", LINE + b"[" * 9999, f"text/a.jsonl:2: {NOT_JSON}depth limit exceeded"),
        ("a.jsonl", LINE + b'\n["a"]', "text/a.jsonl:3: is a list, not an object with a field 'text'"),
        ("a.jsonl", b"null", "text/a.jsonl:1: is null, not an object with a field 'text'"),
        (
            "a.jsonl",
            jsonl({"title": "a", "body": "b"}),
            "text/a.jsonl:1: has no field 'text'; it has body, title: set text_field of source 'text'",
        ),
        ("a.jsonl", jsonl({"text": None}), "text/a.jsonl:1: field 'text' is null, not text"),
        ("a.jsonl", jsonl({"text": ["a"]}), "text/a.jsonl:1: field 'text' is a list, not text"),
        ("a.jsonl", b'{"text": NaN}', "text/a.jsonl:1: field 'text' is a number, not text"),
        ("a.txt", b"caf\xe9", f"text/a.txt: byte 3: is not UTF-8 (unexpected end of data): {OR_DROP}"),
        ("a.txt.gz", packed(b"\xff", ".gz"), f"text/a.txt.gz: byte 0: is not UTF-8 (invalid start byte): {OR_DROP}"),
        (
            "a.jsonl",
            b"\xef\xbb\xbf" + LINE + b'{"text": "\xff"}',
            f"text/a.jsonl:2: byte 38: is not UTF-8 (invalid start byte): {OR_DROP}",
        ),
        (
            "a.jsonl",
            b'\xef\xbb\xbf{"text": "\xff"}',
            f"text/a.jsonl:1: byte 13: is not UTF-8 (invalid start byte): {OR_DROP}",
        ),
        ("a.parquet", b"PAR1 but no more", "text/a.parquet: is not a whole parquet file: "),
        ("a.parquet", b"", "text/a.parquet: is not a whole parquet file: "),
    ],
)
def test_a_damaged_file_is_told_with_its_place(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes, message: str
) -> None:
    monkeypatch.chdir(corpus.root)
    assert told(corpus, {name: data}).startswith(message)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"title": ["a"], "body": ["b"]}, "has no column 'text'; it has body, title: set text_field of source 'text'"),
        ({"text": ["a", "b", None]}, "row 3: column 'text' is null, not text"),
        ({"text": [1, 2]}, "column 'text' is int64, not text"),
        ({"text": [b"a"]}, "column 'text' is binary, not text"),
    ],
)
def test_a_parquet_file_without_text_in_its_column_is_told(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, columns: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(corpus.root)
    assert told(corpus, {"a.parquet": table(corpus, **columns)}) == f"text/a.parquet: {message}"


@pytest.mark.parametrize("end", [10, 500, -1])
def test_a_parquet_file_that_is_cut_short_is_told(corpus: Corpus, monkeypatch: pytest.MonkeyPatch, end: int) -> None:
    monkeypatch.chdir(corpus.root)
    data = table(corpus, text=[f"row {number}" for number in range(2000)])
    assert told(corpus, {"a.parquet": data[:end]}).startswith("text/a.parquet: is not a whole parquet file: ")


@pytest.mark.parametrize(
    ("made", "section", "message"),
    [
        ({"a.txt": b""}, {}, "the sources hold no text at all: look at snapshot.sources"),
        ({"a.jsonl": b"\n\n"}, {}, "the sources hold no text at all: look at snapshot.sources"),
        (
            {"a.txt": b"too short", "b.txt": b"too", "c.txt": b"x " * 90},
            {"min_document_bytes": 50, "c4": {"min_sentences": 1}},
            "none of 3 documents was kept: 2 by min_document_bytes, 1 by c4.min_sentences: loosen these keys of the "
            "ingest section",
        ),
        (
            {"a.txt": b"one", "b.txt": b"two"},
            {"split": {"heldout": 0.9999, "development": 0.0}},
            "all 2 documents that were kept are held out: lower ingest.split.heldout, or add text",
        ),
        (
            {"a.jsonl": b'{"text": "\\ud800"}'},
            {},
            "none of 1 documents was kept: 1 by lone_surrogate: look at snapshot.sources",
        ),
    ],
)
def test_a_corpus_of_which_nothing_is_left_is_told_with_the_reasons(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, made: dict[str, bytes], section: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(corpus.root)
    assert told(corpus, made, **section) == message


def test_text_that_is_not_utf8_can_be_dropped_and_is_counted(corpus: Corpus) -> None:
    corpus.put("a.txt", b"caf\xe9")
    corpus.put("b.jsonl", b'{"text": "\xff\xff"}\n' + LINE)
    corpus.put("c.parquet", table(corpus, text=["fine"]))
    corpus.snapshot()
    documents = corpus.ingest(invalid_utf8="drop")
    assert texts(documents) == ["a whole line", "fine"]
    assert ledger(documents)["sources"]["text"]["dropped"] == {"invalid_utf8": {"documents": 2, "bytes": 4 + 14}}


# Through the door


def refused(corpus: Corpus, *arguments: str, workers: int = 1) -> str:
    """The one line that the door of ingest prints; it ends with 2 and leaves nothing under artifacts/."""
    said = corpus.door("ingest", *arguments, code=2, workers=workers)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert [said.splitlines()[-1]] == errors
    assert "Traceback" not in said
    assert not (corpus.root / "artifacts").exists()
    return errors[0].removeprefix("error: ")


def test_the_door_tells_that_there_is_no_lock_file(corpus: Corpus) -> None:
    corpus.write_recipe()
    assert refused(corpus) == (
        "sources.lock.json: the input sources is missing: run the stage that makes it first (`cairn run` runs all)"
    )


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"max_document_byte": 5}, "ingest.max_document_byte: unknown key; did you mean 'max_document_bytes'?"),
        ({"max_document_bytes": "5"}, 'ingest.max_document_bytes: input should be a valid integer (got "5")'),
        (
            {"split": {"heldout": 0.6, "development": 0.4}},
            "ingest.split: heldout (0.6) and development (0.4) leave nothing to train on",
        ),
    ],
)
def test_the_door_tells_what_is_wrong_in_the_recipe(corpus: Corpus, section: dict[str, Any], message: str) -> None:
    corpus.write_recipe(**section)
    said = refused(corpus)
    assert said.startswith("params.yaml:")
    assert said.endswith(message)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_door_tells_a_damaged_file_and_goes_on_when_it_is_whole(corpus: Corpus, workers: int) -> None:
    whole = packed(LINE, ".gz")
    corpus.put("a.jsonl.gz", whole[:-4])
    corpus.put("b.txt", "another source")
    sources = [source(corpus.text / "a.jsonl.gz", "first"), source(corpus.text / "b.txt", "second")]
    corpus.write_recipe(*sources)
    corpus.snapshot(*sources)
    assert refused(corpus, workers=workers) == (
        f"{corpus.text}/a.jsonl.gz: is cut short: the .gz stream ends too early"
    )
    corpus.put("a.jsonl.gz", whole)
    assert corpus.snapshot(*sources, refresh=True) is Outcome.RAN
    corpus.door("ingest")
    assert texts(corpus.root / "artifacts" / "documents") == ["a whole line", "another source"]


def test_the_door_tells_that_nothing_was_kept(corpus: Corpus) -> None:
    corpus.put("a.txt", "Much too short.")
    corpus.write_recipe(source(corpus.text), gopher={})
    corpus.snapshot()
    assert refused(corpus) == (
        "none of 1 documents was kept: 1 by gopher.min_words: loosen these keys of the ingest section"
    )


def test_the_door_tells_a_lock_file_that_is_a_folder(corpus: Corpus) -> None:
    corpus.write_recipe()
    corpus.lock_file.mkdir()
    (corpus.lock_file / "a").touch()
    assert refused(corpus) == "sources.lock.json: cannot be read: Is a directory"


def test_the_door_tells_bytes_that_changed_after_the_lock(corpus: Corpus) -> None:
    corpus.put("a.txt", "as it was")
    corpus.write_recipe()
    corpus.snapshot()
    pin = corpus.store.pin(corpus.lock.tree or "")
    assert pin is not None
    Path(corpus.store.locate(pin.members[0]) or "").write_text("as it is.")
    assert "holds other bytes than the lock file names" in refused(corpus)


# Large


def repeated(piece: bytes, times: int, pack: Callable[[bytes], bytes]) -> bytes:
    """A packed file of `times` pieces, made without packing more than one of them."""
    return pack(piece) * times


def text_of_200_mb(corpus: Corpus) -> tuple[Path, int]:
    data = repeated(b"The same line again.\n" * 100_000, 96, gzip.compress)
    return corpus.put("large.txt.gz", data), 21 * 9_600_000


def line_of_200_mb(corpus: Corpus) -> tuple[Path, int]:
    data = zstandard.compress(b'{"text": "') + repeated(b"y" * 2 * MB, 100, zstandard.compress)
    data += zstandard.compress(b'"}\n{"text": "the line after it"}\n')
    return corpus.put("large.jsonl.zst", data), 200 * MB + 12


def bomb(corpus: Corpus) -> tuple[Path, int]:
    """100 kB that unpack to 1 GB."""
    data = repeated(bytes(10 * MB), 100, zstandard.compress)
    assert len(data) < MB // 5
    return corpus.put("large.md.zst", data), 1000 * MB


PEAK = """
import atexit, runpy, sys
def tell():
    with open("/proc/self/status") as status:
        print(*(line for line in status if line.startswith("VmHWM")), file=sys.stderr)
atexit.register(tell)
sys.argv[0] = "components.ingest"
runpy.run_module("components.ingest", run_name="__main__", alter_sys=True)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak memory is read from /proc")
@pytest.mark.parametrize("make", [text_of_200_mb, line_of_200_mb, bomb])
def test_a_huge_document_is_streamed_dropped_and_told(
    corpus: Corpus, make: Callable[[Corpus], tuple[Path, int]]
) -> None:
    corpus.put("small.txt", "This one is kept.")
    path, size = make(corpus)
    corpus.write_recipe(limits={"max_ratio": None})
    corpus.snapshot()
    command = [sys.executable, "-c", PEAK, *corpus.command("ingest")[3:]]
    ended = subprocess.run(command, **corpus.place(), capture_output=True, text=True, check=True)
    where = path if path.suffix != ".zst" or path.stem.endswith(".md") else f"{path}:1"
    expected = f"{where}: a document of {size:,} bytes is dropped: ingest.max_document_bytes is 50,000,000"
    assert f"ingest: {expected}\n" in ended.stderr
    documents = corpus.root / "artifacts" / "documents"
    assert "This one is kept." in texts(documents)
    assert ledger(documents)["sources"]["text"]["dropped"] == {"max_document_bytes": {"documents": 1, "bytes": size}}
    peak = int(ended.stderr.rsplit("VmHWM:", 1)[1].split()[0]) * 1024
    assert peak < 600 * MB


def test_many_large_documents_of_one_text_are_read_back_one_by_one(corpus: Corpus) -> None:
    """A file of 100 kB that unpacks to 200 good documents of 1 MB: the unit that they are kept in is as small."""
    record = b'{"text": "' + b"again and " * 100_000 + b'"}\n'
    corpus.put("a.jsonl.zst", repeated(record, 200, zstandard.compress))
    corpus.write_recipe(limits={"max_ratio": None})
    corpus.snapshot()
    command = [sys.executable, "-c", PEAK, *corpus.command("ingest")[3:]]
    ended = subprocess.run(command, **corpus.place(), capture_output=True, text=True, check=True)
    documents = corpus.root / "artifacts" / "documents"
    assert len(texts(documents)) == 1
    assert ledger(documents)["sources"]["text"]["dropped"]["duplicate"]["documents"] == 199
    assert int(ended.stderr.rsplit("VmHWM:", 1)[1].split()[0]) * 1024 < 300 * MB
