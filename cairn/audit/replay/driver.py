"""Replay an attested stage in a scratch folder.

What cannot be replayed here is told and is no fault: another version of a component is installed, or what it needs is
not to be had. Only what came out otherwise is, and a stage that refuses the very bytes that it is said to have read.
"""

import json
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from cairn.audit.replay.job import Fetch, Job, Sample, UnavailableError
from cairn.audit.verdicts import Finding, Verdict
from cairn.errors import FULL_DISK, ArtifactError, CairnError, one_line
from cairn.lineage.artifact import remove
from cairn.lineage.attestation import Attestation
from cairn.lineage.stage import Component
from cairn.lineage.store import Store
from cairn.resources import Resources
from pipelines.stages import NAMES


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
        same bits. CONFLICT: it did not come out, and the details name what. ATTESTED: it could not be replayed, or it
        came out otherwise and nothing was promised: other packages, or sources that changed upstream since.

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
    print(f"replay: {name}", file=sys.stderr, flush=True)
    folder = scratch / f"{name}-{uuid.uuid4().hex[:12]}"
    folder.mkdir(parents=True)
    job = Job(attested, component, None, fetch, store, sample, folder, resources)
    try:
        job = replace(job, section=_section(attested))
        return again(job)
    except UnavailableError as error:
        return _not_replayed(str(error))
    except ArtifactError as error:
        # Every byte of it was found to be that of its digest: the stage cannot have gone through with it.
        return job.other("the stage refuses what it is said to have worked on", [one_line(error)])
    except CairnError as error:
        return _not_replayed(f"it failed here: {one_line(error)}")
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            raise  # it is this machine that has to be mended
        # What a forger signed may break any library that reads it, and the other stages are still to be told of.
        return _not_replayed(f"it failed here: {type(error).__name__}: {one_line(error)}")
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
    if name not in NAMES:
        return None
    again: Callable[[Job], Finding] = import_module(f"cairn.audit.replay.{name}").replay
    return again
