"""What artifacts say of each other: a manifest that names another artifact's file by its sha256 has to be right.

An attestation tells which digests went in and came out. That the bytes themselves tell the same is a second witness.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from typing import Any

from pydantic import ValidationError

from cairn.audit.verdicts import Finding, Verdict
from cairn.errors import SourceError
from cairn.lineage.attestation import Attestation
from cairn.lineage.store import identity
from components.snapshot.lock import Lock, parse_lock
from trainer.recipe import ModelShape, Training

Read = Callable[[str, str], bytes | None]
"""The bytes of one file of an artifact, by digest and path, checked; None where they are not to be had."""
REPORT = re.compile(rb'<meta name="cairn-checkpoint" content="([0-9a-f]{64})"/>')


def disagreements(attested: Attestation, inputs: Mapping[str, str], read: Read) -> Iterator[tuple[str, Finding]]:
    """Where what a stage made contradicts what it was made from: the input's name, and what is wrong.

    Args:
        inputs: name to digest of the artifacts that went in.
    """
    made = attested.outputs
    match attested.component:
        case "tokenize":
            manifest = _json(read, made.get("tokens"), "tokens.json")
            yield from _names(
                "tokens.json",
                manifest,
                "tokenizer",
                _sha256(read, made.get("tokenizer"), "tokenizer.json"),
                "documents",
            )
        case "pretrain":
            for said, wrong in _facts_apart(attested, _json(read, made.get("checkpoint"), "checkpoint.json") or {}):
                yield "", Finding(Verdict.CONFLICT, f"contradicts itself: {said}", wrong)
            manifest = _json(read, made.get("checkpoint"), "checkpoint.json")
            tokens = inputs.get("tokens")
            yield from _names("checkpoint.json", manifest, "tokens", _sha256(read, tokens, "tokens.json"), "tokens")
            of_tokens = _json(read, tokens, "tokens.json") or {}
            yield from _names("checkpoint.json", manifest, "tokenizer", of_tokens.get("tokenizer"), "tokens")
            optimizer = _json(read, made.get("optimizer"), "optimizer.json")
            steps = (manifest or {}).get("step")
            yield from _names("optimizer.json", optimizer, "step", steps, "tokens")
            yield from _names("checkpoint.json", manifest, "step", attested.facts.get("step"), "tokens")
            yield from _names("checkpoint.json", manifest, "seed", attested.facts.get("seed"), "tokens")
        case "export":
            tokenizer = _sha256(read, inputs.get("tokenizer"), "tokenizer.json")
            yield from _same(
                "the model's tokenizer.json", _sha256(read, made.get("model"), "tokenizer.json"), tokenizer, "tokenizer"
            )
            manifest = _json(read, inputs.get("checkpoint"), "checkpoint.json")
            yield from _names("checkpoint.json", manifest, "tokenizer", tokenizer, "checkpoint")
        case "report":
            page = read(made["report"], "report.html") if "report" in made else None
            found = REPORT.search(page or b"")
            yield from _same(
                "report.html", found[1].decode() if found else None, inputs.get("checkpoint"), "checkpoint"
            )


def _facts_apart(attested: Attestation, manifest: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Where what training said of itself cannot be of the section of its recipe, or of the finished checkpoint."""
    facts, section = attested.facts, attested.section
    model = section.get("model") or {}
    wanted: dict[str, tuple[Any, str]] = {
        **{name: (section.get(name), f"section.{name}") for name in ("seed", "threads", "mode", "precision")},
        "step": (section.get("steps"), "section.steps"),
        "world_size": (_product((facts.get("mesh") or {}).values()), "the product of facts.mesh"),
        "tokens_seen": (_tokens(section), "section.steps × section.batch × section.model.context"),
        "parameters": (_parameters(model, manifest.get("vocab_size")), "what section.model has with its vocabulary"),
    }
    for name, (value, of) in wanted.items():
        if value is not None and facts.get(name) is not None and facts[name] != value:
            yield f"facts.{name} is not {of}", (f"facts.{name}: {facts[name]}", f"{of}: {value}")
    for name in ("parameters", "tokens_seen", "precision"):
        if None not in (manifest.get(name), facts.get(name)) and manifest[name] != facts[name]:
            told = f"facts.{name}: {facts[name]}", f"checkpoint.json: {manifest[name]}"
            yield f"facts.{name} is not that of checkpoint.json", told


