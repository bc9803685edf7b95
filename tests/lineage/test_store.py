"""The store: DVC's layout, checked reads, records that are created once, pointers that are swapped."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cairn.errors import StoreError
from cairn.lineage.store import Store


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URL of a bucket on an S3 server of our own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    endpoint = f"http://127.0.0.1:{port}"
    settings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{endpoint}/stones", method="PUT"), timeout=2).close()
                break
            except OSError:
                assert server.poll() is None, "the S3 server ended"
                time.sleep(0.1)
        yield "s3://stones/cairn"
    finally:
        server.terminate()
        server.wait()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


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
    with pytest.raises(StoreError, match="nowhere://x"):
        Store("nowhere://x").read("pins/1")
