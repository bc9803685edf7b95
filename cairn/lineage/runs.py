"""Runs: which stages a run went through, and what each of them took and made.

    runs/<run>/<stage>.json

A door writes the record last, whatever the stage did: what was up to date belongs to the run too. A record is signed by
nobody. It is a list to go by; how an artifact was made is for attestations to say.
"""

import json
import re
import secrets
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from cairn.errors import StageError, StoreError
from cairn.lineage.artifact import readable
from cairn.lineage.store import Store
from cairn.lineage.transfers import SMALL_AT_ONCE
from cairn.progress import progress

_NAME, _DIGEST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"), re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Ran:
    """One stage of a run."""

    stage: str
    version: str
    """Of the component."""
    cairn: str
    """The version of Cairn that ran it."""
    key: str
    """The stage key, or the name that snapshot takes in its place."""
    inputs: Mapping[str, str]
    """Input name to digest."""
    outputs: Mapping[str, str]
    """Output name to digest."""
    outcome: str
    """What the stage did: `done`, `restored`, `up to date`."""
    recipe: Mapping[str, Any]
    """Its section of the recipe as a person wrote it: `dvc.lock` holds it so."""
    section: Mapping[str, Any]
    """The section with its defaults filled in."""
    finished: str
    """ISO 8601, UTC."""


def check(run: str) -> str:
    """The name of a run. Raises StageError when it cannot be one."""
    if not _NAME.fullmatch(run):
        raise StageError(
            f"run {run!r}: is no name for a run: write letters, digits, dots, hyphens and underscores, 128 at most, "
            "the first a letter or digit"
        )
    return run


def new() -> str:
    """A name that no run has: the time in UTC, to the second, and four random digits."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def note(store: Store, run: str, ran: Ran) -> Ran | None:
    """Write down what a stage of a run did; what was noted there before, if that was made otherwise, is returned.

    Raises StageError when the name is none; StoreError when the store cannot be written to.
    """
    key = _record(check(run), ran.stage)
    before = store.read(key)
    store.write(key, readable(asdict(ran)))
    known = _parsed(before) if before is not None else None
    return known if known and (known.key, known.outputs) != (ran.key, ran.outputs) else None


def read(store: Store, run: str) -> dict[str, Ran]:
    """Stage to what the run did there; empty when there is no such run.

    Raises StoreError when a record is not what a door writes.
    """
    noted, unreadable = _read(store, run)
    if unreadable:
        raise StoreError(unreadable[0])
    return noted


def read_all(store: Store) -> dict[str, dict[str, Ran]]:
    """Every run of the store with its stages, the newest first. A record that cannot be read is told and passed over:
    it should not hide the other runs."""
    found = names(store)
    runs: dict[str, dict[str, Ran]] = {}
    with progress("runs", len(found), "runs") as shown, ThreadPoolExecutor(SMALL_AT_ONCE) as threads:
        for run, (noted, unreadable) in zip(found, threads.map(lambda run: _read(store, run), found), strict=True):
            shown.advance()
            runs[run] = noted
            for said in unreadable:
                print(said, file=sys.stderr)
    return dict(sorted(runs.items(), key=lambda one: (ended(one[1]), one[0]), reverse=True))


def _read(store: Store, run: str) -> tuple[dict[str, Ran], list[str]]:
    """What the run did, and what is wrong with the records that cannot be read."""
    noted: dict[str, Ran] = {}
    unreadable: list[str] = []
    for name in store.list(f"runs/{check(run)}"):
        stage = name.removesuffix(".json")
        data = store.read(_record(run, stage))
        if data is None:
            continue  # it went while we looked
        ran = _parsed(data)
        if ran is not None and ran.stage == stage:
            noted[stage] = ran
        else:
            unreadable.append(
                f"{store}/{_record(run, stage)}: is no record of a stage: it was changed or cut short: run the "
                f"stage again with `--run {run}`"
            )
    return noted, unreadable


def ended(stages: Mapping[str, Ran]) -> str:
    """When the last stage of a run ended: ISO 8601, UTC."""
    return max((ran.finished for ran in stages.values()), default="")


def names(store: Store) -> list[str]:
    """The names of the store's runs, sorted."""
    return [name for name in store.list("runs") if _NAME.fullmatch(name)]


def is_record(data: bytes, stage: str) -> bool:
    """Whether these bytes are what a door writes of a stage."""
    ran = _parsed(data)
    return ran is not None and ran.stage == stage


def _record(run: str, stage: str) -> str:
    return f"runs/{run}/{stage}.json"


def _parsed(data: bytes) -> Ran | None:
    """The record in `data`, or None when it is none."""
    try:
        ran = Ran(**json.loads(data))
        digests = [*ran.inputs.values(), *ran.outputs.values()]
        texts = (ran.stage, ran.version, ran.cairn, ran.key, ran.outcome, ran.finished)
        sound = all(isinstance(text, str) for text in texts) and isinstance(ran.recipe, dict)
        return ran if sound and isinstance(ran.section, dict) and all(map(_DIGEST.fullmatch, digests)) else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
