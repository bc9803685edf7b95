"""A store that fails now and then, or loses objects meanwhile: care never makes things worse, and says what failed."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cairn.errors import StoreError
from cairn.lineage.collection import Plan, Repositories, collect
from cairn.lineage.contents import Contents
from cairn.lineage.copying import chosen, copy
from cairn.lineage.pins import address as key_of
from cairn.lineage.repair import Sources, repair
from cairn.lineage.signing import trusted_keys
from cairn.lineage.store import Store
from cairn.lineage.verification import verify
from tests.lineage.care import attest, needs, note_run, objects, write

CALLS = ("cat_file", "pipe_file", "info", "ls", "rm_file", "cp_file", "_open", "created")


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, chance: random.Random, share: float) -> Iterator[None]:
    """Every call of the store in memory fails with this probability."""

    def now_and_then(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(self: MemoryFileSystem, *arguments: Any, **options: Any) -> Any:
            if chance.random() < share:
                raise OSError(f"{name} timed out")
            return call(self, *arguments, **options)

        return called

    with monkeypatch.context() as patched:
        for name in CALLS:
            patched.setattr(MemoryFileSystem, name, now_and_then(name, getattr(MemoryFileSystem, name)))
        yield


@pytest.mark.parametrize("seed", range(6))
def test_copies_to_a_store_that_fails_leave_it_sound_and_end_at_last(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    artifacts = [store.put(write(tmp_path / f"{n}", {f"{m}": f"{n} {m}" for m in range(5)})) for n in range(3)]
    for artifact in artifacts:
        attest(store, {"output": artifact.digest})
    target = Store(f"memory://{tmp_path.name}")
    said: list[str] = []
    for attempt in range(100):
        with failing(monkeypatch, random.Random(f"{seed} {attempt}"), max(0.0, 0.2 - 0.01 * attempt)):
            try:
                copy(store, target, chosen(store, [], ancestors=False, everything=True))
                break
            except StoreError as error:
                said.append(str(error))
        # What can be found is whole.
        assert all(target.has(name.removesuffix(".json")) for name in target.list("pins"))
    assert said
    assert all(one.startswith(f"{target.url}: cannot be reached: ") for one in said)
    assert verify(target, trusted_keys())[0].faults == []
    assert all(target.has(artifact.digest) for artifact in artifacts)
    assert objects(target) == needs(*artifacts)


@pytest.mark.parametrize("seed", range(6))
def test_a_collection_of_a_store_that_fails_takes_nothing_that_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    store = Store(f"memory://{tmp_path.name}")
    origin, kept, gone = (
        store.put(write(tmp_path / name, {"own": name, "shared": "same"})) for name in ("origin", "kept", "gone")
    )
    attest(store, {"kept": kept.digest}, {"origin": origin.digest})
    note_run(store, "one", {"kept": kept.digest})
    for attempt in range(200):
        with failing(monkeypatch, random.Random(f"{seed} {attempt}"), 0.01):
            try:
                collect(store, Repositories(), 0)
                done = True
            except StoreError:
                done = False
        assert needs(origin, kept) <= objects(store)
        listing_first = objects(store) & needs(gone) - needs(kept)
        assert len(listing_first) != 1 or not next(iter(listing_first)).endswith(".dir")
        if done:
            break
        Contents(store.url).remove(["collecting"])  # where removing the marker failed too
    assert objects(store) == needs(origin, kept)


def test_a_root_that_cannot_be_read_in_time_stops_the_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(f"memory://{tmp_path.name}")
    store.put(write(tmp_path / "a", {"a": "1"}))
    note_run(store, "one", {"a": "0" * 64})
    called: list[Plan] = []
    before = objects(store)
    cat_file = MemoryFileSystem.cat_file

    def slow(self: MemoryFileSystem, path: str, *rest: Any, **options: Any) -> Any:
        if "/runs/" in path:
            raise TimeoutError("the read timed out")
        return cat_file(self, path, *rest, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", slow)
    with pytest.raises(StoreError, match="cannot be reached: the read timed out"):
        collect(store, Repositories(), 0, called.append)
    assert (objects(store), called) == (before, [])
    assert store.read("collecting") is None


def test_an_object_that_goes_before_it_is_removed_is_no_error(tmp_path: Path) -> None:
    store = Store(f"memory://{tmp_path.name}")
    artifact = store.put(write(tmp_path / "a", {"a": "1", "b": "2"}))

    def meanwhile(_: Plan) -> None:
        Contents(store.url).remove([key_of(artifact.members[0].md5)])

    collect(store, Repositories(), 0, meanwhile)
    assert objects(store) == set()


def test_a_good_copy_that_goes_while_it_is_fetched_is_passed_over(store: Store, tmp_path: Path) -> None:
    artifact = store.put(write(tmp_path / "a", {"a": "1", "b": "2"}))
    Contents(store.url).remove([key_of(artifact.members[0].md5)])
    first, second = Store(f"memory://{tmp_path.name}"), Store(str(tmp_path / "second"))
    second.put(tmp_path / "a")
    report, known = verify(store, trusted_keys())
    faults = repair(store, report, known, Sources((first, second)))
    assert [fault.repaired for fault in faults] == ["fetched 1 object"]
    assert objects(store) == needs(artifact)
