"""Snapshots: what a source stands for, what the lock file promises, and what is told when it cannot be kept."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from cairn.errors import RecipeError, SourceError
from cairn.lineage import attestation, signing
from cairn.lineage.artifact import digest_of
from cairn.lineage.stage import Outcome
from cairn.recipe import load
from components.snapshot.lock import Lock, LockedObject, LockedSource, read_lock
from components.snapshot.objects import find
from components.snapshot.recipe import Snapshot, Source
from tests.components.corpus import Corpus, source, texts


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    """An empty object store in this process, under memory://."""
    filesystem = MemoryFileSystem()
    filesystem.store.clear()
    yield filesystem
    filesystem.store.clear()


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A client of an S3 server of our own, with a bucket `plain` and a bucket `versions` that keeps versions."""
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        # fsspec remembers a file system, and with it the server of another test.
        s3fs.S3FileSystem.clear_instance_cache()
        client = boto3.client("s3")
        for bucket in ("plain", "versions"):
            client.create_bucket(Bucket=bucket)
        client.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
        yield client
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


# What a source stands for


def test_the_standard_library_is_listed_without_tests_and_in_one_order() -> None:
    library = Source(name="library", uri="python://stdlib", read="python-code", domain="code", licence="PSF-2.0")
    uris = [found.uri for found in find(library, "snapshot.sources[0]")]
    assert uris == sorted(set(uris), key=str.encode)
    assert len(uris) > 500
    assert {"python://stdlib/argparse.py", "python://stdlib/pydoc_data/topics.py"} <= set(uris)
    folders = {part for uri in uris for part in uri.split("/")[3:-1]}
    assert not folders & {"test", "tests", "idle_test", "site-packages", "__pycache__"}
    assert not [uri for uri in uris if "_sysconfigdata" in uri or uri.endswith("sitecustomize.py")]


def test_the_standard_library_makes_the_same_lock_twice_and_is_read_once_for_both_domains(tmp_path: Path) -> None:
    library = [
        source("python://stdlib/json", "code", read="python-code", kind="code"),
        source("python://stdlib/json", "docstrings", read="python-docstrings"),
    ]
    locks = []
    for name in ("here", "there"):
        corpus = Corpus(tmp_path / name)
        assert corpus.snapshot(*library) is Outcome.RAN
        locks.append(corpus.lock_file.read_bytes())
        assert corpus.locked() == 2 * [
            f"python://stdlib/json/{module}.py" for module in ("__init__", "decoder", "encoder", "scanner", "tool")
        ]
        pin = corpus.store.pin(corpus.lock.tree or "")
        assert pin is not None
        assert len(pin.members) == 5
        assert str(tmp_path).encode() not in locks[-1]
    assert locks[0] == locks[1]


def test_a_folder_stands_for_the_files_in_it_that_can_be_read(
    corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    readable = ["A.md", "a.txt", "deep/er/b.jsonl", "c.JSONL.GZ", "d.txt.zst", "e.parquet", "f.parquet.XZ", "é.txt"]
    for name in [*readable, "picture.png", "e.parquet.bz2", "archive.zip", "noext"]:
        corpus.put(name, "x")
    corpus.snapshot()
    assert corpus.locked() == [str(corpus.text / name) for name in sorted(readable, key=str.encode)]
    assert f"left out: {corpus.text}/archive.zip and 3 more (what is read: .txt .md" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("text", ["text/a.txt", "text/deep/b.txt"]),
        ("./text/", ["text/a.txt", "text/deep/b.txt"]),
        ("text/a.txt", ["text/a.txt"]),
        ("text/*.txt", ["text/a.txt"]),
        ("text/**/*.txt", ["text/a.txt", "text/deep/b.txt"]),
        ("{root}/text", ["{root}/text/a.txt", "{root}/text/deep/b.txt"]),
        ("file://{root}/text/deep", ["file://{root}/text/deep/b.txt"]),
        ("~/text/a.txt", ["~/text/a.txt"]),
    ],
)
def test_objects_are_named_as_the_recipe_named_their_source(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, written: str, expected: list[str]
) -> None:
    corpus.put("a.txt", "one")
    corpus.put("deep/b.txt", "two")
    monkeypatch.chdir(corpus.root)
    monkeypatch.setenv("HOME", str(corpus.root))
    corpus.snapshot(source(written.format(root=corpus.root)))
    assert corpus.locked() == [uri.format(root=corpus.root) for uri in expected]


@pytest.mark.parametrize("written", ["text", "text/**/*.txt"])
def test_hidden_files_are_left_out(corpus: Corpus, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    for name in ("seen.txt", ".hidden.txt", ".git/seen.txt", "deep/.hidden.txt"):
        corpus.put(name, name)
    monkeypatch.chdir(corpus.root)
    corpus.snapshot(source(written))
    assert corpus.locked() == ["text/seen.txt"]


def test_hidden_files_are_read_when_they_are_named(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.put(".notes/a.txt", "a")
    monkeypatch.chdir(corpus.root)
    corpus.snapshot(source("text/.notes/*.txt"), source("text/.notes", "folder"))
    assert corpus.locked() == 2 * ["text/.notes/a.txt"]


def test_a_link_to_a_file_is_read_and_other_links_and_pipes_are_told(
    corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = corpus.root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "target.txt").write_text("linked")
    corpus.text.joinpath("link.txt").symlink_to(elsewhere / "target.txt")
    corpus.text.joinpath("folder").symlink_to(elsewhere)
    corpus.text.joinpath("nowhere.txt").symlink_to("gone.txt")
    os.mkfifo(corpus.text / "pipe.txt")
    corpus.snapshot()
    assert corpus.locked() == [str(corpus.text / "link.txt")]
    assert f"left out: {corpus.text}/folder and 2 more (a link to a folder, a broken" in capsys.readouterr().err


def test_names_with_spaces_and_glob_characters_are_taken_literally(corpus: Corpus) -> None:
    odd = corpus.put("a [draft] #1?.txt", "odd")
    corpus.put("a d #1x.txt", "what the name matches as a glob")
    corpus.snapshot(source(odd))
    assert corpus.locked() == [str(odd)]
    assert texts(corpus.ingest()) == ["odd"]


def test_objects_in_memory_are_copied_into_the_store(corpus: Corpus, memory: MemoryFileSystem) -> None:
    memory.pipe_file("/b/two.txt", b"two")
    memory.pipe_file("/b/one.txt", b"one")
    corpus.snapshot(source("memory://b"))
    assert corpus.locked() == ["memory:///b/one.txt", "memory:///b/two.txt"]
    memory.store.clear()
    assert texts(corpus.ingest()) == ["one", "two"]


def test_two_sources_that_name_one_object_share_it(corpus: Corpus) -> None:
    shared, alike = corpus.put("shared.txt", "the same"), corpus.put("alike.txt", "the same")
    corpus.snapshot(source(corpus.text, "first"), source(shared, "second"))
    first, second = corpus.lock.sources
    assert [found.uri for found in first.objects] == [str(alike), str(shared)]
    assert second.objects == first.objects[1:]
    pin = corpus.store.pin(corpus.lock.tree or "")
    assert pin is not None
    assert [member.sha256 for member in pin.members] == [hashlib.sha256(b"the same").hexdigest()]


# Object stores


def test_a_bucket_that_keeps_versions_pins_them_itself(corpus: Corpus, s3: Any) -> None:
    for name in ("one", "two"):
        s3.put_object(Bucket="versions", Key=f"text/{name}.txt", Body=f"the first {name}".encode())
    corpus.snapshot(source("s3://versions/text"))
    assert corpus.lock.tree is None
    assert all(found.version and found.path is None for found in corpus.lock.sources[0].objects)
    s3.put_object(Bucket="versions", Key="text/one.txt", Body=b"a later one")
    s3.delete_object(Bucket="versions", Key="text/two.txt")
    assert corpus.snapshot(source("s3://versions/text")) is Outcome.UP_TO_DATE
    assert texts(corpus.ingest()) == ["the first one", "the first two"]


def test_a_version_that_is_gone_is_named(corpus: Corpus, s3: Any) -> None:
    version = s3.put_object(Bucket="versions", Key="gone/a.txt", Body=b"soon gone")["VersionId"]
    corpus.snapshot(source("s3://versions/gone"))
    s3.delete_object(Bucket="versions", Key="gone/a.txt", VersionId=version)
    with pytest.raises(SourceError, match=rf"^s3://versions/gone/a\.txt: version {version} cannot be read: "):
        corpus.ingest()


def test_a_bucket_without_versions_is_copied_into_the_store(corpus: Corpus, s3: Any) -> None:
    s3.put_object(Bucket="plain", Key="text/a.txt", Body=b"as it was")
    corpus.snapshot(source("s3://plain/text/*.txt"))
    s3.put_object(Bucket="plain", Key="text/a.txt", Body=b"overwritten")
    assert corpus.locked() == ["s3://plain/text/a.txt"]
    assert texts(corpus.ingest()) == ["as it was"]


def test_a_bucket_that_is_not_there_is_named(corpus: Corpus, s3: Any) -> None:
    with pytest.raises(SourceError, match=r"snapshot\.sources\[0\]\.uri: s3://nobody/here: no such file, folder or"):
        corpus.snapshot(source("s3://nobody/here"))


# The lock stands


def test_a_lock_stands_while_upstream_changes_and_a_refresh_takes_the_new_state(corpus: Corpus) -> None:
    changed, gone = corpus.put("a.txt", "as it was"), corpus.put("b.txt", "gone soon")
    assert corpus.snapshot() is Outcome.RAN
    before = corpus.lock_file.read_bytes()
    changed.write_text("as it is now")
    gone.unlink()
    corpus.put("c.txt", "new")
    assert corpus.snapshot() is Outcome.UP_TO_DATE
    assert corpus.lock_file.read_bytes() == before
    assert texts(corpus.ingest()) == ["as it was", "gone soon"]
    assert corpus.snapshot(refresh=True) is Outcome.RAN
    assert texts(corpus.ingest("refreshed")) == ["as it is now", "new"]


def test_nothing_is_read_while_the_lock_stands(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.put("a.txt", "a")
    corpus.snapshot()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a source was looked at although the lock file is up to date")

    monkeypatch.setattr("components.snapshot.snapshot.find", refuse)
    assert corpus.snapshot() is Outcome.UP_TO_DATE


def test_a_changed_recipe_makes_a_new_lock(corpus: Corpus) -> None:
    corpus.put("a.txt", "a")
    corpus.snapshot()
    assert corpus.snapshot(source(corpus.text, licence="MIT")) is Outcome.RAN
    assert corpus.lock.sources[0].licence == "MIT"


def test_a_refresh_of_what_did_not_change_makes_the_same_bytes(corpus: Corpus) -> None:
    corpus.put("a.txt", "a")
    corpus.snapshot()
    before = corpus.lock_file.read_bytes()
    assert corpus.snapshot(refresh=True) is Outcome.UP_TO_DATE
    assert corpus.lock_file.read_bytes() == before


def test_nobody_has_looked_for_an_opt_out_on_a_day_that_is_to_come(corpus: Corpus) -> None:
    corpus.put("a.txt", "a")
    for days in (1, -400):
        checked = (datetime.now(UTC).date() + timedelta(days=days)).isoformat()
        corpus.snapshot(source(corpus.text, opt_out={**OPT_OUT, "checked": checked}))
    later = (datetime.now(UTC).date() + timedelta(days=2)).isoformat()
    with pytest.raises(SourceError, match=rf"^snapshot\.sources\[0\]\.opt_out\.checked: {later} is to come: "):
        corpus.snapshot(source(corpus.text, opt_out={**OPT_OUT, "checked": later}))


def lose_objects(corpus: Corpus) -> None:
    """Remove all bytes from the store; pins and attestations stay."""
    for path in Path(corpus.store.url, "files").rglob("*"):
        if path.is_file():
            path.unlink()


def test_objects_that_the_store_lost_are_put_back_from_upstream(
    corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus.put("a.txt", "a")
    corpus.snapshot()
    before = corpus.lock_file.read_bytes()
    lose_objects(corpus)
    capsys.readouterr()
    assert corpus.snapshot() is Outcome.RESTORED
    assert "the store had lost source objects: they were read again" in capsys.readouterr().err
    assert corpus.lock_file.read_bytes() == before
    assert texts(corpus.ingest()) == ["a"]


def test_objects_that_the_store_lost_and_upstream_changed_are_told(corpus: Corpus) -> None:
    changed = corpus.put("a.txt", "a")
    corpus.put("b.txt", "b")
    corpus.snapshot()
    before = corpus.lock_file.read_bytes()
    lose_objects(corpus)
    changed.write_text("changed")
    with pytest.raises(SourceError, match=rf"does not hold its objects .* 1 objects changed since, such as {changed}"):
        corpus.snapshot()
    assert corpus.lock_file.read_bytes() == before
    assert corpus.snapshot(refresh=True) is Outcome.RAN


def test_the_attestation_names_every_object_and_the_lock_file(corpus: Corpus) -> None:
    uris = {str(corpus.put(name, name)): name for name in ("a.txt", "b.md", "deep/c.txt")}
    corpus.snapshot()
    digest = digest_of(corpus.lock_file)
    assert digest
    ((_, envelope),) = attestation.made(corpus.store, digest)
    verified = attestation.verify(envelope, signing.trusted_keys())
    assert verified.outputs == {"sources": digest}
    named = {one.uri: one.sha256 for one in verified.objects}
    assert verified.inputs == {}
    assert named == {uri: hashlib.sha256(name.encode()).hexdigest() for uri, name in uris.items()}
    assert corpus.store.has(digest)
    assert corpus.store.has(corpus.lock.tree or "")


def test_a_look_that_finds_nothing_leaves_no_work_that_seems_to_be_stopped(corpus: Corpus) -> None:
    with pytest.raises(SourceError, match="no such file, folder or object"):
        corpus.snapshot(source("nowhere"))
    assert not (corpus.root / ".cairn" / "work").exists()


def test_a_snapshot_that_was_stopped_and_gone_on_with_has_both_launches_attested(corpus: Corpus) -> None:
    corpus.put("a.txt", "a")
    with pytest.raises(SourceError, match="cannot be read"):
        corpus.snapshot(source(corpus.text), source(broken(corpus), name="broken"))
    (log,) = (corpus.root / ".cairn" / "work").glob("snapshot-*/attempts.jsonl")
    assert len(log.read_text().splitlines()) == 1
    (corpus.root / "broken" / "b.txt").unlink()
    (corpus.root / "broken" / "b.txt").write_text("b")
    corpus.snapshot(source(corpus.text), source(corpus.root / "broken", name="broken"))
    found = attestation.maker(corpus.store, digest_of(corpus.lock_file) or "")
    assert found
    assert len(found.attempts) == 2
    assert found.attempts[1]["invocation"] == found.invocation


def broken(corpus: Corpus) -> Path:
    """A source with a file that can be listed and not read."""
    folder = corpus.root / "broken"
    folder.mkdir()
    (folder / "b.txt").symlink_to("/proc/self/mem")
    return folder


OPT_OUT = {"checked": "2026-11-24", "evidence": "https://a.example/robots.txt allows all", "says": "allowed"}


def test_lock_file_and_attestations_say_where_the_licence_is_and_what_was_found_of_opt_outs(corpus: Corpus) -> None:
    corpus.put("a.txt", "a" * 90)
    licence = "https://a.example/licence"
    corpus.write_recipe(source("text", licence_evidence=licence, opt_out=OPT_OUT), source("text", name="again"))
    corpus.door("snapshot")
    corpus.door("ingest")
    first, second = corpus.lock.sources
    assert first.licence_evidence == licence
    assert first.opt_out is not None
    assert first.opt_out.model_dump(mode="json") == OPT_OUT
    assert (second.licence_evidence, second.opt_out) == (None, None)
    data = b"a" * 90
    sha256 = hashlib.sha256(data).hexdigest()
    for artifact in (corpus.lock_file, corpus.root / "artifacts" / "documents"):
        found = attestation.maker(corpus.store, digest_of(artifact) or "")
        assert found
        assert found.missing() == []
        assert found.expected_key() == found.stage_key
        (one,) = found.objects
        assert (one.uri, one.sha256) == (first.objects[0].uri, sha256)
        said = dict(one.annotations or {})
        named, again = said.pop("sources")
        assert said == {"size": len(data), "path": f"{sha256[:2]}/{sha256[2:]}"}
        assert (named["name"], named["licence"], named["licence_evidence"]) == ("text", "CC0-1.0", licence)
        assert named["opt_out"] == OPT_OUT
        assert (again["name"], again["licence_evidence"], again["opt_out"]) == ("again", None, None)


def test_an_object_that_its_store_pins_is_attested_with_its_version(tmp_path: Path) -> None:
    sha256, version = "a" * 64, "1700000000000000"
    locked = LockedObject(uri="gs://bucket/a.txt", path=None, version=version, size=3, sha256=sha256)
    said: dict[str, Any] = source("gs://bucket/*.txt", name="bucket")
    said = dict(Source(**said))
    lock = Lock(
        format="cairn-sources-v1", recipe="b" * 64, tree=None, sources=(LockedSource(**said, objects=(locked,)),)
    )
    (one,) = lock.resources()
    assert one.descriptor() == {
        "uri": "gs://bucket/a.txt",
        "digest": {"sha256": sha256},
        "annotations": {"size": 3, "version": version, "sources": ["bucket"]},
    }


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            {"opt_out": {**OPT_OUT, "says": "reserved"}},
            "source 'text': its rights are reserved: take it out of the recipe, or ask for a licence and give that as",
        ),
        ({"opt_out": "allowed"}, "opt_out: is a section: write it as {checked: …, evidence: …, says: …} (got"),
        ({"opt_out": {**OPT_OUT, "says": "unknown"}}, "opt_out.says: input should be 'allowed', 'reserved' or"),
        ({"opt_out": {**OPT_OUT, "checked": "24.11.2026"}}, "opt_out.checked: input should be a valid date"),
        ({"opt_out": {**OPT_OUT, "evidence": ""}}, "opt_out.evidence: string should have at least 1 character"),
        ({"opt_out": {**OPT_OUT, "evidence": "https://u:p@a.example/"}}, "https URL with a user or password"),
        ({"opt_out": {"says": "allowed"}}, "opt_out.checked: missing: add it"),
        ({"licence_evidence": "https://a.example/?token=swordfish"}, "licence_evidence: https URL with token=…"),
    ],
)
def test_evidence_that_cannot_be_relied_on_or_shown_is_refused_by_name(
    corpus: Corpus, said: dict[str, Any], told: str
) -> None:
    corpus.put("a.txt", "a")
    corpus.write_recipe(source("text", **said))
    printed = corpus.door("snapshot", code=2)
    assert told in printed
    assert "params.yaml:" in printed
    assert "swordfish" not in printed
    assert len(printed.splitlines()) == 1
    assert not corpus.lock_file.exists()


def test_a_lock_file_of_before_there_was_evidence_is_taken_for_stale_and_made_anew(corpus: Corpus) -> None:
    corpus.put("a.txt", "a")
    corpus.write_recipe()
    corpus.door("snapshot")
    said = json.loads(corpus.lock_file.read_bytes())
    for one in said["sources"]:
        del one["licence_evidence"], one["opt_out"]
    corpus.lock_file.write_text(json.dumps({**said, "recipe": "0" * 64}))
    corpus.door("snapshot")
    assert json.loads(corpus.lock_file.read_bytes())["sources"][0]["opt_out"] is None


# Killed, or changed meanwhile

CHILD = """
import os, signal, sys
from pathlib import Path
import components.snapshot.snapshot as stage
from tests.components.corpus import Corpus
stage.READS = 1
copy, left = stage._Reader._copy, 3
def copy_three(*arguments):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return copy(*arguments)
stage._Reader._copy = copy_three
corpus = Corpus.__new__(Corpus)
corpus.__dict__.update(root=Path("."), text=Path("text"), lock_file=Path("sources.lock.json"))
corpus.store = stage.Store(".cairn/store")
corpus.snapshot()
"""


def test_a_killed_snapshot_goes_on_and_reads_again_only_what_changed(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        corpus.put(f"{number}.txt", f"text {number}")
    killed = subprocess.run([sys.executable, "-c", CHILD], **corpus.place(), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not corpus.lock_file.exists()
    corpus.put("1.txt", "text 1, changed since")
    opened = []
    real = LocalFileSystem.open

    def spy(self: LocalFileSystem, path: str, *arguments: Any, **options: Any) -> Any:
        opened.append(Path(path).name)
        return real(self, path, *arguments, **options)

    monkeypatch.setattr(LocalFileSystem, "open", spy)
    monkeypatch.chdir(corpus.root)
    corpus.lock_file, corpus.root = Path("sources.lock.json"), Path()
    assert corpus.snapshot(source("text")) is Outcome.RAN
    assert sorted(name for name in opened if name.endswith(".txt")) == ["1.txt", "3.txt", "4.txt", "5.txt"]
    assert list(Path(".cairn/work").iterdir()) == []
    undisturbed = Corpus(tmp_path / "undisturbed")
    monkeypatch.chdir(undisturbed.root)
    for number in range(6):
        undisturbed.put(f"{number}.txt", f"text {number}{', changed since' * (number == 1)}")
    undisturbed.snapshot(source("text"))
    assert undisturbed.lock_file.read_bytes() == (tmp_path / "sources.lock.json").read_bytes()


@pytest.mark.parametrize("later", ["a line\nanother line\n", "A LINE\n"])
def test_an_object_that_changes_while_it_is_read_is_refused(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, later: str
) -> None:
    log = corpus.put("log.txt", "a line\n")
    os.utime(log, (0, 0))  # the clock of a file system may stand still for milliseconds
    real = LocalFileSystem.open

    def open_and_write(self: LocalFileSystem, path: str, *arguments: Any, **options: Any) -> Any:
        opened = real(self, path, *arguments, **options)
        log.write_text(later)
        return opened

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "open", open_and_write)
        with pytest.raises(SourceError, match=rf"{log}: changed while it was read: try again when it is at rest"):
            corpus.snapshot()
    assert not corpus.lock_file.exists()
    assert corpus.snapshot() is Outcome.RAN
    assert texts(corpus.ingest()) == [later]


# Bad input


@pytest.mark.parametrize(
    ("made", "uri", "told"),
    [
        ([], "text/none.txt", "text/none.txt: no such file, folder or object"),
        ([], "text/*.txt", "text/*.txt: no file or object matches"),
        (
            [],
            "text",
            "text: holds no file that can be read (.txt .md .html .htm .warc .wet .jsonl .ndjson .parquet .arrow, each "
            "also .gz .zst .xz)",
        ),
        (["a.pdf", "b.pdf"], "text", "text: holds 2 files, but none that can be read (.txt .md"),
        (["a.pdf"], "text/a.pdf", "text/a.pdf: has no suffix that can be read (.txt .md"),
        ([], "nope://text", "nope://text: no file system has the scheme 'nope'"),
        ([], "http://127.0.0.1:1/a.txt", "http://127.0.0.1:1/a.txt: cannot be read: Cannot connect to host"),
        ([], "python://stdlib/nowhere", "python://stdlib/nowhere: holds no file that can be read (.py)"),
        ([], "python://site/json", "python://site/json: python://stdlib is the only one of its kind"),
    ],
)
def test_a_source_that_stands_for_nothing_is_told(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, made: list[str], uri: str, told: str
) -> None:
    for name in made:
        corpus.put(name, "x")
    monkeypatch.chdir(corpus.root)
    read = "python-code" if uri.startswith("python") else "auto"
    with pytest.raises(SourceError) as raised:
        corpus.snapshot(source(uri, read=read))
    assert str(raised.value).startswith(f"snapshot.sources[0].uri: {told}")
    assert not corpus.lock_file.exists()


def test_an_object_whose_name_is_not_utf8_is_told_unless_it_would_not_be_read(
    corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus.put("a.txt", "a")
    Path(os.fsdecode(os.fsencode(corpus.text) + b"/caf\xe9.png")).touch()
    corpus.snapshot()
    assert r"caf\xe9.png" in capsys.readouterr().err
    Path(os.fsdecode(os.fsencode(corpus.text) + b"/caf\xe9.txt")).touch()
    with pytest.raises(SourceError, match=r"caf\\xe9\.txt': the name is not UTF-8: rename the file"):
        corpus.snapshot(refresh=True)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"uri": "s3://key:hunter2@bucket/a"}, "s3 URL with a user or password: credentials go into the environment"),
        ({"uri": "https://x.org/a.txt?sig=hunter2"}, "https URL with sig=…: credentials go into the environment"),
        (
            {"uri": "https://b.s3.amazonaws.com/a.txt?X-Amz-Date=20260101&X-Amz-Signature=hunter2"},
            "https URL with X-Amz-Signature=…: credentials go into the environment",
        ),
        ({"uri": "zip://a.txt::s3://bucket/a.zip"}, "is a chained URL: unpack it first"),
        ({"uri": "python://stdlib"}, "python://stdlib needs read: python-code or read: python-docstrings"),
        ({"licence": "free for all"}, "'free for all' is not an SPDX expression, such as CC-BY-4.0"),
        ({"name": "My Text"}, "sources.0.name: string should match pattern"),
        ({"domian": "x"}, "sources.0.domian: unknown key; did you mean 'domain'?"),
        ({"read": "python"}, "sources.0.read: input should be 'auto', 'python-code' or 'python-docstrings'"),
    ],
)
def test_a_source_that_cannot_be_meant_is_told_by_the_recipe(
    tmp_path: Path, changes: dict[str, str], told: str
) -> None:
    recipe = tmp_path / "params.yaml"
    recipe.write_text(json.dumps({"sources": [{**source("text"), **changes}]}))
    with pytest.raises(RecipeError) as raised:
        load(Snapshot, recipe)
    assert told in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_two_sources_of_one_name_are_told(tmp_path: Path) -> None:
    recipe = tmp_path / "params.yaml"
    recipe.write_text(json.dumps({"sources": [source("a"), source("b")]}))
    with pytest.raises(RecipeError, match="two sources are named 'text': names must differ"):
        load(Snapshot, recipe)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "the file: Invalid JSON"),
        (b"\xff", "the file: Invalid JSON"),
        (b"{}", "format: Field required"),
        (None, "cannot be read: Is a directory"),
    ],
)
def test_a_lock_file_that_is_none_is_told(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "sources.lock.json"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(SourceError) as raised:
        read_lock(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert told in str(raised.value)


def test_a_lock_file_that_says_not_where_its_bytes_are_is_told(corpus: Corpus) -> None:
    corpus.put("a.txt", "a")
    corpus.snapshot()
    said = json.loads(corpus.lock_file.read_text())
    said["sources"][0]["objects"][0]["path"] = None
    corpus.lock_file.write_text(json.dumps(said))
    with pytest.raises(SourceError, match=r"sources\.0\.objects\.0: .*either path or version says where its bytes are"):
        corpus.ingest()


def test_the_door_tells_a_missing_path_in_one_line_and_writes_nothing(corpus: Corpus) -> None:
    corpus.write_recipe(source("text/none.txt"))
    said = corpus.door("snapshot", code=2)
    assert said == "error: snapshot.sources[0].uri: text/none.txt: no such file, folder or object\n"
    assert not corpus.lock_file.exists()


def test_the_door_makes_the_lock_then_leaves_it_then_refreshes_it(corpus: Corpus) -> None:
    corpus.put("a.txt", "a")
    corpus.write_recipe()
    assert "snapshot: 1 objects, 0.0 MB, sources " in corpus.door("snapshot")
    before = corpus.lock_file.read_bytes()
    corpus.put("a.txt", "b")
    assert corpus.door("snapshot") == "snapshot: up to date\n"
    assert corpus.lock_file.read_bytes() == before
    corpus.door("snapshot", "--refresh")
    assert read_lock(corpus.lock_file).sources[0].objects[0].sha256 == hashlib.sha256(b"b").hexdigest()
    assert str(corpus.root) not in corpus.lock_file.read_text()


@pytest.mark.parametrize("damage", ["removed", "cut short"])
def test_the_pin_of_a_lock_file_that_is_up_to_date_is_written_anew(tmp_path: Path, damage: str) -> None:
    corpus = Corpus(tmp_path / "project")
    corpus.put("a.txt", "what the walker found")
    corpus.snapshot()
    digest = digest_of(corpus.lock_file) or ""
    sound = corpus.store.pin(digest)
    path = Path(corpus.store.url, "pins", f"{digest}.json")
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9])
    assert corpus.snapshot() is Outcome.UP_TO_DATE
    assert sound
    assert corpus.store.pin(digest) == sound
