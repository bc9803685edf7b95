"""What Git needs of a store: every ref, stash, index and work tree, in whatever folder; or an error."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from cairn.errors import StoreError
from cairn.lineage.collection import WEEK, Repositories, collect
from cairn.lineage.git_roots import file_roots, git_roots
from cairn.lineage.store import Store
from tests.lineage.care import git, grow_old, lock_of, needs, objects, write


def lock(md5: str) -> str:
    return f"stages:\n  ingest:\n    cmd: true\n    outs:\n    - {{path: artifacts/documents, hash: md5, md5: {md5}}}\n"


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest() + ".dir"


def named(repository: Path) -> set[str]:
    return {root.name for root in git_roots(repository) if root.kind == "md5"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository whose first commit has a lock file that names `main`."""
    root = write(tmp_path / "project", {"dvc.lock": lock(md5("main"))})
    git(root, "init", "-q", "-b", "main")
    commit(root, "First")
    return root


def commit(root: Path, message: str) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-qm", message)


def test_every_ref_stash_index_and_work_tree_counts_and_history_does_not(project: Path, tmp_path: Path) -> None:
    wanted = []

    def set_lock(name: str, path: str = "dvc.lock") -> None:
        wanted.append(name)
        write(project, {path: lock(md5(name))})

    git(project, "checkout", "-qb", "side")
    write(project, {"dvc.lock": lock(md5("history"))})
    commit(project, "Soon overwritten")
    set_lock("branch")
    commit(project, "A branch")
    git(project, "checkout", "-q", "main")
    set_lock("tag")
    commit(project, "Tagged")
    git(project, "tag", "-am", "Released", "v1")
    git(project, "tag", "-am", "A tag of a tag", "v1-again", "v1")
    git(project, "reset", "-q", "--hard", "HEAD~")
    wanted.append("main")
    for name in ("stash", "older stash"):
        set_lock(name)
        git(project, "stash", "-q")
    set_lock("untracked stash", "deep/dvc.lock")
    git(project, "stash", "-q", "--include-untracked")
    set_lock("subfolder", "models/large/dvc.lock")
    write(project, {"models/raw.dvc": f"outs:\n- md5: {md5('added')}\n  path: raw\n"})
    wanted.append("added")
    commit(project, "More places")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(project), str(clone))
    write(clone, {"dvc.lock": lock(md5("remote"))})
    commit(clone, "Elsewhere")
    git(clone, "push", "-q", "origin", "HEAD:refs/remotes/origin/feature")
    wanted.append("remote")
    git(project, "worktree", "add", "-q", "--detach", str(tmp_path / "other"))
    write(tmp_path / "other", {"dvc.lock": lock(md5("detached"))})
    commit(tmp_path / "other", "On no branch")
    write(tmp_path / "other", {"dvc.lock": lock(md5("work tree of another"))})
    wanted += ["detached", "work tree of another"]
    set_lock("staged")
    git(project, "add", "dvc.lock")
    set_lock("work tree")
    write(project, {".gitignore": "/ignored/\n"})
    set_lock("ignored", "ignored/dvc.lock")
    assert named(project) == {md5(name) for name in wanted}
    assert named(tmp_path / "other") == named(project)
    assert named(project / "models") == named(project)


def test_hundreds_of_refs_are_read_with_a_handful_of_processes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(300):
        git(project, "update-ref", f"refs/heads/b{number}", "HEAD") if number else None
    started = []
    popen = subprocess.Popen.__init__

    def count(self: object, *arguments: object, **options: object) -> None:
        started.append(arguments)
        popen(self, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess.Popen, "__init__", count)
    assert named(project) == {md5("main")}
    assert len(started) < 10


def test_sources_name_their_lock_file_and_the_tree_of_copied_objects(project: Path) -> None:
    text = json.dumps({"format": "cairn-sources-v1", "tree": "a" * 64})
    write(project, {"sources.lock.json": text})
    found = {root.name for root in git_roots(project) if root.kind == "sha256"}
    assert found == {"a" * 64, hashlib.sha256(text.encode()).hexdigest()}


def test_a_repository_without_a_commit_has_a_work_tree(tmp_path: Path) -> None:
    write(tmp_path, {"dvc.lock": lock(md5("new"))})
    git(tmp_path, "init", "-q")
    assert named(tmp_path) == {md5("new")}


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("dvc.lock", "stages: [", "dvc.lock: is not YAML"),
        pytest.param("dvc.lock", "[" * 5000, "dvc.lock: is not YAML", id="nested too deeply"),
        ("dvc.lock", lock("nonsense"), "dvc.lock: names 'nonsense', which is no md5"),
        ("sources.lock.json", "{}", "sources.lock.json: is not a lock file of sources"),
        ("sources.lock.json", '{"tree": "short"}', "sources.lock.json: names a tree that is no digest"),
    ],
)
@pytest.mark.parametrize("committed", [True, False])
def test_a_lock_file_that_cannot_be_read_is_an_error(
    project: Path, path: str, text: str, said: str, committed: bool
) -> None:
    write(project, {path: text})
    if committed:
        git(project, "checkout", "-qb", "old-experiment")
        commit(project, "Broken")
        git(project, "checkout", "-q", "main")
        said = f"old-experiment: {said}"
    with pytest.raises(StoreError, match=said):
        git_roots(project)


def test_a_lock_file_that_names_one_value_a_million_million_times_is_read_at_once(tmp_path: Path) -> None:
    doubled = "".join(f"a{level}: &a{level} [*a{level - 1}, *a{level - 1}]\n" for level in range(1, 40))
    (tmp_path / "dvc.lock").write_text(f"a0: &a0 {{md5: {md5('new')}}}\n{doubled}")
    assert [root.name for root in file_roots(tmp_path, ["dvc.lock"])] == [md5("new")]


def test_no_repository_no_git_and_a_broken_repository_are_errors_and_nothing_goes(
    store: Store, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = store.put(write(tmp_path / "a", {"a": "1"}))
    grow_old(store, 30)
    (tmp_path / "plain").mkdir()
    with pytest.raises(StoreError, match=r"plain: is in no Git repository, .*--no-git"):
        collect(store, Repositories(git=(tmp_path / "plain",)), WEEK)
    blob = git(project, "rev-parse", "HEAD:dvc.lock").strip()
    object_file = project / ".git" / "objects" / blob[:2] / blob[2:]
    object_file.chmod(0o644)
    object_file.write_bytes(b"")
    with pytest.raises(StoreError, match=rf"git cannot read {blob[:12]}: `git fsck`"):
        collect(store, Repositories(git=(project,)), WEEK)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreError, match="git is not installed"):
        collect(store, Repositories(git=(project,)), WEEK)
    assert objects(store) == needs(artifact)
    assert store.read("collecting") is None


def test_what_a_branch_needs_is_kept_by_its_pin_with_what_led_to_it(
    store: Store, project: Path, tmp_path: Path
) -> None:
    kept, gone = (store.put(write(tmp_path / name, {"a": name})) for name in ("kept", "gone"))
    git(project, "checkout", "-qb", "experiment")
    write(project, {"dvc.lock": lock_of(kept)})
    commit(project, "An experiment")
    git(project, "checkout", "-q", "main")
    grow_old(store, 30)
    found = collect(store, Repositories(git=(project,)), WEEK)
    assert objects(store) == needs(kept)
    assert [one.digest for one in found.artifacts] == [gone.digest]
    shutil.rmtree(project)
