"""The patch from the commit to the code: whole, and the same whatever a person has set up for Git."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cairn.lineage import checkout

FILES = ("code/a.py", "code/data.json", "code/new.py", "code/ignored.py")


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a", *words], cwd=root, check=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with a file changed, one removed, one renamed, one that is new and one that Git ignores."""
    root = tmp_path / "checkout"
    (root / "code").mkdir(parents=True)
    for name, content in (("a.py", "x = 1\n"), ("old.py", "y = 1\n" * 9), ("gone.py", "z"), ("bytes.py", "\0\1\n")):
        (root / "code" / name).write_text(content)
    (root / ".gitignore").write_text("ignored.py\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    (root / "code" / "a.py").write_text("x = 2\n")
    (root / "code" / "gone.py").unlink()
    (root / "code" / "old.py").rename(root / "code" / "data.json")
    (root / "code" / "bytes.py").write_text("\0\2\n")
    (root / "code" / "new.py").write_text("ä = 1")
    (root / "code" / "ignored.py").write_text("i = 1\n")
    (root / "code" / "notes.txt").write_text("of no matter\n")
    return root


def difference(root: Path) -> bytes:
    found = checkout.difference(root, ["code"], FILES)
    assert found is not None
    return found


def test_the_patch_makes_the_files_as_they_are_out_of_the_commit(root: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", str(root), "clone")
    subprocess.run(["git", "apply"], cwd=tmp_path / "clone", input=difference(root), check=True)
    there = {path.name: path.read_bytes() for path in (root / "code").iterdir() if path.name != "notes.txt"}
    assert {path.name: path.read_bytes() for path in (tmp_path / "clone" / "code").iterdir()} == there
    assert difference(tmp_path / "clone") != b""
    git(tmp_path / "clone", "checkout", "-q", ".")
    git(tmp_path / "clone", "clean", "-qfdx")
    assert difference(tmp_path / "clone") == b""


def test_what_a_person_has_set_up_for_git_changes_no_byte_and_runs_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, commit = difference(root), checkout.commit(root)
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    settings = (
        "[core]\npager = PROGRAM\nfsmonitor = PROGRAM\nquotePath = false\nattributesFile = ATTRIBUTES\n"
        "[diff]\nexternal = PROGRAM\nnoprefix = true\nmnemonicPrefix = true\nrenames = copies\ncontext = 9\n"
        "algorithm = patience\norderFile = PROGRAM\ninterHunkContext = 5\nrelative = true\n"
        '[diff "odd"]\ntextconv = PROGRAM\ncommand = PROGRAM\n[color]\nui = always\n'
    )
    (tmp_path / "attributes").write_text("*.py diff=odd\n")
    text = settings.replace("PROGRAM", str(program)).replace("ATTRIBUTES", str(tmp_path / "attributes"))
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    assert difference(root) == before
    with open(root / ".git" / "config", "a") as config:
        config.write(text)
    for name in ("GIT_EXTERNAL_DIFF", "GIT_PAGER"):
        monkeypatch.setenv(name, str(program))
    # As inside a hook of another repository.
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert checkout.commit(root) == commit
    assert difference(root) == before
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("hidden", ["--assume-unchanged", "--skip-worktree"])
def test_what_a_person_has_told_git_to_overlook_is_in_the_patch(root: Path, hidden: str) -> None:
    before = difference(root)
    git(root, "update-index", hidden, "code/a.py", "code/bytes.py")
    assert difference(root) == before


def test_what_is_staged_changes_no_byte(root: Path) -> None:
    before = difference(root)
    git(root, "add", "--intent-to-add", "code/new.py")
    assert difference(root) == before
    git(root, "add", "--force", "code")
    assert difference(root) == before


@pytest.mark.parametrize("place", [".gitattributes", ".git/info/attributes"])
def test_a_filter_is_not_run_and_lines_end_as_they_do_in_the_files(root: Path, tmp_path: Path, place: str) -> None:
    (root / "code" / "a.py").write_bytes(b"x = 2\r\n")
    before = difference(root)
    assert b"+x = 2\r\n" in before
    (root / ".git" / "info").mkdir(exist_ok=True)
    (root / place).write_text("*.py filter=odd text eol=lf\n")
    with open(root / ".git" / "config", "a") as config:
        program = f"touch {tmp_path}/ran; cat"
        config.write(
            f'[core]\nautocrlf = input\nsafecrlf = true\n[filter "odd"]\nclean = "{program}"\nrequired = true\n'
        )
    assert difference(root) == before
    assert not (tmp_path / "ran").exists()


def test_a_checkout_that_belongs_to_somebody_else_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    before = difference(root)
    for path in (root, root / ".git"):
        os.chown(path, 12345, 12345)
    assert checkout.commit(root)
    assert difference(root) == before


def test_without_a_checkout_a_commit_or_git_there_is_no_patch(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checkout.commit(tmp_path) is None
    assert checkout.difference(tmp_path, ["code"], FILES) is None
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "-q")
    assert checkout.commit(tmp_path / "empty") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("git") is None
    assert checkout.commit(root) is None
