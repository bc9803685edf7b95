"""The store: DVC's layout, checked reads, records that are created once, pointers that are swapped."""

import errno
import hashlib
import json
import os
import resource
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from cairn.errors import ArtifactError, StoreError
from cairn.lineage.artifact import Artifact, Member, read_artifact, readable
from cairn.lineage.pins import pin_of, read_pin, read_pin_file, write_pin_file
from cairn.lineage.store import Store


@pytest.fixture(params=["folder", "memory", "s3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store on each kind of file system."""
    places = {"folder": lambda: str(tmp_path / "store"), "memory": lambda: f"memory://{tmp_path.name}"}
    places["s3"] = lambda: f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    return Store(places[request.param]())


def make_tree(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("first")
    (folder / "sub" / "b.txt").write_text("second")
    return folder


def test_what_is_put_can_be_got_elsewhere(anywhere: Store, tmp_path: Path) -> None:
    artifact = anywhere.put(make_tree(tmp_path / "tree"))
    assert anywhere.has(artifact.digest)
    anywhere.get(artifact.digest, tmp_path / "copy")
    assert (tmp_path / "copy" / "sub" / "b.txt").read_text() == "second"
    with anywhere.open(artifact.members[0]) as file:
        assert file.read() == b"first"


def test_a_single_file_can_be_put_and_got(anywhere: Store, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"stone")
    artifact = anywhere.put(tmp_path / "one")
    assert artifact.digest == hashlib.sha256(b"stone").hexdigest()
    anywhere.get(artifact.digest, tmp_path / "two")
    assert (tmp_path / "two").read_bytes() == b"stone"


def test_a_record_is_created_once(anywhere: Store) -> None:
    assert anywhere.create("runs/one.json", b"{}")
    assert not anywhere.create("runs/one.json", b"other")
    assert anywhere.read("runs/one.json") == b"{}"
    assert anywhere.list("runs") == ["one.json"]


def test_a_pointer_moves_only_from_the_version_that_was_read(anywhere: Store) -> None:
    assert anywhere.pointer("models/tiny/current") == (0, None)
    assert anywhere.swap("models/tiny/current", 0, {"model": "a"}) == 1
    assert anywhere.swap("models/tiny/current", 1, {"model": "b"}) == 2
    with pytest.raises(StoreError, match="moved by somebody else"):
        anywhere.swap("models/tiny/current", 1, {"model": "late"})
    assert anywhere.pointer("models/tiny/current") == (2, {"model": "b"})


def test_the_layout_is_that_of_a_dvc_remote(store: Store, tmp_path: Path) -> None:
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.meta import Meta
    from dvc_data.hashfile.tree import Tree

    store.put(make_tree(tmp_path / "tree"))
    theirs: Any = Tree()  # type: ignore[no-untyped-call]
    for relative in ("a.txt", "sub/b.txt"):
        data = (tmp_path / "tree" / relative).read_bytes()
        theirs.add(tuple(relative.split("/")), Meta(), HashInfo("md5", hashlib.md5(data).hexdigest()))
    theirs.digest()
    address = str(theirs.hash_info.value)
    listing = Path(store.url, "files", "md5", address[:2], address[2:])
    assert listing.read_bytes() == theirs.as_bytes()


def test_bytes_that_were_replaced_in_the_store_are_not_handed_out(store: Store, tmp_path: Path) -> None:
    artifact = store.put(make_tree(tmp_path / "tree"))
    md5 = artifact.members[0].md5
    Path(store.url, "files", "md5", md5[:2], md5[2:]).write_text("FIRST")
    with pytest.raises(StoreError, match="holds other bytes"):
        store.get(artifact.digest, tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "tree"]


@pytest.mark.parametrize("path", ["../escaped", "/etc/escaped", "a/../../escaped", "a//b", "./a", "a\\b", "a\0b", ""])
def test_a_pin_that_leads_out_of_the_artifact_is_refused(store: Store, tmp_path: Path, path: str) -> None:
    data = b"bytes of a stranger"
    (tmp_path / "one").write_bytes(data)
    (member,) = store.put(tmp_path / "one").members
    forged = Artifact((replace(member, path=path),), is_directory=True)
    store.write_pin(forged)
    with pytest.raises(StoreError, match="does not describe this artifact"):
        store.get(forged.digest, tmp_path / "copy")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["one", "store"]


@pytest.mark.parametrize("md5", ["../../../one", "0" * 31, "G" * 32])
def test_a_pin_whose_address_is_none_is_refused(store: Store, tmp_path: Path, md5: str) -> None:
    (tmp_path / "one").write_bytes(b"bytes")
    (member,) = store.put(tmp_path / "one").members
    forged = Artifact((replace(member, md5=md5),), is_directory=True)
    store.write_pin(forged)
    with pytest.raises(StoreError, match="does not describe this artifact"):
        store.has(forged.digest)


@pytest.mark.parametrize(
    "paths", [("b", "a"), ("a", "a"), ("a", "a/b"), ("a", "a!", "a/b"), ("\ud800",)], ids=lambda paths: ascii(paths)
)
def test_a_pin_of_files_that_cannot_lie_beside_each_other_is_refused(paths: tuple[str, ...]) -> None:
    member = Member("", hashlib.sha256(b"").hexdigest(), hashlib.md5(b"").hexdigest(), 0)
    said = {"directory": True, "size": 0, "members": [asdict(replace(member, path=path)) for path in paths]}
    listing = json.dumps([{"md5": member.md5, "relpath": path} for path in sorted(paths)], sort_keys=True)
    md5 = hashlib.md5(listing.encode()).hexdigest() + ".dir"
    assert read_pin(json.dumps({**said, "md5": md5}).encode()) is None
    alone = [asdict(replace(member, path="a"))]
    listing = json.dumps([{"md5": member.md5, "relpath": "a"}], sort_keys=True)
    md5 = hashlib.md5(listing.encode()).hexdigest() + ".dir"
    assert read_pin(json.dumps({**said, "members": alone, "md5": md5}).encode()) is not None


def test_a_pin_of_one_file_that_names_a_second_is_refused(store: Store, tmp_path: Path) -> None:
    """The digest of one file covers the first member alone: a get would have given out the bytes of the other."""
    for name, text in (("good", "good bytes"), ("evil", "evil bytes")):
        (tmp_path / name).write_text(text)
    good, evil = (store.put(tmp_path / name) for name in ("good", "evil"))
    store.write_pin(Artifact((*good.members, *evil.members), is_directory=False))
    with pytest.raises(StoreError, match="does not describe this artifact"):
        store.get(good.digest, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", 5.0), ("size", True), ("size", -5), ("size", 10**400), ("path", "sub/one"), ("path", None), ("md5", 7)],
    ids=str,
)
def test_a_pin_with_a_value_of_another_kind_is_refused(tmp_path: Path, field: str, value: object) -> None:
    (tmp_path / "one").write_bytes(b"stone")
    artifact = read_artifact(tmp_path / "one")
    (member,) = artifact.members
    assert read_pin(readable(pin_of(artifact))) == artifact
    pin = pin_of(Artifact((member,), is_directory=False))
    pin["members"][0][field] = value
    whole = {"size": "size", "md5": "md5"}.get(field)
    assert read_pin(json.dumps({**pin, **({whole: value} if whole else {})}).encode()) is None


@pytest.mark.parametrize("field", ["md5", "size", "directory"])
def test_a_pin_that_contradicts_itself_is_refused(store: Store, tmp_path: Path, field: str) -> None:
    digest = store.put(make_tree(tmp_path / "tree")).digest
    path = Path(store.url, "pins", f"{digest}.json")
    pin = json.loads(path.read_text())
    path.write_text(json.dumps({**pin, field: {"md5": "0" * 32 + ".dir", "size": 12, "directory": 1}[field]}))
    with pytest.raises(StoreError, match="was changed or cut short"):
        store.pin(digest)


def test_a_pin_that_is_nested_too_deeply_is_none() -> None:
    assert read_pin(b"[" * 1_000_000) is None
    assert read_pin(b'{"members":' * 100_000) is None


@pytest.mark.parametrize("text", ["[" * 100_000, '{"sha256": "0", "value": NaN}', "[]", "{"], ids=lambda text: text[:9])
def test_a_pointer_that_is_not_what_was_written_is_named(store: Store, text: str) -> None:
    store.write("models/tiny/current/00000001", text.encode())
    with pytest.raises(StoreError, match="00000001: is not the value that was written"):
        store.pointer("models/tiny/current")


def test_an_edited_pin_is_noticed(store: Store, tmp_path: Path) -> None:
    digest = store.put(make_tree(tmp_path / "tree")).digest
    path = Path(store.url, "pins", f"{digest}.json")
    pin = json.loads(path.read_text())
    pin["members"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(pin))
    with pytest.raises(StoreError, match="was changed or cut short"):
        store.pin(digest)


def test_a_missing_object_is_named_and_found_in_a_mirror(store: Store, tmp_path: Path) -> None:
    artifact = store.put(make_tree(tmp_path / "tree"))
    os.rename(Path(store.url, "files"), tmp_path / "files")
    assert not store.has(artifact.digest)
    with pytest.raises(StoreError, match="missing from the store"):
        store.get(artifact.digest, tmp_path / "copy")
    mirrored = Store(store.url, mirrors=(str(tmp_path),))
    mirrored.get(artifact.digest, tmp_path / "copy")
    assert (tmp_path / "copy" / "a.txt").read_text() == "first"


def test_an_upload_that_was_cut_short_is_sent_again(store: Store, tmp_path: Path) -> None:
    artifact = store.put(make_tree(tmp_path / "tree"))
    md5 = artifact.members[0].md5
    Path(store.url, "files", "md5", md5[:2], md5[2:]).write_text("fi")
    assert not store.has(artifact.digest)
    store.put(tmp_path / "tree")
    assert store.has(artifact.digest)


def test_the_default_store_is_the_default_dvc_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAIRN_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert Store.default().url == ".cairn/store"
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    remote = far\n['remote \"far\"']\n    url = ../far\n")
    assert Store.default().url == "far"
    (tmp_path / ".dvc" / "config.local").write_text("['remote \"far\"']\n    url = gs://bucket/far\n")
    assert Store.default().url == "gs://bucket/far"
    monkeypatch.setenv("CAIRN_STORE", "memory://elsewhere")
    assert Store.default().url == "memory://elsewhere"


def test_a_url_of_an_unknown_kind_is_named() -> None:
    with pytest.raises(StoreError, match=r"^nowhere://x: not a store that can be opened"):
        Store("nowhere://x").read("pins/1")


def test_files_that_are_asked_for_are_got_alone(anywhere: Store, tmp_path: Path) -> None:
    digest = anywhere.put(make_tree(tmp_path / "tree")).digest
    anywhere.get(digest, tmp_path / "copy", only=["sub/b.txt"])
    assert [path.name for path in (tmp_path / "copy").rglob("*") if path.is_file()] == ["b.txt"]
    with pytest.raises(StoreError, match=r"holds no c\.txt$"):
        anywhere.get(digest, tmp_path / "other", only=["a.txt", "c.txt"])
    assert not (tmp_path / "other").exists()


def test_one_small_file_is_read_and_checked(store: Store, tmp_path: Path) -> None:
    tree = store.put(make_tree(tmp_path / "tree"))
    assert store.read_member(tree.digest, "sub/b.txt") == b"second"
    assert store.read_member(store.put(tmp_path / "tree" / "a.txt").digest, "") == b"first"
    with pytest.raises(StoreError, match="holds no pin for c"):
        store.read_member(tree.digest, "c")
    md5 = tree.members[0].md5
    Path(store.url, "files", "md5", md5[:2], md5[2:]).write_text("FIRST")
    with pytest.raises(StoreError, match="holds other bytes"):
        store.read_member(tree.digest, "a.txt")


def test_a_pin_file_says_what_was_pinned(tmp_path: Path) -> None:
    artifact = read_artifact(make_tree(tmp_path / "tree"))
    write_pin_file(tmp_path / "pin", artifact)
    assert read_pin_file(tmp_path / "pin") == artifact


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"members": [], "directory": false, "digest": ""}', "\xff"])
def test_what_is_no_pin_file_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "pin").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError, match="pin: is not a pin, or was changed or cut short"):
        read_pin_file(tmp_path / "pin")


