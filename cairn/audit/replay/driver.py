"""Replay attested stages, one after the other, in a scratch folder.

What cannot be replayed here is told and is no fault: another version of a component is installed, or what it needs is
not to be had. Only what came out otherwise is.
"""

import json
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cairn.audit.replay.job import Fetch, Job, Sample, UnavailableError
from cairn.audit.verdicts import Finding, Verdict
from cairn.errors import CairnError
from cairn.lineage.artifact import remove
from cairn.lineage.attestation import Attestation
from cairn.lineage.stage import Component
from cairn.lineage.store import Store
from cairn.resources import Resources


def replay_all(
    attestations: Iterable[Attestation],
    fetch: Fetch,
    *,
    store: Store,
    sample: Sample,
    scratch: Path,
    resources: Resources,
) -> Iterator[tuple[Attestation, Finding]]:
    """`replay` of each, in order; each is yielded as soon as it is known."""
    for attested in attestations:
        print(f"replay: {attested.component}", file=sys.stderr, flush=True)
        yield attested, replay(attested, fetch, store=store, sample=sample, scratch=scratch, resources=resources)


def replay(
    attested: Attestation,
    fetch: Fetch,
    *,
    store: Store,
    sample: Sample,
    scratch: Path,
    resources: Resources,
) -> Finding:
    """Do again what a stage is said to have done, on a sample.

    Args:
        fetch: brings artifacts; they are read and never written to.
        store: where source objects are.
        scratch: where the work is done. What is put there goes when this returns or raises.

    Returns:
        REPRODUCED: it came out the same. CLOSE: within a tolerance, which is said, on hardware that cannot give the
        same bits. CONFLICT: it did not come out, and the details name what. ATTESTED: it could not be replayed, or, of
        a snapshot, what is upstream has changed since, which is no fault.

    Raises:
        KeyboardInterrupt: and nothing is left behind.
    """
    name = attested.component
    again = _stage(name)
    if again is None:
        return _not_replayed(f"there is no stage {name} here")
    component = Component.of(f"components.{name}")
    if attested.version != component.version:
        return _not_replayed(
            f"{name} {attested.version} made it and {component.version} is installed: install a Cairn that has it"
        )
    folder = scratch / f"{name}-{uuid.uuid4().hex[:12]}"
    folder.mkdir(parents=True)
    try:
        section = _section(attested)
        return again(Job(attested, component, section, fetch, store, sample, folder, resources))
    except UnavailableError as error:
        return _not_replayed(str(error))
    except CairnError as error:
        return _not_replayed(f"it failed here: {error}")
    finally:
        remove(folder)


def _not_replayed(why: str) -> Finding:
    return Finding(Verdict.ATTESTED, f"was not replayed: {why}")


def _section(attested: Attestation) -> object:
    """The section of the recipe, as this version of the component reads it."""
    from components.recipe import Recipe

    kind = Recipe.model_fields[attested.component].annotation
    try:
        return kind.model_validate_json(json.dumps(attested.section))  # type: ignore[union-attr]
    except ValueError as error:
        raise UnavailableError(f"its section of the recipe is not one of this version: {error}") from None


def _stage(name: str) -> Callable[[Job], Finding] | None:
    """What replays a stage. Imported when it is asked for: training comes with torch."""
    if name == "snapshot":
        from cairn.audit.replay import snapshot

        return snapshot.replay
    if name == "ingest":
        from cairn.audit.replay import ingest

        return ingest.replay
    if name == "tokenize":
        from cairn.audit.replay import tokenize

        return tokenize.replay
    if name == "pretrain":
        from cairn.audit.replay import pretrain

        return pretrain.replay
    if name == "export":
        from cairn.audit.replay import export

        return export.replay
    if name == "evaluate":
        from cairn.audit.replay import evaluate

        return evaluate.replay
    if name == "report":
        from cairn.audit.replay import report

        return report.replay
    return None
