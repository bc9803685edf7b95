"""Run a stage: a pure function of its inputs, its recipe section and the version of its component.

That tuple is the stage key. A stage is up to date when a trusted attestation stands under its key and its outputs
still have the digests it names; then nothing runs. Otherwise the work runs in `.cairn/work/<stage key>`, which survives
a kill, and what it made is hashed, attested and moved into place, in that order: whatever is at an output's path is
whole, and what a kill left behind is found by the next run.

`run_stage` works on paths, as a project has them. `run_pinned` works on digests, for machines that share no disk: the
store is where inputs come from and where outputs are.
"""

import fcntl
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

import cairn.recipe
from cairn.errors import AttestationError, StageError, StoreError, written_at
from cairn.lineage import attestation, environment, signing
from cairn.lineage.artifact import (
    Artifact,
    check_place,
    digest_of,
    move_into_place,
    read_artifact,
    remove,
)
from cairn.lineage.attempts import begin, failure_noted
from cairn.lineage.attestation import Attestation
from cairn.lineage.keeping import is_pinned, keep_what_is_replaced, mend_pins
from cairn.lineage.model_signature import sign_outputs
from cairn.lineage.record import record
from cairn.lineage.statement import Resource, stage_key
from cairn.lineage.store import Store
from cairn.progress import duration
from cairn.recipe import Section
from cairn.resources import Resources

S = TypeVar("S", bound=Section)


class Component(Section):
    """What a component's `metadata.yaml` says of it."""

    name: str
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    """A promise: same version, inputs, recipe section and packages give the same bytes."""
    stability: str = Field(pattern="^(alpha|beta|stable)$")
    description: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    packages: tuple[str, ...]
    """Bit-affecting packages; `python` and `unicodedata` are understood besides distributions."""
    signs: tuple[str, ...] = ()
    """Outputs that people take away without the store: they get a signature of their own (`model_signature.py`)."""
    tags: tuple[str, ...] = ()
    history: dict[str, str] = Field(default_factory=dict)
    """What was other in each version, the newest last."""

    @classmethod
    def of(cls, package: str) -> "Component":
        """The component in the folder of an importable package, such as `components.ingest`."""
        return cairn.recipe.load(cls, environment.ROOT.joinpath(*package.split("."), "metadata.yaml"))

    def key(self, section: Section, inputs: Mapping[str, str]) -> str:
        """The stage key: sha256 over component, version, input digests, section and bit-affecting packages."""
        return stage_key(self.name, self.version, inputs, section.model_dump(mode="json"), self.package_versions())

    def package_versions(self) -> dict[str, str]:
        """Installed versions of the bit-affecting packages."""
        return {name: environment.package_version(name) for name in self.packages}


@dataclass(frozen=True)
class Task:
    """What the work of a stage is given."""

    key: str
    inputs: Mapping[str, Path]
    """Without those that the work reads from the store itself."""
    outputs: Mapping[str, Path]
    """Empty directories to fill. They are hashed, attested and moved into place when the work returns."""
    work: Path
    """Scratch that survives a kill and belongs to this stage key alone: finished units of work go here."""
    store: Store
    resources: Resources
    digests: Mapping[str, str]
    """Input name to digest."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the attestation should say besides: seeds, world size, where it was resumed."""
    objects: list[Resource] = field(default_factory=list)
    """Source objects that the work read, which no stage made."""
    sources: dict[str, Any] = field(default_factory=dict)
    """What is said of the sources of those objects, by the name of each."""
    afterwards: list[Callable[[], None]] = field(default_factory=list)
    """What to do once the outputs are attested, such as letting go of work in progress that lies elsewhere."""


class Outcome(Enum):
    """What `run_stage` did."""

    UP_TO_DATE = "up to date"
    RESTORED = "restored"
    RAN = "done"


Note = Callable[[Mapping[str, str], Mapping[str, str], Outcome], None]
"""Writes down what a stage did: the digest of every input and output, and the outcome."""


