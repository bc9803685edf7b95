"""From a run in the store to the files that pin it in a project: `dvc.lock`, `sources.lock.json`, maybe `params.yaml`.

Nothing is taken on trust that can be looked up: every pin is compared with its digest, an attestation by a trusted key
must say what the run's record says and which addresses its pins have, and every object must lie where `dvc pull` will
look for it, or in the project, from where it can be sent there. Nothing is written here.
"""

import difflib
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

import cairn.recipe
from cairn import version
from cairn.errors import ArtifactError, AttestationError, RecipeError, StageError, StoreError, one_line
from cairn.lineage import attestation, runs, signing
from cairn.lineage.artifact import Artifact, Member
from cairn.lineage.attestation import Attestation
from cairn.lineage.digests import Digests
from cairn.lineage.pins import address, directory_address, directory_listing, pin_of
from cairn.lineage.remote import Remote, default_remote
from cairn.lineage.runs import Ran
from cairn.lineage.store import Store
from cairn.lineage.transfers import SMALL_AT_ONCE
from cairn.progress import progress
from components.recipe import Recipe
from components.snapshot.lock import parse_lock
from pipelines import dvc_lock
from pipelines.differences import Difference, differences, flat
from pipelines.run_recipe import adopted
from pipelines.stages import NAMES, RECIPE, Stage, dvc_yaml, place, stages

DAG = Path("dvc.yaml")
SOURCES = place("sources")
SHOWN = 3  # keys that are named in one line

Keys = Mapping[str, ec.EllipticCurvePublicKey]
Read = Callable[[Path], bytes | None]
"""Reads a file of the project by its path there; None when there is none."""


@dataclass(frozen=True)
class Pinned:
    """A run, as the files of a project say it."""

    run: str
    stages: tuple[str, ...]
    unfinished: tuple[str, ...]
    """Stages that the run did not come to: `dvc.lock` has no entry for them, but one that fits what the run made."""
    digests: Mapping[str, str]
    """Name to digest of every artifact that the run made."""
    lock: dvc_lock.Locked
    recipe: tuple[Difference, ...]
    """What is other in the run's recipe than in the project's, and was taken from the run."""
    files: Mapping[Path, bytes]
    """Every file that pins the run, whether or not it is there already."""
    unsent: Mapping[str, Path]
    """Artifacts that are not where `dvc pull` will look, by name: where each lies in the project, with its digest."""
    lost_listings: tuple[Artifact, ...]
    """Directories of which the store has every file, but not the listing by which DVC finds them."""
    warnings: tuple[str, ...]


def pinned(run: str, store: Store, keys: Keys, read: Read, root: Path = Path(), take_recipe: bool = False) -> Pinned:
    """What pins `run` in a project.

    Args:
        run: its name, or the beginning of it where no other run's name begins so.
        keys: who is believed.
        read: reads the project's files, as they are in the folder or at a Git revision.
        root: where `.dvc/config` is.
        take_recipe: put the run's recipe in force where it is another than the project's.

    Raises:
        CairnError: there is no such run, or something of it is missing, changed, or of another version or recipe.
    """
    store = Store(store.url)  # what a mirror has, nobody else can pull
    run, ran = _ran(run, store)
    known = {stage.name: stage for stage in stages()}
    for one in ran.values():
        _check_version(run, one, known[one.stage])
    _check_chain(run, ran)
    with ThreadPoolExecutor(SMALL_AT_ONCE) as threads:
        attested = list(threads.map(lambda one: _attested(run, one, store, keys), ran.values()))
    _check_dag(read, ran)
    text, changed = _recipe(run, ran, read, take_recipe)

    digests = {name: digest for one in ran.values() for name, digest in (*one.inputs.items(), *one.outputs.items())}
    made = {name: digest for one in ran.values() for name, digest in one.outputs.items()}
    artifacts = {name: _artifact(store, name, digest) for name, digest in digests.items()}
    for said in attested:
        _check_addresses(said, artifacts, store)
    remote = _remote(root, store)
    unsent, lost = _check_objects({name: artifacts[name] for name in made}, store, remote, root)

    # DVC reads the file so: what it says is what the lock holds.
    values = YAML(typ="safe").load(text)
    entries = {name: dvc_lock.entry(known[name], values[name], artifacts) for name in ran}
    before = read(dvc_lock.LOCK)
    lock = dvc_lock.lock(before.decode() if before is not None else None, entries)
    files = {dvc_lock.LOCK: lock.text.encode()}
    warnings: list[str] = []
    if "sources" in made:
        there = read(SOURCES) or b""
        is_it = hashlib.sha256(there).hexdigest() == made["sources"]
        files[SOURCES] = there if is_it else _sources_of(made["sources"], store, root)
        warnings += _sources(files[SOURCES], store)
    if changed:
        files[RECIPE] = text.encode()
    unfinished = tuple(name for name in NAMES if name not in ran)
    return Pinned(run, tuple(ran), unfinished, made, lock, changed, files, unsent, lost, tuple(warnings))


