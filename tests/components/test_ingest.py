"""Ingest: every format, the record of a document, what is dropped and counted, the split, and the same bytes again."""

import collections
import hashlib
import json
import re
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pytest
import zstandard

from cairn.errors import SourceError
from cairn.lineage.artifact import digest_of
from components.ingest.documents import ShardWriter, read_shard
from components.ingest.overlap import measure_overlap
from components.ingest.recipe import Ingest, Split
from tests.components.corpus import (
    REAL,
    Corpus,
    jsonl,
    ledger,
    packed,
    parquet,
    records,
    source,
    texts,
)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


def prose(number: int) -> str:
    """A document that every rule keeps, another for every number."""
    return "".join(
        f"This is line {line} of document {number}, and it says that the stones of path {number * line} are to be seen "
        "with care.\n"
        for line in range(1, 5)
    )


# Formats

TEXTS = ["One.\nTwo lines.", "\tÜber\u2028café \U0001f5ff\n", "x"]


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("suffix", [".txt", ".md", ".MD"])
def test_a_text_file_is_one_document(corpus: Corpus, suffix: str, compression: str) -> None:
    for number, text in enumerate(TEXTS):
        data = text.encode()
        corpus.put(f"{number}{suffix}{compression}", packed(data, compression) if compression else data)
    corpus.snapshot()
    assert texts(corpus.ingest()) == TEXTS


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
def test_a_line_of_jsonl_is_one_document(corpus: Corpus, compression: str) -> None:
    data = jsonl(*({"content": text, "text": 7, "score": None} for text in TEXTS))
    data = data.replace(b"\n", b"\r\n\r\n").removesuffix(
        b"\r\n\r\n"
    )  # as written elsewhere: blank lines, no last newline
    corpus.put(f"a.jsonl{compression}", packed(data, compression) if compression else data)
    corpus.snapshot(source(corpus.text, text_field="content"))
    assert texts(corpus.ingest()) == TEXTS


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.string(),
        pyarrow.large_string(),
        pyarrow.string_view(),
        pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    ],
    ids=str,
)
def test_a_value_of_a_parquet_column_is_one_document(corpus: Corpus, kind: Any) -> None:
    many = [f"{text} {number}" for number in range(50) for text in TEXTS]
    columns = {"n": list(range(150)), "text": pyarrow.array(many).cast(kind)}
    parquet(corpus.text / "a.parquet", columns, row_group_size=37)
    corpus.snapshot()
    assert texts(corpus.ingest()) == many


def test_several_gzip_members_and_zstd_frames_are_one_stream(corpus: Corpus) -> None:
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00meta"  # as parallel compressors write
    corpus.put("a.txt.gz", packed(b"one ", ".gz") + packed(b"two", ".gz"))
    corpus.put("b.txt.zst", skippable + packed(b"three ", ".zst") + skippable + packed(b"four", ".zst"))
    corpus.snapshot()
    assert texts(corpus.ingest()) == ["one two", "three four"]


def test_a_byte_order_mark_is_no_part_of_the_text(corpus: Corpus) -> None:
    corpus.put("a.txt", b"\xef\xbb\xbfone")
    corpus.put("b.jsonl", b'\xef\xbb\xbf{"text": "two"}\n')
    corpus.snapshot()
    assert texts(corpus.ingest()) == ["one", "two"]


def test_json_that_only_python_writes_is_read_and_half_a_character_is_dropped(corpus: Corpus) -> None:
    lines = [
        {"text": "not a number", "score": float("nan")},
        {"text": "half \ud83d of one"},
        {"text": "whole \U0001f5ff"},
    ]
    corpus.put("a.jsonl", "\n".join(map(json.dumps, lines)))
    corpus.snapshot()
    documents = corpus.ingest()
    assert texts(documents) == ["not a number", "whole \U0001f5ff"]
    assert ledger(documents)["sources"]["text"]["dropped"] == {"lone_surrogate": {"documents": 1, "bytes": 15}}


# The record


def test_a_document_is_normalised_and_names_its_origin(corpus: Corpus) -> None:
    raw = "Cafe\u0301 und A\u030angstro\u0308m"
    path = corpus.put("a.jsonl", jsonl({"text": raw}))
    corpus.snapshot(source(corpus.text, "cafes", domain="menus", licence="CC-BY-4.0 OR MIT"))
    final = "Café und Ångström"
    assert records(corpus.ingest()) == [
        {
            "id": hashlib.sha256(final.encode()).hexdigest(),
            "text": final,
            "source": "cafes",
            "domain": "menus",
            "licence": "CC-BY-4.0 OR MIT",
            "bytes": len(final.encode()),
            "origin": str(path),
            "raw": hashlib.sha256(raw.encode()).hexdigest(),
        }
    ]


