"""What Git needs of a store: the artifacts that the lock files at every ref, in every index and work tree name.

Every branch, tag, remote-tracking branch, note, stash and work tree of a repository counts, with every `dvc.lock`,
`*.dvc` and `sources.lock.json` in it, in whatever folder. Only the tips count, not their history: what an old commit
needs is kept by a tag. Read with a handful of processes, however many refs there are. A repository that cannot be read
is an error: nothing is garbage because Git could not be asked.
"""

import hashlib
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from cairn.errors import StoreError, one_line
from cairn.lineage.roots import LOCK, Root, tree_in

_MD5 = re.compile(r"[0-9a-f]{32}(?:\.dir)?")
_WANTED = (":(top,glob)**/dvc.lock", ":(top,glob)**/*.dvc", f":(top,glob)**/{LOCK}")


def git_roots(repository: Path) -> list[Root]:
    """What the refs, stashes, indexes and work trees of a Git repository name.

    Raises StoreError when it is none, when git fails, or when a lock file in it cannot be read.
    """
    tips = _tips(repository)
    blobs: dict[str, tuple[str, str]] = {}  # blob to a ref and a path that have it
    with _objects(repository) as objects:
        seen: set[str] = set()
        for name, where in tips:
            for path, blob in objects.files(name, seen):
                blobs.setdefault(blob, (where, path))
        found = []
        for worktree in _worktrees(repository):
            for blob, path in _staged(worktree):
                blobs.setdefault(blob, (f"index of {worktree.name}", path))
            found += list(file_roots(worktree, _files(worktree)))
        for blob, (where, path) in blobs.items():
            found += roots_in(path, objects.read(blob), f"{where}: {path}")
    return found


def file_roots(folder: Path, paths: list[str]) -> Iterator[Root]:
    """What lock files in a folder name. Raises StoreError when one cannot be read."""
    for path in paths:
        try:
            data = (folder / path).read_bytes()
        except FileNotFoundError:
            continue  # in the index, and removed from the work tree
        except OSError as error:
            raise StoreError(f"{folder / path}: cannot be read: {one_line(error.strerror)}") from None
        yield from roots_in(path, data, str(folder / path))


def roots_in(path: str, data: bytes, where: str) -> Iterator[Root]:
    """What one lock file names.

    Args:
        where: how errors and reasons call it.

    Raises StoreError when it is not what its name says.
    """
    if path.rpartition("/")[2] == LOCK:
        # The digest of the file is that of the artifact, and a project may have it in Git alone.
        yield Root(hashlib.sha256(data).hexdigest(), "sha256", where, "lock files")
        try:
            if tree := tree_in(data):
                yield Root(tree, "sha256", where, "lock files")
        except ValueError as error:
            raise StoreError(f"{where}: {error}: mend it, or remove it, so that it is known what it needs") from None
        return
    try:
        document = YAML(typ="safe", pure=True).load(data)
    except (YAMLError, ValueError, RecursionError) as error:
        raise StoreError(f"{where}: is not YAML: {one_line(error)[:120]}: mend it, or remove it") from None
    for address in _addresses(document):
        if not _MD5.fullmatch(address):
            raise StoreError(f"{where}: names {address[:60]!r}, which is no md5: mend it, or remove it")
        yield Root(address, "md5", where, "lock files")


def _addresses(document: Any) -> Iterator[str]:
    """Every `md5` of every dependency and output, however deep."""
    seen, left = set[int](), [document]
    while left:
        value = left.pop()
        if id(value) in seen or not isinstance(value, dict | list):
            continue
        seen.add(id(value))  # YAML may name one value again and again, also within itself
        if isinstance(value, list):
            left += value
            continue
        if "md5" in value:
            yield str(value["md5"])
        # A recipe may call something md5 too.
        left += [inner for key, inner in value.items() if key not in ("md5", "params", "cmd")]


def _tips(repository: Path) -> list[tuple[str, str]]:
    """Object and name of everything that holds on to a commit."""
    found = []
    for line in _git(repository, "for-each-ref", "--format=%(objectname) %(refname)").decode().splitlines():
        name, _, ref = line.partition(" ")
        found.append((name, ref.removeprefix("refs/").removeprefix("heads/")))
    if any(where == "stash" for _, where in found):
        # A ref shows the newest stash alone; the third parent of each holds what was not tracked.
        stashes = _git(repository, "log", "--walk-reflogs", "--format=%H %P", "refs/stash", "--")
        for number, line in enumerate(stashes.decode().splitlines()):
            commit, *parents = line.split()
            found += [(name, f"stash {number}") for name in (commit, *parents[1:])]
    for line in _git(repository, "worktree", "list", "--porcelain").decode().splitlines():
        if line.startswith("HEAD ") and set(line[5:]) != {"0"}:  # zeros: no commit was made yet
            found.append((line[5:], "HEAD"))
    return found


