"""Runs: what is noted is read back, and what cannot be a name or a record is said."""

import dataclasses
import re
from pathlib import Path

import pytest

from cairn.errors import StageError, StoreError
from cairn.lineage import runs
from cairn.lineage.runs import Ran
from cairn.lineage.store import Store

DIGEST = "ab" * 32
RAN = Ran(
    stage="ingest",
    version="0.2.0",
    cairn="0.1.0",
    key="cd" * 32,
    inputs={"sources": DIGEST},
    outputs={"documents": DIGEST},
    outcome="done",
    recipe={"split": {"seed": 0}},
    section={"split": {"seed": 0}, "threads": None},
    finished="2026-11-24T10:00:00.000+00:00",
)


def test_what_is_noted_is_read_back(store: Store) -> None:
    assert runs.names(store) == []
    assert runs.read(store, "first") == {}
    assert runs.note(store, "first", RAN) is None
    assert runs.read(store, "first") == {"ingest": RAN}
    assert runs.names(store) == ["first"]


def test_the_newest_run_comes_first(store: Store) -> None:
    for name, hour in (("a", 9), ("b", 11), ("c", 10)):
        runs.note(store, name, dataclasses.replace(RAN, finished=f"2026-11-24T{hour:02}:00:00+00:00"))
    assert list(runs.read_all(store)) == ["b", "c", "a"]


def test_noting_the_same_again_is_silent_and_noting_another_returns_what_was_there(store: Store) -> None:
    runs.note(store, "first", RAN)
    again = dataclasses.replace(RAN, outcome="up to date", finished="2026-11-25T10:00:00.000+00:00")
    assert runs.note(store, "first", again) is None
    assert runs.note(store, "first", dataclasses.replace(RAN, outputs={"documents": "ef" * 32})) == again


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a b", "x" * 129, "-x", "é", "a\n"])
def test_what_cannot_be_a_name_is_refused(store: Store, name: str) -> None:
    with pytest.raises(StageError, match="is no name for a run"):
        runs.note(store, name, RAN)
    assert not Path(store.url).exists()


def test_a_new_name_is_a_time_and_is_not_made_twice() -> None:
    made = {runs.new() for _ in range(20)}
    assert len(made) > 1
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{4}", runs.check(name)) for name in made)


@pytest.mark.parametrize(
    ("this", "that"),
    [(DIGEST, DIGEST[1:]), ('"ingest"', '"tokenize"'), ('"outcome"', '"outcomes"'), ("}", ""), ('"done"', "7")],
)
def test_a_record_that_is_none_is_named_with_the_way_out(store: Store, this: str, that: str) -> None:
    runs.note(store, "first", RAN)
    path = Path(store.url, "runs", "first", "ingest.json")
    path.write_text(path.read_text().replace(this, that))
    with pytest.raises(StoreError, match=r"runs/first/ingest\.json: is no record of a stage: .* `--run first`"):
        runs.read(store, "first")
