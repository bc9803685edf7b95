"""What `cairn doctor` asks of the project: packages, recipe, DAG, Git, store, DVC remote, signing key."""

import json
import os
import re
import shutil
import stat
import subprocess
import threading
import uuid
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from cairn.cli.finding import Finding
from cairn.errors import CairnError, one_line

if TYPE_CHECKING:
    from cairn.lineage.store import Store
    from components.recipe import Recipe

PATIENCE = 20.0  # seconds that a store may take to answer
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(?: ; ([^\\\n]+?))?(?: \\)?$", re.MULTILINE)


def recipe_in_force() -> "Recipe | None":
    """The recipe, for checks that only want to know how large the run is."""
    import cairn.recipe
    from components.recipe import Recipe
    from pipelines.stages import RECIPE

    try:
        return cairn.recipe.load(Recipe, RECIPE)
    except CairnError:
        return None


def packages() -> Finding:
    """Whether what is installed is what the locks say: other versions may give other bits."""
    from cairn.lineage.environment import ROOT

    found = partial(Finding, "packages")
    build = "cpu" if "+cpu" in (_installed("torch") or "") else "cuda"
    locks = [path for name in ("", f".torch-{build}") if (path := ROOT / f"requirements{name}.lock").exists()]
    if not locks:
        return found("ok", "no lock beside the code: Cairn was installed as a package")
    wanted = {name: version for path in locks for name, version in _pins(path.read_text())}
    others = {name: there for name, version in wanted.items() if (there := _installed(name)) != version}
    if not others:
        return found("ok", f"all {len(wanted)} as locked")
    shown = [f"{name} {there or 'missing'} (locked: {wanted[name]})" for name, there in sorted(others.items())]
    more = f", and {len(shown) - 3} more" if len(shown) > 3 else ""
    return found("warn", f"{', '.join(shown[:3])}{more}", "`make setup` installs the locked versions")


def recipe() -> Finding:
    """Whether params.yaml is a valid recipe."""
    import cairn.recipe
    from components.recipe import Recipe
    from pipelines.stages import RECIPE

    if not RECIPE.exists():
        return Finding("recipe", "fail", f"no {RECIPE} in this folder", "`cairn init` writes one")
    try:
        cairn.recipe.load(Recipe, RECIPE)
    except CairnError as error:
        return Finding("recipe", "fail", one_line(error), "`cairn config explain KEY` tells what a key takes")
    return Finding("recipe", "ok", f"{RECIPE} is valid")


def dag() -> Finding:
    """Whether dvc.yaml is what this Cairn would write."""
    from pipelines.stages import dvc_yaml

    path = Path("dvc.yaml")
    if not path.exists():
        return Finding("dag", "warn", "no dvc.yaml: `cairn run` works, `dvc repro` does not", "`cairn dag --write`")
    if path.read_bytes() != dvc_yaml().encode():
        return Finding("dag", "warn", "dvc.yaml is not what the stages say", "`cairn dag --write` writes it anew")
    return Finding("dag", "ok", "dvc.yaml is what the stages say")


def git() -> Finding:
    """Whether what made a model will be remembered, and nothing large with it."""
    found = partial(Finding, "git")
    if shutil.which("git") is None:
        return found("warn", "not installed: lock files are not kept", "install git")
    if _git("rev-parse", "--is-inside-work-tree") is None:
        return found(
            "warn", "not a repository: lock files are not kept", "`git init`; `dvc config --unset core.no_scm`"
        )
    shown = [name for name in (".cairn/store", "artifacts/model") if _git("check-ignore", "-q", name) is None]
    if shown:
        return found("warn", f"does not ignore {', '.join(shown)}", "put /.cairn/ and /artifacts/ into .gitignore")
    wanted = ("params.yaml", "dvc.yaml", "sources.lock.json", "dvc.lock")
    loose = [name for name in wanted if Path(name).exists() and _git("ls-files", "--error-unmatch", name) is None]
    if loose:
        return found("warn", f"{', '.join(loose)} not in Git", f"`git add {' '.join(loose)}`")
    return found("ok", "a repository, with the recipe and lock files in it")


