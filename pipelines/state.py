"""What state each stage is in, and why: read from the disk and the store, without running anything.

The rule is the runner's own: a stage is up to date when a trusted attestation stands under its stage key and its
outputs have the digests that it names. Where they do not, the attestation of what lies there tells which part of the
key has changed since. An attestation under the key also foretells what a run will make, so what comes after is judged
by that: a stage whose output was damaged is made again, and those after it find the bytes that they were made of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import cairn.recipe
from cairn.errors import SourceError, one_line
from cairn.lineage import attestation, environment, signing
from cairn.lineage.attestation import Attestation, Code
from cairn.lineage.digests import Digests
from cairn.lineage.model_signature import is_signed
from cairn.lineage.stage import Component, trusted
from cairn.lineage.store import Store, identity
from cairn.recipe import Section
from components.recipe import Recipe
from components.snapshot.lock import read_lock
from pipelines.differences import Difference, differences, flat
from pipelines.stages import RECIPE, Stage, stages
from pipelines.work import Work, work_of


class State(Enum):
    """What a stage's outputs are, seen from the recipe in force."""

    UP_TO_DATE = "up to date"
    STORED = "in the store"
    """Made before: a run brings the bytes back and does no work."""
    STALE = "stale"
    MISSING = "missing"
    INTERRUPTED = "interrupted"
    """Begun and stopped: a run goes on from there."""
    FAILED = "failed"
    """Begun and ended with an error, which has to be put right first."""
    RUNNING = "running"


SETTLED = (State.UP_TO_DATE, State.STORED)


@dataclass(frozen=True)
class Standing:
    """One stage."""

    stage: str
    state: State
    key: str | None
    """The stage key; None while an input is missing."""
    outputs: Mapping[str, str | None]
    """Digest of what lies at each output's place."""
    will_be: Mapping[str, str] | None = None
    """Digest of each output after a run, where that can be told: it is so now, or was made under this key before."""
    why: tuple[Difference, ...] = ()
    """What differs from the attestation that made the present outputs, or from the bytes it names."""
    work: Work | None = None
    code: Code | None = None
    """The code that made the outputs, where it is not the code that is running now."""
    finished: str | None = None
    """When the outputs were made."""
    unsigned: tuple[str, ...] = ()
    """Outputs that are up to date, and beside which no signature of theirs lies: another's may."""


def standings(overrides: Sequence[str] = (), root: Path = Path()) -> list[Standing]:
    """Every stage of the project at `root`, in the order in which they run.

    Raises:
        RecipeError: there is no valid recipe. StoreError: the store cannot be reached.
    """
    recipe = cairn.recipe.load(Recipe, root / RECIPE, overrides)
    reader = _Reader(root, Store.default(root), Digests(root))
    found: list[Standing] = []
    for stage in stages():
        found.append(reader.standing(stage, getattr(recipe, stage.name), found))
    reader.digests.keep()
    return found