def test_a_pin_file_whose_digest_was_changed_is_refused(tmp_path: Path) -> None:
    write_pin_file(tmp_path / "pin", read_artifact(make_tree(tmp_path / "tree")))
    pin = json.loads((tmp_path / "pin").read_text())
    (tmp_path / "pin").write_text(json.dumps({**pin, "digest": "0" * 64}))
    with pytest.raises(ArtifactError, match="is not a pin"):
        read_pin_file(tmp_path / "pin")


def test_a_store_that_is_not_there_is_said_to_be_missing(tmp_path: Path, s3: str) -> None:
    Store(str(tmp_path)).check()
    Store(f"{s3}/new").check()
    with pytest.raises(StoreError, match="nowhere: no such folder"):
        Store(str(tmp_path / "nowhere")).check()
    with pytest.raises(StoreError, match="no such bucket"):
        Store("s3://pebbles/cairn").check()


ASKED: dict[str, Callable[[Store, str, Path], object]] = {
    "check": lambda store, pinned, folder: store.check(),
    "list": lambda store, pinned, folder: store.list("stages"),
    "read": lambda store, pinned, folder: store.read("pins/1"),
    "write": lambda store, pinned, folder: store.write("pins/1", b"{}"),
    "create": lambda store, pinned, folder: store.create("runs/1", b"{}"),
    "put": lambda store, pinned, folder: store.put(folder),
    "has": lambda store, pinned, folder: store.has(pinned),
    "get": lambda store, pinned, folder: store.get(pinned, folder / "copy"),
}


@pytest.mark.parametrize("asked", ASKED)
def test_a_store_that_is_out_of_reach_is_named_whatever_it_is_asked(
    asked: str, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = Store(s3).put(make_tree(tmp_path / "tree")).digest
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    try:
        with pytest.raises(StoreError, match=r"^s3://stones/cairn: cannot be reached: Unable to locate credentials"):
            ASKED[asked](Store(s3), pinned, tmp_path / "tree")
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_a_folder_that_cannot_be_a_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match="file: cannot be reached: "):
        Store(str(tmp_path / "file")).write("pins/1", b"{}")
    with pytest.raises(StoreError, match="file: cannot be reached: "):
        Store(str(tmp_path / "file")).read("pins/1")


def test_a_full_disk_under_the_store_is_not_taken_for_a_store_out_of_reach(store: Store) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            store.write("pins/1", b"{}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == errno.EFBIG