def store() -> Finding:
    """Whether the store takes a record, gives it back, and lets it be made only once: leases rest on that."""
    from cairn.lineage.store import Store

    opened = Store.default()
    found = partial(Finding, "store")
    if "://" not in opened.url and not os.path.lexists(opened.url):
        # To look must not leave a store where there may not even be a project.
        if not _writable(Path(opened.url)):
            return found(
                "fail", f"{opened.url}: is not there and cannot be made", "set CAIRN_STORE to a folder of yours"
            )
        return found("ok", f"none yet: the first run makes {opened.url}")
    said: list[str] = []
    # A store that cannot be reached may be tried for minutes; nobody waits for that, and a daemon ends with us.
    probe = threading.Thread(target=lambda: said.append(_probe(opened)), daemon=True)
    probe.start()
    probe.join(PATIENCE)
    fix = "look at CAIRN_STORE, the network, and the credentials in the environment"
    if not said:
        return found("fail", f"{opened.url}: no answer in {PATIENCE:.0f} s", fix)
    if said[0]:
        return found("fail", f"{opened.url}: {said[0]}", fix)
    return found("ok", f"{opened.url}: a record was written, read back and removed")


def remote() -> Finding:
    """Whether DVC and Cairn mean the same store."""
    from cairn.lineage.remote import default_remote
    from cairn.lineage.store import Store

    there, used = default_remote(Path()), Store.default()
    found = partial(Finding, "dvc remote")
    if there is None:
        fix = f"`dvc remote add --default store {used.url}`"
        return found("warn", "none is the default: `dvc push` has nowhere to go", fix)
    if os.path.normpath(there.url) != os.path.normpath(used.url):
        said = f"{there.name} is {there.url}, but the store is {used.url}: bytes and attestations lie apart"
        return found("warn", said, "unset CAIRN_STORE, or make that URL the default remote")
    if not there.verify:
        fix = f"`dvc remote modify {there.name} verify true`"
        return found("warn", f"{there.name} is the store, but DVC takes what it fetches on trust", fix)
    return found("ok", f"{there.name} is the store")


def key() -> Finding:
    """The signing key: whether it can sign, and whether only its owner can read it."""
    from cairn.lineage.signing import VARIABLE, key_id, key_path, signer, trusted_keys

    if said := os.environ.get(VARIABLE):
        own = key_id(signer().public_key)
        return Finding("signing key", "ok", f"{own[:12]}, by {said.partition(':')[0]}")
    path = key_path()
    if not path.exists():
        if not _writable(path):
            said = f"none yet, and {path} cannot be written"
            return Finding("signing key", "fail", said, "set CAIRN_HOME to a folder of yours")
        return Finding("signing key", "ok", f"none yet: the first run makes {path}")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return Finding("signing key", "fail", f"{path}: others may read it (mode {mode:04o})", f"`chmod 600 {path}`")
    signer()
    others = len(trusted_keys()) - 1
    return Finding("signing key", "ok", f"{path}{f'; {others} others are trusted' if others else ''}")


def _writable(path: Path) -> bool:
    """Whether something that is not there can be made, with the folders above it."""
    above = next((parent for parent in path.absolute().parents if parent.exists()), Path())
    return above.is_dir() and os.access(above, os.W_OK)


def _probe(opened: "Store") -> str:
    """Nothing when the store works; else what went wrong. File systems raise what their libraries do."""
    import fsspec

    name = f"doctor-{uuid.uuid4().hex}.json"
    data = json.dumps({"written by": "cairn doctor"}).encode()
    try:
        if not opened.create(name, data):
            return "says that a new record was there already"
        if opened.read(name) != data:
            return "gives back other bytes than were written"
        if opened.create(name, data):
            return "writes over a record that should be made only once"
        filesystem, path = fsspec.core.url_to_fs(f"{opened.url}/{name}")
        filesystem.rm(path)
    except Exception as error:
        return one_line(error) or type(error).__name__
    return ""


def _pins(lock: str) -> list[tuple[str, str]]:
    """Name and version of every requirement of a lock that is for this machine."""
    from packaging.markers import Marker

    return [(name, version) for name, version, when in PIN.findall(lock) if not when or Marker(when).evaluate()]


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """What git prints; None when it ends with an error."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None
