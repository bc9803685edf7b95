"""Collection: what nothing needs goes, everything else stays, whoever writes meanwhile and whenever it is killed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from cairn.errors import StoreError
from cairn.lineage import collecting
from cairn.lineage.artifact import Artifact
from cairn.lineage.collection import WEEK, Plan, Repositories, collect, plan
from cairn.lineage.contents import Contents, top_address
from cairn.lineage.copying import copy
from cairn.lineage.pins import address as key_of
from cairn.lineage.signing import KeySigner
from cairn.lineage.store import Store
from tests.lineage.care import DAY, attest, grow_old, lock_of, needs, note_run, object_path, objects, write

NOWHERE = Repositories()


def test_what_a_run_needs_stays_and_the_rest_goes(store: Store, tmp_path: Path) -> None:
    sources = store.put(write(tmp_path / "sources", {"a": "1", "shared": "s"}))
    documents = store.put(write(tmp_path / "documents", {"b": "2"}))
    forgotten = store.put(write(tmp_path / "forgotten", {"c": "three", "shared": "s"}))
    attest(store, {"documents": documents.digest}, {"sources": sources.digest})
    note_run(store, "first", {"documents": documents.digest})
    grow_old(store, 30)
    done = collect(store, NOWHERE, WEEK)
    assert objects(store) == needs(sources, documents)
    assert [one.digest for one in done.artifacts] == [forgotten.digest]
    # Its listing and one file; what it shares with the sources stays.
    assert (done.artifacts[0].objects, done.artifacts[0].frees) == (2, 5 + done.objects[0].size)
    assert store.pin(forgotten.digest) == forgotten
    assert store.read("collecting") is None


def test_a_dry_run_changes_nothing(store: Store, tmp_path: Path) -> None:
    store.put(write(tmp_path / "forgotten", {"a": "1"}))
    grow_old(store, 30)
    before = sorted((entry.key, entry.modified) for entry in Contents(store.url).walk())
    assert len(plan(store, NOWHERE, WEEK, time.time()).objects) == 2
    assert sorted((entry.key, entry.modified) for entry in Contents(store.url).walk()) == before


def test_a_model_keeps_what_it_points_to_now_and_not_what_it_pointed_to(store: Store, tmp_path: Path) -> None:
    old, new = (store.put(write(tmp_path / name, {"weights": name})) for name in ("old", "new"))
    for version, artifact in enumerate([old, new] * 8):
        store.swap("models/small/current", version, {"model": artifact.digest})
    grow_old(store, 30)
    collect(store, NOWHERE, WEEK)
    assert objects(store) == needs(new)


def test_an_attestation_by_a_stranger_keeps_alive(store: Store, tmp_path: Path) -> None:
    first, second = (store.put(write(tmp_path / name, {"a": name})) for name in ("first", "second"))
    stranger = KeySigner(ec.generate_private_key(ec.SECP256R1()))
    attest(store, {"second": second.digest}, {"first": first.digest}, key=stranger)
    note_run(store, "one", {"second": second.digest})
    grow_old(store, 30)
    collect(store, NOWHERE, WEEK)
    assert objects(store) == needs(first, second)


def test_the_tree_of_copied_objects_is_kept_with_its_lock_file(store: Store, tmp_path: Path) -> None:
    tree = store.put(write(tmp_path / "objects", {"ab/cd": "a source"}))
    write(tmp_path, {"sources.lock.json": json.dumps({"format": "cairn-sources-v1", "tree": tree.digest})})
    lock = store.put(tmp_path / "sources.lock.json")
    note_run(store, "one", {"sources": lock.digest}, "snapshot")
    grow_old(store, 30)
    collect(store, NOWHERE, WEEK)
    assert objects(store) == needs(tree, lock)


def test_the_tree_is_kept_whatever_the_pin_calls_the_lock_file(store: Store, tmp_path: Path) -> None:
    tree = store.put(write(tmp_path / "objects", {"ab/cd": "a source"}))
    write(tmp_path, {"sources.lock.json": json.dumps({"format": "cairn-sources-v1", "tree": tree.digest})})
    lock = store.put(tmp_path / "sources.lock.json")
    other = store.put(tmp_path / "objects" / "ab" / "cd")
    store.write_pin(Artifact((replace(lock.members[0], path="notes.txt"),), is_directory=False))
    note_run(store, "one", {"sources": lock.digest, "other": other.digest}, "snapshot")
    grow_old(store, 30)
    collect(store, NOWHERE, WEEK)
    assert objects(store) == needs(tree, lock)


def test_what_is_young_stays_with_what_led_to_it(store: Store, tmp_path: Path) -> None:
    old, young, gone = (store.put(write(tmp_path / name, {"a": name})) for name in ("old", "young", "gone"))
    attest(store, {"young": young.digest}, {"old": old.digest})
    grow_old(store, 8)
    grow_old(store, 6, [f"pins/{young.digest}.json"])
    collect(store, NOWHERE, WEEK)
    assert objects(store) == needs(old, young)
    grow_old(store, 6.9)  # an object may be younger than any pin of it
    shutil.rmtree(Path(store.url, "pins"))
    assert plan(store, NOWHERE, WEEK, time.time()).young == 4
    assert gone.digest


@pytest.mark.parametrize(
    "key",
    ["runs/one/ingest.json", "models/m/current/00000001", "pins/{digest}.json", "attestations/{digest}/x.json"],
)
def test_a_record_that_cannot_be_read_stops_the_collection_and_is_named(store: Store, tmp_path: Path, key: str) -> None:
    artifact = store.put(write(tmp_path / "a", {"a": "1"}))
    note_run(store, "other", {"a": artifact.digest})
    key = key.format(digest=artifact.digest)
    store.write(key, b'{"cut')
    grow_old(store, 30)
    with pytest.raises(StoreError, match=key):
        collect(store, NOWHERE, WEEK)
    assert objects(store) == needs(artifact)
    assert store.read("collecting") is None


def test_what_dvc_pushed_without_a_pin_is_kept_by_its_lock_file(store: Store, tmp_path: Path) -> None:
    artifact = store.put(write(tmp_path / "a", {"a": "1", "b": "2"}))
    store.put(write(tmp_path / "b", {"c": "3"}))
    shutil.rmtree(Path(store.url, "pins"))
    grow_old(store, 30)
    project = write(tmp_path / "project", {"dvc.lock": lock_of(artifact)})
    collect(store, Repositories(folders=(project,)), WEEK)
    assert objects(store) == needs(artifact)


def test_a_listing_that_a_lock_file_names_and_that_is_damaged_stops_the_collection(
    store: Store, tmp_path: Path
) -> None:
    artifact = store.put(write(tmp_path / "a", {"a": "1"}))
    shutil.rmtree(Path(store.url, "pins"))
    object_path(store, top_address(artifact)).write_text("[{]")
    grow_old(store, 30)
    project = write(tmp_path / "project", {"dvc.lock": lock_of(artifact)})
    with pytest.raises(StoreError, match=r"is not the listing of a directory.*dvc\.lock needs it.*--repair"):
        collect(store, Repositories(folders=(project,)), WEEK)
    assert objects(store) == needs(artifact)


def test_leftovers_of_killed_uploads_go_and_those_of_a_running_one_stay(store: Store, tmp_path: Path) -> None:
    (kept,) = store.put(write(tmp_path / "a", {"a": "1"})).members
    folder = f"files/md5/{kept.md5[:2]}"
    old = [f"{folder}/.{'a' * 30}.0123456789ab", f"{folder}/.-_ABCDEFGHIJKLMNOPQRST.tmp", "tmp/0123"]
    running = [f"{folder}/.{'b' * 30}.0123456789ab", "tmp/4567"]
    strangers = [f"{folder}/README", "notes.txt"]
    for key in (*old, *running, *strangers):
        write(Path(store.url), {key: "x"})
    grow_old(store, 30)
    grow_old(store, 0.02, running)
    collect(store, NOWHERE, 0)
    left = {entry.key for entry in Contents(store.url).walk() if not entry.key.startswith("pins")}
    assert left == {*running, *strangers, collecting.ENDED}


def test_a_second_collection_is_refused_and_one_that_was_killed_is_taken_over(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put(write(tmp_path / "a", {"a": "1"}))
    grow_old(store, 30)
    going_on = collecting.begin(store)
    with pytest.raises(StoreError, match=rf"a collection is going on since .* \(process {os.getpid()} on "):
        collect(store, NOWHERE, WEEK)
    assert len(objects(store)) == 2
    grow_old(store, 0.05, ["collecting"])  # 72 minutes without a sign of life
    collect(store, NOWHERE, WEEK)
    assert "taken over" in capsys.readouterr().err
    assert not objects(store)
    with pytest.raises(StoreError, match="another collection took over"):
        going_on.renew(always=True)


def test_a_collection_is_over_when_its_process_is_dead_and_not_when_it_is_another_containers(store: Store) -> None:
    """Pods on one node may share its name, and none sees the others' processes."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    collecting.begin(store)
    said = json.loads(store.read(collecting.KEY) or b"")
    store.write(collecting.KEY, json.dumps({**said, "process": ended.pid, "processes": "another pod's"}).encode())
    with pytest.raises(StoreError, match="a collection is going on"):
        collecting.begin(store)
    store.write(collecting.KEY, json.dumps({**said, "process": ended.pid}).encode())
    assert collecting.begin(store)


