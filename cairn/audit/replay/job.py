"""What the replay of one stage is given, and how it says what it found."""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from cairn.audit.verdicts import Finding, Verdict
from cairn.errors import ArtifactError, CairnError, StageError, StoreError
from cairn.lineage import environment
from cairn.lineage.artifact import digest_of, read_artifact
from cairn.lineage.attestation import Attestation
from cairn.lineage.stage import Component
from cairn.lineage.store import Store
from cairn.resources import Resources

SHOWN = 20  # details of a finding; how many there are besides is told
# Threads of the process that replays: every stage sets its own number, which its section of the recipe names.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Fetch(Protocol):
    """Brings an artifact, or some files of it, to where they can be read."""

    def __call__(self, digest: str, only: Collection[str] | None = None) -> Path:
        """The folder of a verified artifact, or the file where the artifact is one.

        Args:
            only: the files that are wanted, by their paths in the artifact; None is all of it.

        Raises StoreError or ArtifactError when it is not to be had.
        """


@dataclass(frozen=True)
class Sample:
    """How much is done again."""

    seed: int = 0
    """Of the draw: the same seed draws the same objects, shards and documents, on every machine."""
    size: int | None = 20
    """Objects, shards or documents of a stage; None is all of them: the whole stage is run again."""
    steps: tuple[int, int] | None = None
    """Training steps (a, b]: those after step a up to step b. None is the first ones, and what follows the last state
    that was kept."""

    @classmethod
    def asked(cls, size: str, seed: int, steps: str | None) -> "Sample":
        """The sample that a person asks for.

        Args:
            size: a whole number from 1, or `all`.
            steps: `A..B`, or None.

        Raises StageError when it is not written so.
        """
        if size != "all" and not (size.isdecimal() and int(size)):
            raise StageError(f"--sample {size}: must be a whole number from 1, or all")
        found = re.fullmatch(r"(\d+)\.\.(\d+)", steps or "")
        if steps is not None and (found is None or int(found[1]) >= int(found[2])):
            raise StageError(f"--steps {steps}: write two steps, the first before the second, as A..B")
        stretch = (int(found[1]), int(found[2])) if found else None
        return cls(seed, None if size == "all" else int(size), stretch)


class UnavailableError(CairnError):
    """What a replay needs is not to be had: then nothing is known, and nothing is wrong."""


