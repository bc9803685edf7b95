"""`cairn store`: what a person types to look after a store, and what is said."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cairn.lineage.artifact import Artifact
from cairn.lineage.contents import Contents, top_address
from cairn.lineage.hashing import LARGE
from cairn.lineage.signing import trusted_keys
from cairn.lineage.store import Store
from cairn.lineage.verification import verify
from tests.cli.conftest import Cairn, on_a_terminal
from tests.lineage.care import attest, git, grow_old, lock_of, needs, note_run, object_path, objects, write
from tests.pipelines.project import Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project in Git, whose store is `.cairn/store`."""
    monkeypatch.delenv("CAIRN_STORE", raising=False)
    root = write(tmp_path / "project", {".gitignore": "/.cairn/\n"})
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "Nothing yet")
    Path(root, ".cairn", "store").mkdir(parents=True)
    return root


@pytest.fixture
def kept(project: Path) -> Store:
    """Its store."""
    return Store(str(project / ".cairn" / "store"))


@pytest.fixture
def documents(kept: Store, tmp_path: Path) -> Artifact:
    """What a run made, attested."""
    artifact = kept.put(write(tmp_path / "documents", {"0.parquet": "x" * 1500, "ledger.json": "{}"}))
    attest(kept, {"documents": artifact.digest})
    note_run(kept, "first", {"documents": artifact.digest})
    return artifact


@pytest.fixture
def forgotten(kept: Store, documents: Artifact, tmp_path: Path) -> Artifact:
    """What nothing names; everything is a month old."""
    artifact = kept.put(write(tmp_path / "forgotten", {"weights": "y" * 2500}))
    attest(kept, {"checkpoint": artifact.digest}, finished="2026-02-01T00:00:00+00:00", component="pretrain")
    grow_old(kept, 30)
    return artifact


def test_ls_shows_what_each_artifact_is_the_newest_first(
    cairn: Cairn, project: Path, kept: Store, documents: Artifact, forgotten: Artifact
) -> None:
    object_path(kept, forgotten.members[0].md5).unlink()
    kept.write("files/md5/ab/" + "c" * 30, b"of nobody")
    said = cairn("store", "ls", at=project)
    head, first, second, total, objects_line = said.out.splitlines()
    assert head.split() == ["digest", "what", "by", "when", "size", "files", "here"]
    assert first.split()[:4] == [forgotten.digest[:12], "checkpoint", "pretrain", "0.1.0"]
    assert first.split()[7:] == ["2.5", "kB", "1", "1", "of", "2", "objects", "missing"]
    assert second.split() == [
        documents.digest[:12], "documents", "ingest", "0.1.0", "2026-01-01", "00:00", "UTC", "1.5", "kB", "2", "yes",
    ]  # fmt: skip
    assert total == "2 artifacts, 1 of them whole, in .cairn/store"
    assert objects_line.endswith("no pin names 1 of them, 9 B")
    found = json.loads(cairn("store", "ls", "--json", documents.digest[:8], at=project).out)
    assert [one["digest"] for one in found["artifacts"]] == [documents.digest]
    assert (found["artifacts"][0]["whole"], found["unpinned"]) == (True, 1)
    assert "0.parquet" in cairn("store", "ls", documents.digest, at=project).out