def test_a_marker_that_nobody_can_read_ends_by_its_age(store: Store, tmp_path: Path) -> None:
    store.write(collecting.KEY, b"[" * 100_000)
    with pytest.raises(StoreError, match="a collection is going on"):
        collect(store, NOWHERE, WEEK)
    grow_old(store, 1)
    collect(store, NOWHERE, WEEK)
    assert store.read(collecting.KEY) is None


def test_a_collection_that_was_overtaken_removes_nothing_more(store: Store, tmp_path: Path) -> None:
    artifact = store.put(write(tmp_path / "a", {"a": "1"}))
    grow_old(store, 30)

    def overtaken(_: Plan) -> None:
        grow_old(store, 1, ["collecting"])
        collecting.begin(store)

    with pytest.raises(StoreError, match="another collection took over"):
        collect(store, NOWHERE, WEEK, overtaken)
    assert objects(store) == needs(artifact)
    assert store.read("collecting") is not None  # the other's


def test_an_artifact_that_is_put_during_a_collection_is_whole_after_both(store: Store, tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {"a": "1", "b": "2"})
    artifact = store.put(folder)
    Path(store.url, "pins", f"{artifact.digest}.json").unlink()
    grow_old(store, 30)
    writers = []

    def meanwhile(found: Plan) -> None:
        # The pins were read. Now somebody finds all objects there, sends none and writes the pin.
        assert len(found.objects) == 3
        writers.append(Thread(target=store.put, args=(folder,)))
        writers[0].start()
        while store.pin(artifact.digest) is None:
            time.sleep(0.01)

    collect(store, NOWHERE, WEEK, meanwhile)
    writers[0].join(30)
    assert objects(store) == needs(artifact)
    assert store.has(artifact.digest)