def run_stage(
    component: Component,
    section: S,
    work: Callable[[S, Task], BaseException | None],
    *,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    store: Store,
    resources: Resources,
    home: Path = Path(".cairn"),
    note: Note | None = None,
) -> Outcome:
    """Make sure that `outputs` hold what this stage makes of `inputs`.

    Args:
        work: fills the directories of `Task.outputs`. It is not called when an attestation shows the outputs to be up
            to date, or when their bytes can be brought back from the store or the DVC cache. What it returns is raised
            once the outputs are in place: a Ctrl-C that came too late to stop it must still stop what would follow.
        inputs, outputs: paths under the names that the component declares.
        home: where work in progress lies; on the same file system as the outputs.
        note: is told what was done, last.

    Raises:
        StageError: an input is missing, or another process is running this stage.
        ArtifactError: an output cannot be put where it should be.
        CairnError: what `work` raises. Its scratch is kept.
    """
    _check_names(component, inputs, outputs)
    digests = {name: _input_digest(name, path) for name, path in inputs.items()}
    key = component.key(section, digests)
    folder = home / "work" / key
    with only_one(home, component, key):
        for attested in trusted(store, key, component.name):
            restored = _restore(component, attested.outputs, outputs, folder, store)
            if restored is not None:
                remove(folder)
                mend_pins(attested, outputs, store)
                sign_outputs(component.signs, attested.outputs, store, outputs)
                if note is not None:
                    note(digests, attested.outputs, restored)
                return restored

        for output in outputs.values():
            check_place(output, home)

        def keep(path: Path) -> Artifact:
            artifact = read_artifact(path)
            store.write_pin(artifact)
            return artifact

        run = _Run(component, section, key, folder, store, resources, digests, time.monotonic())
        made, interrupted = run.make(work, inputs, keep, shared=inputs)
        for name, output in outputs.items():
            keep_what_is_replaced(component.name, output, made[name], store)
            trash = folder / "replaced" / name
            trash.parent.mkdir(parents=True, exist_ok=True)
            move_into_place(run.output(name), output, trash)
        sign_outputs(component.signs, made, store, outputs)
        if note is not None:
            note(digests, made, Outcome.RAN)
        run.end(made, interrupted)
        return Outcome.RAN


def run_pinned(
    component: Component,
    section: S,
    work: Callable[[S, Task], BaseException | None],
    *,
    inputs: Mapping[str, str],
    store: Store,
    resources: Resources,
    home: Path = Path(".cairn"),
    reads: Mapping[str, Collection[str]] | None = None,
) -> tuple[Outcome, dict[str, str]]:
    """Make sure that the store holds what this stage makes of `inputs`.

    Where an attestation says that it does, nothing runs and nothing is fetched. No path outlives the call, but for the
    work in progress of a run that was cut short.

    Args:
        work: as in `run_stage`.
        inputs: digests under the names that the component declares.
        home: where inputs are fetched to, and where work in progress lies.
        reads: the files that `work` reads of an input, by their paths in it; of an input without an entry, all. An
            input of which it reads none here has no path in `Task.inputs`.

    Returns:
        UP_TO_DATE or RAN, and the digest of every output.

    Raises:
        StoreError: an input is not in the store, or not what its digest says.
        StageError: another process is running this stage.
        CairnError: what `work` raises. Its scratch is kept.
    """
    _check_names(component, inputs, component.outputs)
    key = component.key(section, inputs)
    folder = home / "work" / key
    with only_one(home, component, key):
        for attested in trusted(store, key, component.name):
            made_here = attested.outputs.items() if set(attested.outputs) == set(component.outputs) else ()
            if made_here and all(is_pinned(attested, name, store) and store.hold(digest) for name, digest in made_here):
                remove(folder)
                sign_outputs(component.signs, attested.outputs, store)
                return Outcome.UP_TO_DATE, attested.outputs
        run = _Run(component, section, key, folder, store, resources, inputs, time.monotonic())
        wanted = {name: (reads or {}).get(name) for name in inputs}
        fetched = {name: folder / "inputs" / name for name, only in wanted.items() if only is None or only}
        for name, path in fetched.items():
            only = wanted[name]
            if only is not None or digest_of(path) != inputs[name]:
                path.parent.mkdir(parents=True, exist_ok=True)
                store.get(inputs[name], path, only)
        # The bytes are in the store before an attestation says what they are: whoever finds it can fetch them.
        made, interrupted = run.make(work, fetched, store.put, shared={})
        sign_outputs(component.signs, made, store)
        run.end(made, interrupted)
        return Outcome.RAN, made


