"""What led to an artifact: the attestations from it back to the sources, one for each stage."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cairn.lineage import attestation
from cairn.lineage.attestation import Attestation
from cairn.lineage.graph import Keys
from cairn.lineage.stage import Component
from cairn.lineage.store import Store
from pipelines.differences import Difference, differences, flat
from pipelines.stages import NAMES


@dataclass(frozen=True)
class Ancestry:
    """One run, seen from what it ended in."""

    stages: Mapping[str, Attestation]
    """By name, in the order in which they run; a stage whose attestation is not to be had is not there."""

    @property
    def digests(self) -> dict[str, str]:
        """Artifact name to digest."""
        return {name: digest for one in self.stages.values() for name, digest in one.outputs.items()}

    def name_of(self, digest: str) -> str:
        """What the stage that made an artifact calls it."""
        return next((name for name, made in self.digests.items() if made == digest), "artifact")

    @property
    def recipe(self) -> dict[str, Any]:
        """Dotted key to value, defaults filled in."""
        return {key: value for name, one in self.stages.items() for key, value in flat(one.section, name).items()}

    @property
    def versions(self) -> dict[str, str]:
        """Stage to version of its component."""
        return {name: one.version for name, one in self.stages.items()}

    @property
    def packages(self) -> dict[str, str]:
        """Versions of all bit-affecting packages."""
        return {package: version for one in self.stages.values() for package, version in one.packages.items()}

    @property
    def code(self) -> dict[str, str]:
        """Stage to digest of Cairn's own code."""
        return {name: one.code.sha256 for name, one in self.stages.items()}


def ancestry(store: Store, digest: str, keys: Keys | None = None) -> Ancestry:
    """Walk back from the artifact of this digest, along trusted attestations; the newest where there are several.

    Args:
        keys: those that are trusted; None is those of this machine.
    """
    found: dict[str, Attestation] = {}
    wanted = [digest]
    while wanted:
        made_by = attestation.maker(store, wanted.pop(), keys)
        if made_by is None or made_by.component not in NAMES or made_by.component in found:
            continue
        found[made_by.component] = made_by
        # Not all that it depended on: code, locks and source objects have no attestations, and may be many.
        inputs = Component.of(f"components.{made_by.component}").inputs
        wanted += [made_by.inputs[name] for name in inputs if name in made_by.inputs]
    return Ancestry({name: found[name] for name in NAMES if name in found})


def ancestral_differences(then: Ancestry, now: Ancestry) -> tuple[Difference, ...]:
    """Where two runs differ, in what a person decided, in what was installed, and in what came out.

    Only stages of which both have an attestation are compared: of the others nothing is known.
    """
    both = [name for name in then.stages if name in now.stages]
    first, second = (Ancestry({name: run.stages[name] for name in both}) for run in (then, now))
    return (
        *differences("recipe", first.recipe, second.recipe),
        *differences("version", first.versions, second.versions),
        *differences("package", first.packages, second.packages),
        *differences("code", first.code, second.code),
        *differences("output", first.digests, second.digests),
    )


def surrounding_differences(then: Ancestry, now: Ancestry) -> tuple[Difference, ...]:
    """Where two runs differ in what they ran on: machine, image, threads, processes, and the commit of the code.

    One for each difference, with the stages that have it: most often all of them have the same.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    for name in then.stages:
        if name in now.stages:
            first, second = (_surroundings(run.stages[name]) for run in (then, now))
            for each in differences("machine", first, second):
                found.setdefault((each.name, str(each.then), str(each.now)), []).append(name)
    return tuple(
        Difference("machine", f"{what} ({', '.join(stages)})", before, after)
        for (what, before, after), stages in found.items()
    )


def _surroundings(attested: Attestation) -> dict[str, str]:
    said = attested.statement["predicate"]["buildDefinition"]["internalParameters"].get("environment") or {}
    processor = said.get("processor") or {}
    code, facts = attested.code, attested.facts
    return {
        "commit": f"{(code.commit or 'none')[:12]}{', changed' if code.dirty else ''}",
        "image": str(said.get("image") or "none"),
        "system": f"{said.get('system')} {said.get('machine')}",
        "processor": str(processor.get("model")),
        "instruction sets": ", ".join(processor.get("flags") or ()) or "none",
        "arithmetic": ", ".join(f"{n}={v}" for n, v in sorted((said.get("arithmetic") or {}).items())) or "default",
        "processes": str(facts.get("world_size", "1")),
    }