@dataclass
class _Reader:
    """Reads one project."""

    root: Path
    store: Store
    digests: Digests
    settled: dict[str, str | None] = field(default_factory=dict)
    """Digest of every artifact seen so far: after a run, where that can be told; else of what lies there."""

    def standing(self, stage: Stage, section: Section, before: Sequence[Standing]) -> Standing:
        inputs = {name: self.settled[name] for name in stage.inputs}
        outputs = {name: self.digests.of(path) for name, path in stage.outputs.items()}
        unsettled = tuple(
            Difference("before", one.stage, None, one.state.value)
            for one in before
            if set(one.outputs) & set(inputs) and one.will_be is None
        )
        makers = [attestation.maker(self.store, digest) for digest in outputs.values() if digest is not None]
        last = max(filter(None, makers), key=lambda one: one.finished, default=None)
        key: str | None = None
        will_be: Mapping[str, str] | None = None
        if stage.name == "snapshot":
            key = f"snapshot-{identity(section.model_dump(mode='json'))}"
            state, why = self._snapshot(stage, section, key, last)
            if state is State.UP_TO_DATE:
                will_be = _present(outputs)
        elif not all(inputs.values()):
            missing = tuple(Difference("input", name, None, None) for name, digest in inputs.items() if digest is None)
            state, why = State.MISSING, unsettled or missing
        else:
            component = Component.of(f"components.{stage.name}")
            digests = {name: digest for name, digest in inputs.items() if digest is not None}
            key = component.key(section, digests)
            state, why, will_be = self._stage(component, section, key, digests, outputs, last)
            if unsettled:
                state, why, will_be = State.STALE if state in SETTLED else state, (*unsettled, *why), None
        work = work_of(stage.name, key, self.root / ".cairn")
        if work and work.process is None and state in SETTLED:
            work = None  # a run takes what is there, and clears away what an interrupted one left
        if work:
            stopped = State.FAILED if work.failed else State.INTERRUPTED
            state = stopped if work.process is None else State.RUNNING
        if state is State.RUNNING:
            will_be = None  # it may be with another recipe
        self.settled |= will_be or outputs
        code = last.code if last and last.code.sha256 != environment.code()["sha256"] else None
        finished = last.finished if last else None
        unsigned = self._unsigned(stage, outputs) if state is State.UP_TO_DATE else ()
        return Standing(stage.name, state, key, outputs, will_be, why, work, code, finished, unsigned)

    def _unsigned(self, stage: Stage, outputs: Mapping[str, str | None]) -> tuple[str, ...]:
        signs = Component.of(f"components.{stage.name}").signs
        keys = signing.trusted_keys() if signs else {}
        pins = {name: self.store.pin(outputs[name] or "") for name in signs}
        return tuple(n for n, pin in pins.items() if pin and not is_signed(self.root / stage.outputs[n], pin, keys))

    def _snapshot(
        self, stage: Stage, section: Section, key: str, last: Attestation | None
    ) -> tuple[State, tuple[Difference, ...]]:
        path = self.root / stage.outputs["sources"]
        if not path.exists():
            return State.MISSING, ()
        try:
            lock = read_lock(path)
        except SourceError as error:
            return State.STALE, (Difference("unreadable", "sources", None, one_line(error)),)
        if f"snapshot-{lock.recipe}" != key:
            changed = differences("recipe", flat(last.section, "snapshot"), _flat(section, "snapshot")) if last else ()
            return State.STALE, changed or (Difference("recipe", "snapshot", lock.recipe, key.partition("-")[2]),)
        if lock.tree is not None and not self.store.has(lock.tree):
            return State.STALE, (Difference("output", "sources", lock.tree, None),)
        return State.UP_TO_DATE, ()

    def _stage(
        self,
        component: Component,
        section: Section,
        key: str,
        inputs: Mapping[str, str],
        outputs: Mapping[str, str | None],
        last: Attestation | None,
    ) -> tuple[State, tuple[Difference, ...], Mapping[str, str] | None]:
        """State, reasons, and what the outputs will be."""
        lost: tuple[Difference, ...] = ()
        made: list[Mapping[str, str]] = []
        for attested in trusted(self.store, key, component.name):
            lost = differences("output", attested.outputs, outputs)
            if not lost:
                return State.UP_TO_DATE, (), attested.outputs
            if all(self.store.has(one.then) for one in lost):
                return State.STORED, lost, attested.outputs
            made.append(attested.outputs)
        state = State.STALE if any(outputs.values()) else State.MISSING
        # Machines that made different bytes under one key foretell nothing.
        will_be = made[0] if made and all(one == made[0] for one in made) else None
        if last is None:
            nobody = tuple(Difference("output", name, None, digest) for name, digest in outputs.items() if digest)
            return state, lost or nobody, will_be
        # What lies there may be the sound result of another recipe: then nobody changed it.
        sound = all(last.outputs.get(name) == digest for name, digest in outputs.items())
        reasons = (
            *(() if sound else lost),
            *differences("version", {component.name: last.version}, {component.name: component.version}),
            *differences("input", {name: last.inputs.get(name) for name in inputs}, inputs),
            *differences("recipe", flat(last.section, component.name), _flat(section, component.name)),
            *differences("package", last.packages, component.package_versions()),
        )
        return state, reasons, will_be


def _present(outputs: Mapping[str, str | None]) -> dict[str, str]:
    return {name: digest for name, digest in outputs.items() if digest is not None}


def _flat(section: Section, name: str) -> dict[str, Any]:
    return flat(section.model_dump(mode="json"), name)
