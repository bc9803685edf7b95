"""Training steps, done again by the real launcher and trainer: from the seed, or from a state that was kept.

What is compared: every line of the training log (loss, gradient norm, rate, development scores), every state that was
kept on the way, and, where the last step is among those that are done again, the finished checkpoint.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cairn.audit.replay.job import Job, UnavailableError
from cairn.audit.verdicts import WRONG, Finding, Verdict
from cairn.errors import ArtifactError

FIRST = 20  # steps from the seed that are done again when nobody asks for others
JUDGED = 100  # steps up to which weights that other hardware trained are still near enough to be judged
TOLERANCE = {"loss": 0.02, "development": 0.02, "grad_norm": 0.5, "weights": 0.25}
"""Largest difference, as a share, where the surroundings are other: of a logged number, and of a weight as a share of
the largest of its tensor. Muon works in bfloat16, so other kernels part slowly: docs/lineage.md has numbers."""


def replay(job: Job) -> Finding:
    """Do the steps of the sample again; the worst of what was found."""
    steps, every = job.section.steps, job.section.keep_every
    if _kept(job) not in (None, expected := list(range(every, steps, every)) if every else []):
        # Above all none at the last step: from there nothing would be trained again, and all would be the same.
        there = ", ".join(map(str, _kept(job) or ())) or "none"
        told = f"kept are {there}; of {steps} steps, keep_every {every} keeps {', '.join(map(str, expected)) or 'none'}"
        return job.wrong("the states with the optimizer are not those that the recipe keeps", [told])
    found, done, absent = [], [], []
    for first, last in stretches(job):
        try:
            found.append(_stretch(job, first, last))
            done.append((first, last))
        except UnavailableError as error:
            if not first:
                raise
            absent.append(f"steps {first + 1} to {last} were not trained again: {error}")
    if not found:
        raise UnavailableError("; ".join(absent))
    if _kept(job) is None and job.sample.size is not None and expected:
        absent.append(
            f"what follows the kept states was not trained again: optimizer {job.attested.outputs['optimizer']}, which "
            "holds them, is not to be had. Where it was made: `cairn store cp` with that digest and `--to` this store"
        )
    wrong = [one for one in found if one.verdict in WRONG]
    close = [one for one in found if one.verdict is Verdict.CLOSE]
    verdict = (wrong or close or found)[0].verdict
    details = dict.fromkeys(detail for one in (wrong or found) for detail in one.details)
    said = "; ".join([*(one.said for one in (wrong or found)), *absent])
    return Finding(verdict, said, tuple(details), _remains(steps, done))


def _remains(steps: int, done: Iterable[tuple[int, int]]) -> str:
    """Which steps nobody did again, in words."""
    gaps, at = [], 0
    for first, last in [*sorted(done), (steps, steps)]:
        gaps += [f"{at + 1} to {first}"] if first > at else []
        at = max(at, last)
    return f"steps {' and '.join(gaps)} of {steps} were not done again" if gaps else ""


def stretches(job: Job) -> list[tuple[int, int]]:
    """Which steps are done again: (a, b] is those after step a up to step b. Each begins at the seed or a kept state.

    Raises UnavailableError when steps are asked for that the run does not have, or that begin at no kept state.
    """
    steps, kept = job.section.steps, _kept(job) or []
    if job.sample.steps is not None:
        first, last = job.sample.steps
        if not 0 <= first < last <= steps:
            raise UnavailableError(f"steps {first}..{last} are asked for, and it has {steps}")
        if first not in (0, *kept):
            raise UnavailableError(
                f"steps {first}..{last} are asked for, and training can begin at {', '.join(map(str, (0, *kept)))} "
                "only, where there is a state"
            )
        return [(first, last)]
    if job.sample.size is None:
        return [(0, steps)]
    begun = (0, min(max(FIRST, job.section.log_every), steps))
    return [begun, (kept[-1], steps)] if kept else [begun]


def _kept(job: Job) -> list[int] | None:
    """The steps of the states that stayed with the optimizer, in order; None where nothing tells what it holds."""
    try:
        files = job.files(job.attested.outputs["optimizer"])
    except UnavailableError:
        return None
    names = [Path(path) for path in files if path.startswith("steps/")]
    return sorted(int(name.stem) for name in names if name.suffix == ".safetensors" and name.stem.isdecimal())


def _stretch(job: Job, first: int, last: int) -> Finding:
    """Do the steps after `first` up to `last` again."""
    from components.pretrain.launch import pretrain
    from trainer.kept import take_up

    folder = job.scratch / f"{first}"
    checkpoint, optimizer, work = (folder / name for name in ("checkpoint", "optimizer", "work"))
    for path in (checkpoint, optimizer):
        path.mkdir(parents=True)
    log = (job.output("checkpoint", ["training.jsonl"]) / "training.jsonl").read_bytes()
    begun = "from the seed"
    if first:
        names = [f"steps/{first:08d}{suffix}" for suffix in (".safetensors", ".json")]
        begun = f"from the state kept at step {first}, which is taken as attested"
        try:
            if take_up(job.output("optimizer", names) / names[0], log, work) != first:
                raise ArtifactError(f"{names[0]}: is the state of another step")
        except ArtifactError as error:
            return job.wrong("a state that was kept does not fit the log of the run", [str(error)])
    work.mkdir(parents=True, exist_ok=True)
    resources = job.resources
    if job.section.mode != "strict":  # only in strict mode do other numbers of processes give the same bits
        world, processors = job.attested.facts.get("world_size"), os.cpu_count() or 1
        if not isinstance(world, int) or not 0 < world <= processors:
            raise UnavailableError(f"{world} processes trained it in fast mode, and here are {processors} processors")
        resources = replace(resources, processes=world)
    interrupted = pretrain(
        job.section,
        tokens=job.input("tokens"),
        checkpoint=checkpoint,
        optimizer=optimizer,
        work=work,
        resources=resources,
        name=f"replay-{job.attested.stage_key[:12]}",
        facts={},
        until=last,
        board=False,
    )
    if interrupted is not None:
        raise interrupted
    said = f"steps {first + 1} to {last} of {job.section.steps} were trained again {begun}"
    return _compared(job, folder, log, first, last, said)


def _compared(job: Job, folder: Path, log: bytes, first: int, last: int, said: str) -> Finding:
    """What was made again, beside what is attested."""
    try:
        then, now = _lines(log, first, last), _lines((folder / "work" / "training.jsonl").read_bytes(), first, last)
    except ArtifactError as error:
        return job.wrong(said, [str(error)])
    odd, far = list(_lines_apart(then, now, 0.0)), list(_lines_apart(then, now, 1.0))
    try:
        kept = job.files(job.attested.outputs["optimizer"])
    except UnavailableError:
        kept = {}
    for state in sorted((folder / "work" / "kept").glob("*.safetensors")):
        if kept and kept.get(f"steps/{state.name}") != _sha256(state):
            odd.append(f"the state kept at step {int(state.stem)} is another")
    finished = last == job.section.steps
    if finished:
        finals = job.compare({"checkpoint": folder / "checkpoint"})
        odd += finals
        # What is neither a weight nor a logged number does not depend on any hardware.
        numbers = (".safetensors: other bytes", "training.jsonl: other bytes")
        far += [one for one in finals if not one.endswith(numbers)]
        made = _files(folder / "optimizer")
        odd += [f"optimizer: {name}: other bytes" for name in made if kept and kept.get(name) != made[name]]
        far += [
            f"optimizer: {name}: only in the artifact" for name in kept.keys() - made if not _is_before(name, first)
        ]
    if not now and not finished:
        raise UnavailableError(f"nothing was logged of the steps {first + 1} to {last}: ask for more of them")
    if not odd:
        lines = f"{len(now)} lines of the log are equal"
        return job.same(f"{said}: {lines}{', and so are the final weights, bit for bit' if finished else ''}")
    told = f"{said}: not the same"
    details = _furthest(then, now)
    if finished:
        from trainer.checkpoint import largest_difference

        share, name = largest_difference(job.output("checkpoint"), folder / "checkpoint")
        judged = last - first <= JUDGED
        allowed = f"tolerance {TOLERANCE['weights']}" if judged else f"not judged after more than {JUDGED} steps"
        details.append(f"weights: {share:.3g} of the largest of a tensor apart, in {name}; {allowed}")
        if judged and not share <= TOLERANCE["weights"]:
            far.append(f"the weights are further apart than {TOLERANCE['weights']}")
    if far:
        return job.wrong(told, [*far, *details, *odd])
    if job.section.mode == "strict" and not job.section.compile and not job.other_surroundings:
        return job.close(told, [*odd, *details])
    # In fast mode, or compiled, not even one machine promises the same bits.
    return Finding(Verdict.CLOSE, f"{told}, and within the tolerance", (*details, *job.other_surroundings))


def _is_before(name: str, first: int) -> bool:
    """Whether a file of the optimizer is a state, or its manifest, that was kept before what was trained again."""
    return name.startswith("steps/") and int(Path(name).stem) <= first


def _furthest(then: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[str]:
    """How far each logged number is from what it was, at most."""
    found: dict[str, tuple[float, int]] = {}
    steps = {line["step"]: line for line in now}
    for line in then:
        for name in line.keys() & steps.get(line["step"], {}).keys() - {"step", "tokens"}:
            value, again = line[name], steps[line["step"]][name]
            share = abs(again - value) / abs(value) if value else float(again != value)
            found[name] = max(found.get(name, (0.0, 0)), (share, line["step"]))
    return [
        f"{name}: {share:.2%} apart at most, at step {step}; tolerance {_tolerance(name):.0%}"
        for name, (share, step) in sorted(found.items())
        if share
    ]


def _tolerance(name: str) -> float:
    return TOLERANCE.get("development" if name.startswith("development") else name, 0.0)


def _lines(log: bytes, first: int, last: int) -> list[dict[str, Any]]:
    """The lines of these steps. Raises ArtifactError when the log is none."""
    try:
        lines = [json.loads(line) for line in log.splitlines()]
        return [line for line in lines if first < line["step"] <= last]
    except (ValueError, KeyError, TypeError):
        raise ArtifactError("training.jsonl holds something that is no line of a training log") from None


def _lines_apart(then: list[dict[str, Any]], now: list[dict[str, Any]], allowed: float) -> Iterator[str]:
    """Numbers of two logs that differ by more than `allowed` times their tolerance."""
    steps = {line["step"]: line for line in now}
    for line in then:
        again = steps.pop(line["step"], None)
        if again is None or again.keys() != line.keys():
            yield f"step {line['step']}: the line has other numbers, or there is none when trained again"
            continue
        for name, value in line.items():
            if not abs(again[name] - value) <= allowed * _tolerance(name) * abs(value):
                yield f"step {line['step']}: {name} was {value}, is {again[name]}"
    for step in steps:
        yield f"step {step}: the log has no line of it"


def _files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in folder.rglob("*") if path.is_file()}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