def test_documents_come_in_the_order_of_the_lock_file(corpus: Corpus) -> None:
    corpus.put("b.txt", "b")
    corpus.put("a.jsonl", jsonl({"text": "a2"}, {"text": "a1"}))
    later = corpus.put("0/late.txt", "of a later source")
    corpus.snapshot(source(f"{corpus.text}/*.*", "first"), source(later, "second"))
    assert texts(corpus.ingest()) == ["a2", "a1", "b", "of a later source"]


# What is dropped


def test_the_first_of_equal_documents_is_kept_and_the_others_are_counted(corpus: Corpus) -> None:
    corpus.put("a.jsonl", jsonl({"text": "Café"}, {"text": "other"}, {"text": "Cafe\u0301"}))
    again = corpus.put("again/b.txt", "Café")
    corpus.snapshot(source(f"{corpus.text}/*.jsonl", "first"), source(again, "second"))
    documents = corpus.ingest()
    assert [(record["text"], record["source"]) for record in records(documents)] == [
        ("Café", "first"),
        ("other", "first"),
    ]
    sources = ledger(documents)["sources"]
    assert sources["first"]["dropped"] == {"duplicate": {"documents": 1, "bytes": 6}}
    assert sources["second"]["dropped"] == {"duplicate": {"documents": 1, "bytes": 5}}
    assert sources["second"]["kept"] == {"documents": 0, "bytes": 0}


def test_what_came_in_is_what_was_kept_and_dropped(corpus: Corpus) -> None:
    short, braces = "Too short.", prose(7) + "{}"
    given = [prose(1), prose(2), short, braces, prose(1), "\n".join(["- of the stones"] * 60)]
    corpus.put("a.jsonl", jsonl(*({"text": text} for text in given)))
    corpus.put("b.txt", b"\xff" * 100)
    corpus.put("c.txt", "y" * 3000)
    corpus.snapshot(source(f"{corpus.text}/a.jsonl", "prose"), source(f"{corpus.text}/*.txt", "odd"))
    defaults = json.loads(Ingest(split=Split(heldout=0.0, development=0.0)).model_dump_json())
    documents = corpus.ingest(**{**defaults, "invalid_utf8": "drop", "max_document_bytes": 2000})
    told = ledger(documents)
    sizes = [len(text.encode()) for text in given]
    assert told["sources"]["prose"] == {
        "domain": "prose",
        "licence": "CC0-1.0",
        "objects": 1,
        "in": {"documents": 6, "bytes": sum(sizes)},
        "kept": {"documents": 2, "bytes": sizes[0] + sizes[1]},
        "dropped": {
            "c4.curly_bracket": {"documents": 1, "bytes": sizes[3]},
            "duplicate": {"documents": 1, "bytes": sizes[4]},
            "gopher.max_bullet_lines": {"documents": 1, "bytes": sizes[5]},
            "min_document_bytes": {"documents": 1, "bytes": sizes[2]},
        },
    }
    assert told["sources"]["odd"]["in"] == {"documents": 2, "bytes": 3100}
    assert told["sources"]["odd"]["dropped"] == {
        "invalid_utf8": {"documents": 1, "bytes": 100},
        "max_document_bytes": {"documents": 1, "bytes": 3000},
    }
    assert told["splits"]["train"] == {"prose": {"documents": 2, "bytes": sizes[0] + sizes[1]}}


@pytest.mark.parametrize(("threshold", "kept"), [(11, []), (10, ["é 9 bytes"]), (None, ["é 9 bytes"])])
def test_the_smallest_document_is_measured_in_bytes(corpus: Corpus, threshold: int | None, kept: list[str]) -> None:
    corpus.put("a.txt", "é 9 bytes")
    corpus.put("b.txt", "a document that is long enough")
    corpus.snapshot()
    assert texts(corpus.ingest(min_document_bytes=threshold)) == [*kept, "a document that is long enough"]


def test_the_quality_rules_are_off_for_code(corpus: Corpus) -> None:
    code = "if (x) {\n" + "  y++;\n" * 40 + "}\n"
    corpus.put("code/a.txt", code)
    corpus.put("prose/a.txt", code + " ")
    corpus.put("prose/b.txt", prose(1))
    corpus.snapshot(
        source(corpus.text / "code", "code", kind="code"), source(corpus.text / "prose", "prose", kind="prose")
    )
    defaults = json.loads(Ingest(split=Split(heldout=0.0, development=0.0)).model_dump_json())
    assert texts(corpus.ingest(**defaults)) == [code, prose(1)]


