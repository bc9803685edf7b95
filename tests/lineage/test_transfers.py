"""Transfers: hashed on the way, healed, resumed, killed at any moment, several at once, in constant memory."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cairn.errors import StoreError
from cairn.lineage import collecting, fetching, filesystem
from cairn.lineage.artifact import Member, digest_of, files_of, read_artifact
from cairn.lineage.pins import address, directory_address
from cairn.lineage.store import Store

PUT = "import sys, pathlib; from cairn.lineage.store import Store; store = Store(sys.argv[1]); print(flush=True); "
GET = PUT + "store.get(sys.argv[2], pathlib.Path(sys.argv[3]))"
PUT += "store.put(pathlib.Path(sys.argv[2]))"


def make_tree(folder: Path, large: int = 9 << 20, small: int = 40) -> Path:
    """A directory of one large file and many small ones."""
    (folder / "sub").mkdir(parents=True)
    (folder / "large").write_bytes(random.Random(0).randbytes(large))
    for number in range(small):
        (folder / "sub" / f"{number:03}").write_bytes(b"%d" % number * 100)
    return folder


def object_of(store: Store, member: Member) -> Path:
    return Path(store.url, address(member.md5))


def damage(path: Path) -> None:
    """Change one bit, and neither size nor time."""
    before = path.stat()
    with open(path, "r+b") as file:
        first = file.read(1)[0]
        file.seek(0)
        file.write(bytes([first ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def leftovers(store: Store) -> list[str]:
    return [path.name for path in Path(store.url, "tmp").iterdir()]


@pytest.mark.parametrize("place", ["folder", "memory", "s3"])
def test_a_file_of_several_parts_goes_to_any_store_and_comes_back(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = {"folder": str(tmp_path / "store"), "memory": f"memory://{tmp_path.name}"}.get(place)
    store = Store(url or f"{request.getfixturevalue('s3')}/{tmp_path.name}")
    (tmp_path / "file").write_bytes(random.Random(1).randbytes(40 << 20))
    artifact = store.put(tmp_path / "file")
    assert artifact == read_artifact(tmp_path / "file")
    assert store.has(artifact.digest)
    store.get(artifact.digest, tmp_path / "copy")
    assert digest_of(tmp_path / "copy") == artifact.digest
    store.put(tmp_path / "file", verify=True)


def test_an_object_that_was_damaged_is_healed_by_the_next_put(store: Store, tmp_path: Path) -> None:
    artifact = store.put(make_tree(tmp_path / "tree"))
    for member in artifact.members[:2]:
        damage(object_of(store, member))
    store.put(tmp_path / "tree")
    store.get(artifact.digest, tmp_path / "copy")
    assert digest_of(tmp_path / "copy") == artifact.digest
    assert leftovers(store) == []


def test_a_store_elsewhere_is_healed_when_asked(tmp_path: Path, s3: str) -> None:
    import fsspec

    store = Store(f"{s3}/{tmp_path.name}")
    artifact = store.put(make_tree(tmp_path / "tree", small=3))
    bucket = fsspec.filesystem("s3")
    for member in artifact.members[:2]:
        path = f"{store.url}/{address(member.md5)}"
        data = bucket.cat_file(path)
        bucket.pipe_file(path, bytes([data[0] ^ 1]) + data[1:])
    store.put(tmp_path / "tree")
    with pytest.raises(StoreError, match="holds other bytes than"):
        store.get(artifact.digest, tmp_path / "copy")
    store.put(tmp_path / "tree", verify=True)
    store.get(artifact.digest, tmp_path / "copy")
    assert digest_of(tmp_path / "copy") == artifact.digest


def test_a_mirror_stands_in_for_what_is_damaged_and_the_damage_is_named(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = store.put(make_tree(tmp_path / "tree"))
    shutil.copytree(Path(store.url, "files"), tmp_path / "mirror" / "files")
    mirrored = Store(store.url, mirrors=(str(tmp_path / "mirror"),))
    large, small, missing = artifact.members[0], artifact.members[1], artifact.members[2]
    damage(object_of(store, large))
    damage(object_of(store, small))
    object_of(store, missing).unlink()
    capsys.readouterr()
    mirrored.get(artifact.digest, tmp_path / "copy")
    assert digest_of(tmp_path / "copy") == artifact.digest
    said = capsys.readouterr().err
    assert sorted(line.split(": ")[0] for line in said.splitlines()) == sorted(
        str(object_of(store, member)) for member in (large, small)
    )
    assert "holds other bytes than large" in said
    assert mirrored.read_member(artifact.digest, small.path) == (tmp_path / "tree" / small.path).read_bytes()


def test_a_file_is_opened_where_its_bytes_are_right(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who reads a stream cannot begin anew with another copy."""
    artifact = store.put(make_tree(tmp_path / "tree"))
    shutil.copytree(Path(store.url, "files"), tmp_path / "cache" / "files")
    mirrored = Store(store.url, mirrors=(str(tmp_path / "cache"),))
    large = artifact.members[0]
    damage(object_of(store, large))
    with mirrored.open(large) as file:
        assert hashlib.sha256(file.read()).hexdigest() == large.sha256
    assert f"{store.url}/{address(large.md5)}: holds other bytes than large: passed over" in capsys.readouterr().err
    damage(object_of(store, large))
    damage(object_of(Store(str(tmp_path / "cache")), large))
    with mirrored.open(large) as file:
        assert hashlib.sha256(file.read()).hexdigest() == large.sha256


