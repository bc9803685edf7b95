"""The Git checkout that code runs from: its commit, and the patch that makes the files as they are out of it.

Whatever a person has set up for Git, by files or by the environment, changes nothing here: the same files give the same
patch, and no program of theirs is run.
"""

import os
import subprocess
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

# How a patch is written is up to options that a person may have set otherwise.
_PATCH = (
    "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--no-relative", "--no-indent-heuristic",
    "--binary", "--full-index", "--unified=3", "--inter-hunk-context=0", "--diff-algorithm=myers",
    "--src-prefix=a/", "--dst-prefix=b/", "--ignore-submodules=all", "-O/dev/null",
)  # fmt: skip


def commit(root: Path) -> str | None:
    """The commit that the checkout at `root` stands at; None where there is no checkout, no commit or no Git."""
    said = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    return said.decode().strip() if said else None


def difference(root: Path, folders: Sequence[str], files: Collection[str]) -> bytes | None:
    """The patch from the commit to what lies in `folders`; empty when nothing differs, None when Git cannot tell.

    Modes of files are not compared: some file systems have none.

    Args:
        files: those that matter, by their paths from `root`. One that Git does not know is in the patch, ignored or
            not.
    """
    head = commit(root)
    objects = _git(root, "rev-parse", "--git-path", "objects")
    form = _git(root, "rev-parse", "--show-object-format")
    if head is None or objects is None or form is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        place = _repository(Path(folder), root, root / os.fsdecode(objects.strip()), form.decode().strip())
        if _git(root, "read-tree", head, place=place) is None:
            return None
        tracked = _git(root, "diff", *_PATCH, head, "--", *folders, place=place)
        others = _git(root, "ls-files", "--others", "-z", "--", *folders, place=place)
        if tracked is None or others is None:
            return None
        unknown = sorted(set(os.fsdecode(others).split("\0")) & set(files))
        # Ends with 1, because the two differ.
        against = ("diff", *_PATCH, "--no-index", "--", "/dev/null")
        added = [_git(root, *against, name, ends_with=1, place=place) for name in unknown]
    return None if None in added else tracked + b"".join(filter(None, added))


def _repository(place: Path, root: Path, objects: Path, form: str) -> dict[str, str]:
    """A repository of our own over the objects of another: what is said by the other's settings, attributes and index,
    such as which files to overlook and which programs to run, is not said here. Returns the environment that names it.
    """
    for name in ("objects", "refs", "info"):
        (place / name).mkdir()
    (place / "HEAD").write_text("ref: refs/heads/none\n")
    (place / "config").write_text(f"[core]\n\trepositoryformatversion = 1\n[extensions]\n\tobjectFormat = {form}\n")
    # These go before what a `.gitattributes` says.
    (place / "info" / "attributes").write_text("* -text -filter -ident !working-tree-encoding !diff !eol\n")
    return {
        "GIT_DIR": str(place),
        "GIT_INDEX_FILE": str(place / "index"),
        "GIT_OBJECT_DIRECTORY": str(objects.resolve()),
        "GIT_WORK_TREE": str(root.resolve()),
    }


def _git(root: Path, *arguments: str, ends_with: int = 0, place: Mapping[str, str] | None = None) -> bytes | None:
    """What Git prints; None when it ends otherwise.

    Args:
        place: the repository to use, where it is not the one at `root`.
    """
    if not (root / ".git").exists():
        return None
    settings = {
        "core.fileMode": "false",
        "core.hooksPath": "/dev/null",
        "core.attributesFile": "/dev/null",
        "core.excludesFile": "/dev/null",
        "core.quotePath": "true",
        # A container often runs as another user than the one who made the checkout.
        "safe.directory": str(root),
    }
    configured = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "LC_ALL": "C",
        **(place or {}),
    }
    command = ["git", "--no-pager", *configured, *arguments]
    try:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == ends_with else None