def test_a_source_of_which_nothing_is_left_is_told(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    corpus.put("kept/a.txt", "a text that is long enough to be kept")
    corpus.put("lost/b.txt", "short")
    sources = [source(corpus.text / name, name=name) for name in ("kept", "lost")]
    corpus.snapshot(*sources)
    corpus.ingest(min_document_bytes=10)
    said = capsys.readouterr().err
    assert "ingest: kept: 1 of 1 documents kept, 37 bytes of 37 bytes\n" in said
    assert "ingest: lost: NOTHING is left of it: 0 of 1 documents kept" in said
    assert "dropped 5 bytes by min_document_bytes" in said


def test_many_warnings_are_cut_short(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    corpus.put("a.jsonl", jsonl({"text": "kept"}, *({"text": "y" * 50} for _ in range(13))))
    corpus.snapshot()
    corpus.ingest(max_document_bytes=40)
    said = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("ingest: ") and "shards" not in line
    ]
    assert said[0] == (
        f"ingest: {corpus.text}/a.jsonl:2: a document of 61 bytes is dropped: ingest.max_document_bytes is 40"
    )
    assert said[9].startswith(f"ingest: {corpus.text}/a.jsonl:11: ")
    assert said[10] == "ingest: and 3 more: the ledger counts all"


# The split


def splits_of(documents: Path) -> dict[str, str]:
    """Document id to split."""
    return {
        record["id"]: split for split in ("train", "development", "heldout") for record in records(documents, (split,))
    }


def test_a_document_stays_in_its_split_as_others_come_and_go(corpus: Corpus) -> None:
    split = {"heldout": 0.2, "development": 0.1, "seed": 3}
    corpus.put("b.jsonl", jsonl(*({"text": f"document {number}"} for number in range(300))))
    corpus.snapshot()
    before = splits_of(corpus.ingest("before", split=split))
    corpus.put("a.jsonl", jsonl(*({"text": f"another {number}"} for number in range(200))))
    corpus.put("b.jsonl", jsonl(*({"text": f"document {number}"} for number in reversed(range(50, 300)))))
    corpus.snapshot(refresh=True)
    after = splits_of(corpus.ingest("after", split=split))
    stayed = before.keys() & after.keys()
    assert len(stayed) == 250
    assert {identity: before[identity] for identity in stayed} == {identity: after[identity] for identity in stayed}
    assert splits_of(corpus.ingest("seed", split={**split, "seed": 4})) != after


def test_the_shares_of_the_splits_are_as_asked_and_both_are_within_reach_of_the_other(corpus: Corpus) -> None:
    corpus.put("a.jsonl", jsonl(*({"text": f"document {number}"} for number in range(4000))))
    corpus.snapshot()
    documents = corpus.ingest(split={"heldout": 0.1, "development": 0.05})
    drawn = collections.Counter(splits_of(documents).values())
    assert drawn.total() == 4000
    # Three standard deviations of a binomial draw.
    assert abs(drawn["heldout"] - 400) < 57
    assert abs(drawn["development"] - 200) < 42
    counted = {split: rows["text"]["documents"] for split, rows in ledger(documents)["splits"].items()}
    assert counted == drawn
    larger = splits_of(corpus.ingest("larger", split={"heldout": 0.2, "development": 0.05}))
    assert {identity for identity, split in splits_of(documents).items() if split == "heldout"} <= {
        identity for identity, split in larger.items() if split == "heldout"
    }


# The overlap of held-out text with the training text

HELD: dict[str, Any] = {"split": {"heldout": 0.25, "development": 0.1, "seed": 1}}


def grams(text: str) -> list[tuple[str, ...]]:
    """The word 8-grams of a text, taken one by one."""
    words = re.findall(r"\w+|[^\w\s]", text)
    return [tuple(words[start : start + 8]) for start in range(len(words) - 7)]


def overlap_by_hand(documents: Path) -> dict[str, float]:
    """What the overlap of every held-out and development document should be."""
    train = {gram for text in texts(documents, ("train",)) for gram in grams(text)}
    expected = {}
    for record in records(documents, ("development", "heldout")):
        found = [gram in train for gram in grams(record["text"])]
        expected[record["id"]] = round(sum(found) / len(found), 6) if found else 0.0
    return expected


def test_the_overlap_is_the_share_of_word_8_grams_that_occur_in_train(corpus: Corpus) -> None:
    shared = [f"common ground number {number} lies between the two of them ;" for number in range(10)]
    lines = [
        f"{shared[number % 10] * (number % 3)} only here: {' '.join(f'word{number}x{k}' for k in range(number % 9))}"
        for number in range(120)
    ]
    corpus.put("a.jsonl", jsonl(*({"text": line} for line in lines)))
    corpus.snapshot()
    documents = corpus.ingest(**HELD, shard_bytes=2000)
    assert len(list((documents / "train").iterdir())) > 5
    measured = {record["id"]: record["overlap"] for record in records(documents, ("development", "heldout"))}
    assert measured == overlap_by_hand(documents)
    assert 0.0 in measured.values()
    assert any(0 < share < 1 for share in measured.values())
    assert "overlap" not in records(documents, ("train",))[0]


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_an_8_gram_counts_wherever_in_a_train_document_it_stands(tmp_path: Path, place: str) -> None:
    shared, alone = [f"shared{number}" for number in range(8)], [f"alone{number}" for number in range(20)]
    start = {"first": 0, "middle": 10, "last": 20}[place]
    with ShardWriter(tmp_path / "documents" / "train", 1 << 20) as shard:
        shard.write({"text": " ".join([*alone[:start], *shared, *alone[start:]])})
    with ShardWriter(tmp_path / "held" / "heldout", 1 << 20) as shard:
        shard.write({"text": " ".join([*shared, "and", "more"])})
    measure_overlap(tmp_path / "documents", tmp_path / "held", shard_bytes=1 << 20, work=tmp_path / "work", workers=1)
    (record,) = read_shard(tmp_path / "documents" / "heldout" / "00000.jsonl.zst")
    assert record["overlap"] == round(1 / 3, 6)


def test_the_overlap_of_real_text_is_that_of_a_count_by_hand(corpus: Corpus) -> None:
    path = REAL / "tinyshakespeare.txt"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    speeches = path.read_text().split("\n\n")[:2500]
    corpus.put("a.jsonl", jsonl(*({"text": speech} for speech in [*speeches, *speeches[:40]])))
    corpus.snapshot()
    documents = corpus.ingest(**HELD)
    measured = {record["id"]: record["overlap"] for record in records(documents, ("development", "heldout"))}
    assert len(measured) > 500
    assert measured == overlap_by_hand(documents)
    assert max(measured.values()) > 0


def test_a_shard_of_real_documents_is_accounted_for(corpus: Corpus) -> None:
    path = REAL / "docs-corpus" / "00005.jsonl.zst"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    unpacked = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
    given = [orjson.loads(line) for line in unpacked.splitlines()[:600]]
    corpus.put("a.jsonl.zst", packed(jsonl(*given), ".zst"))
    corpus.snapshot()
    documents = corpus.ingest(**json.loads(Ingest().model_dump_json()))
    kept = records(documents)
    told = ledger(documents)["sources"]["text"]
    assert told["in"] == {"documents": 600, "bytes": sum(len(record["text"].encode()) for record in given)}
    assert told["kept"]["documents"] == len(kept) > 200
    assert told["in"]["documents"] == len(kept) + sum(row["documents"] for row in told["dropped"].values())
    # The corpus names each document by the sha256 of its text, as we do.
    normal = {record["id"] for record in given if unicodedata.is_normalized("NFC", record["text"])}
    assert {record["raw"] for record in kept} <= {record["id"] for record in given}
    assert len({record["id"] for record in kept} & normal) > 0.99 * len(kept)


# The same bytes


def several_sources(corpus: Corpus) -> None:
    """Five units to read, and more than one shard to train on."""
    named = []
    for name in "abcde":
        corpus.put(f"{name}.jsonl", jsonl(*({"text": prose(ord(name) * 100 + number)} for number in range(30))))
        named.append(source(corpus.text / f"{name}.jsonl", name))
    corpus.snapshot(*named)


SECTION: dict[str, Any] = {**HELD, "shard_bytes": 10_000}


def test_one_and_two_workers_make_the_same_bytes(corpus: Corpus) -> None:
    several_sources(corpus)
    one, two = corpus.ingest("one", workers=1, **SECTION), corpus.ingest("two", workers=2, **SECTION)
    assert len(list((one / "train").iterdir())) > 2
    assert digest_of(one) == digest_of(two)


CHILD = """
import os, signal, sys
from pathlib import Path
import components.ingest.ingest as stage
from tests.components.corpus import Corpus
from tests.components.test_ingest import SECTION
read, left = stage.read_unit, 3
def read_three(unit):
    global left
    if not left:
        stage.ShardWriter(stage.unit_folder(unit), 1 << 20).write({"half": "a unit"})
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return read(unit)
stage.read_unit = read_three
corpus = Corpus.__new__(Corpus)
corpus.root = Path(sys.argv[1])
corpus.store, corpus.lock_file = stage.Store(sys.argv[2]), corpus.root / "sources.lock.json"
corpus.ingest(**SECTION)
"""


def test_a_killed_ingest_goes_on_with_the_unit_that_it_was_in(corpus: Corpus) -> None:
    several_sources(corpus)
    command = [sys.executable, "-c", CHILD, str(corpus.root), corpus.store.url]
    assert subprocess.run(command, **corpus.place(), check=False).returncode == -signal.SIGKILL
    undisturbed = digest_of(corpus.ingest("undisturbed", **SECTION))
    # The objects of the three units that were finished are gone: they are not read again.
    pin = corpus.store.pin(corpus.lock.tree or "")
    assert pin is not None
    finished = {found.sha256 for done in corpus.lock.sources[:3] for found in done.objects}
    for member in pin.members:
        if member.sha256 in finished:
            Path(corpus.store.locate(member) or "").unlink()
    assert digest_of(corpus.ingest(**SECTION)) == undisturbed


def test_the_size_of_a_shard_changes_no_document(corpus: Corpus) -> None:
    several_sources(corpus)
    small, large = corpus.ingest("small", **SECTION), corpus.ingest("large", **HELD)
    assert records(small) == records(large)
    assert len(list((small / "train").iterdir())) > len(list((large / "train").iterdir())) == 1
    for shard in (small / "train").iterdir():
        assert len(zstandard.ZstdDecompressor().stream_reader(shard.read_bytes()).read()) <= SECTION["shard_bytes"]


# The lock is kept


def test_bytes_that_changed_in_the_store_are_refused_and_can_be_put_back(corpus: Corpus) -> None:
    path = corpus.put("a.txt", "as it was")
    corpus.snapshot()
    pin = corpus.store.pin(corpus.lock.tree or "")
    assert pin is not None
    place = corpus.store.locate(pin.members[0])
    assert place is not None
    Path(place).write_text("as it is.")
    with pytest.raises(SourceError) as raised:
        corpus.ingest()
    assert str(raised.value) == (
        f"{path}: {place} holds other bytes than the lock file names: remove it and run the snapshot stage again, or "
        "take the sources as they are now with `cairn snapshot`"
    )
    Path(place).unlink()
    with pytest.raises(SourceError, match=rf"^{path}: .* is missing from the store: run the snapshot stage again, or"):
        corpus.ingest()
    corpus.snapshot()
    assert texts(corpus.ingest()) == ["as it was"]


@pytest.mark.parametrize("compression", [".gz", ".zst"])
def test_changed_bytes_are_told_before_what_they_break(corpus: Corpus, compression: str) -> None:
    corpus.put(f"a.txt{compression}", packed(b"as it was", compression))
    corpus.snapshot()
    pin = corpus.store.pin(corpus.lock.tree or "")
    assert pin is not None
    place = Path(corpus.store.locate(pin.members[0]) or "")
    place.write_bytes(b"?" * place.stat().st_size)
    with pytest.raises(SourceError, match="holds other bytes than the lock file names"):
        corpus.ingest()


def test_a_store_without_the_objects_is_named(corpus: Corpus, tmp_path: Path) -> None:
    corpus.put("a.txt", "a")
    corpus.snapshot()
    corpus.store = type(corpus.store)(str(tmp_path / "another"))
    with pytest.raises(SourceError, match=r"another does not hold its objects: point CAIRN_STORE to the one that does"):
        corpus.ingest()


def test_every_reason_of_the_ledger_that_is_a_threshold_is_a_key_of_the_recipe(corpus: Corpus) -> None:
    corpus.put("a.jsonl", jsonl(*({"text": prose(number)[: 40 * number]} for number in range(40)), {"text": "{" * 99}))
    corpus.snapshot()
    documents = corpus.ingest(**json.loads(Ingest().model_dump_json()))
    reasons = set(ledger(documents)["sources"]["text"]["dropped"]) - {"duplicate"}
    assert len(reasons) > 1
    section = Ingest().model_dump()
    for dotted in reasons:
        value: Any = section
        for key in dotted.split("."):
            value = value[key]
        assert value is not None
