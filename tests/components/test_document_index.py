"""The index of documents: it leads to the tokens of each, however many there are, and is not read to do so."""

import hashlib
import html
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn.errors import ArtifactError, StageError
from components.tokenize.fertility import per_token, per_word, words
from components.tokenize.index import RECORD, DocumentIndex, Place, write_index
from components.tokenize.recipe import Tokenize
from components.tokenize.summary import summary
from components.tokenize.tokenize import SCHEMA
from tests.components.inputs import Document, run, sentences, write_documents

TRAIN = [Document(sentences(number), domain="walks" if number % 3 else "notes") for number in range(40)]


def identity(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def write_sidecars(root: Path, shards: list[list[str]]) -> dict[str, list[Place]]:
    """Tables of shards of these documents; where each is."""
    places: dict[str, list[Place]] = {}
    for number, documents in enumerate(shards):
        lengths = [3 + index for index in range(len(documents))]
        offsets = np.cumsum([0, *lengths])[:-1].tolist()
        for document, offset, length in zip(documents, offsets, lengths, strict=True):
            places.setdefault(document, []).append(Place(number, offset, length))
        columns = {"document": documents, "offset": offsets, "length": lengths}
        schema = pa.schema([SCHEMA.field(name) for name in columns])
        pq.write_table(pa.table(columns, schema), root / f"{number:05d}.parquet")
    return places


def sidecars(root: Path) -> list[Path]:
    return sorted(root.glob("*.parquet"))


@pytest.mark.parametrize("at_once", [10_000, 10])
def test_every_document_is_found_where_it_is_whatever_fits_into_memory(tmp_path: Path, at_once: int) -> None:
    # One is in three shards, and twice in one of them.
    shards = [[identity(number) for number in range(first, first + 150)] for first in (0, 149, 298)]
    shards[2] += [identity(149), identity(149)]
    places = write_sidecars(tmp_path, shards)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    write_index(tmp_path / "train.index", sidecars(tmp_path), scratch, at_once)
    assert list(scratch.iterdir()) == []
    with DocumentIndex(tmp_path / "train.index", 452) as index:
        assert len(index) == 452
        assert {document: index.find(document) for document in places} == places
        assert [index.find(one) for one in (identity(-1), "0" * 64, "f" * 64, "", "zz", identity(0)[:8])] == [[]] * 6
    ids = np.fromfile(tmp_path / "train.index", RECORD)["document"]
    assert (ids[:-1] <= ids[1:]).all()


def test_the_index_has_the_same_bytes_however_much_fits_into_memory(tmp_path: Path) -> None:
    write_sidecars(tmp_path, [[identity(number % 50) for number in range(first, first + 90)] for first in (0, 7)])
    made = set()
    for at_once in (1, 1000):
        write_index(tmp_path / "index", sidecars(tmp_path), tmp_path, at_once)
        made.add((tmp_path / "index").read_bytes())
    assert len(made) == 1


def test_ids_that_begin_or_end_with_zeros_are_told_apart(tmp_path: Path) -> None:
    documents = [f"{first}{'00' * 30}{last}" for first in ("00", "01", "ff") for last in ("00", "01")]
    places = write_sidecars(tmp_path, [documents[::-1]])
    write_index(tmp_path / "index", sidecars(tmp_path), tmp_path)
    with DocumentIndex(tmp_path / "index", 6) as index:
        assert {document: index.find(document) for document in documents} == places


def test_an_id_that_is_no_digest_is_told(tmp_path: Path) -> None:
    write_sidecars(tmp_path, [[identity(0), "mine"]])
    with pytest.raises(StageError, match=r"00000\.parquet: row 1: the id of a document is not a sha256"):
        write_index(tmp_path / "index", sidecars(tmp_path), tmp_path)


def test_an_index_that_is_cut_short_or_missing_is_told(tmp_path: Path) -> None:
    path = tmp_path / "train.index"
    with pytest.raises(ArtifactError, match=r"train\.index: cannot be read: No such file or directory: run the tokeni"):
        DocumentIndex(path, 2)
    path.write_bytes(bytes(60))
    with pytest.raises(ArtifactError, match=r"train\.index: has 60 bytes, an index of 2 documents has 104: run the to"):
        DocumentIndex(path, 2)
    path.write_bytes(b"")
    with DocumentIndex(path, 0) as index:
        assert index.find(identity(0)) == []


def test_a_documents_id_leads_to_its_tokens_and_counts_add_up(tmp_path: Path) -> None:
    documents = write_documents(tmp_path / "documents", shard_bytes=2500, train=TRAIN)
    tokens = run("tokenize", Tokenize(vocab_size=300, shard_tokens=400), tmp_path, {"documents": documents})["tokens"]
    said = json.loads((tokens / "tokens.json").read_bytes())["splits"]
    train = said["train"]
    assert not (tokens / "development.index").exists()
    assert (said["development"]["domains"], said["development"]["sources"]) == ({}, {})
    with DocumentIndex(tokens / "train.index", len(TRAIN)) as index:
        for document in TRAIN:
            [place] = index.find(document.identity)
            table = pq.read_table(tokens / f"{train['shards'][place.shard]['name']}.parquet").to_pylist()
            [row] = [row for row in table if row["document"] == document.identity]
            assert (place.offset, place.length) == (row["offset"], row["length"])
            assert row["words"] == len(document.text.split())
    for group in ("domains", "sources"):
        assert list(train[group]) == sorted(train[group])
        for unit in ("documents", "bytes", "tokens"):
            assert sum(one[unit] for one in train[group].values()) == sum(shard[unit] for shard in train["shards"])
    notes = [document for document in TRAIN if document.domain == "notes"]
    told = train["domains"]["notes"]
    assert told == train["sources"]["notes-source"]
    assert (told["documents"], told["bytes"]) == (len(notes), sum(document.size for document in notes))
    assert told["words"] == sum(len(document.text.split()) for document in notes)


def test_the_summary_tells_how_much_text_a_token_stands_for(tmp_path: Path) -> None:
    documents = write_documents(tmp_path / "documents", train=TRAIN)
    tokens = run("tokenize", Tokenize(vocab_size=300), tmp_path, {"documents": documents})["tokens"]
    shown = summary(lambda _, path: (tokens / path).read_bytes())  # type: ignore[arg-type]
    notes = json.loads((tokens / "tokens.json").read_bytes())["splits"]["train"]["domains"]["notes"]
    assert shown.metrics["train_bytes_per_token_notes"] == round(per_token(notes), 3)
    assert shown.metrics["train_tokens_per_word_notes"] == round(per_word(notes), 3)
    row = f"| notes | {notes['documents']} | {notes['tokens']:,} | {per_token(notes):.3f} | {per_word(notes):.3f} |"
    assert row in shown.page
    assert html.unescape(shown.page).count("| notes-source |") == 1


@given(st.text(st.sampled_from("ab é日\n\t\r\u00a0\x00")))
def test_words_are_what_ascii_white_space_parts(text: str) -> None:
    assert words(text.encode()) == len([word for word in re.split(r"[\x00-\x20]+", text) if word])


def test_fertility_leaves_out_the_tokens_that_end_documents() -> None:
    counts = {"documents": 2, "bytes": 100, "words": 10, "tokens": 27}
    assert (per_token(counts), per_word(counts)) == (4.0, 2.5)
    nothing = {"documents": 2, "bytes": 0, "words": 0, "tokens": 2}
    assert (per_token(nothing), per_word(nothing)) == (0.0, 0.0)
