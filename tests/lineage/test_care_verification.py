"""Verification and repair: every fault is found, named with its way out, and put right where a good copy is."""

import base64
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cairn.errors import StoreError
from cairn.lineage import collecting, verification
from cairn.lineage.artifact import Artifact
from cairn.lineage.contents import Contents, top_address
from cairn.lineage.fetching import hash_object
from cairn.lineage.hashing import LARGE
from cairn.lineage.pins import address as key_of
from cairn.lineage.repair import Sources, repair, workspace_of
from cairn.lineage.runs import Ran, note
from cairn.lineage.signing import KeySigner, trusted_keys
from cairn.lineage.store import Store
from cairn.lineage.verification import Report, verify
from tests.lineage.care import attest, git, needs, note_run, object_path, objects, write

# Two files of 128 bytes with one md5 (Wang et al., 2004).
COLLISION = tuple(
    bytes.fromhex(
        f"d131dd02c5e6eec4693d9a0698aff95c2fcab5{a}712467eab4004583eb8fb7f8955ad340609f4b30283e4888325{b}1415a085125e8f7cd"
        f"c99fd91dbd{c}280373c5bd8823e3156348f5bae6dacd436c919c6dd53e2{d}487da03fd02396306d248cda0e99f33420f577ee8ce54b670"
        f"80{e}80d1ec69821bcb6a8839396f965{f}b6ff72a70"
    )
    for a, b, c, d, e, f in (tuple("87fba2"), tuple("0f732a"))
)


@pytest.fixture
def artifact(store: Store, tmp_path: Path) -> Artifact:
    """A directory in the store, attested, made by a run."""
    made = store.put(write(tmp_path / "tree", {"a.txt": "first", "sub/b.txt": "second"}))
    attest(store, {"documents": made.digest})
    note_run(store, "one", {"documents": made.digest})
    return made


def verified(store: Store, *digests: str, with_bytes: bool = True) -> Report:
    return verify(store, trusted_keys(), digests, with_bytes)[0]


def repaired(store: Store, sources: Sources | None = None) -> Report:
    report, known = verify(store, trusted_keys())
    report.faults = repair(store, report, known, sources or Sources())
    return report


def file(store: Store, artifact: Artifact, path: str) -> Path:
    return object_path(store, next(member.md5 for member in artifact.members if member.path == path))


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def test_a_sound_store_has_no_faults(store: Store, artifact: Artifact) -> None:
    report = verified(store)
    assert report.faults == []
    assert (report.objects, report.whole, report.unpinned) == (3, 1, 0)
    assert report.read == sum(path.stat().st_size for path in Path(store.url, "files").rglob("*") if path.is_file())
    assert (report.records.trusted, report.records.untrusted, report.records.signposts) == (1, 0, 1)


