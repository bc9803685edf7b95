"""The runner of stages: what runs, what is skipped, and what a kill leaves behind."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cairn.errors import ArtifactError, SourceError, StageError, StoreError
from cairn.lineage import attestation, environment, signing
from cairn.lineage.artifact import digest_of, read_artifact
from cairn.lineage.model_signature import verify_model
from cairn.lineage.stage import Component, Note, Outcome, Task, run_pinned, run_stage, trusted
from cairn.lineage.store import Store, records
from cairn.recipe import Section
from cairn.resources import Resources

COMPONENT = Component(
    name="shout",
    version="1.0.0",
    stability="beta",
    description="Writes its input in capitals, several times.",
    inputs=("words",),
    outputs=("loud", "count"),
    packages=("python",),
)


class Shout(Section):
    times: int = 1


def shout(section: Shout, task: Task) -> None:
    text = task.inputs["words"].read_text()
    (task.outputs["loud"] / "text").write_text(text.upper() * section.times)
    (task.outputs["count"] / "count.json").write_text(json.dumps(len(text) * section.times))
    task.facts["seed"] = 7


def never(section: Shout, task: Task) -> None:
    raise AssertionError("the work ran although the outputs are up to date")


class Project:
    """A project folder in which the stage is run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self.store = Store(str(root / "store"))
        (root / "words").write_text("hello ")

    def run(
        self,
        work: Callable[[Shout, Task], BaseException | None] = shout,
        times: int = 1,
        component: Component = COMPONENT,
        note: Note | None = None,
    ) -> Outcome:
        return run_stage(
            component,
            Shout(times=times),
            work,
            inputs={"words": self.root / "words"},
            outputs={name: self.root / "artifacts" / name for name in component.outputs},
            store=self.store,
            resources=Resources(workers=1, processes=1),
            home=self.root / ".cairn",
            note=note,
        )

    def loud(self) -> str:
        return (self.root / "artifacts" / "loud" / "text").read_text()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_stage_runs_once_and_is_then_up_to_date(project: Project) -> None:
    assert project.run() is Outcome.RAN
    assert project.loud() == "HELLO "
    assert project.run(never) is Outcome.UP_TO_DATE
    assert list((project.root / ".cairn" / "work").iterdir()) == []


def test_what_is_to_be_done_afterwards_is_done_once_the_outputs_are_attested(project: Project) -> None:
    attested: list[bool] = []

    def work(section: Shout, task: Task) -> None:
        shout(section, task)
        task.afterwards.append(lambda: attested.append(any(trusted(task.store, task.key, "shout"))))

    def failing(section: Shout, task: Task) -> None:
        work(section, task)
        raise StageError("it failed")

    with pytest.raises(StageError):
        project.run(failing)
    assert attested == []
    project.run(work)
    assert attested == [True]


@pytest.mark.parametrize("change", ["input", "section", "version"])
def test_a_changed_input_section_or_version_runs_it_again(project: Project, change: str) -> None:
    project.run()
    ran = []
    if change == "input":
        (project.root / "words").write_text("bye ")
    component = COMPONENT.model_copy(update={"version": "1.0.1"}) if change == "version" else COMPONENT

    def work(section: Shout, task: Task) -> None:
        ran.append(change)
        shout(section, task)

    assert project.run(work, times=2 if change == "section" else 1, component=component) is Outcome.RAN
    assert ran == [change]


def test_an_output_that_was_edited_is_made_again(project: Project) -> None:
    project.run()
    (project.root / "artifacts" / "loud" / "text").write_text("quiet")
    assert project.run() is Outcome.RAN
    assert project.loud() == "HELLO "


def test_outputs_of_an_earlier_recipe_come_back_from_the_store(project: Project) -> None:
    project.run()
    for name in COMPONENT.outputs:
        project.store.put(project.root / "artifacts" / name)
    project.run(times=3)
    assert project.loud() == "HELLO " * 3
    assert project.run(never) is Outcome.RESTORED
    assert project.loud() == "HELLO "


def test_what_a_changed_recipe_replaces_comes_back_from_the_store(project: Project) -> None:
    project.run()
    project.run(times=3)
    assert project.loud() == "HELLO " * 3
    assert project.run(never) is Outcome.RESTORED
    assert project.loud() == "HELLO "
    assert project.run(never, times=3) is Outcome.RESTORED
    assert project.loud() == "HELLO " * 3