def _worktrees(repository: Path) -> list[Path]:
    listed = _git(repository, "worktree", "list", "--porcelain").decode(errors="surrogateescape")
    found = []
    for block in listed.split("\n\n"):
        lines = block.splitlines()
        if lines and "bare" not in lines:
            found.append(Path(lines[0].removeprefix("worktree ")))
    return [path for path in found if path.exists()]  # of a folder that was removed, only the HEAD is left


def _staged(worktree: Path) -> Iterator[tuple[str, str]]:
    for record in _git(worktree, "ls-files", "-z", "--stage", "--", *_WANTED).split(b"\0"):
        if record:
            kept, _, path = record.partition(b"\t")
            mode, blob, _ = kept.decode().split(" ")
            if mode.startswith("100"):
                yield blob, path.decode(errors="surrogateescape")


def _files(worktree: Path) -> list[str]:
    """Lock files of a work tree, also those that Git does not know, or ignores."""
    listed = _git(worktree, "ls-files", "-z", "--cached", "--others", "--", *_WANTED)
    return sorted({path.decode(errors="surrogateescape") for path in listed.split(b"\0") if path})


def _git(repository: Path, *arguments: str) -> bytes:
    """What a git command prints."""
    try:
        done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise StoreError("git is not installed, and so cannot say what it needs: install it, or say --no-git") from None
    if done.returncode:
        said = one_line(done.stderr.decode(errors="replace")) or f"ended with {done.returncode}"
        if "not a git repository" in said:
            raise StoreError(
                f"{repository.resolve()}: is in no Git repository, which would say what branches and tags need: run "
                "this in the project, or name the repository with --git, or say --no-git"
            )
        raise StoreError(
            f"{repository}: git cannot say what it needs: {said}: name the repository with --git, or say --no-git"
        )
    return done.stdout


class _Objects:
    """Reads Git objects through one process."""

    def __init__(self, repository: Path, process: "subprocess.Popen[bytes]") -> None:
        self._repository, self._process = repository, process

    def files(self, name: str, seen: set[str]) -> Iterator[tuple[str, str]]:
        """Path and blob of every lock file in the tree of a commit, tag or tree; none in trees that were seen."""
        kind, data = self._get(f"{name}^{{}}")
        if kind == "commit":
            yield from self._walk(data.split(b"\n", 1)[0].split()[1].decode(), "", seen)
        elif kind == "tree":
            yield from self._walk(name, "", seen)

    def read(self, blob: str) -> bytes:
        return self._get(blob)[1]

    def _walk(self, tree: str, prefix: str, seen: set[str]) -> Iterator[tuple[str, str]]:
        if tree in seen:
            return
        seen.add(tree)
        data = self._get(f"{tree}^{{tree}}")[1]
        width, at = len(tree) // 2, 0
        while at < len(data):
            mode, _, rest = data[at : at + 4096].partition(b" ")
            name = rest.partition(b"\0")[0]
            begin = at + len(mode) + 1 + len(name) + 1
            inner, at = data[begin : begin + width].hex(), begin + width
            path = prefix + name.decode(errors="surrogateescape")
            if mode == b"40000":
                yield from self._walk(inner, path + "/", seen)
            elif mode.startswith(b"100") and (name in (b"dvc.lock", LOCK.encode()) or name[1:].endswith(b".dvc")):
                yield path, inner

    def _get(self, name: str) -> tuple[str, bytes]:
        to, back = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        try:
            to.write(name.encode() + b"\n")
            to.flush()
            header = back.readline().split()
        except BrokenPipeError:
            header = []
        if len(header) != 3:
            raise StoreError(f"{self._repository}: git cannot read {name[:12]}: `git fsck` says what is wrong with it")
        data = back.read(int(header[2]))
        back.read(1)
        return header[1].decode(), data


@contextmanager
def _objects(repository: Path) -> Iterator[_Objects]:
    command = ["git", "-C", str(repository), "cat-file", "--batch"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        yield _Objects(repository, process)
        cast(IO[bytes], process.stdin).close()
