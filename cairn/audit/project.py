"""What a project says besides its attestations: `dvc.lock`, pointers of its store, checkpoints of work in progress.

None of it is signed, so nothing rests on it. But a person or DVC will follow it, and it has to lead to what is
attested.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from cairn.audit.target import Pins
from cairn.audit.verdicts import Audit, Finding, Node, Verdict
from cairn.errors import StoreError, one_line
from cairn.lineage.artifact import Artifact
from cairn.lineage.attestation import Attestation
from cairn.lineage.pins import pin_of
from components.recipe import Recipe
from pipelines.stages import Stage, stages
from trainer.manifest import unsealed

Makers = Callable[[str], list[Attestation]]
LOCK, DAG = Path("dvc.lock"), Path("dvc.yaml")


def judge(audit: Audit, root: Path, pins: Pins, makers: Makers) -> None:
    """Look at all of it, and add what was found to the graph.

    Args:
        makers: the trusted attestations that name an artifact as what they made.
    """
    if (root / LOCK).exists():
        data = (root / LOCK).read_bytes()
        node = _add(audit, Node("lock:dvc.lock", "lock", str(LOCK), hashlib.sha256(data).hexdigest()))
        faults = tuple(dict.fromkeys(_dvc_lock(data, root, pins, makers)))
        said = f"{LOCK}: {'does not fit the attestations' if faults else 'what it pins is attested'}"
        node.findings.append(Finding(Verdict.TAMPERED if faults else Verdict.ATTESTED, said, faults))
    for digest in _beside(audit, makers):
        # What else was made in a run that was walked to, such as the optimizer's state: its pin is followed too.
        for finding in pins.of(digest)[1]:
            _add(audit, Node(f"record:pins/{digest}.json", "record", f"pins/{digest}.json", digest)).findings.append(
                finding
            )
    for name, digest, finding in _pointers(pins):
        _add(audit, Node(f"record:{name}", "record", name, digest)).findings.append(finding)
    for path in sorted((root / ".cairn" / "work").glob("*/scratch/checkpoints/*")):
        named = path.relative_to(root).as_posix()
        finding, digest = _checkpoint(path, named)
        _add(audit, Node(f"work:{named}", "work", named, digest)).findings.append(finding)


def expected(root: Path, pins: Pins, path: Path) -> str | None:
    """The digest of the artifact that `dvc.lock` says should lie at a path; None where it says nothing."""
    try:
        entries = _parsed((root / LOCK).read_bytes())["stages"].values()
        outs = {out["path"]: out["md5"] for entry in entries for out in entry.get("outs", ())}
        wanted = next(md5 for name, md5 in outs.items() if (root / name).resolve() == path.resolve())
    except (OSError, YAMLError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return None
    return next((digest for digest, pin in pins.all().items() if pin_of(pin)["md5"] == wanted), None)


def _beside(audit: Audit, makers: Makers) -> list[str]:
    """Digests of what was made beside the artifacts of the graph and is not in it."""
    artifacts = [node.digest for node in audit.nodes.values() if node.kind == "artifact"]
    made = [digest for one in artifacts for attested in makers(one) for digest in attested.outputs.values()]
    return [digest for digest in dict.fromkeys(made) if digest not in artifacts]


def _add(audit: Audit, node: Node) -> Node:
    return audit.nodes.setdefault(node.id, node)


# dvc.lock


def _dvc_lock(data: bytes, root: Path, pins: Pins, makers: Makers) -> Iterator[str]:
    """What is wrong in a `dvc.lock`, a place in each line."""
    try:
        parsed = _parsed(data)
        entries = dict(parsed["stages"])
        known = pins.all()
    except (YAMLError, ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        yield f"cannot be read: {one_line(error)[:200]}"
        return
    except StoreError as error:
        yield f"cannot be compared: {one_line(error)}"
        return
    if parsed.keys() != {"schema", "stages"} or parsed["schema"] != "2.0":
        yield "is not of DVC's schema 2.0"
    by_address: dict[str, list[str]] = {}
    for digest, pin in known.items():
        by_address.setdefault(str(pin_of(pin)["md5"]), []).append(digest)
    ours = {stage.name: stage for stage in stages()}
    for name, entry in entries.items():
        if name in ours:
            try:
                yield from _stage(ours[name], entry, known, by_address, makers)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                yield f"stages.{name}: is not written as DVC writes it: {type(error).__name__} {one_line(error)}"
        elif name not in _stage_names(root):
            yield f"stages.{name}: dvc.yaml has no such stage"
    if (line := _first_odd_line(data, parsed)) is not None:
        yield f"line {line}: is not as DVC writes it: somebody else has written there"


def _stage(
    stage: Stage, entry: Any, known: Mapping[str, Artifact], by_address: Mapping[str, list[str]], makers: Makers
) -> Iterator[str]:
    where = f"stages.{stage.name}"
    if odd := sorted(entry.keys() - {"cmd", "deps", "params", "outs"}):
        yield f"{where}.{odd[0]}: DVC writes no such thing"
    outs = {out["path"]: out for out in entry["outs"]}
    if outs.keys() != {str(path) for path in stage.outputs.values()}:
        yield f"{where}.outs: lists {', '.join(map(str, outs))}"
        return
    candidates: list[Attestation] | None = None
    for name, path in stage.outputs.items():
        address = outs[str(path)]["md5"]
        found = [
            one
            for digest in by_address.get(address, ())
            for one in makers(digest)
            if one.component == stage.name and one.outputs.get(name) == digest
        ]
        if not found:
            yield f"{where}.outs[{path}].md5: {address} is the address of no attested {name}"
            return
        both = [one for one in found if any(one.statement == other.statement for other in candidates or found)]
        if not both:
            yield f"{where}.outs[{path}].md5: {address} is of another run than the outputs before it"
            return
        candidates = both
    # Of several runs that gave the same bytes, one has to fit in all.
    told = [list(_fits(stage, entry, one, known)) for one in candidates or ()]
    yield from min(told, key=len, default=[])


def _fits(stage: Stage, entry: Any, attested: Attestation, known: Mapping[str, Artifact]) -> Iterator[str]:
    where = f"stages.{stage.name}"
    wanted = {str(path): attested.outputs[name] for name, path in stage.outputs.items()}
    deps = {str(path): attested.inputs.get(name, "") for name, path in stage.inputs.items()}
    for kind, listed in (("outs", wanted), ("deps", deps)):
        said = {one["path"]: one for one in entry.get(kind, ())}
        if said.keys() != listed.keys():
            yield f"{where}.{kind}: lists {', '.join(map(str, said)) or 'nothing'}"
        for path in said.keys() & listed.keys():
            pin = known.get(listed[path])
            if pin is None:
                yield f"{where}.{kind}[{path}]: what is attested there has no sound pin"
                continue
            fields: dict[str, Any] = {"path": path, "hash": "md5", "md5": pin_of(pin)["md5"], "size": pin.size}
            if pin.is_directory:
                fields["nfiles"] = len(pin.members)
            for field in sorted(fields.keys() | said[path].keys()):
                if said[path].get(field) != fields.get(field):
                    yield f"{where}.{kind}[{path}].{field}: {said[path].get(field)}, attested: {fields.get(field)}"
    words = " ".join(["python", *stage.command()]).replace(
        f"--for-version {stage.version} ", f"--for-version {attested.version} "
    )
    if entry["cmd"] != words:
        yield f"{where}.cmd: is not the command of version {attested.version}"
    params = entry.get("params", {})
    if params.keys() != {"params.yaml"} or params["params.yaml"].keys() != {stage.name}:
        yield f"{where}.params: is not the section {stage.name} of params.yaml"
        return
    raw = params["params.yaml"][stage.name]
    apart = [*_differing(raw, attested.section, stage.name, only_there=True)]
    if attested.version == stage.version:
        # What was left out has its default. A field that is newer than the attestation tells nothing of it.
        section = Recipe.model_fields[stage.name].annotation
        try:
            read = section.model_validate_json(json.dumps(raw))  # type: ignore[union-attr]
            apart += _differing(read.model_dump(mode="json"), attested.section, stage.name, only_there=False)
        except (ValidationError, TypeError) as error:
            yield f"{where}.params: is no valid section: {one_line(error)[:200]}"
    if apart:
        yield f"{where}.params: {', '.join(dict.fromkeys(apart))}: not what was attested"


def _differing(now: Any, then: Any, name: str, only_there: bool) -> Iterator[str]:
    """Dotted names of values that are others than they were.

    Args:
        only_there: also names what was not there then.
    """
    if isinstance(now, Mapping) and isinstance(then, Mapping):
        for key, value in now.items():
            if key in then:
                yield from _differing(value, then[key], f"{name}.{key}", only_there)
            elif only_there:
                yield f"{name}.{key}"
    elif isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        for index, (one, other) in enumerate(zip(now, then, strict=True)):
            yield from _differing(one, other, f"{name}[{index}]", only_there)
    elif now != then or isinstance(now, bool) != isinstance(then, bool):
        yield name


def _first_odd_line(data: bytes, parsed: Any) -> int | None:
    """The first line that differs from how DVC would write the same content."""
    writer = YAML()
    writer.default_flow_style = False
    written = io.BytesIO()
    writer.dump(parsed, written)
    pairs = enumerate(zip(data.split(b"\n"), written.getvalue().split(b"\n"), strict=False), 1)
    if data == written.getvalue():
        return None
    return next((number for number, (one, other) in pairs if one != other), data.count(b"\n") + 1)


def _parsed(data: bytes) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(data.decode())
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _stage_names(root: Path) -> set[str]:
    """The stages of the project's own `dvc.yaml`: a person may have added some."""
    try:
        return set(_parsed((root / DAG).read_bytes())["stages"])
    except (OSError, YAMLError, ValueError, KeyError, TypeError):
        return set()