def _tokens(section: Mapping[str, Any]) -> int | None:
    """What a section says that training draws, a batch that grows included."""
    sizes = [section.get("steps"), section.get("batch"), (section.get("model") or {}).get("context")]
    if not section.get("batch_ramp"):
        return _product(sizes)
    try:
        return Training.model_validate_json(json.dumps(section)).tokens
    except ValidationError:
        return None


def _product(values: Iterable[Any]) -> int | None:
    """None where one is no whole number, or there is none."""
    numbers = list(values)
    return prod(numbers) if numbers and all(type(one) is int for one in numbers) else None


def _parameters(model: Mapping[str, Any], vocabulary: Any) -> int | None:
    """Of a model of this shape; None where this version of the recipe reads no such shape, or nothing tells the size of
    the vocabulary."""
    try:
        shape = ModelShape.model_validate_json(json.dumps(model))
        return shape.parameters(vocabulary) if type(vocabulary) is int else None
    except ValidationError:
        return None


def lock_of(read: Read, digest: str) -> Lock | None:
    """The lock file of the sources of this digest; None where it is not to be had, or is none."""
    data = read(digest, "sources.lock.json")
    try:
        return parse_lock(data, "sources.lock.json") if data is not None else None
    except SourceError:
        return None


def lock_disagreements(attested: Attestation, lock: Lock) -> list[Finding]:
    """Where a lock file of the sources contradicts the attestation of the snapshot that made it."""
    found = []
    objects = {one.uri or "": one.sha256 for one in attested.objects}
    if lock.recipe != identity(attested.section):
        said = "sources.lock.json is of another recipe section than the attestation tells"
        found.append(
            Finding(Verdict.CONFLICT, said, (f"recipe: {lock.recipe}", f"attested: {identity(attested.section)}"))
        )
    locked = {uri: one.sha256 for uri, one in lock.objects().items()}
    if locked != objects:
        apart = sorted(uri for uri in locked.keys() | objects.keys() if locked.get(uri) != objects.get(uri))
        said = f"sources.lock.json and the attestation tell of other objects: {len(apart)} differ"
        found.append(Finding(Verdict.CONFLICT, said, tuple(apart)))
    if lock.tree != attested.facts.get("tree"):
        said = "sources.lock.json and the attestation name other trees of copied objects"
        found.append(Finding(Verdict.CONFLICT, said, (f"{lock.tree} and {attested.facts.get('tree')}",)))
    wanted = [(one.get("name"), one.get("uri"), one.get("licence")) for one in attested.section.get("sources", ())]
    if [(one.name, one.uri, one.licence) for one in lock.sources] != wanted:
        found.append(
            Finding(Verdict.CONFLICT, "sources.lock.json lists other sources or licences than the attestation")
        )
    return found


def _names(
    file: str, manifest: dict[str, Any] | None, field: str, other: Any, about: str
) -> Iterator[tuple[str, Finding]]:
    if manifest is not None:
        yield from _same(f"{file}: {field}", manifest.get(field), other, about)


def _same(said: str, one: Any, other: Any, about: str) -> Iterator[tuple[str, Finding]]:
    """Nothing where either is not to be had: what is missing is told of elsewhere."""
    if one is not None and other is not None and one != other:
        yield about, Finding(Verdict.CONFLICT, f"{said} does not fit {about}", (f"says: {one}", f"is: {other}"))


def _json(read: Read, digest: str | None, path: str) -> dict[str, Any] | None:
    data = read(digest, path) if digest is not None else None
    try:
        parsed = json.loads(data) if data is not None else None
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _sha256(read: Read, digest: str | None, path: str) -> str | None:
    data = read(digest, path) if digest is not None else None
    return hashlib.sha256(data).hexdigest() if data is not None else None
