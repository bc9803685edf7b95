"""A process that is killed between any two of its steps: outputs are whole, and the next run ends as if it had been the
first, with every launch told."""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cairn.lineage import attestation, runs, signing
from cairn.lineage.artifact import digest_of, read_artifact
from cairn.lineage.attempts import NAME
from cairn.lineage.model_signature import verify_model
from cairn.lineage.stage import Outcome
from cairn.lineage.store import Store, records
from components.noting import noting
from tests.lineage.test_stage import SIGNED, Project, Shout, never, run_pinned_with, shout

# What each step ends with, as the interpreter's audit events name it: a file or folder appears in its place, or goes.
STEPS = {"os.rename", "os.link", "os.remove", "os.rmdir"}


def killed(act: Callable[[], object], step: int) -> bool:
    """Whether `act` was killed by SIGKILL as it began its step of this number, the first being 1. False when it has
    fewer."""
    child = os.fork()
    if child == 0:
        left = step

        def count(event: str, _: object) -> None:
            nonlocal left
            left -= event in STEPS
            if left == 0 and event in STEPS:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            act()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def launches(home: Path) -> list[str]:
    """The invocations that the work folder tells of."""
    logs = [log.read_text() for log in home.glob(f"work/*/{NAME}")]
    return [json.loads(line)["invocation"] for log in logs for line in log.splitlines()]


def check_records(store: Store, made: dict[str, str], before: list[str], outcome: Outcome) -> None:
    """Every attestation lies where an audit looks for it, the signature is there, and the last of those who did the
    work tells of all others."""
    found = {}
    for digest in made.values():
        for identifier, envelope in attestation.made(store, digest):
            one = found[identifier] = attestation.verify(envelope, signing.trusted_keys())
            assert one.outputs == made
            assert (identifier, envelope) in attestation.made_under(store, one.stage_key)
            assert all((identifier, envelope) in attestation.made(store, other) for other in one.outputs.values())
    told = max(([one["invocation"] for one in each.attempts] for each in found.values()), key=len)
    assert told[: len(before)] == before
    assert outcome is not Outcome.RAN or len(told) == len(before) + 1
    artifact = store.pin(made["loud"])
    assert artifact
    bundles = [bundle for _, bundle in records(store, f"signatures/{made['loud']}")]
    assert [verify_model(bundle, artifact, signing.trusted_keys()) for bundle in bundles]


def test_a_stage_in_a_project_is_finished_by_the_next_run(tmp_path: Path) -> None:
    outcomes: list[Outcome] = []
    while True:
        project = Project(tmp_path / str(len(outcomes)))
        project.run(times=5, component=SIGNED)
        run = partial(project.run, times=2, component=SIGNED, note=noting("one", project.store, SIGNED, Shout(), {}))
        if not killed(run, len(outcomes) + 1):
            break
        loud = project.root / "artifacts" / "loud"
        assert not loud.exists() or project.loud() in ("HELLO " * 5, "HELLO " * 2)
        before = launches(project.root / ".cairn")
        outcomes.append(run())
        assert project.loud() == "HELLO " * 2
        made = {name: digest_of(loud.with_name(name)) or "" for name in SIGNED.outputs}
        check_records(project.store, made, before, outcomes[-1])
        assert verify_model(loud.with_name("loud.sig").read_bytes(), read_artifact(loud), signing.trusted_keys())
        assert runs.read(project.store, "one")["shout"].outputs == made
        assert list((project.root / ".cairn" / "work").iterdir()) == []
        assert project.run(never, times=2, component=SIGNED) is Outcome.UP_TO_DATE
    # Each kill came later than the one before: first the work is done again, then not.
    assert outcomes == sorted(outcomes, key=[Outcome.RAN, Outcome.RESTORED, Outcome.UP_TO_DATE].index)
    assert set(outcomes) == set(Outcome)


def test_a_stage_on_pins_is_finished_by_the_next_pod(tmp_path: Path) -> None:
    outcomes: list[Outcome] = []
    while True:
        project = Project(tmp_path / str(len(outcomes)))
        project.store.put(project.root / "words")
        if not killed(partial(run_pinned_with, project, shout, component=SIGNED), len(outcomes) + 1):
            break
        before = launches(project.root / "pod")
        outcome, made = run_pinned_with(project, shout, component=SIGNED)
        check_records(project.store, made, before, outcome)
        assert all(map(project.store.has, made.values()))
        assert list((project.root / "pod" / "work").iterdir()) == []
        outcomes.append(outcome)
    assert outcomes == sorted(outcomes, key=[Outcome.RAN, Outcome.UP_TO_DATE].index)
    assert set(outcomes) == {Outcome.RAN, Outcome.UP_TO_DATE}