# Pointers


def _pointers(pins: Pins) -> Iterator[tuple[str, str, Finding]]:
    """Every value that a pointer ever had: its record, the digest in it, and whether it leads to an artifact."""
    store = pins.store
    try:
        names = [f"models/{name}/current" for name in store.list("models")]
        versions = {name: [one for one in store.list(name) if one.isdecimal()] for name in names}
    except StoreError as error:
        yield "models", "", Finding(Verdict.MISSING, one_line(error))
        return
    for name, numbers in versions.items():
        absent = sorted(set(range(1, len(numbers) + 1)) - set(map(int, numbers)))
        for number in absent:
            record = f"{name}/{number:08d}"
            yield record, "", Finding(Verdict.MISSING, f"{record}: the pointer's history has a gap there")
        for version in numbers:
            yield _pointer(name, int(version), pins)


def _pointer(name: str, version: int, pins: Pins) -> tuple[str, str, Finding]:
    record = f"{name}/{version:08d}"
    try:
        value = pins.store.value(name, version)
    except StoreError as error:
        return record, "", Finding(Verdict.TAMPERED, f"{record}: {one_line(error)}")
    digest = value.get("digest") if isinstance(value, dict) else value
    if not isinstance(digest, str):
        return record, "", Finding(Verdict.TAMPERED, f"{record}: names no artifact")
    if digest not in pins.digests:
        return record, digest, Finding(Verdict.TAMPERED, f"{record}: leads to no artifact of the store", (digest,))
    return record, digest, Finding(Verdict.ATTESTED, f"{record}: leads to a pinned artifact")