def _ran(run: str, store: Store) -> tuple[str, dict[str, Ran]]:
    """The run's name, and its stages in the order in which they run."""
    noted = runs.read(store, run)
    if not noted:
        names = runs.names(store)
        begin = [name for name in names if name.startswith(run)]
        if len(begin) > 1:
            raise StageError(f"run {run}: {len(begin)} runs have names that begin so: write more of it")
        if not begin:
            close = difflib.get_close_matches(run, names, n=1)
            hint = f"did you mean {close[0]}?" if close else "`cairn pin` lists the runs" if names else "it has no runs"
            raise StageError(f"run {run}: is not in {store}: {hint}")
        run = begin[0]
        noted = runs.read(store, run)
    unknown = sorted(set(noted) - set(NAMES))
    if unknown:
        raise StageError(f"run {run}: has a stage {unknown[0]}, which this Cairn does not know: update Cairn")
    return run, {name: noted[name] for name in NAMES if name in noted}


def _check_version(run: str, ran: Ran, stage: Stage) -> None:
    if ran.version != stage.version:
        raise StageError(
            f"run {run}: {ran.stage} is of version {ran.version}, but {stage.version} is installed: pin it with Cairn "
            f"{ran.cairn} (this is {version.installed()})"
        )
    if set(ran.inputs) != set(stage.inputs) or set(ran.outputs) != set(stage.outputs):
        raise StageError(f"run {run}: the record of {ran.stage} names other inputs or outputs than its component has")


def _check_chain(run: str, ran: Mapping[str, Ran]) -> None:
    """Two runs that wrote under one name do not fit together."""
    made: dict[str, tuple[str, str]] = {}
    for one in ran.values():
        for name, digest in one.inputs.items():
            maker, there = made.get(name, ("", digest))
            if there != digest:
                raise StageError(
                    f"run {run}: {one.stage} read {name} {digest[:12]}, but {maker} made {there[:12]}: two runs wrote "
                    f"under this name: run one of them again under another"
                )
        made |= {name: (one.stage, digest) for name, digest in one.outputs.items()}


def _attested(run: str, ran: Ran, store: Store, keys: Keys) -> Attestation:
    """The record is unsigned. Somebody who is trusted must have said the same."""
    untrusted = other = 0
    for _, said in attestation.believed(store, next(iter(ran.outputs.values())), keys):
        if said is None:
            untrusted += 1
            continue
        agrees = (said.component, said.version, said.outputs) == (ran.stage, ran.version, dict(ran.outputs))
        inputs = {name: said.inputs.get(name) for name in ran.inputs}
        if agrees and inputs == ran.inputs and said.section == ran.section:
            return said
        other += 1
    made = ", ".join(f"{name} {digest[:12]}" for name, digest in ran.outputs.items())
    if other:
        raise AttestationError(
            f"run {run}: no attestation says of {made} what the record of {ran.stage} says: the record was changed: "
            f"run the stage again with `--run {run}`"
        )
    if untrusted:
        raise AttestationError(
            f"run {run}: no key that is trusted here signed how {ran.stage} made {made}: put the public key of the "
            f"machine that ran it into {signing.home() / 'trusted'}"
        )
    raise AttestationError(f"run {run}: no attestation says how {ran.stage} made {made}: run the stage again")


def _check_addresses(attested: Attestation, artifacts: Mapping[str, Artifact], store: Store) -> None:
    """A digest proves nothing of the addresses in its pin, and they are what DVC fetches by."""
    for name, said in attested.addresses.items():
        if pin_of(artifacts[name])["md5"] != said:
            raise StoreError(
                f"{store}/pins/{artifacts[name].digest}.json: has other addresses than were attested, so DVC would "
                f"fetch something else for {name}: it was changed: run {attested.component} again"
            )