@dataclass(frozen=True)
class _Run:
    """One run of a stage that is not up to date."""

    component: Component
    section: Section
    key: str
    folder: Path
    store: Store
    resources: Resources
    digests: Mapping[str, str]
    """Input name to digest."""
    started: float

    def output(self, name: str) -> Path:
        """Where the work puts an output, until it is moved."""
        return self.folder / "outputs" / name

    def make(
        self,
        work: Callable[[Any, Task], BaseException | None],
        inputs: Mapping[str, Path],
        keep: Callable[[Path], Artifact],
        shared: Mapping[str, Path],
    ) -> tuple[dict[str, str], BaseException | None]:
        """Do the work, keep what it made and attest it; the digest of every output, and what `work` returned.

        Args:
            shared: inputs that somebody else may write to. What is attested is what was read.

        Raises:
            StageError: an input was changed meanwhile.
        """
        print(f"{self.component.name}: running (stage key {self.key[:12]})", file=sys.stderr, flush=True)
        launch = begin(self.folder, self.component.package_versions(), self.resources)
        staged = {name: self.output(name) for name in self.component.outputs}
        for path in staged.values():
            remove(path)
            path.mkdir(parents=True)
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        task = Task(self.key, inputs, staged, scratch, self.store, self.resources, self.digests)
        with failure_noted(self.folder), written_at(self.folder):
            interrupted = work(self.section, task)
        for name, path in shared.items():
            if digest_of(path) != self.digests[name]:
                raise StageError(f"{path}: the input {name} was changed while {self.component.name} ran: run it again")
        made = {}
        for name, path in staged.items():
            if not any(found.is_file() for found in path.rglob("*")):
                raise RuntimeError(f"{self.component.name} left its output {name} empty")
            made[name] = keep(path)
        record(
            self.component,
            self.section,
            self.key,
            dependencies=[*(Resource(name, digest) for name, digest in self.digests.items()), *task.objects],
            outputs=made,
            facts=task.facts,
            launch=launch,
            store=self.store,
            resources=self.resources,
            sources=task.sources,
        )
        for each in task.afterwards:
            each()
        return {name: artifact.digest for name, artifact in made.items()}, interrupted

    def end(self, made: Mapping[str, str], interrupted: BaseException | None) -> None:
        """Drop what was work in progress and say what was made; then the interruption that came too late."""
        remove(self.folder)
        summary = ", ".join(f"{name} {digest[:12]}" for name, digest in made.items())
        took = duration(time.monotonic() - self.started)
        print(f"{self.component.name}: {summary} ({took})", file=sys.stderr, flush=True)
        if interrupted is not None:
            raise interrupted


def _check_names(component: Component, inputs: Collection[str], outputs: Collection[str]) -> None:
    for kind, given, declared in (("input", inputs, component.inputs), ("output", outputs, component.outputs)):
        if set(given) != set(declared):
            raise StageError(f"{component.name}: takes {kind}s {', '.join(declared)}; got {', '.join(given) or 'none'}")


def _input_digest(name: str, path: Path) -> str:
    digest = digest_of(path)
    if digest is None:
        raise StageError(
            f"{path}: the input {name} is missing: run the stage that makes it first (`cairn run` runs all)"
        )
    return digest


def trusted(store: Store, key: str, stage: str) -> Iterator[Attestation]:
    """Attestations under the key that a trusted key signed. The others are named and passed over."""
    keys = signing.trusted_keys()
    for identifier, envelope in attestation.made_under(store, key):
        try:
            verified = attestation.verify(envelope, keys)
        except AttestationError as error:
            # The runner makes the stage again. Whoever would rather believe it is told what to do.
            said = f"{stage}: attestation {identifier[:12]} is not relied on: {error}"
            if "no trusted" in said:
                said += f": to believe it, put the public key of whoever signed into {signing.home() / 'trusted'}"
            print(said, file=sys.stderr, flush=True)
            continue
        # The record under the key is only a signpost: what was signed must say the same.
        if verified.statement["predicate"]["buildDefinition"]["internalParameters"].get("stageKey") == key:
            yield verified


def _restore(
    component: Component, wanted: Mapping[str, str], outputs: Mapping[str, Path], folder: Path, store: Store
) -> Outcome | None:
    """Bring every output to its attested digest; None when some bytes are nowhere to be had."""
    if set(wanted) != set(outputs):
        return None
    sources: dict[str, Path | None] = {}
    for name, digest in wanted.items():
        if digest_of(outputs[name]) == digest:
            continue
        staged = folder / "outputs" / name
        if digest_of(staged) == digest:
            sources[name] = staged
        elif store.has(digest):
            sources[name] = None
        else:
            return None
    for name, staged_at in sources.items():
        if staged_at is None:
            staged_at = folder / "restored" / name
            remove(staged_at)
            staged_at.parent.mkdir(parents=True, exist_ok=True)
            try:
                store.get(wanted[name], staged_at)
            except StoreError as error:
                # The work can make it again; a damaged object must not stand in its way.
                print(f"{component.name}: {error}: it is made again", file=sys.stderr, flush=True)
                return None
        keep_what_is_replaced(component.name, outputs[name], wanted[name], store)
        trash = folder / "replaced" / name
        trash.parent.mkdir(parents=True, exist_ok=True)
        move_into_place(staged_at, outputs[name], trash)
    return Outcome.RESTORED if sources else Outcome.UP_TO_DATE


@contextmanager
def only_one(home: Path, component: Component, key: str) -> Iterator[None]:
    """Hold the stage key: the kernel lets go of it when this process ends, however it ends."""
    locks = home / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with open(locks / key, "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise StageError(
                f"{component.name}: process {holder} is running this stage: wait for it, or stop it first"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