@pytest.mark.parametrize("does", ["put", "hold", "copy"])
def test_a_collection_that_begins_and_ends_while_something_is_sent_takes_nothing_for_good(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    """It read the pins before ours was there, and its marker has gone when we look for it."""
    tree = write(tmp_path / "tree", {"a": "an old object", "b": "another"})
    artifact = store.put(tree)
    source = Store(str(tmp_path / "source"))
    source.put(tree)
    grow_old(store, 30)
    write_pin = Store.write_pin

    def late(self: Store, pinned: Artifact) -> None:
        monkeypatch.setattr(Store, "write_pin", write_pin)
        collect(store, NOWHERE, WEEK)
        assert not {member.md5 for member in artifact.members} & objects(store)
        write_pin(self, pinned)

    monkeypatch.setattr(Store, "write_pin", late)
    if does == "hold":
        assert not store.hold(artifact.digest)
    else:
        store.put(tree) if does == "put" else copy(source, store, [artifact.digest])
        assert objects(store) == needs(artifact)


def test_a_put_that_waits_too_long_says_how_to_go_on(store: Store) -> None:
    collecting.begin(store)
    with pytest.raises(StoreError, match=r"collecting: a collection is going on .* remove this record and run again"):
        collecting.wait_until_over(store, None, patience=0)


def test_puts_and_collections_in_many_processes_leave_every_pin_whole(store: Store, tmp_path: Path) -> None:
    folders = [
        write(
            tmp_path / f"tree{tree}", {f"{number}": f"{tree % 3} {number}" for number in range(40)} | {"own": str(tree)}
        )
        for tree in range(6)
    ]
    for folder in folders:
        store.put(folder)
    program = (
        "import sys; from pathlib import Path; from cairn.lineage.store import Store\n"
        "from cairn.lineage.collection import Repositories, collect; from cairn.errors import StoreError\n"
        "for _ in range(4):\n"
        "    try: collect(Store(sys.argv[1]), Repositories(), 3600.0)\n"
        "    except StoreError as error: assert 'collection' in str(error), error\n"
    )
    for seed in range(3):
        shutil.rmtree(Path(store.url, "pins"))
        grow_old(store, 30)
        collectors = [subprocess.Popen([sys.executable, "-c", program, store.url]) for _ in range(2)]
        chosen = random.Random(seed).sample(folders, 5)
        with ThreadPoolExecutor(5) as threads:
            put_there = list(threads.map(store.put, chosen))
        assert [collector.wait(60) for collector in collectors] == [0, 0]
        assert all(store.has(artifact.digest) for artifact in put_there)
        assert needs(*put_there) <= objects(store)


def test_a_killed_collection_leaves_no_listing_without_its_files_and_the_next_ends_it(
    store: Store, tmp_path: Path
) -> None:
    artifacts = [store.put(write(tmp_path / f"{n}", {f"{m}": f"{n} {m}" for m in range(30)})) for n in range(20)]
    grow_old(store, 30)
    program = (
        "import sys, os, signal; from cairn.lineage.store import Store; import cairn.lineage.collection as c\n"
        "c.BATCH = 5; remove = c.Contents.remove; left = int(sys.argv[2])\n"
        "def slowly(self, keys):\n"
        "    global left\n"
        "    remove(self, keys); left -= 1\n"
        "    if not left: os.kill(os.getpid(), signal.SIGKILL)\n"
        "c.Contents.remove = slowly; c.collect(Store(sys.argv[1]), c.Repositories(), c.WEEK)\n"
    )
    for batches in (2, 7, 40):
        killed = subprocess.run([sys.executable, "-c", program, store.url, str(batches)], check=False)
        assert killed.returncode == -signal.SIGKILL
        assert store.read("collecting") is not None
        there = objects(store)
        for artifact in artifacts:
            assert top_address(artifact) not in there or needs(artifact) <= there
    collect(store, NOWHERE, WEEK)
    assert not objects(store)
    assert store.read("collecting") is None


@pytest.mark.parametrize("place", ["memory", "s3", "gcs"])
def test_collection_works_on_every_kind_of_store(place: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}" if place == "memory" else f"{request.getfixturevalue(place)}/{tmp_path.name}"
    store = Store(url)
    kept, gone = (store.put(write(tmp_path / name, {"a": name, "b": "same"})) for name in ("kept", "gone"))
    note_run(store, "one", {"kept": kept.digest})
    assert len(plan(store, NOWHERE, WEEK, time.time()).objects) == 0
    later = plan(store, NOWHERE, WEEK, time.time() + 8 * DAY)
    assert {entry.address for entry in later.objects} == needs(gone) - needs(kept)
    store.write("tmp/*", b"a leftover that is called so")
    Contents(url).remove(["tmp/*", "tmp/gone", f"pins/{gone.digest}.jso?"])
    assert store.pin(gone.digest) == gone
    time.sleep(1.1)  # S3 tells whole seconds
    collect(store, NOWHERE, 0.001)
    assert objects(store) == needs(kept)
    assert store.read("collecting") is None
    assert not list(Contents(url).walk("tmp"))


@st.composite
def histories(draw: st.DrawFn) -> dict[str, list[object]]:
    """A few artifacts of shared files, with ages, edges and roots."""
    count = draw(st.integers(1, 7))
    some = st.integers(0, count - 1)
    return {
        "files": draw(st.lists(st.sets(st.integers(0, 5), min_size=1, max_size=3), min_size=count, max_size=count)),
        "old": draw(st.lists(st.booleans(), min_size=count, max_size=count)),
        "young files": draw(st.lists(st.integers(0, 5), max_size=2)),
        "edges": draw(st.lists(st.tuples(some, some), max_size=8)),
        "runs": draw(st.lists(some, max_size=2)),
        "models": draw(st.lists(some, max_size=2)),
        "locks": draw(st.lists(some, max_size=2)),
        "unpinned": draw(st.lists(some, max_size=2)),
    }


@settings(max_examples=60)
@given(history=histories())
def test_exactly_what_is_old_and_not_reached_goes(history: dict[str, list]) -> None:  # type: ignore[type-arg]
    with TemporaryDirectory() as scratch:
        root = Path(scratch)
        store = Store(str(root / "store"))
        trees = [
            write(root / f"tree{index}", {f"{file}": f"content {file}" for file in files} | {"own": str(index)})
            for index, files in enumerate(history["files"])
        ]
        artifacts = [store.put(tree) for tree in trees]
        digests = [artifact.digest for artifact in artifacts]
        for made, origin in history["edges"]:
            attest(store, {"output": digests[made]}, {f"input {origin}": digests[origin]})
        for number, index in enumerate(history["runs"]):
            note_run(store, f"run{number}", {"output": digests[index]})
        for version, index in enumerate(history["models"]):
            store.swap("models/m/current", version, {"model": digests[index]})
        grow_old(store, 30)
        for index, old in enumerate(history["old"]):
            if not old:
                grow_old(store, 1, [f"pins/{digests[index]}.json"])
        young = [
            m.md5 for a in artifacts for m in a.members if m.path.isdigit() and int(m.path) in history["young files"]
        ]
        grow_old(store, 1, [key_of(md5) for md5 in young])
        locks = {f"{number}/dvc.lock": lock_of(artifacts[index]) for number, index in enumerate(history["locks"])}
        write(root / "locks", locks)
        unpinned = set(history["unpinned"])
        for index in unpinned:
            Path(store.url, "pins", f"{digests[index]}.json").unlink()
        before = objects(store)

        # The oracle: walk until nothing is new. Without a pin an artifact is known to lock files alone.
        pinned = set(range(len(artifacts))) - unpinned
        roots = set(history["runs"]) | set(history["models"][-1:]) | (set(history["locks"]) & pinned)
        roots |= {index for index, old in enumerate(history["old"]) if not old and index in pinned}
        reached = set(roots)
        while True:
            more = {origin for made, origin in history["edges"] if made in reached and origin in pinned} - reached
            if not more:
                break
            reached |= more
        needed = needs(*(artifacts[index] for index in (reached & pinned) | set(history["locks"])))

        folders = tuple(root / "locks" / f"{number}" for number in range(len(history["locks"])))
        collect(store, Repositories(folders=folders), WEEK)
        assert objects(store) == {address for address in before if address in needed or address in young}