@pytest.mark.parametrize("place", ["memory", "s3"])
def test_a_store_anywhere_can_be_verified_and_repaired(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = f"memory://{tmp_path.name}" if place == "memory" else f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    store, good = Store(url), Store(str(tmp_path / "good"))
    folder = write(tmp_path / "tree", {"a": "first", "b": b"large" * (LARGE // 4), "c": "third"})
    made = store.put(folder)
    good.put(folder)
    assert verified(store).faults == []
    contents = Contents(url)
    contents.remove([key_of(made.members[1].md5)])
    store.write(key_of(made.members[0].md5), b"FIRST")
    store.write(key_of(made.members[2].md5), b"thi")
    report = repaired(store, Sources((good,)))
    assert len(report.faults) == 3
    assert report.wrong == []
    assert verified(store).faults == []
    assert not list(contents.walk("tmp"))


def test_flipped_and_cut_objects_are_named(store: Store, artifact: Artifact) -> None:
    overwrite(file(store, artifact, "a.txt"), b"fjrst")
    overwrite(file(store, artifact, "sub/b.txt"), b"sec")
    faults = {fault.key: fault for fault in verified(store).faults}
    assert "damaged" in faults[key_of(artifact.members[0].md5)].said
    assert "cut short at 3 bytes" in faults[key_of(artifact.members[1].md5)].said
    assert f"sub/b.txt, sha256 {artifact.members[1].sha256}" in faults[key_of(artifact.members[1].md5)].said
    # Names and sizes alone show the one that was cut.
    quick = verified(store, with_bytes=False)
    assert [fault.key for fault in quick.faults] == [key_of(artifact.members[1].md5)]
    assert quick.read == 0


def test_no_flipped_bit_in_what_is_hashed_or_signed_goes_unnoticed(store: Store, artifact: Artifact) -> None:
    chance = random.Random(0)
    folders = ("files", "pins", "attestations", "stages")
    paths = sorted(path for name in folders for path in Path(store.url, name).rglob("*") if path.is_file())
    for path in paths:
        before = path.read_bytes()
        for _ in range(25):
            bit = chance.randrange(8 * len(before))
            flipped = bytearray(before)
            flipped[bit // 8] ^= 1 << bit % 8
            overwrite(path, bytes(flipped))
            assert path.relative_to(store.url).as_posix() in {fault.key for fault in verified(store).faults}, bit
        overwrite(path, before)
    assert verified(store).faults == []


def test_other_bytes_of_the_same_md5_are_noticed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(COLLISION[0])
    (member,) = store.put(tmp_path / "good").members
    overwrite(object_path(store, member.md5), COLLISION[1])
    (fault,) = verified(store).faults
    assert fault.said.startswith("replaced: other bytes of the same md5")


def test_a_listing_without_one_of_its_files_is_a_fault_and_an_artifact_elsewhere_is_none(
    store: Store, artifact: Artifact, tmp_path: Path
) -> None:
    file(store, artifact, "a.txt").unlink()
    (fault,) = verified(store).faults
    assert fault.key == key_of(top_address(artifact))
    assert "a.txt missing, but the `.dir` object is there, so `dvc push` takes it for sent" in fault.said
    object_path(store, top_address(artifact)).unlink()
    report = verified(store)
    assert "2 of 3 objects missing (a.txt)" in report.faults[0].said
    assert (len(report.faults), report.partly) == (1, 1)
    shutil.rmtree(Path(store.url, "files"))
    report = verified(store)
    assert (report.faults, report.elsewhere) == ([], 1)
    # Whoever asks for it by name wants it.
    assert "3 of 3 objects missing" in verified(store, artifact.digest).faults[0].said


def test_a_file_that_a_whole_artifact_has_too_does_not_show_that_another_was_sent(
    store: Store, artifact: Artifact, tmp_path: Path
) -> None:
    other = Store(str(tmp_path / "other")).put(write(tmp_path / "two", {"a.txt": "first", "c.txt": "third"}))
    store.write_pin(other)
    report = verified(store)
    assert (report.faults, report.whole, report.partly) == ([], 1, 1)


def test_what_is_in_part_here_after_a_repair_is_fetched_from_a_store_that_has_it(
    store: Store, artifact: Artifact, tmp_path: Path
) -> None:
    shutil.copytree(store.url, tmp_path / "good")
    file(store, artifact, "a.txt").unlink()
    (fault,) = repaired(store).wrong
    assert "the `.dir` object was removed" in fault.said
    (fault,) = repaired(store).wrong
    assert "2 of 3 objects missing (a.txt)" in fault.said
    assert "--from URL, or `dvc push` from where the files are" in fault.way_out
    assert not object_path(store, top_address(artifact)).exists()
    assert repaired(store, Sources((Store(str(tmp_path / "good")),))).wrong == []
    assert (verified(store).faults, objects(store)) == ([], needs(artifact))


def test_who_can_send_the_tree_of_copied_objects_again_is_said(store: Store, tmp_path: Path) -> None:
    tree = store.put(write(tmp_path / "tree", {"aa/1": "one", "bb/2": "two"}))
    store.put(write(tmp_path, {"sources.lock.json": json.dumps({"tree": tree.digest})}) / "sources.lock.json")
    file(store, tree, "aa/1").unlink()
    (fault,) = repaired(store).wrong
    assert "run `cairn snapshot` in the project, which copies the sources again" in fault.way_out
    assert "dvc push" not in fault.way_out
    overwrite(file(store, tree, "bb/2"), b"TWO")
    assert all("`cairn snapshot`" in fault.way_out for fault in repaired(store).wrong)


def test_damaged_records_are_brought_back_from_a_store_whose_copy_is_sound(
    store: Store, artifact: Artifact, tmp_path: Path
) -> None:
    outputs = {"documents": artifact.digest}
    ran = Ran("ingest", "0.1.0", "0.1.0", "0" * 64, {}, outputs, "done", {}, {}, "2026-01-01T00:00:00+00:00")
    note(store, "two", ran)
    store.write(f"signatures/{artifact.digest}/key.json", b"{}")
    store.swap("models/small/current", 0, {"model": artifact.digest})
    shutil.copytree(store.url, tmp_path / "good")
    shutil.copytree(store.url, tmp_path / "bad")
    good, bad = Store(str(tmp_path / "good")), Store(str(tmp_path / "bad"))
    folders = ("pins", "attestations", "stages", "runs/two", "signatures", "models")
    paths = [path for name in folders for path in Path(store.url, name).rglob("*") if path.is_file()]
    for path in paths:
        before = path.read_bytes()
        overwrite(path, b"[")
        overwrite(Path(bad.url, path.relative_to(store.url)), b"{")
        wrong = {fault.key: fault for fault in repaired(store, Sources((bad,))).wrong}
        assert path.relative_to(store.url).as_posix() in wrong
        assert "nothing relies on it" not in str(wrong)
        assert repaired(store, Sources((bad, good))).wrong == [], path
        assert path.read_bytes() == before
        assert verified(store).faults == []


def test_an_attestation_that_only_its_signpost_knows_of_is_brought_back(
    store: Store, artifact: Artifact, tmp_path: Path
) -> None:
    shutil.copytree(store.url, tmp_path / "good")
    path = attestation_path(store, artifact)
    path.unlink()
    assert repaired(store, Sources((Store(str(tmp_path / "good")),))).wrong == []
    assert path.exists()


def test_what_a_model_points_to_must_be_here_or_in_a_mirror(store: Store, artifact: Artifact, tmp_path: Path) -> None:
    store.swap("models/small/current", 0, {"model": artifact.digest})
    os.rename(Path(store.url, "files"), tmp_path / "files")
    (fault,) = verified(store).faults
    assert "3 of 3 objects missing, and model small points to it" in fault.said
    assert verified(replace(store, mirrors=(str(tmp_path),))).faults == []


def test_a_listing_that_no_pin_knows_is_checked_against_its_files(store: Store, artifact: Artifact) -> None:
    shutil.rmtree(Path(store.url, "pins"))
    shutil.rmtree(Path(store.url, "runs"))
    assert verified(store).faults == []
    file(store, artifact, "a.txt").unlink()
    (fault,) = verified(store).faults
    assert "a directory that no pin names: a.txt missing" in fault.said


def resigned(envelope: bytes, statement: Callable[[dict[str, Any]], None]) -> bytes:
    parsed = json.loads(envelope)
    said = json.loads(base64.b64decode(parsed["payload"]))
    statement(said)
    return json.dumps({**parsed, "payload": base64.b64encode(json.dumps(said).encode()).decode()}).encode()


def attestation_path(store: Store, artifact: Artifact) -> Path:
    (path,) = Path(store.url, "attestations", artifact.digest).iterdir()
    return path


def test_an_attestation_that_was_changed_is_named(store: Store, artifact: Artifact) -> None:
    import hashlib

    path = attestation_path(store, artifact)
    changed = resigned(path.read_bytes(), lambda said: said.update(predicateType="other"))
    path.write_bytes(changed)
    (fault,) = [fault for fault in verified(store).faults if fault.key.startswith("attestations")]
    assert fault.said == "changed: it is not the attestation that it is named after"
    path.unlink()
    path.with_name(f"{hashlib.sha256(changed).hexdigest()}.json").write_bytes(changed)
    (fault,) = [fault for fault in verified(store).faults if fault.key.startswith("attestations")]
    assert fault.said == "its signature does not fit its content: it was changed"


def test_who_signed_is_told_apart(store: Store, artifact: Artifact) -> None:
    attest(
        store, {"documents": artifact.digest}, {"x": "0" * 64}, key=KeySigner(ec.generate_private_key(ec.SECP256R1()))
    )
    report = verified(store)
    assert (report.faults, report.records.trusted, report.records.untrusted) == ([], 1, 1)


@pytest.mark.parametrize(
    ("key", "data", "said"),
    [
        ("attestations/{digest}/{zeros}.json", b"{}", "changed: it is not the attestation that it is named after"),
        ("attestations/notes.txt", b"", "is not named as an attestation is"),
        ("stages/{zeros}/{zeros}.json", b'{"subject": "{digest}"}', "leads to no attestation that can be read"),
        ("stages/{zeros}/{zeros}.json", b"[", "is no signpost"),
        ("runs/two/ingest.json", b"{", "is no record of a run"),
        (
            "runs/two/ingest.json",
            b'{"outputs": {"a": "' + b"1" * 64 + b'"}}',
            f"names what was never pinned: {'1' * 64}",
        ),
        ("models/m/current/00000001", b"{}", "points to no artifact, which was never pinned here"),
        ("signatures/{digest}/{zeros}.json", b"x", "is no signature of a model"),
        ("pins/{zeros}.json", b"{}", "does not describe this artifact: it was changed or cut short"),
        ("pins/notes.json", b"{}", "is not named by a digest"),
    ],
)
def test_a_record_that_is_not_what_it_is_called_is_named(
    store: Store, artifact: Artifact, key: str, data: bytes, said: str
) -> None:
    key = key.format(digest=artifact.digest, zeros="0" * 64)
    store.write(key, data)
    (fault,) = verified(store).faults
    assert fault.key == key
    assert said in fault.said
    assert fault.way_out


def test_a_pin_whose_address_was_edited_is_named(store: Store, artifact: Artifact, tmp_path: Path) -> None:
    path = Path(store.url, "pins", f"{artifact.digest}.json")
    pin = json.loads(path.read_bytes())
    path.write_text(json.dumps({**pin, "md5": "0" * 32 + ".dir"}))
    (fault,) = verified(store).faults
    assert "does not describe this artifact" in fault.said
    assert len(repaired(store).wrong) == 1
    assert repaired(store, Sources((), (tmp_path / "tree",))).wrong == []
    assert verified(store).faults == []


def test_an_attestation_under_an_artifact_that_it_does_not_speak_of_is_named(
    store: Store, artifact: Artifact, tmp_path: Path
) -> None:
    other = store.put(write(tmp_path / "other", {"x": "y"}))
    path = attestation_path(store, artifact)
    store.write(f"attestations/{other.digest}/{path.name}", path.read_bytes())
    (fault,) = verified(store).faults
    assert fault.said == "speaks of other artifacts than the one that it lies under"


def test_a_signpost_that_leads_to_an_attestation_of_another_stage_key_is_named(
    store: Store, artifact: Artifact
) -> None:
    (path,) = Path(store.url, "stages").rglob("*.json")
    store.write(f"stages/{'0' * 64}/{path.name}", path.read_bytes())
    (fault,) = verified(store).faults
    assert (fault.key, fault.said) == (f"stages/{'0' * 64}/{path.name}", "leads to an attestation of another stage key")


def test_leftovers_strangers_and_a_collection_are_told_and_are_no_faults(store: Store, artifact: Artifact) -> None:
    write(Path(store.url), {f"files/md5/aa/.{'a' * 30}.0123456789ab": "x", "tmp/1": "x", "files/md5/aa/README": "x"})
    collecting.begin(store)
    report = verified(store)
    assert report.faults == []
    assert sorted(report.leftovers) == [f"files/md5/aa/.{'a' * 30}.0123456789ab", "tmp/1"]
    assert report.strangers == ["files/md5/aa/README"]
    assert report.notes[0].startswith("collecting: of a running collection, begun ")


def test_an_object_that_goes_while_others_are_read_is_missing_or_collected(
    store: Store, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    doomed = [file(store, artifact, "a.txt")]

    def vanishing(*asked: Any) -> Any:
        for path in doomed:
            path.unlink(missing_ok=True)
        return hash_object(*asked)

    monkeypatch.setattr(verification, "hash_object", vanishing)
    (fault,) = verified(store).faults
    assert "a.txt missing, but the `.dir` object is there" in fault.said
    # A collection takes the listing too: then nothing is wrong.
    file(store, artifact, "a.txt").write_text("first")
    doomed.append(object_path(store, top_address(artifact)))
    collecting.begin(store)
    report = verified(store)
    assert (report.faults, report.partly) == ([], 1)


@pytest.mark.parametrize("with_bytes", [True, False])
def test_a_stale_listing_makes_nothing_missing(
    store: Store, artifact: Artifact, monkeypatch: pytest.MonkeyPatch, with_bytes: bool
) -> None:
    walk = Contents.objects

    def stale(self: Contents) -> Iterator[Any]:
        for entry in walk(self):
            if entry.address == artifact.members[0].md5:
                continue  # written since
            yield replace(entry, size=entry.size + 1) if entry.address == artifact.members[1].md5 else entry
        yield from [replace(entry, key=key_of("f" * 32))]  # removed since

    monkeypatch.setattr(Contents, "objects", stale)
    assert verified(store, with_bytes=with_bytes).faults == []


def test_an_unknown_digest_and_an_unreachable_store_are_errors(store: Store, artifact: Artifact) -> None:
    with pytest.raises(StoreError, match=f"holds no pin for {'0' * 64}"):
        verified(store, "0" * 64)
    with pytest.raises(StoreError, match="nowhere://x: not a store that can be opened"):
        verified(Store("nowhere://x"))


def test_good_copies_come_from_the_workspace_the_cache_and_another_store(
    store: Store, artifact: Artifact, tmp_path: Path
) -> None:
    cache, other = tmp_path / "cache", Store(str(tmp_path / "other"))
    for source in ("workspace", "cache", "other"):
        if source == "cache":
            shutil.copytree(store.url, cache)
        if source == "other":
            other.put(tmp_path / "tree")
            shutil.rmtree(cache)
            shutil.move(tmp_path / "tree", tmp_path / "project" / "artifacts" / "tree")
            write(tmp_path / "project", {"artifacts/tree/a.txt": "FIRST"})  # of the right size, and wrong
        file(store, artifact, "a.txt").unlink()
        overwrite(file(store, artifact, "sub/b.txt"), b"SECOND")
        object_path(store, top_address(artifact)).unlink()
        stores = (Store(str(cache)), *((other,) if source == "other" else ()))
        workspace = (tmp_path / "tree",) if source == "workspace" else workspace_of(tmp_path / "project")
        report = repaired(store, Sources(stores, workspace))
        assert report.wrong == []
        assert [fault.repaired for fault in report.faults] == ["fetched 1 object", "fetched 2 objects"]
        assert verified(store, artifact.digest).faults == []
        assert objects(store) == needs(artifact)


def test_a_copy_with_other_bytes_never_takes_the_place(store: Store, tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(COLLISION[0])
    (member,) = store.put(tmp_path / "good").members
    evil = Store(str(tmp_path / "evil"))
    write(Path(evil.url), {key_of(member.md5): COLLISION[1]})
    overwrite(object_path(store, member.md5), b"noise")
    report = repaired(store, Sources((evil,)))
    assert "no good copy is at hand" in report.wrong[0].way_out
    assert not object_path(store, member.md5).exists()
    assert Path(store.url, "quarantine", member.md5).read_bytes() == b"noise"


def test_what_no_pin_names_is_fetched_when_its_md5_is_right(store: Store, tmp_path: Path) -> None:
    (member,) = store.put(write(tmp_path / "one", {"a": "good"}) / "a").members
    shutil.rmtree(Path(store.url, "pins"))
    overwrite(object_path(store, member.md5), b"noise")
    places = tmp_path / "evil", tmp_path / "good"
    for place, data in zip(places, ("evil", "good"), strict=True):
        write(place, {key_of(member.md5): data})
    assert len(repaired(store, Sources((Store(str(places[0])),))).wrong) == 1
    object_path(store, member.md5).write_bytes(b"noise")
    assert repaired(store, Sources((Store(str(places[0])), Store(str(places[1]))))).wrong == []
    assert object_path(store, member.md5).read_bytes() == b"good"


def test_what_cannot_be_had_goes_to_quarantine_and_its_listing_goes(
    store: Store, artifact: Artifact, tmp_path: Path
) -> None:
    overwrite(file(store, artifact, "a.txt"), b"FIRST")
    report = repaired(store)
    assert "moved to quarantine/" in report.wrong[0].said
    assert "`dvc push` from where the files are sends them again" in report.wrong[0].way_out
    assert objects(store) == {artifact.members[1].md5}
    after = verified(store)
    part, fault = after.faults
    assert (after.quarantined, after.partly) == (1, 1)
    assert "2 of 3 objects missing (a.txt)" in part.said
    assert fault.said.startswith(
        f"lost: it was damaged and lies in quarantine/{artifact.members[0].md5} since (wanted: a"
    )
    # It is a fault until a good copy is there again.
    store.put(tmp_path / "tree")
    after = verified(store)
    assert (after.faults, after.quarantined, after.whole) == ([], 1, 1)


def test_a_listing_that_no_pin_knows_is_not_thrown_away(store: Store, artifact: Artifact) -> None:
    shutil.rmtree(Path(store.url, "pins"))
    shutil.rmtree(Path(store.url, "runs"))
    file(store, artifact, "a.txt").unlink()
    before = object_path(store, top_address(artifact)).read_bytes()
    assert "the `.dir` object was removed" in repaired(store).wrong[0].said
    assert Path(store.url, "quarantine", top_address(artifact)).read_bytes() == before


def test_a_damaged_listing_and_a_damaged_pin_are_written_again(
    store: Store, artifact: Artifact, tmp_path: Path
) -> None:
    overwrite(object_path(store, top_address(artifact)), b"[]")
    report = repaired(store)
    assert [fault.repaired for fault in report.faults] == ["fetched 1 object"]
    Path(store.url, "pins", f"{artifact.digest}.json").write_text("{")
    report = repaired(store, Sources((), (tmp_path / "tree",)))
    assert [fault.repaired for fault in report.faults if fault.key.startswith("pins")] == ["the pin was written again"]
    assert verified(store, artifact.digest).faults == []


def dvc(root: Path, *arguments: str, code: int = 0) -> str:
    command = [str(Path(sys.executable).parent / "dvc"), *arguments]
    done = subprocess.run(command, cwd=root, check=False, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_what_dvc_push_never_heals_is_healed(tmp_path: Path) -> None:
    project, remote = write(tmp_path / "project", {"data/a": "first", "data/b": "second"}), tmp_path / "remote"
    remote.mkdir()
    git(project, "init", "-q")
    dvc(project, "init", "-q")
    dvc(project, "remote", "add", "-d", "-q", "store", str(remote))
    dvc(project, "add", "-q", "data")
    dvc(project, "push", "-q")
    store = Store(str(remote), mirrors=(str(project / ".dvc" / "cache"),))
    (member, _) = store.put(project / "data").members
    clone = tmp_path / "clone"
    shutil.copytree(project, clone, ignore=shutil.ignore_patterns("cache", "tmp", "data"))

    object_path(store, member.md5).unlink()
    dvc(clone, "pull", code=1)
    assert "Everything is up to date" in dvc(project, "push")
    assert not object_path(store, member.md5).exists()
    # With the cache at hand the file comes back.
    assert repaired(store, Sources((Store(store.mirrors[0]),))).wrong == []
    dvc(clone, "pull", "-q")
    assert (clone / "data" / "a").read_text() == "first"

    # Without, the listing goes, and the next push sends all that is missing.
    object_path(store, member.md5).unlink()
    assert len(repaired(store).wrong) == 1
    dvc(project, "push", "-q")
    assert object_path(store, member.md5).read_text() == "first"
    assert verified(store).faults == []
    assert verified(store, store.put(project / "data").digest).faults == []


def test_many_files_of_the_same_bytes_are_one_object(store: Store, tmp_path: Path) -> None:
    store.put(write(tmp_path / "tree", {str(number): "same" for number in range(50)}))
    report = verified(store)
    assert (report.objects, report.whole, report.faults) == (2, 1, [])