@pytest.mark.parametrize("damage", ["removed", "cut short", "made to lie"])
def test_a_pin_that_is_not_what_was_attested_is_written_anew(project: Project, damage: str) -> None:
    project.run()
    sound = read_artifact(project.root / "artifacts" / "loud")
    path = Path(project.store.url, "pins", f"{sound.digest}.json")
    if damage == "removed":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        project.store.write_pin(replace(sound, members=(replace(sound.members[0], md5="0" * 32),)))
    assert project.run(never) is Outcome.UP_TO_DATE
    assert project.store.pin(sound.digest) == sound


def test_on_pins_a_pin_with_other_addresses_than_were_attested_is_not_relied_on(project: Project) -> None:
    project.store.put(project.root / "words")
    made = run_pinned_with(project, shout)[1]
    sound = project.store.pin(made["loud"])
    assert sound
    (project.root / "poison").write_bytes(b"?" * sound.size)
    md5 = project.store.put(project.root / "poison").members[0].md5
    project.store.write_pin(replace(sound, members=(replace(sound.members[0], md5=md5),)))
    assert run_pinned_with(project, shout) == (Outcome.RAN, made)
    assert project.store.pin(made["loud"]) == sound


def test_a_damaged_object_in_the_store_does_not_stand_in_the_way(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.run()
    project.run(times=3)
    for path in Path(project.store.url, "files").rglob("*"):
        if path.is_file() and path.read_bytes() == b"HELLO ":
            path.write_bytes(b"hELLO ")
    assert project.run() is Outcome.RAN
    assert project.loud() == "HELLO "
    assert "holds other bytes than" in capsys.readouterr().err


def test_an_input_that_is_changed_meanwhile_is_not_attested(project: Project) -> None:
    def slow(section: Shout, task: Task) -> None:
        shout(section, task)
        task.inputs["words"].write_text("bye ")

    with pytest.raises(StageError, match="the input words was changed while shout ran: run it again"):
        project.run(slow)
    assert not (project.root / "artifacts" / "loud" / "text").exists()
    assert not Path(project.store.url, "attestations").exists()


def test_half_an_output_in_the_scratch_is_not_taken_for_the_attested_one(project: Project) -> None:
    project.run()
    whole = project.root / "artifacts" / "loud"
    project.store.put(whole)
    key = COMPONENT.key(Shout(), {"words": digest_of(project.root / "words") or ""})
    scratch = project.root / ".cairn" / "work" / key / "outputs" / "loud"
    scratch.mkdir(parents=True)
    (scratch / "text").write_text("HEL")
    shutil.rmtree(whole)
    assert project.run(never) is Outcome.RESTORED
    assert project.loud() == "HELLO "


def test_an_attestation_by_a_stranger_does_not_skip_the_work(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CAIRN_HOME", str(tmp_path / "stranger"))
    project.run()
    monkeypatch.setenv("CAIRN_HOME", str(tmp_path / "me"))
    assert project.run() is Outcome.RAN
    said = capsys.readouterr().err
    assert re.search(
        r"^shout: attestation [0-9a-f]{12} is not relied on: signed by no trusted key: ", said, re.MULTILINE
    )
    assert "to believe it, put the public key of whoever signed into " in said


def test_an_attestation_moved_under_another_key_does_not_skip_the_work(project: Project) -> None:
    project.run()
    stages = Path(project.store.url, "stages")
    (first,) = stages.iterdir()
    other = COMPONENT.key(Shout(times=2), {"words": digest_of(project.root / "words") or ""})
    os.rename(first, stages / other)
    assert project.run(times=2) is Outcome.RAN
    assert project.loud() == "HELLO " * 2


def test_what_failed_leaves_nothing_under_artifacts_and_keeps_its_scratch(project: Project) -> None:
    def fail(section: Shout, task: Task) -> None:
        (task.outputs["loud"] / "text").write_text("half")
        (task.work / "unit-1").write_text("done")
        raise SourceError("words:3: not a word")

    def resume(section: Shout, task: Task) -> None:
        assert (task.work / "unit-1").read_text() == "done"
        assert list(task.outputs["loud"].iterdir()) == []
        shout(section, task)

    with pytest.raises(SourceError):
        project.run(fail)
    assert not (project.root / "artifacts").exists()
    assert project.run(resume) is Outcome.RAN


def test_a_missing_input_is_named(project: Project) -> None:
    (project.root / "words").unlink()
    with pytest.raises(StageError, match="words: the input words is missing"):
        project.run()


def test_an_output_that_cannot_be_put_in_its_place_is_told_before_the_work(project: Project) -> None:
    (project.root / "artifacts").touch()
    with pytest.raises(ArtifactError, match=r"artifacts/loud: cannot be written: .*artifacts: "):
        project.run(never)
    assert not (project.root / "store").exists()


def test_the_attestation_says_what_went_in_and_what_came_out(project: Project) -> None:
    project.run()
    digest = digest_of(project.root / "artifacts" / "loud")
    assert digest
    ((_, envelope),) = attestation.made(project.store, digest)
    verified = attestation.verify(envelope, signing.trusted_keys())
    assert verified.outputs == {name: digest_of(project.root / "artifacts" / name) for name in COMPONENT.outputs}
    assert verified.inputs == {"words": digest_of(project.root / "words")}
    assert {"requirements.lock", "requirements.torch-cpu.lock"} <= set(verified.locks)
    assert all(map(project.store.has, verified.locks.values()))
    assert verified.stage_key == verified.expected_key()
    assert verified.missing() == []
    definition = verified.statement["predicate"]["buildDefinition"]
    assert definition["externalParameters"] == {"component": "shout", "version": "1.0.0", "section": {"times": 1}}
    assert definition["internalParameters"]["facts"] == {"seed": 7}
    assert definition["internalParameters"]["environment"]["packages"]["torch"].startswith("2.13.0")


SIGNED = COMPONENT.model_copy(update={"signs": ("loud",)})


def test_what_is_taken_away_has_its_signature_beside_it_and_a_lost_one_comes_back(project: Project) -> None:
    project.run(component=SIGNED)
    loud, beside = project.root / "artifacts" / "loud", project.root / "artifacts" / "loud.sig"
    assert verify_model(beside.read_bytes(), read_artifact(loud), signing.trusted_keys())
    first = beside.read_bytes()
    beside.unlink()
    assert project.run(never, component=SIGNED) is Outcome.UP_TO_DATE
    assert beside.read_bytes() == first
    shutil.rmtree(Path(project.store.url, "signatures"))  # as if a kill had come before it
    project.run(times=2, component=SIGNED)
    assert project.run(never, component=SIGNED) is Outcome.RESTORED
    assert verify_model(beside.read_bytes(), read_artifact(loud), signing.trusted_keys())
    assert beside.read_bytes() != first


def test_on_pins_the_signature_is_in_the_store(project: Project) -> None:
    project.store.put(project.root / "words")
    made = run_pinned_with(project, shout, component=SIGNED)[1]
    ((_, bundle),) = records(project.store, f"signatures/{made['loud']}")
    artifact = project.store.pin(made["loud"])
    assert artifact
    assert verify_model(bundle, artifact, signing.trusted_keys())
    shutil.rmtree(Path(project.store.url, "signatures"))
    assert run_pinned_with(project, never, component=SIGNED)[0] is Outcome.UP_TO_DATE
    assert len(list(records(project.store, f"signatures/{made['loud']}"))) == 1


def attested(project: Project) -> attestation.Attestation:
    """The newest attestation of what the stage made."""
    found = attestation.maker(project.store, digest_of(project.root / "artifacts" / "loud") or "")
    assert found
    return found


def test_every_launch_that_worked_on_it_is_attested_and_a_damaged_line_is_told(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(section: Shout, task: Task) -> None:
        raise SourceError("words:3: not a word")

    for image in ("registry/cairn@sha256:one", "registry/cairn@sha256:two"):
        monkeypatch.setenv("CAIRN_IMAGE", image)
        with pytest.raises(SourceError):
            project.run(fail)
    (log,) = (project.root / ".cairn" / "work").glob("*/attempts.jsonl")
    log.write_bytes(log.read_bytes() + b'{"memory": NaN}\n{"invocation": "cut sh')
    monkeypatch.delenv("CAIRN_IMAGE")
    project.run()
    assert f"{log}:3: cannot be read" in capsys.readouterr().err
    found = attested(project)
    first, second, *damaged, last = found.attempts
    images = ["registry/cairn@sha256:one", "registry/cairn@sha256:two", None]
    assert [one["image"] for one in (first, second, last)] == images
    assert damaged == [{"damaged": 3}, {"damaged": 4}]
    assert last["invocation"] == found.invocation
    assert last["started"] == found.started <= found.finished
    assert last["code"] == found.code.sha256
    assert last["packages"] == found.packages
    assert last["processor"] == found.environment["processor"]
    assert len({first["invocation"], second["invocation"], last["invocation"]}) == 3
    project.run(times=2)
    assert len(attested(project).attempts) == 1


def test_what_differs_from_the_commit_is_in_the_store(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = project.root / "checkout"
    (checkout / "cairn").mkdir(parents=True)
    (checkout / "cairn" / "a.py").write_text("x = 1\n")
    (checkout / "requirements.lock").write_text("torch==2\n")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=checkout, check=True)
    (checkout / "cairn" / "a.py").write_text("x = 2\n")
    (checkout / "cairn" / "new.py").write_text("y = 1\n")
    monkeypatch.setattr(environment, "ROOT", checkout)
    caches = (environment.code, environment.difference, environment.locks, environment.lock_files)
    for cached in caches:
        cached.cache_clear()
    project.run()
    for cached in caches:
        cached.cache_clear()
    found = attested(project)
    assert found.code.dirty
    assert found.code.difference
    patch = project.store.read_member(found.code.difference, "")
    subprocess.run(["git", "clone", "-q", str(checkout), str(project.root / "clone")], check=True)
    subprocess.run(["git", "apply"], cwd=project.root / "clone", input=patch, check=True)
    assert (project.root / "clone" / "cairn" / "a.py").read_text() == "x = 2\n"
    assert (project.root / "clone" / "cairn" / "new.py").read_text() == "y = 1\n"
    assert project.store.read_member(found.locks["requirements.lock"], "") == b"torch==2\n"
    monkeypatch.setattr(environment, "ROOT", project.root / "clone")
    rebuilt = environment.code()
    for cached in caches:
        cached.cache_clear()
    assert (rebuilt["sha256"], rebuilt["commit"]) == (found.code.sha256, found.code.commit)


def run_pinned_with(
    project: Project, work: Callable[[Shout, Task], None], component: Component = COMPONENT, **more: Any
) -> tuple[Outcome, dict[str, str]]:
    """Run the stage as a machine does that has nothing but the store."""
    digest = digest_of(project.root / "words")
    assert digest
    return run_pinned(
        component,
        Shout(),
        work,
        inputs={"words": digest},
        store=project.store,
        resources=Resources(workers=1, processes=1),
        home=project.root / "pod",
        **more,
    )


def test_a_stage_on_pins_gives_the_digests_of_a_stage_on_paths_and_each_knows_the_others_work(
    project: Project,
) -> None:
    project.store.put(project.root / "words")
    outcome, made = run_pinned_with(project, shout)
    assert outcome is Outcome.RAN
    assert run_pinned_with(project, never) == (Outcome.UP_TO_DATE, made)
    assert project.run(never) is Outcome.RESTORED
    assert made == {name: digest_of(project.root / "artifacts" / name) for name in COMPONENT.outputs}


def test_on_pins_what_is_up_to_date_is_young_again(project: Project) -> None:
    """A collection that begins before the run is noted would else take it for what nobody needs."""
    project.store.put(project.root / "words")
    made = run_pinned_with(project, shout)[1]
    pins = [Path(project.store.url, "pins", f"{digest}.json") for digest in made.values()]
    for pin in pins:
        os.utime(pin, (1, 1))
    assert run_pinned_with(project, never)[0] is Outcome.UP_TO_DATE
    assert all(time.time() - pin.stat().st_mtime < 60 for pin in pins)


def test_on_pins_a_pinned_output_without_its_bytes_is_made_again(project: Project) -> None:
    project.store.put(project.root / "words")
    project.run()
    outcome, made = run_pinned_with(project, shout)
    assert outcome is Outcome.RAN
    assert all(map(project.store.has, made.values()))


def test_on_pins_the_bytes_are_stored_before_anything_is_attested(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.store.put(project.root / "words")
    stored: list[bool] = []

    def look(*_: Any, outputs: Any, **__: Any) -> str:
        stored.extend(project.store.has(artifact.digest) for artifact in outputs.values())
        raise KeyboardInterrupt

    monkeypatch.setattr("cairn.lineage.stage.record", look)
    with pytest.raises(KeyboardInterrupt):
        run_pinned_with(project, shout)
    assert stored == [True, True]


def test_on_pins_a_failed_stage_keeps_its_scratch_and_the_input_it_fetched(project: Project) -> None:
    words = project.store.put(project.root / "words")

    def fail(section: Shout, task: Task) -> None:
        (task.work / "unit-1").write_text("done")
        raise SourceError("words:3: not a word")

    def resume(section: Shout, task: Task) -> None:
        assert (task.work / "unit-1").read_text() == "done"
        shout(section, task)

    with pytest.raises(SourceError):
        run_pinned_with(project, fail)
    md5 = words.members[0].md5
    Path(project.store.url, "files", "md5", md5[:2], md5[2:]).unlink()
    assert run_pinned_with(project, resume)[0] is Outcome.RAN
    assert list((project.root / "pod" / "work").iterdir()) == []


def test_on_pins_an_input_that_is_not_in_the_store_is_named(project: Project) -> None:
    with pytest.raises(StoreError, match=f"holds no pin for {digest_of(project.root / 'words')}"):
        run_pinned_with(project, never)


def test_on_pins_only_what_the_work_reads_is_fetched(project: Project) -> None:
    (project.root / "words").unlink()
    (project.root / "words").mkdir()
    for name in ("small", "huge"):
        (project.root / "words" / name).write_text(name)
    artifact = project.store.put(project.root / "words")
    md5 = next(member.md5 for member in artifact.members if member.path == "huge")
    Path(project.store.url, "files", "md5", md5[:2], md5[2:]).unlink()

    def work(section: Shout, task: Task) -> None:
        assert [path.name for path in task.inputs["words"].iterdir()] == ["small"]
        assert task.digests == {"words": artifact.digest}
        for name, path in task.outputs.items():
            (path / name).write_text("made")

    assert run_pinned_with(project, work, reads={"words": ["small"]})[0] is Outcome.RAN


def test_on_pins_what_the_work_reads_from_the_store_itself_is_not_fetched_and_is_attested_all_the_same(
    project: Project,
) -> None:
    artifact = project.store.put(project.root / "words")

    def work(section: Shout, task: Task) -> None:
        assert task.inputs == {}
        assert not (project.root / "pod" / "work" / task.key / "inputs").exists()
        for name, path in task.outputs.items():
            (path / name).write_bytes(task.store.read_member(task.digests["words"], ""))

    made = run_pinned_with(project, work, reads={"words": ()})[1]
    found = attestation.maker(project.store, made["loud"])
    assert found
    assert found.inputs == {"words": artifact.digest}


def test_two_runs_of_one_stage_do_not_work_at_once(project: Project) -> None:
    def nested(section: Shout, task: Task) -> None:
        with pytest.raises(StageError, match=f"process {os.getpid()} is running this stage"):
            project.run()
        shout(section, task)

    assert project.run(nested) is Outcome.RAN


def test_an_output_left_empty_is_a_defect(project: Project) -> None:
    with pytest.raises(RuntimeError, match="left its output loud empty"):
        project.run(lambda section, task: None)


def test_what_a_stage_did_is_noted_once_its_outputs_are_in_place(project: Project) -> None:
    noted: list[tuple[Any, ...]] = []

    def note(inputs: Any, outputs: Any, outcome: Outcome) -> None:
        there = {name: digest_of(project.root / "artifacts" / name) for name in COMPONENT.outputs}
        assert (dict(inputs), dict(outputs)) == ({"words": digest_of(project.root / "words")}, there)
        noted.append((outcome, inputs))

    def too_late(section: Shout, task: Task) -> KeyboardInterrupt:
        shout(section, task)
        return KeyboardInterrupt()

    with pytest.raises(KeyboardInterrupt):
        project.run(too_late, note=note)
    project.run(never, note=note)
    project.store.put(project.root / "artifacts" / "loud")
    shutil.rmtree(project.root / "artifacts" / "loud")
    project.run(never, note=note)
    assert [outcome for outcome, _ in noted] == [Outcome.RAN, Outcome.UP_TO_DATE, Outcome.RESTORED]
