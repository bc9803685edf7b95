"""`cairn pin`: from a run in the store to `dvc.lock`, and to a Git commit."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cairn.cli.output import AsJson, moment, print_json, short, show, table, written

if TYPE_CHECKING:
    from cairn.lineage.store import Store
    from pipelines.commits import Repository
    from pipelines.pins import Pinned


def pin(
    run: Annotated[str | None, typer.Argument(help="The run to pin. Without it, the store's runs are listed.")] = None,
    store: Annotated[str | None, typer.Option(help="URL of the store (default: the project's).")] = None,
    commit: Annotated[bool, typer.Option("--commit", help="Commit the pins on the current branch.")] = False,
    branch: Annotated[
        str | None, typer.Option(help="Commit the pins on this branch, new or not; the folder is left alone.")
    ] = None,
    message: Annotated[str | None, typer.Option(help="The first line of the commit's message.")] = None,
    recipe: Annotated[bool, typer.Option("--recipe", help="Take the run's recipe where it is another.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, and write nothing.")] = False,
    json: AsJson = False,
) -> None:
    """Write a run's pins into dvc.lock, so that `dvc pull` brings its artifacts and `dvc repro` has nothing to do."""
    from cairn.errors import GitError, StageError
    from cairn.lineage.store import Store

    opened = Store(store) if store else Store.default()
    if store:
        opened.check()
    if run is None:
        given = {"--commit": commit, "--branch": branch, "--message": message, "--recipe": recipe, "--dry-run": dry_run}
        if idle := next((name for name, said in given.items() if said), None):
            raise StageError(f"{idle}: says something about a run: name the run (`cairn pin` lists them)")
        _list(opened, json)
        return
    if commit and branch is not None:
        raise GitError("--commit and --branch: name one: --branch commits without --commit")
    if message is not None and not (commit or branch is not None):
        raise GitError("--message: goes with --commit or --branch")
    if branch is not None:
        _on_branch(run, opened, branch, message, recipe, dry_run, json)
    else:
        _here(run, opened, commit, message, recipe, dry_run, json)


def _here(run: str, store: "Store", commit: bool, message: str | None, recipe: bool, dry_run: bool, json: bool) -> None:
    """Write the files into the folder; commit them when asked."""
    from cairn.errors import GitError
    from cairn.lineage.signing import trusted_keys
    from pipelines.commits import Repository
    from pipelines.pins import pinned
    from pipelines.stages import RECIPE

    repository: Repository | None = None
    try:
        repository = Repository.here()
    except GitError:
        if commit:
            raise
    found = pinned(run, store, trusted_keys(), _in_folder, take_recipe=recipe)
    files = dict(found.files)
    head = repository.head() if repository else None
    if repository:
        files |= _ignored(repository, found, _in_folder, None)
        _check_kept(repository, files, head)
    if commit and repository:
        _check_committed(repository, head)
    other = {path: data for path, data in files.items() if _in_folder(path) != data}
    made = None
    if not dry_run:
        _send(found)
        _mend(found)
        _write(other)
        if commit and repository:
            # The lock holds the recipe of the folder: a commit with another one would not be pinned by it.
            made = repository.commit([*files, RECIPE], _message(found, message))
    _tell(found, list(other), made, None, dry_run, json)
    if commit and not dry_run and made is None and not json:
        print("nothing to commit: it is pinned so already")


def _on_branch(
    run: str, store: "Store", branch: str, message: str | None, recipe: bool, dry_run: bool, json: bool
) -> None:
    """Commit the files on a branch that is not checked out."""
    from cairn.errors import GitError
    from cairn.lineage.signing import trusted_keys
    from pipelines.commits import Repository
    from pipelines.pins import pinned

    repository = Repository.here()
    tip = repository.tip(branch)
    base = tip or repository.head()
    if base is None:
        raise GitError(f"--branch {branch}: the repository has no commit yet to begin from: commit the project first")

    def read(path: Path) -> bytes | None:
        return repository.read(base, path)

    found = pinned(run, store, trusted_keys(), read, take_recipe=recipe)
    files = {**found.files, **_ignored(repository, found, read, base)}
    other = [path for path, data in files.items() if read(path) != data]
    made = None
    if not dry_run:
        _send(found)
        _mend(found)
        made = repository.commit_on(branch, base, tip, files, _message(found, message))
    _tell(found, other, made, branch, dry_run, json)
    if not dry_run and made is None and not json:
        began = "" if tip else f"; the branch begins at {short(base)}"
        print(f"nothing to commit: {branch} pins it so already{began}")


def _in_folder(path: Path) -> bytes | None:
    from cairn.errors import ArtifactError

    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from None


def _ignored(repository: "Repository", found: "Pinned", read: Any, revision: str | None) -> dict[Path, bytes]:
    """`.gitignore` files with a line for every output that Git would take in, as DVC writes them."""
    from pipelines.stages import place

    kept = [place(name) for name in found.digests if name != "sources"]
    made: dict[Path, bytes] = {}
    for path in repository.unignored(kept, revision):
        file = path.parent / ".gitignore"
        before = made.get(file, read(file) or b"")
        made[file] = before + (b"" if before.endswith(b"\n") or not before else b"\n") + f"/{path.name}\n".encode()
    return made


