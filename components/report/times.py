"""What attestations add to the page: time, speed and machine of the training run, and the artifacts around those that
the report is drawn from. The report artifact has none of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cairn.lineage import attestation, signing
from cairn.lineage.attestation import Attestation
from cairn.lineage.store import Store

TOLD = {"seconds", "tokens_per_second", "resumed_at", "peak_rss_gib", "world_size", "threads"}  # by a training run


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
    digests: Mapping[str, str]
    """Artifact to digest: the optimizer state that was made beside the checkpoint, and the tokenizer and the sources as
    far as attestations lead back."""


def times_of(store: Store, checkpoint: str) -> Times | None:
    """The last run that made the checkpoint of this digest; None when no attestation of it is to be had.

    Attestations that no trusted key signed, that were changed, or that say nothing of times are passed over.
    """
    runs = [run for run in _attested(store, checkpoint) if run.facts.keys() >= TOLD and "processor" in run.environment]
    if not runs:
        return None
    run = max(runs, key=lambda one: one.finished)
    facts, surroundings = run.facts, run.environment
    return Times(
        seconds=float(facts["seconds"]),
        tokens_per_second=float(facts["tokens_per_second"]),
        resumed_at=int(facts["resumed_at"]),
        peak_gib=float(facts["peak_rss_gib"]),
        processor=str(surroundings["processor"]["model"]),
        processes=int(facts["world_size"]),
        threads=int(facts["threads"]),
        finished=run.finished,
        commit=run.code.commit,
        changed=run.code.dirty,
        digests=dict(_around(store, run)),
    )


def _attested(store: Store, digest: str) -> Iterator[Attestation]:
    """Statements of how an artifact was made, as far as they can be relied on."""
    yield from filter(None, (said for _, said in attestation.believed(store, digest, signing.trusted_keys())))


def _around(store: Store, run: Attestation) -> Iterator[tuple[str, str]]:
    """From the training run back to the sources. Where two runs made the same artifact, either leads on."""
    yield from ((name, digest) for name, digest in run.outputs.items() if name == "optimizer")
    for tokenize in _made_input(store, run, "tokens"):
        yield from ((name, digest) for name, digest in tokenize.outputs.items() if name == "tokenizer")
        for ingest in _made_input(store, tokenize, "documents"):
            yield from ((name, digest) for name, digest in ingest.inputs.items() if name == "sources")


def _made_input(store: Store, run: Attestation, name: str) -> Iterator[Attestation]:
    if name in run.inputs:
        yield from _attested(store, run.inputs[name])