@dataclass(frozen=True)
class Job:
    """One stage to replay."""

    attested: Attestation
    component: Component
    """As it is installed, of the attested version."""
    section: Any
    """Of the recipe, as attested."""
    fetch: Fetch
    store: Store
    """Where source objects are."""
    sample: Sample
    scratch: Path
    """A folder of this replay alone, which goes when it ends."""
    resources: Resources

    def input(self, name: str, only: Collection[str] | None = None) -> Path:
        """An input of the stage, or some files of it. Raises UnavailableError."""
        return self._fetched(name, self.attested.inputs.get(name), only)

    def output(self, name: str, only: Collection[str] | None = None) -> Path:
        """An output of the stage, or some files of it. Raises UnavailableError."""
        return self._fetched(name, self.attested.outputs.get(name), only)

    def files(self, digest: str) -> dict[str, str]:
        """The sha256 of every file of an artifact, by path. It is fetched only where no store has a pin of it."""
        pinned = self.store.pin(digest)
        listed = pinned if pinned is not None else read_artifact(self._fetched("", digest, None), address=False)
        return {member.path: member.sha256 for member in listed.members}

    def draw(self, names: Sequence[str]) -> list[str]:
        """The sample of `names`, in their order: those of which a hash, keyed with the seed, is least."""
        if self.sample.size is None:
            return list(names)
        drawn = sorted(names, key=lambda name: hashlib.sha256(f"{self.sample.seed} {name}".encode()).digest())
        chosen = set(drawn[: self.sample.size])
        return [name for name in names if name in chosen]

    def remains(self, total: int, what: str, besides: str = "") -> str:
        """What of so many objects, shards or documents was not drawn, in words; nothing where all were.

        Args:
            besides: what was not done again either, drawn or not.
        """
        left = total - min(total, total if self.sample.size is None else self.sample.size)
        told = [f"{left:,} of {total:,} {what} were not drawn"] if left else []
        return "; ".join([*told, *([besides] if besides else [])])

    def compare(self, made: Mapping[str, Path]) -> list[str]:
        """What differs between artifacts that were made again, whole, and those that are attested; file by file."""
        odd: list[str] = []
        for name, path in made.items():
            attested = self.attested.outputs[name]
            if digest_of(path) == attested:
                continue
            then, now = self.files(attested), {m.path: m.sha256 for m in read_artifact(path, address=False).members}
            for file in sorted(then.keys() | now.keys()):
                if then.get(file) != now.get(file):
                    how = (
                        "other bytes"
                        if file in then and file in now
                        else "only " + ("in the artifact" if file in then else "when made again")
                    )
                    odd.append(f"{name}: {file}: {how}")
        return odd

    @cached_property
    def other_packages(self) -> tuple[str, ...]:
        """Bit-affecting packages that are not installed in the attested version."""
        then, now = self.attested.packages, self.component.package_versions()
        return tuple(
            f"{name} was {then.get(name, 'not named')}, here it is {now.get(name, 'not named')}"
            for name in sorted(then.keys() | now.keys())
            if then.get(name) != now.get(name)
        )

    @cached_property
    def other_surroundings(self) -> tuple[str, ...]:
        """Where this machine differs from the attested one in what may decide bits; packages first."""
        said = self.attested.statement["predicate"]["buildDefinition"]["internalParameters"]
        then, now = _arithmetic(said.get("environment", {})), _arithmetic(environment.fingerprint(self.resources))
        differing = (
            f"{name} was {then.get(name)}, here it is {now.get(name)}" for name in now if then.get(name) != now[name]
        )
        return (*self.other_packages, *differing)

    def same(self, said: str, details: Sequence[str] = ()) -> Finding:
        """It came out the same."""
        return Finding(Verdict.REPRODUCED, said, (*details, *self.other_surroundings))

    def close(self, said: str, details: Sequence[str] = ()) -> Finding:
        """It came out nearly the same: which is sound where the hardware is other, and a CONFLICT where it is not."""
        if not self.other_surroundings:
            return Finding(
                Verdict.CONFLICT, f"{said}; the surroundings are those attested, so it must be equal", _cut(details)
            )
        return Finding(Verdict.CLOSE, said, (*_cut(details), *self.other_surroundings))

    def other(self, said: str, details: Sequence[str]) -> Finding:
        """Bytes came out otherwise: a CONFLICT, unless packages for which nothing is promised are at work."""
        if self.other_packages:
            told = f"{said}: with other packages, for which nothing is promised: install those attested to replay it"
            return Finding(Verdict.ATTESTED, told, (*_cut(details), *self.other_surroundings))
        return Finding(Verdict.CONFLICT, said, (*_cut(details), *self.other_surroundings))

    def wrong(self, said: str, details: Sequence[str]) -> Finding:
        """What no package and no hardware explains."""
        return Finding(Verdict.CONFLICT, said, (*_cut(details), *self.other_surroundings))

    def _fetched(self, name: str, digest: str | None, only: Collection[str] | None) -> Path:
        if digest is None:
            raise UnavailableError(f"the attestation names no {name}")
        try:
            return self.fetch(digest, only)
        except (StoreError, ArtifactError) as error:
            raise UnavailableError(f"{name or digest[:12]} is not to be had: {error}") from None


def _arithmetic(said: Mapping[str, Any]) -> dict[str, Any]:
    processor = said.get("processor") or {}
    steered = {name: value for name, value in (said.get("arithmetic") or {}).items() if name not in _THREADS}
    return {
        "the machine": said.get("machine"),
        "the processor": processor.get("model"),
        "its instruction sets": ", ".join(processor.get("flags") or ()),
        "what steers arithmetic": ", ".join(f"{name}={value}" for name, value in sorted(steered.items())) or "nothing",
    }


def _cut(details: Sequence[str]) -> tuple[str, ...]:
    more = (f"and {len(details) - SHOWN} more",) if len(details) > SHOWN else ()
    return (*details[:SHOWN], *more)
