"""Git commits of a few files: on the current branch, or on another without touching the folder or the index."""

import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cairn.errors import GitError, one_line


@dataclass(frozen=True)
class Repository:
    """The Git repository that the current folder is in."""

    top: Path
    prefix: str
    """The current folder's path in it, with a final `/`; empty at the top."""

    @classmethod
    def here(cls) -> "Repository":
        """Raises GitError when Git is not installed, or the current folder is in no repository."""
        try:
            said = _git("rev-parse", "--show-toplevel", "--show-prefix").decode().splitlines()
        except GitError as error:
            raise GitError(
                f"{error}: without Git there is nothing to commit to: leave out --commit and --branch"
            ) from None
        return cls(Path(said[0]), said[1] if len(said) > 1 else "")

    def read(self, revision: str, path: Path) -> bytes | None:
        """A file of the current folder as it is at a revision; None when it is not there."""
        if _git_code("cat-file", "-e", f"{revision}:{self.prefix}{path}"):
            return None
        return _git("cat-file", "blob", f"{revision}:{self.prefix}{path}")

    def head(self) -> str | None:
        """The commit that is checked out; None before the first."""
        return _maybe("rev-parse", "--verify", "--quiet", "HEAD^{commit}")

    def changed(self, paths: Iterable[Path], revision: str | None) -> list[Path]:
        """Those of `paths` whose file in the folder is not what it is at a revision."""
        now = {path: path.read_bytes() if path.exists() else None for path in paths}
        then = {path: self.read(revision, path) if revision else None for path in now}
        return [path for path in now if now[path] != then[path]]

    def commit(self, paths: Iterable[Path], message: str) -> str | None:
        """Commit these files, and nothing else that is staged, on the current branch; None when Git has them so.

        Raises GitError when Git or a hook refuses. The files stay as they are.
        """
        changed = [str(path) for path in self.changed(paths, self.head())]
        if not changed:
            return None
        try:
            _git("add", "--force", "--", *changed)
            _git(
                "commit", "--quiet", "--only", "--cleanup=verbatim", "--file=-", "--", *changed, stdin=message.encode()
            )
        except GitError as error:
            raise GitError(f"{', '.join(changed)}: written, but not committed: {error}") from None
        return _git("rev-parse", "HEAD").decode().strip()

    def tip(self, branch: str) -> str | None:
        """The commit that a branch is at; None when there is no such branch.

        Raises GitError when it cannot be a branch's name, or is checked out: its folder would no longer fit it.
        """
        if _git_code("check-ref-format", "--branch", branch):
            raise GitError(f"--branch {branch}: cannot be the name of a branch")
        reference = f"refs/heads/{branch}"
        worktrees = _git("worktree", "list", "--porcelain").decode().splitlines()
        if f"branch {reference}" in worktrees:
            raise GitError(f"--branch {branch}: is checked out: use --commit in its folder, or name another branch")
        return _maybe("rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}")

    def commit_on(
        self, branch: str, base: str, tip: str | None, files: Mapping[Path, bytes], message: str
    ) -> str | None:
        """Commit `files` on top of `base` and move the branch there, from `tip`; None when `base` has them so: then a
        new branch begins at `base`, without a commit of its own.

        Neither the folder nor the index is touched. Raises GitError when Git refuses, or the branch has moved.
        """
        with tempfile.TemporaryDirectory() as folder:
            index = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
            _git("read-tree", base, environment=index)
            lines = ""
            for path, data in files.items():
                whole = f"{self.prefix}{path}"
                there = _git("ls-tree", "-z", "--full-tree", base, "--", whole).decode()
                blob = _git("hash-object", "-w", "--stdin", f"--path={whole}", stdin=data, at=self.top).decode().strip()
                lines += f"{there.partition(' ')[0] or '100644'} {blob}\t{whole}\0"
            _git("update-index", "-z", "--index-info", stdin=lines.encode(), environment=index, at=self.top)
            tree = _git("write-tree", environment=index).decode().strip()
        same = tree == _git("rev-parse", f"{base}^{{tree}}").decode().strip()
        if same and tip is not None:
            return None
        made = base if same else self._commit_tree(tree, base, message)
        reason = f"cairn pin: {message.partition(chr(10))[0]}"
        try:
            _git("update-ref", "-m", reason, f"refs/heads/{branch}", made, tip or "0" * len(made))
        except GitError as error:
            raise GitError(f"--branch {branch}: was moved by somebody else meanwhile: try again ({error})") from None
        return None if same else made

    def _commit_tree(self, tree: str, parent: str, message: str) -> str:
        sign = ["-S"] if _maybe("config", "--type=bool", "commit.gpgsign") == "true" else []
        return _git("commit-tree", tree, "-p", parent, *sign, stdin=message.encode()).decode().strip()

    def unignored(self, paths: Iterable[Path], revision: str | None) -> list[Path]:
        """Those of `paths` that Git would not ignore, going by the folder, or by a revision's `.gitignore` files."""
        listed = list(paths)
        if revision is None:
            return [path for path in listed if _git_code("check-ignore", "--quiet", "--no-index", str(path))]
        places = {f"{self.prefix}{parent}" for path in listed for parent in path.parents}
        above = {str(parent) for place in places for parent in (Path(place), *Path(place).parents)}
        with tempfile.TemporaryDirectory() as folder:
            for place in above:
                blob = f"{revision}:{Path(place, '.gitignore')}"
                if not _git_code("cat-file", "-e", blob):
                    Path(folder, place).mkdir(parents=True, exist_ok=True)
                    Path(folder, place, ".gitignore").write_bytes(_git("cat-file", "blob", blob))
            elsewhere = (
                f"--git-dir={_git('rev-parse', '--absolute-git-dir').decode().strip()}",
                f"--work-tree={folder}",
            )
            asked = ("check-ignore", "--quiet", "--no-index")
            return [path for path in listed if _git_code(*elsewhere, *asked, f"{self.prefix}{path}", at=Path(folder))]


def _maybe(*arguments: str) -> str | None:
    """What Git prints; None when it ends with an error."""
    try:
        return _git(*arguments).decode().strip()
    except GitError:
        return None


def _git(
    *arguments: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None, at: Path | None = None
) -> bytes:
    """What Git prints. Raises GitError, with what it complains of, when it ends with an error."""
    done = _run(arguments, stdin, environment, at)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or f"ended with {done.returncode}"
        raise GitError(f"git {arguments[0]}: {one_line(said.removeprefix('fatal: '))}")
    return done.stdout


def _git_code(*arguments: str, at: Path | None = None) -> int:
    """How Git ends."""
    return _run(arguments, b"", None, at).returncode


def _run(
    arguments: tuple[str, ...], stdin: bytes, environment: Mapping[str, str] | None, at: Path | None
) -> "subprocess.CompletedProcess[bytes]":
    surroundings = {**os.environ, **(environment or {})}
    try:
        return subprocess.run(
            ["git", *arguments], input=stdin, env=surroundings, cwd=at, capture_output=True, check=False
        )
    except FileNotFoundError:
        raise GitError("git: is not installed") from None