def test_ls_of_what_a_stranger_attested_tells_no_name(
    cairn: Cairn, project: Path, documents: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CAIRN_HOME", str(tmp_path / "another-person"))
    (item,) = json.loads(cairn("store", "ls", "--json", at=project).out)["artifacts"]
    assert (item["name"], item["component"]) == ("", "")


def test_ls_lists_runs_and_models(cairn: Cairn, project: Path, kept: Store, documents: Artifact) -> None:
    kept.swap("models/small/current", 0, {"model": documents.digest})
    runs = cairn("store", "ls", "--runs", at=project).out
    assert f"ingest done  documents {documents.digest[:12]}" in runs
    models = cairn("store", "ls", "--models", at=project).out
    assert models.splitlines()[1].split() == ["small", "1", documents.digest[:12]]
    (run,) = json.loads(cairn("store", "ls", "--runs", "--json", at=project).out)
    assert (run["name"], run["outputs"]) == ("first", {"documents": documents.digest})
    assert json.loads(cairn("store", "ls", "--models", "--json", at=project).out) == {
        "small": {"version": 1, "digests": [documents.digest]}
    }


def test_the_table_fits_a_narrow_terminal(project: Path, documents: Artifact) -> None:
    shown = on_a_terminal("store", "ls", at=project, columns=60)
    assert max(map(len, shown.splitlines())) <= 60


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ls", "abc"], "error: .cairn/store: the digest 'abc' has less than 6 characters: `cairn store ls` shows"),
        (["verify", "0" * 12], "error: .cairn/store: the digest '000000000000' fits no artifact: `cairn store ls`"),
        (
            ["verify", "--from", "elsewhere"],
            "error: --from names where good copies are fetched from: it goes with --re",
        ),
        (["gc", "--older-than", "soon"], "error: --older-than 'soon': is no age: write one such as 36h or 7d"),
        (["gc", "--older-than", "-1d"], "error: --older-than '-1d': is no age"),
        (["gc", "--git", ".", "--no-git"], "error: --git and --no-git: only one of them can be meant"),
        (["gc", "--git", "/"], "error: /: is in no Git repository, which would say what branches"),
        (
            ["cp", "--to", "elsewhere"],
            "error: nothing to copy: name digests (`cairn store ls` shows them), or say --all",
        ),
        (["cp", "0" * 64, "--all", "--to", "elsewhere"], "error: --all copies every artifact: name digests, or say"),
        (["cp", "--all", "--to", ".cairn/store"], "error: --to .cairn/store: is the store that is copied from:"),
        (["cp", "--all", "--to", ".cairn/store/x"], "error: --to .cairn/store/x: lies inside the store that is"),
        (
            ["cp", "--all", "--from", "nowhere", "--to", "x"],
            "error: nowhere: no such store: `cairn run` makes one, and --from names another",
        ),
        (["verify", "--repair", "--from", "nowhere"], "error: nowhere: no such store:"),
        (["ls", "--store", "http://localhost:1/x"], "error: http://localhost:1/x: cannot be reached: Cannot connect"),
        (["ls", "--store", "nowhere"], "error: nowhere: no such store:"),
        (["ls", "--store", "ftp+x://y"], "error: ftp+x://y: not a store that can be opened"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    cairn: Cairn, project: Path, kept: Store, forgotten: Artifact, words: list[str], said: str
) -> None:
    before = sorted(path for path in project.rglob("*"))
    answer = cairn("store", *words, at=project)
    assert (answer.code, answer.err.count("\n"), answer.out) == (2, 1, "")
    assert answer.err.startswith(said)
    assert sorted(path for path in project.rglob("*")) == before


def test_verify_names_a_fault_and_repair_puts_it_right(
    cairn: Cairn, project: Path, kept: Store, documents: Artifact
) -> None:
    assert cairn("store", "verify", at=project).out.splitlines()[-1] == "no faults"
    write(project, {"artifacts/documents/0.parquet": "x" * 1500, "artifacts/documents/ledger.json": "{}"})
    object_path(kept, documents.members[0].md5).unlink()
    said = cairn("store", "verify", "--no-bytes", at=project)
    assert said.code == 1
    assert "WRONG: files/md5/" in said.out
    assert "0.parquet missing, but the `.dir` object is there, so `dvc push` takes it for sent" in said.out
    assert "`cairn store verify --repair` fetches a good copy" in said.out
    assert said.out.splitlines()[-1] == "1 fault"
    said = cairn("store", "verify", "--repair", at=project)
    assert (said.code, said.out.splitlines()[-1]) == (0, "no faults, 1 mended")
    assert objects(kept) == needs(documents)
    report = json.loads(cairn("store", "verify", "--json", documents.digest[:12], at=project).out)
    assert (report["wrong"], report["whole"]) == (0, 1)


def test_verify_repairs_from_another_store(cairn: Cairn, project: Path, kept: Store, documents: Artifact) -> None:
    assert cairn("store", "cp", "--all", "--to", "../backup", at=project).code == 0
    path = object_path(kept, documents.members[0].md5)
    path.write_bytes(b"z" * 1500)
    said = cairn("store", "verify", "--repair", "--from", "../backup", "--json", at=project)
    assert said.code == 0
    assert json.loads(said.out)["faults"][0]["repaired"] == "fetched 1 object"
    assert path.read_bytes() == b"x" * 1500


def test_gc_shows_first_and_deletes_when_told(
    cairn: Cairn, project: Path, kept: Store, documents: Artifact, forgotten: Artifact
) -> None:
    before = objects(kept)
    said = cairn("store", "gc", at=project)
    assert said.code == 0
    assert f"{forgotten.digest[:12]}  checkpoint  2026-02-01 00:00 UTC" in said.out
    assert "no run, model or Git ref names it, or what was made from it" in said.out
    assert said.out.splitlines()[-1].startswith("would be removed: 2 objects, 2.6 kB; --delete removes them")
    assert objects(kept) == before
    assert cairn("store", "gc", "--older-than", "5w", at=project).out.splitlines()[-1] == "nothing to remove"
    said = cairn("store", "gc", "--delete", "--json", at=project)
    listing = '[{"md5": "8cb3c1a2921043307c7836ce6fdb721b", "relpath": "weights"}]'
    assert (json.loads(said.out)["bytes"], json.loads(said.out)["deleted"]) == (2500 + len(listing), True)
    assert objects(kept) == needs(documents)


def test_gc_keeps_what_a_branch_names_and_refuses_where_git_cannot_be_asked(
    cairn: Cairn, project: Path, kept: Store, forgotten: Artifact
) -> None:
    git(project, "checkout", "-qb", "experiment")
    write(project, {"dvc.lock": lock_of(forgotten)})
    git(project, "add", "-A")
    git(project, "commit", "-qm", "An experiment")
    git(project, "checkout", "-q", "main")
    before = objects(kept)
    assert cairn("store", "gc", "--delete", at=project).out.splitlines()[-1] == "removed: 0 objects, 0 B"
    assert objects(kept) == before
    os.rename(project / ".git", project / "hidden")
    said = cairn("store", "gc", "--delete", at=project)
    assert said.code == 2
    assert "is in no Git repository" in said.err
    assert said.err.endswith("name the repository with --git, or say --no-git\n")
    assert objects(kept) == before
    cairn("store", "gc", "--delete", "--no-git", at=project)
    assert len(objects(kept)) == len(before) - 2


def test_gc_of_any_age_warns(cairn: Cairn, project: Path, forgotten: Artifact) -> None:
    said = cairn("store", "gc", "--older-than", "0", at=project)
    assert said.err == "warning: of what a run is writing now, all may be removed: nobody should be using this store\n"


def test_cp_takes_what_an_audit_needs(
    cairn: Cairn, project: Path, kept: Store, documents: Artifact, forgotten: Artifact, tmp_path: Path
) -> None:
    model = kept.put(write(tmp_path / "model", {"model.safetensors": "m"}))
    attest(kept, {"model": model.digest}, {"documents": documents.digest})
    words = ("store", "cp", model.digest[:10], "--ancestors", "--to", "../copy")
    said = cairn(*words, "--dry-run", at=project)
    assert said.out == "2 artifacts to ../copy: 3 objects would be sent, 1.5 kB; 0 were there\n"
    assert not (tmp_path / "copy").exists()
    assert cairn(*words, at=project).out.startswith("2 artifacts to ../copy: 3 objects sent, 1.5 kB; 0 were there; 4 ")
    copy = Store(str(tmp_path / "copy"))
    assert copy.has(model.digest)
    assert copy.has(documents.digest)
    assert copy.pin(forgotten.digest) is None
    object_path(kept, documents.members[0].md5).unlink()
    shutil.rmtree(tmp_path / "copy")
    said = cairn(*words, "--json", at=project)
    assert (said.code, json.loads(said.out)["lacking"]) == (1, {documents.digest: ["0.parquet"]})


def test_a_whole_project_is_sound_keeps_everything_and_can_be_copied(
    cairn: Cairn, copy: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CAIRN_STORE", raising=False)
    copy.run("dvc", "push", "-q")
    store = Store(str(copy.root / ".cairn" / "store"))
    grow_old(store, 30)
    assert cairn("store", "verify", at=copy.root).out.splitlines()[-1] == "no faults"
    listed = json.loads(cairn("store", "ls", "--json", at=copy.root).out)["artifacts"]
    assert {one["name"] for one in listed} >= {"sources", "documents", "tokens", "checkpoint", "model", "report"}
    assert all(one["whole"] for one in listed)
    before = objects(store)
    cairn("store", "gc", "--delete", at=copy.root)
    assert objects(store) == before
    (model,) = [one["digest"] for one in listed if one["name"] == "model"]
    assert cairn("store", "cp", model, "--ancestors", "--to", str(tmp_path / "audited"), at=copy.root).code == 0
    audited = Store(str(tmp_path / "audited"))
    report, known = verify(audited, trusted_keys())
    assert report.faults == []
    assert report.whole == len(known.pinned)
    names = {one["name"] for one in listed if one["digest"] in known.pinned}
    assert names - {""} == {
        "sources", "objects", "documents", "tokenizer", "tokens", "checkpoint", "optimizer", "model",
    }  # fmt: skip
    files = {artifact.members[0].path for artifact in known.pinned.values() if not artifact.is_directory}
    assert files >= {"sources.lock.json", "requirements.lock"}
    assert top_address(known.pinned[model]) in objects(audited)
    assert not list(Contents(audited.url).walk("runs"))
    # An auditor has the copy and the key, and nothing else.
    (tmp_path / "auditor").mkdir()
    said = cairn("audit", model, "--store", str(tmp_path / "audited"), at=tmp_path / "auditor")
    assert said.code == 0, said.out


def test_no_name_is_broken_on_a_narrow_terminal(project: Path, kept: Store, documents: Artifact) -> None:
    lock = kept.put(write(project, {"requirements.torch-cuda.lock": "x"}) / "requirements.torch-cuda.lock")
    note_run(kept, "a-run-of-which-the-name-is-so-long-that-it-takes-a-line", {"lock": lock.digest})
    for columns in (40, 60, 80):
        assert "requirements.torch-cuda.lock" in on_a_terminal("store", "ls", at=project, columns=columns)
        shown = on_a_terminal("store", "ls", "--runs", at=project, columns=columns)
        assert "a-run-of-which-the-name-is-so-long-that-it-takes-a-line" in shown
        assert lock.digest[:12] in shown


def test_a_table_that_is_piped_is_as_wide_as_it_is_told(
    cairn: Cairn, project: Path, documents: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    assert max(map(len, cairn("store", "ls", at=project).out.splitlines())) <= 50


def test_ls_of_one_artifact_marks_the_file_that_is_missing(
    cairn: Cairn, project: Path, kept: Store, documents: Artifact
) -> None:
    object_path(kept, documents.members[1].md5).unlink()
    lines = cairn("store", "ls", documents.digest[:12].upper(), at=project).out.splitlines()
    assert [line.split()[0] for line in lines if line.endswith("MISSING")] == ["ledger.json"]


def test_verify_names_what_does_not_belong_there(cairn: Cairn, project: Path, kept: Store, documents: Artifact) -> None:
    write(Path(kept.url), {"tmp/1": "x", "files/md5/aa/README": "x"})
    said = cairn("store", "verify", at=project).out
    assert "1 left behind by killed uploads, which `cairn store gc --delete` sweeps when old: tmp/1" in said
    assert "1 none of ours, for you to look at and to move away: files/md5/aa/README" in said


def test_a_full_disk_names_the_store_that_is_full(project: Path, kept: Store, tmp_path: Path) -> None:
    artifact = kept.put(write(tmp_path / "large", {"a": b"x" * (LARGE + 2_000_000), "b": b"y" * 1_500_000}))
    source = write(tmp_path / "source", {"a": b"z" * 1_500_000})
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000));"
    for line, place in (
        (f"s.get({artifact.digest!r}, Path({str(tmp_path / 'there')!r}))", tmp_path / "there"),
        (f"s.put(Path({str(source)!r}))", kept.url),
        (f"copy(s, Store({str(tmp_path / 'target')!r}), [{artifact.digest!r}])", tmp_path / "target"),
    ):
        program = (
            f"{limit} from pathlib import Path; from cairn.errors import guard; from cairn.lineage.copying import copy;"
            f"from cairn.lineage.store import Store; s = Store({kept.url!r}); sys.exit(guard(lambda: {line} and None))"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines()[-1] == f"error: {place}: File too large: free some disk and run again"
