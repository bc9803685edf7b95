"""What the attestation of the training run adds to the page: time, speed, machine and code. The artifact has none."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cairn.errors import AttestationError
from cairn.lineage import attestation
from cairn.lineage.attestation import Attestation
from cairn.lineage.store import Store


@dataclass(frozen=True)
class Times:
    """One training run, as it was attested."""

    seconds: float
    """Wall time of the training loop since it last began."""
    tokens_per_second: float
    resumed_at: int
    """The step at which it last began."""
    peak_gib: float
    """Resident memory of the first process."""
    processor: str
    processes: int
    threads: int
    finished: str
    commit: str | None
    """Of the code; None where it did not run from a checkout."""
    changed: bool
    """Whether the code differed from the commit."""


def times_of(store: Store, checkpoint: str) -> Times | None:
    """The last run that made the checkpoint of this digest; None when no attestation of it is to be had.

    Attestations that no trusted key signed, or that were changed, are passed over.
    """
    found = sorted(_told(store, checkpoint), key=lambda times: times.finished)
    return found[-1] if found else None


def _told(store: Store, checkpoint: str) -> Iterator[Times]:
    keys = attestation.trusted_keys()
    for _, envelope in attestation.made(store, checkpoint):
        try:
            verified = attestation.verify(envelope, keys)
        except AttestationError:
            continue
        if checkpoint in verified.outputs.values():
            yield _times(verified)


def _times(attested: Attestation) -> Times:
    predicate: dict[str, Any] = attested.statement["predicate"]
    internal = predicate["buildDefinition"]["internalParameters"]
    facts, surroundings = internal["facts"], internal["environment"]
    dependencies: list[dict[str, Any]] = predicate["buildDefinition"]["resolvedDependencies"]
    code: dict[str, Any] = next(
        (found.get("annotations", {}) for found in dependencies if found["name"] == "cairn"), {}
    )
    return Times(
        seconds=float(facts["seconds"]),
        tokens_per_second=float(facts["tokens_per_second"]),
        resumed_at=int(facts["resumed_at"]),
        peak_gib=float(facts["peak_rss_gib"]),
        processor=str(surroundings["processor"]["model"]),
        processes=int(facts["world_size"]),
        threads=int(facts["threads"]),
        finished=str(predicate["runDetails"]["metadata"]["finishedOn"]),
        commit=code.get("commit"),
        changed=bool(code.get("dirty")),
    )