def _check_kept(repository: "Repository", files: dict[Path, bytes], head: str | None) -> None:
    """What somebody wrote and did not commit is not written over."""
    from cairn.errors import GitError

    for path in repository.changed(files, head):
        there = _in_folder(path)
        if there is not None and there != files[path]:
            raise GitError(
                f"{path}: was changed and is not committed: commit it, or put it back (`git checkout {path}`), first"
            )


def _check_committed(repository: "Repository", head: str | None) -> None:
    from cairn.errors import GitError
    from pipelines.pins import DAG

    if repository.changed([DAG], head):
        raise GitError(f"{DAG}: is not committed as it is here, and pins are for the committed one: commit it first")


def _send(found: "Pinned") -> None:
    """Bring what lies only in the project to where `dvc pull` will look."""
    from cairn.errors import StoreError
    from cairn.lineage.remote import default_remote
    from cairn.lineage.store import Store

    remote = default_remote(Path())
    for name, path in found.unsent.items():
        assert remote is not None  # it was looked for there
        if Store(remote.url).put(path).digest != found.digests[name]:
            raise StoreError(f"{path}: was changed while it was sent: put back what the run made, and try again")


def _mend(found: "Pinned") -> None:
    """Write listings that are missing where DVC looks for them: the pins say what is in them."""
    from cairn.lineage.pins import address, directory_listing
    from cairn.lineage.remote import default_remote
    from cairn.lineage.store import Store
    from pipelines.pins import listing

    remote = default_remote(Path())
    for artifact in found.lost_listings:
        assert remote is not None  # it was looked up in it
        Store(remote.url).write(address(listing(artifact).md5), directory_listing(artifact))
        print(
            f"{Store(remote.url)}: the listing of {short(artifact.digest)} was missing; it is written anew",
            file=sys.stderr,
        )


def _write(files: dict[Path, bytes]) -> None:
    from cairn.lineage.artifact import written_aside
    from pipelines.dvc_lock import LOCK

    # Last the file that says that the others are there.
    for path in sorted(files, key=lambda path: path == LOCK):
        with written_aside(path) as aside:
            aside.write_bytes(files[path])


def _message(found: "Pinned", subject: str | None) -> str:
    """What the commit says: which run, which digests."""
    lines = [subject or f"Pins of run {found.run}", ""]
    lines += [f"{name:<10} {digest}" for name, digest in found.digests.items()]
    return "\n".join([*lines, "", f"Cairn-Run: {found.run}", ""])


def _tell(found: "Pinned", other: list[Path], made: str | None, branch: str | None, dry_run: bool, json: bool) -> None:
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if json:
        said = {"run": found.run, "stages": found.stages, "unfinished": found.unfinished, "digests": found.digests}
        changed = {one.name: {"then": one.then, "now": one.now} for one in found.recipe}
        said |= {
            "sent": {name: str(path) for name, path in found.unsent.items()},
            "dropped": found.lock.dropped,
            "recipe": changed,
            "files": [str(path) for path in other],
        }
        print_json({**said, "commit": made, "branch": branch, "written": not dry_run})
        return
    rows = table("stage", "artifact", "digest", "dvc.lock")
    from pipelines.stages import stages

    for stage in stages():
        if stage.name in found.stages:
            new = "written" if stage.name in found.lock.written else "as it was"
            for name in stage.outputs:
                rows.add_row(stage.name, name, short(found.digests[name]), new)
        elif stage.name in found.lock.dropped:
            rows.add_row(stage.name, "", "", "dropped: made of something else")
    show(rows)
    for one in found.recipe:
        print(f"{one.name}: {written(one.then)} → {written(one.now)}")
    if found.unfinished:
        print(f"run {found.run} has no {', '.join(found.unfinished)}: `dvc repro` makes what is not pinned")
    if found.unsent:
        sent = "would be sent" if dry_run else "sent"
        print(f"{sent} to the store, from this folder: {', '.join(str(path) for path in found.unsent.values())}")
    verb = "would be written" if dry_run else f"committed on {branch}" if branch else "written"
    print(f"{', '.join(map(str, other))} {verb}" if other else "every file was so already")
    if made is not None:
        print(f"commit {short(made)}")


def _list(store: "Store", json: bool) -> None:
    """The runs of the store, the newest first."""
    from cairn.lineage import runs
    from pipelines.stages import NAMES

    found = runs.read_all(store)
    listed: dict[str, Any] = {
        run: {
            "finished": runs.ended(stages),
            "stages": [name for name in NAMES if name in stages],
            "model": stages["export"].outputs.get("model") if "export" in stages else None,
        }
        for run, stages in found.items()
    }
    if json:
        print_json(listed)
        return
    if not listed:
        print(f"{store} has no runs: `cairn run` makes one; `dvc repro` does with CAIRN_RUN=NAME")
        return
    rows = table("run", "finished", "stages", "model")
    for run, one in listed.items():
        stages = one["stages"]
        shown = "all" if len(stages) == len(NAMES) else ", ".join(map(str, stages or ()))
        rows.add_row(run, moment(one["finished"]), shown, short(one["model"]))
    show(rows)