def _check_dag(read: Read, ran: Mapping[str, Ran]) -> None:
    """DVC compares `dvc.lock` with what `dvc.yaml` says, word by word."""
    data = read(DAG)
    if data is None:
        raise ArtifactError(f"{DAG}: no such file: `cairn dag --write` writes it")
    try:
        there = YAML(typ="safe").load(data.decode())["stages"]
        ours = YAML(typ="safe").load(dvc_yaml())["stages"]
        other = [name for name in ran if there.get(name) != ours[name]]
    except (YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{DAG}: cannot be read: {one_line(error)}: `cairn dag --write` writes it anew") from None
    if other:
        raise ArtifactError(
            f"{DAG}: its stage {other[0]} is not what this Cairn runs: `cairn dag --write` writes it anew"
        )


def _recipe(run: str, ran: Mapping[str, Ran], read: Read, take: bool) -> tuple[str, tuple[Difference, ...]]:
    """The text of the recipe to be in force, and where the run's is another than the project's."""
    data = read(RECIPE)
    if data is None:
        raise RecipeError(f"{RECIPE}: no such file: `cairn init` writes one")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise RecipeError(f"{RECIPE}: cannot be read: {one_line(error)}") from None
    recipe = cairn.recipe.loads(Recipe, text, str(RECIPE))
    changed = differences("recipe", _flat(recipe.model_dump(mode="json"), ran), _flat(sections(ran), ran))
    if not changed:
        return text, ()
    if not take:
        shown = [f"{one.name} ({_spelled(one.then)} here, {_spelled(one.now)} there)" for one in changed[:SHOWN]]
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        raise RecipeError(
            f"{RECIPE}: is another recipe than that of run {run}: {', '.join(shown)}{more}: `--recipe` takes the "
            "run's, and with `--branch NAME` this folder keeps its own"
        )
    return adopted(text, {name: one.recipe for name, one in ran.items()}, sections(ran)), changed


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def sections(ran: Mapping[str, Ran]) -> dict[str, Any]:
    """The recipe of a run, defaults filled in."""
    return {name: one.section for name, one in ran.items()}


def _flat(recipe: Mapping[str, Any], ran: Mapping[str, Ran]) -> dict[str, Any]:
    return {key: value for name in ran for key, value in flat(recipe[name], name).items()}


def _artifact(store: Store, name: str, digest: str) -> Artifact:
    artifact = store.pin(digest)
    if artifact is None:
        raise StoreError(f"{store}: holds no pin for {name} {digest}: run the stage that makes it again")
    return artifact


def _remote(root: Path, store: Store) -> Store:
    """Where `dvc pull` will look."""
    remote: Remote | None = default_remote(root)
    if remote is None:
        raise StoreError(
            f"no DVC remote is the default, so `dvc pull` has nowhere to look: `dvc remote add --default store {store}`"
        )
    return Store(remote.url)


def _check_objects(
    made: Mapping[str, Artifact], store: Store, remote: Store, root: Path
) -> tuple[dict[str, Path], tuple[Artifact, ...]]:
    """Artifacts that have to be sent, and directories that lack nothing but their listing.

    Raises StoreError when an object is neither where DVC looks nor in the project.
    """
    wanted = [(name, member) for name, artifact in made.items() if name != "sources" for member in artifact.members]
    with progress("objects", len(wanted), "objects") as shown, ThreadPoolExecutor(SMALL_AT_ONCE) as threads:
        missing: dict[str, list[Member]] = {}
        for (name, member), found in zip(wanted, threads.map(lambda one: remote.locate(one[1]), wanted), strict=True):
            shown.advance()
            if found is None:
                missing.setdefault(name, []).append(member)
    unsent: dict[str, Path] = {}
    here = Digests(root)
    for name in missing:
        if same_place(store.url, remote.url) and here.of(place(name)) == made[name].digest:
            unsent[name] = root / place(name)
    lost = {name: members for name, members in missing.items() if name not in unsent}
    if lost:
        name, (member, *_) = next(iter(lost.items()))
        count = sum(map(len, lost.values()))
        more = f" (and {count - 1} more)" if count > 1 else ""
        if not same_place(store.url, remote.url):
            raise StoreError(
                f"{remote}: `dvc pull` looks there, and {name} ({member.path}){more} is not: the run is in "
                f"{store}: make that the default DVC remote, or copy the run over"
            )
        lies = root / place(name)
        there = "holds another artifact" if lies.exists() else "is not there"
        raise StoreError(
            f"{remote}/{address(member.md5)}: {name} ({member.path}) is missing{more}, and {lies} {there}: "
            "`cairn pin` or `dvc push` where its bytes are sends them, or run its stage again"
        )
    directories = [artifact for name, artifact in made.items() if artifact.is_directory and name not in unsent]
    return unsent, tuple(one for one in directories if remote.locate(listing(one)) is None)


def listing(artifact: Artifact) -> Member:
    """The object by which DVC finds the files of a directory."""
    return Member("", "", directory_address(artifact), len(directory_listing(artifact)))


def same_place(one: str, other: str) -> bool:
    """Whether two URLs of stores mean one place."""

    def place(url: str) -> str:
        scheme, separator, rest = url.partition("://")
        if not separator or scheme == "file":
            return os.path.abspath(rest if separator else url)
        return f"{'gs' if scheme == 'gcs' else scheme}://{rest.rstrip('/')}"

    return place(one) == place(other)


def _sources_of(digest: str, store: Store, root: Path) -> bytes:
    """The lock of the sources, as it lies in the project, else from the store."""
    lies = root / SOURCES
    data = lies.read_bytes() if lies.is_file() else b""
    return data if hashlib.sha256(data).hexdigest() == digest else store.read_member(digest, "")


def _sources(data: bytes, store: Store) -> Sequence[str]:
    """What will be missed when the sources must be read again: `dvc pull` does not need their objects."""
    tree = parse_lock(data, str(SOURCES)).tree
    if tree is None or store.has(tree):
        return ()
    return (f"{store}: the source objects ({tree[:12]}) are not there: ingest cannot be run again from this store",)
