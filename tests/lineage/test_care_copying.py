"""Copies between stores: whole or not to be found, never twice, and enough for an audit of the copy alone."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from cairn.errors import StoreError
from cairn.lineage import collecting
from cairn.lineage.artifact import Artifact
from cairn.lineage.attestation import made, made_under
from cairn.lineage.contents import Contents, top_address
from cairn.lineage.copying import Copied, chosen, copy
from cairn.lineage.hashing import LARGE
from cairn.lineage.pins import address as key_of
from cairn.lineage.repair import workspace_of
from cairn.lineage.signing import trusted_keys
from cairn.lineage.store import Store
from cairn.lineage.verification import verify
from tests.lineage.care import attest, needs, note_run, object_path, objects, write


@pytest.fixture(params=["folder", "memory", "s3", "gcs"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param in ("s3", "gcs"):
        return Store(f"{request.getfixturevalue(request.param)}/{tmp_path.name}")
    return Store(str(tmp_path / "target") if request.param == "folder" else f"memory://{tmp_path.name}")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Store:
    """An empty store in another folder."""
    return Store(str(tmp_path / "elsewhere"))


def everything(source: Store, target: Store) -> Copied:
    return copy(source, target, chosen(source, [], ancestors=False, everything=True), everything=True)


def test_a_copy_has_bytes_pin_attestations_signposts_and_signatures(
    store: Store, target: Store, tmp_path: Path
) -> None:
    made_of: dict[str, str | bytes] = {"tokens.bin": b"x" * (LARGE + 1), "tokens.json": "{}"}
    tokens = store.put(write(tmp_path / "tokens", made_of))
    tokenizer = store.put(write(tmp_path / "tokenizer", {"vocabulary": "a b"}))
    key = attest(store, {"tokenizer": tokenizer.digest, "tokens": tokens.digest})
    store.write(f"signatures/{tokens.digest}/key.json", b"{}")
    done = copy(store, target, [tokens.digest])
    # Two files; the attestation under both that it speaks of, its signpost, the signature.
    assert (done.objects, done.sent, done.records) == (2, LARGE + 3, 4)
    target.get(tokens.digest, tmp_path / "copy")
    assert (tmp_path / "copy" / "tokens.bin").read_bytes() == made_of["tokens.bin"]
    assert [envelope for _, envelope in made(target, tokens.digest)] == [e for _, e in made(store, tokens.digest)]
    assert len(list(made_under(target, key))) == 1
    assert target.read(f"signatures/{tokens.digest}/key.json") == b"{}"
    report, _ = verify(target, trusted_keys(), [tokens.digest])
    assert report.faults == []
    assert not list(Contents(target.url).walk("tmp"))
    again = copy(store, target, [tokens.digest])
    assert (again.objects, again.there, again.records) == (0, 2, 0)


def test_a_dry_run_says_what_would_be_sent_and_sends_nothing(store: Store, elsewhere: Store, tmp_path: Path) -> None:
    one, two = (store.put(write(tmp_path / name, {"shared": "same", "own": name})) for name in ("one", "two"))
    said = copy(store, elsewhere, [one.digest, two.digest], dry_run=True)
    assert (said.objects, said.sent) == (3, 4 + 3 + 3)
    assert not Path(elsewhere.url).exists()


def test_ancestors_are_what_an_audit_walks_back_to(store: Store, elsewhere: Store, tmp_path: Path) -> None:
    names = ("tree", "documents", "tokens", "model", "resumed", "difference", "unrelated")
    made_here = {name: store.put(write(tmp_path / name, {"file": name})) for name in names}
    digests = {name: artifact.digest for name, artifact in made_here.items()}
    lock = write(tmp_path, {"sources.lock.json": json.dumps({"tree": digests["tree"]})}) / "sources.lock.json"
    digests["sources"] = store.put(lock).digest
    attest(store, {"documents": digests["documents"]}, {"sources": digests["sources"], "https://x/y": "0" * 64})
    attest(store, {"tokens": digests["tokens"]}, {"documents": digests["documents"]})
    facts = {"resumed": [digests["resumed"]], "difference": digests["difference"]}
    attest(store, {"model": digests["model"]}, {"tokens": digests["tokens"]}, facts=facts)
    wanted = chosen(store, [digests["model"]], ancestors=True, everything=False)
    copy(store, elsewhere, wanted)
    assert set(wanted) == {digests[name] for name in (*names, "sources")} - {digests["unrelated"]}
    assert all(elsewhere.has(digest) for digest in wanted)
    assert elsewhere.pin(digests["unrelated"]) is None
    report, _ = verify(elsewhere, trusted_keys())
    assert (report.faults, report.whole, report.records.trusted) == ([], 7, 3)


def test_all_takes_runs_and_models_and_moves_no_pointer_of_the_target(
    store: Store, elsewhere: Store, tmp_path: Path
) -> None:
    one = store.put(write(tmp_path / "one", {"a": "1"}))
    note_run(store, "first", {"one": one.digest})
    store.swap("models/small/current", 0, {"model": one.digest})
    everything(store, elsewhere)
    assert elsewhere.read("runs/first/ingest.json") == store.read("runs/first/ingest.json")
    assert elsewhere.pointer("models/small/current") == (1, {"model": one.digest})
    assert everything(store, elsewhere).records == 0
    elsewhere.swap("models/small/current", 1, {"model": "f" * 64})
    store.swap("models/small/current", 1, {"model": one.digest})
    with pytest.raises(StoreError, match="models/small/current/00000002: points elsewhere than in"):
        everything(store, elsewhere)
    assert elsewhere.pointer("models/small/current") == (2, {"model": "f" * 64})


def test_bytes_that_are_not_what_the_pin_says_are_left_nowhere(store: Store, target: Store, tmp_path: Path) -> None:
    for name, size in (("small", 10), ("large", LARGE + 10)):
        made_here = store.put(write(tmp_path / name, {"file": b"x" * size}))
        path = object_path(store, made_here.members[0].md5)
        path.write_bytes(b"x" * (size - 1) + b"y")
        with pytest.raises(StoreError, match=r"holds other bytes than file of .*: nothing was left at its address"):
            copy(store, target, [made_here.digest])
    assert objects(target) == set()
    assert target.list("pins") == []
    assert not list(Contents(target.url).walk())


def test_bytes_that_lie_at_an_address_that_is_not_theirs_are_left_nowhere(
    store: Store, target: Store, tmp_path: Path
) -> None:
    """No digest covers an address: a pin may name any, and the right bytes lie there."""
    for name, size in (("small", 10), ("large", LARGE + 10)):
        (member,) = store.put(write(tmp_path / name, {"file": b"x" * size})).members
        lying = replace(member, md5=member.md5[::-1])
        write(Path(store.url), {key_of(lying.md5): b"x" * size})
        store.write_pin(pinned := Artifact((lying,), is_directory=True))
        with pytest.raises(StoreError, match=r"holds other bytes than file of .*: nothing was left at its address"):
            copy(store, target, [pinned.digest])
    assert not list(Contents(target.url).walk())


def test_of_an_ancestor_without_bytes_the_pin_is_copied_and_it_is_named(
    store: Store, elsewhere: Store, tmp_path: Path
) -> None:
    gone, model = (store.put(write(tmp_path / name, {"a": name, "b": "2"})) for name in ("gone", "model"))
    attest(store, {"model": model.digest}, {"gone": gone.digest})
    object_path(store, next(m.md5 for m in gone.members if m.path == "a")).unlink()
    done = copy(store, elsewhere, chosen(store, [model.digest], ancestors=True, everything=False))
    assert done.lacking == {gone.digest: ["a"]}
    assert (done.objects, done.there, done.absent) == (2, 0, 1)
    assert elsewhere.pin(gone.digest) == gone
    # No listing: DVC would take it for whole.
    assert top_address(gone) not in objects(elsewhere)
    assert verify(elsewhere, trusted_keys())[0].faults == []


def test_what_the_store_lacks_is_taken_from_the_project_if_its_digest_fits(
    store: Store, target: Store, tmp_path: Path
) -> None:
    project = write(tmp_path / "project", {"artifacts/model/a": "first", "artifacts/model/b": b"x" * (LARGE + 1)})
    model = Store(str(tmp_path / "other")).put(project / "artifacts" / "model")
    store.write_pin(model)
    attest(store, {"model": model.digest})
    said = copy(store, target, [model.digest], dry_run=True, workspace=workspace_of(project))
    assert (said.objects, said.there, said.absent) == (2, 0, 0)
    done = copy(store, target, [model.digest], workspace=workspace_of(project))
    assert (done.objects, done.sent, done.lacking) == (2, LARGE + 6, {})
    assert objects(target) == needs(model)
    again = Store(str(tmp_path / "again"))
    write(project, {"artifacts/model/a": "FIRST"})
    done = copy(store, again, [model.digest], workspace=workspace_of(project))
    assert (done.objects, done.absent, done.lacking) == (0, 2, {model.digest: ["a", "b"]})


def test_with_ancestors_come_the_states_that_a_training_kept(store: Store, elsewhere: Store, tmp_path: Path) -> None:
    names = ("tokens", "checkpoint", "optimizer", "model", "scores")
    made_here = {name: store.put(write(tmp_path / name, {"file": name})) for name in names}
    digests = {name: artifact.digest for name, artifact in made_here.items()}
    attest(store, {name: digests[name] for name in ("checkpoint", "optimizer")}, {"tokens": digests["tokens"]})
    attest(store, {"model": digests["model"]}, {"checkpoint": digests["checkpoint"]})
    attest(store, {"scores": digests["scores"]}, {"model": digests["model"]})
    wanted = chosen(store, [digests["model"]], ancestors=True, everything=False)
    assert set(wanted) == set(digests.values()) - {digests["scores"]}


def test_what_only_the_cache_of_a_project_has_is_copied_too(elsewhere: Store, tmp_path: Path) -> None:
    cache = Store(str(tmp_path / "cache"))
    artifact = cache.put(write(tmp_path / "one", {"a": "1"}))
    store = Store(str(tmp_path / "store"), mirrors=(cache.url,))
    store.write_pin(artifact)
    copy(store, elsewhere, [artifact.digest])
    assert objects(elsewhere) == needs(artifact)


def test_a_copy_that_was_killed_leaves_nothing_half_and_goes_on(store: Store, elsewhere: Store, tmp_path: Path) -> None:
    made_here = [store.put(write(tmp_path / f"{n}", {f"{m}": f"{n} {m}" * 1000 for m in range(12)})) for n in range(10)]
    program = (
        "import sys, os, signal; from threading import Lock; from cairn.lineage.store import Store\n"
        "import cairn.lineage.copying as c; opened, lock, left = c.opened, Lock(), int(sys.argv[3])\n"
        "def count(*arguments):\n"
        "    global left\n"
        "    with lock:\n"
        "        left -= 1\n"
        "        if not left: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return opened(*arguments)\n"
        "c.opened = count; source = Store(sys.argv[1])\n"
        "c.copy(source, Store(sys.argv[2]), c.chosen(source, [], False, True))\n"
    )
    sent = 0
    for transfers in (5, 30, 61):
        command = [sys.executable, "-c", program, store.url, elsewhere.url, str(transfers)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        report, _ = verify(elsewhere, trusted_keys())
        assert report.faults == []
        assert all(elsewhere.has(name.removesuffix(".json")) for name in elsewhere.list("pins"))
        assert len(objects(elsewhere)) > sent
        sent = len(objects(elsewhere))
    done = everything(store, elsewhere)
    assert done.there > 40
    assert objects(elsewhere) == objects(store) == needs(*made_here)


def test_a_copy_waits_for_a_collection_of_the_target_and_sends_what_it_took(
    store: Store, elsewhere: Store, tmp_path: Path
) -> None:
    artifact = store.put(write(tmp_path / "a", {"a": "1", "b": "2"}))
    copy(store, elsewhere, [artifact.digest])
    Path(elsewhere.url, "pins", f"{artifact.digest}.json").unlink()
    going_on = collecting.begin(elsewhere)
    writer = Thread(target=copy, args=(store, elsewhere, [artifact.digest]))
    writer.start()
    while elsewhere.pin(artifact.digest) is None:
        time.sleep(0.01)
    Contents(elsewhere.url).remove(key_of(address) for address in needs(artifact))
    collecting.end(going_on)
    writer.join(30)
    assert objects(elsewhere) == needs(artifact)


def test_what_cannot_be_copied_is_said_before_anything_is_sent(store: Store, elsewhere: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"holds no pin for {'0' * 64}"):
        chosen(store, ["0" * 64], ancestors=False, everything=False)
    store.put(write(tmp_path / "a", {"a": "1"}))
    store.write(f"pins/{'1' * 64}.json", b"{}")
    with pytest.raises(StoreError, match=f"pins/{'1' * 64}.json: does not describe .*--repair"):
        chosen(store, [], ancestors=False, everything=True)
    assert not Path(elsewhere.url).exists()