def test_what_is_damaged_everywhere_is_named_everywhere(store: Store, tmp_path: Path) -> None:
    artifact = store.put(make_tree(tmp_path / "tree"))
    shutil.copytree(Path(store.url, "files"), tmp_path / "mirror" / "files")
    mirrored = Store(store.url, mirrors=(str(tmp_path / "mirror"),))
    damage(object_of(store, artifact.members[1]))
    object_of(mirrored, artifact.members[1]).with_name("gone").touch()
    Path(tmp_path / "mirror", address(artifact.members[1].md5)).unlink()
    with pytest.raises(StoreError) as error:
        mirrored.get(artifact.digest, tmp_path / "copy")
    assert f"{object_of(store, artifact.members[1])}: holds other bytes" in str(error.value)
    assert f"{tmp_path / 'mirror' / address(artifact.members[1].md5)}: sub/000 is missing" in str(error.value)
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://user:pa$$@127.0.0.1:9/store", "ftp://127.0.0.1:9/store: cannot be reached"),
        ("nowhere://user:pa$$@host/store", "nowhere://host/store: not a store that can be opened"),
        ("http://127.0.0.1:9/store?token=pa$$", "http://127.0.0.1:9/store"),
    ],
)
def test_an_error_shows_no_password(
    url: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(filesystem, "FIRST_PAUSE", 0.0)
    (tmp_path / "one").touch()
    store = Store(url, mirrors=(url,))
    for work in (
        store.check,
        lambda: store.put(tmp_path / "one"),
        lambda: store.read("pins/1"),
        lambda: store.list("a"),
    ):
        with pytest.raises(StoreError) as error:
            work()
        assert str(error.value).startswith(said)
        assert "pa$$" not in f"{error.value}{capsys.readouterr()}{store}{store!r}"


def test_a_file_that_vanishes_while_the_artifact_is_stored_is_named(
    store: Store, tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree(tmp_path / "tree", small=3)
    found = files_of(tree)
    (tree / "sub" / "001").unlink()
    monkeypatch.setattr("cairn.lineage.store.files_of", lambda path: found)
    for url in (store.url, f"{s3}/{tmp_path.name}"):
        with pytest.raises(StoreError, match="sub/001: was removed while it was stored"):
            Store(url).put(tree)
        assert Store(url).list("pins") == []


def test_two_gets_to_one_place_wait_for_each_other(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = store.put(make_tree(tmp_path / "tree")).digest
    first_is_in, second_waits = threading.Event(), threading.Event()
    bring = fetching._bring

    def slowly(*arguments: object) -> None:
        first_is_in.set()
        second_waits.wait(20)
        bring(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(fetching, "_bring", slowly)
    gets = [threading.Thread(target=store.get, args=(digest, tmp_path / "copy")) for _ in range(2)]
    gets[0].start()
    assert first_is_in.wait(20)
    gets[1].start()
    said = ""
    while "another process fetches the same" not in said:
        time.sleep(0.01)
        said += capsys.readouterr().err
    second_waits.set()
    for get in gets:
        get.join()
    assert digest_of(tmp_path / "copy") == digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "store", "tree"]


def test_a_put_waits_for_a_collection_and_sends_again_what_it_took(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "LOOK_EVERY", 0.01)
    artifact = store.put(make_tree(tmp_path / "tree"))
    store.write("collecting", b'{"who": "gc on host", "when": "2026-11-24"}')
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        # The collection read the pins before ours was there; now it removes what nothing it knows of needs.
        waited.append(seconds)
        shutil.rmtree(Path(store.url, "files"), ignore_errors=True)
        if len(waited) == 3:
            Path(store.url, "collecting").unlink()

    monkeypatch.setattr(time, "sleep", sleep)
    store.put(tmp_path / "tree")
    assert len(waited) == 3
    assert store.has(artifact.digest)
    store.get(artifact.digest, tmp_path / "copy")


def test_what_is_held_is_young_and_was_not_taken_by_a_collection(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "LOOK_EVERY", 0.01)
    digest = store.put(make_tree(tmp_path / "tree")).digest
    pin = Path(store.url, "pins", f"{digest}.json")
    os.utime(pin, (1, 1))
    assert store.hold(digest)
    assert time.time() - pin.stat().st_mtime < 60
    store.write("collecting", b"{}")

    def sleep(_: float) -> None:
        # The collection read the pins when this one was old; now it removes what nothing it knows of needs.
        shutil.rmtree(Path(store.url, "files"))
        Path(store.url, "collecting").unlink()

    monkeypatch.setattr(time, "sleep", sleep)
    assert not store.hold(digest)
    assert not store.hold("0" * 64)


def test_a_listing_that_is_missing_is_written_for_dvc_only_where_its_files_are(store: Store, tmp_path: Path) -> None:
    artifact = store.put(make_tree(tmp_path / "tree"))
    listing = Path(store.url, address(directory_address(artifact)))
    data = listing.read_bytes()
    listing.unlink()  # a collection goes in this order, and may be killed
    assert store.hold(artifact.digest)
    assert listing.read_bytes() == data
    listing.unlink()
    shutil.copytree(Path(store.url, "files"), tmp_path / "cache" / "files")
    object_of(store, artifact.members[0]).unlink()
    assert Store(store.url, mirrors=(str(tmp_path / "cache"),)).hold(artifact.digest)
    assert not listing.exists()


def test_a_collection_that_never_ends_is_an_error_that_says_what_to_remove(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "PATIENCE", 0.05)
    monkeypatch.setattr(collecting, "LOOK_EVERY", 0.02)
    store.write("collecting", b'{"who": "gc on host", "when": "2026-11-24"}')
    with pytest.raises(StoreError, match=r"a collection is going on for more than .*: if it is dead, remove"):
        store.put(make_tree(tmp_path / "tree"))


def test_a_transfer_that_takes_longer_shows_bytes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cairn.progress.FIRST_LINE", 0.0)
    monkeypatch.setattr("cairn.progress.LINE_EVERY", 0.0)
    digest = store.put(make_tree(tmp_path / "tree", large=40 << 20)).digest
    assert "storing tree: 42.0M/42.0M bytes" in capsys.readouterr().err
    store.get(digest, tmp_path / "copy")
    assert "fetching copy: 42.0M/42.0M bytes" in capsys.readouterr().err


def test_ctrl_c_stops_a_transfer_at_once(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    for name in ("one", "two", "three"):
        with open(folder / name, "wb") as file:
            file.truncate(4 << 30)
    child = subprocess.Popen(
        [sys.executable, "-c", PUT, store.url, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(0.5)
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    child.wait(timeout=60)
    assert time.monotonic() - began < 5
    assert child.returncode != 0
    assert leftovers(store) == []
    assert store.list("pins") == []


def killed(command: str, after: float, *arguments: str) -> None:
    """Run a program and kill it some seconds after it begins its work, if it is still there."""
    child = subprocess.Popen([sys.executable, "-c", command, *arguments], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(after)
    child.kill()
    child.wait()
    child.stdout.close()


def kill_puts_and_gets(store: Store, tmp_path: Path, times: int) -> None:
    tree = make_tree(tmp_path / "tree", large=48 << 20, small=300)
    digest, chance = digest_of(tree) or "", random.Random(times)
    for _ in range(times):
        killed(PUT, chance.random() * 0.5, store.url, str(tree))
        for pin in store.list("pins"):
            assert store.has(pin.removesuffix(".json"))
        for path in Path(store.url, "files").rglob("*"):
            if path.is_file() and not path.name.endswith(".dir"):
                assert hashlib.md5(path.read_bytes()).hexdigest() == path.parent.name + path.name
        if chance.random() < 0.5:
            shutil.rmtree(store.url, ignore_errors=True)
    store.put(tree)
    for _ in range(times):
        killed(GET, chance.random() * 0.3, store.url, digest, str(tmp_path / "copy"))
        assert digest_of(tmp_path / "copy") in (None, digest)
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    store.get(digest, tmp_path / "copy")
    assert digest_of(tmp_path / "copy") == digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "store", "tree"]


def test_killed_at_any_moment_a_second_put_or_get_ends_right(store: Store, tmp_path: Path) -> None:
    kill_puts_and_gets(store, tmp_path, 4)


@pytest.mark.slow
def test_killed_at_many_moments_a_second_put_or_get_ends_right(store: Store, tmp_path: Path) -> None:
    kill_puts_and_gets(store, tmp_path, 60)


def test_several_processes_put_and_get_the_same_at_once(store: Store, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    digest = digest_of(tree) or ""
    puts = [subprocess.Popen([sys.executable, "-c", PUT, store.url, str(tree)]) for _ in range(3)]
    assert [put.wait() for put in puts] == [0, 0, 0]
    assert leftovers(store) == []
    gets = [subprocess.Popen([sys.executable, "-c", GET, store.url, digest, str(tmp_path / "copy")]) for _ in range(3)]
    assert [get.wait() for get in gets] == [0, 0, 0]
    assert digest_of(tmp_path / "copy") == digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "store", "tree"]


MEMORY = """
import pathlib, sys
from cairn.lineage.store import Store
from cairn.resources import peak_rss

def peak():
    return int(peak_rss() * 1024)

store, folder = Store(sys.argv[1]), pathlib.Path(sys.argv[2])
store.get(store.put(folder / "little").digest, folder / "little.copy")
before = peak()
store.get(store.put(folder / "tree").digest, folder / "copy")
print(peak() - before)
"""


def memory_of_a_round(url: str, folder: Path, size: int) -> int:
    """MiB that putting and getting three files of together `size` bytes takes, beyond what little files take."""
    (folder / "tree").mkdir()
    (folder / "little").write_bytes(b"little")
    for number in range(3):
        with open(folder / "tree" / str(number), "wb") as file:
            file.write(b"%d" % number)
            file.truncate(size // 3)
    try:
        child = subprocess.run(
            [sys.executable, "-c", MEMORY, url, str(folder)], stdout=subprocess.PIPE, check=True, text=True
        )
        assert digest_of(folder / "copy") == digest_of(folder / "tree")
    finally:
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return int(child.stdout)


@pytest.mark.slow
def test_one_and_a_half_gigabytes_go_through_little_memory(tmp_path: Path) -> None:
    assert memory_of_a_round(str(tmp_path / "store"), tmp_path, 1536 << 20) < 300


@pytest.mark.slow
def test_a_transfer_to_a_bucket_takes_memory_for_what_is_in_flight_only(tmp_path: Path, s3: str) -> None:
    assert memory_of_a_round(f"{s3}/{tmp_path.name}", tmp_path, 768 << 20) < 600