# Work in progress


def _checkpoint(folder: Path, named: str) -> tuple[Finding, str]:
    """Whether a checkpoint in progress is what its manifest says, and the training log too."""
    try:
        data = (folder / "manifest.json").read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        manifest = unsealed(data)
        log = manifest["log"]
        faults = []
        for name, said in manifest["files"].items():
            with open(folder / name, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != said["sha256"]:
                    faults.append(f"{name}: its bytes are not those that manifest.json tells of")
        if f"{manifest['step']:08d}" != folder.name:
            faults.append(f"manifest.json: step {manifest['step']}, in the folder {folder.name}")
        with open(folder.parents[1] / "training.jsonl", "rb") as file:
            logged = file.read(log["length"])
        if (len(logged), hashlib.sha256(logged).hexdigest()) != (log["length"], log["sha256"]):
            faults.append(
                "training.jsonl: is not what was logged before the checkpoint, or manifest.json tells wrong of it"
            )
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        return Finding(Verdict.TAMPERED, f"{named}: cannot be read", (one_line(error) or type(error).__name__,)), ""
    if faults:
        return Finding(Verdict.TAMPERED, f"{named}: is not the checkpoint that was written", tuple(faults)), digest
    return Finding(Verdict.BYTES_MATCH, f"{named}: the bytes that its manifest tells of"), digest
