"""The Kubeflow door of every component: what its container runs.

python -m components.ingest kubeflow --recipe-text=TEXT --store=URL --input sources=PIN --digest sources=SHA256
    --output documents=PIN --executor-input=JSON

A pod shares no disk with the others and has neither git nor dvc. Pins go in and out as small files; the bytes are in
the store. The digest of an input comes as a parameter besides, where Kubeflow shows it.
"""

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import cairn.recipe
from cairn.errors import ArtifactError, AttestationError, PipelineError, StoreError
from cairn.lineage import signing
from cairn.lineage.artifact import Artifact, canonical, written_aside
from cairn.lineage.pins import read_pin_file, write_pin_file
from cairn.lineage.stage import Component, Outcome
from cairn.lineage.store import Store
from cairn.resources import Resources
from components import secrets
from components.door import check_version, run_of, section_of
from components.noting import noting
from components.recipe import Recipe
from components.summary import Read, Summary

RECIPE_LIMIT = 60_000
"""Bytes. Kubeflow puts a recipe into two arguments of one command, into one of them as JSON, and Linux starts no
command with an argument of more than 128 KiB."""


@dataclass(frozen=True)
class Call:
    """What this door was asked for."""

    recipe: str
    store: str
    pins: dict[str, Path]
    digests: dict[str, str]
    outputs: dict[str, Path]
    page: Path | None
    locked: str | None
    run: str | None
    executor_input: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What a stage is run on here."""

    component: Component
    inputs: Mapping[str, str]
    """Input name to digest."""
    locked: str | None
    """The digest of the lock file to use; None to look at the sources. For the component that has no input."""
    store: Store
    resources: Resources
    home: Path


def enter(
    component: Component,
    run: Callable[[Any, Job], tuple[Outcome, Mapping[str, str]]],
    arguments: Sequence[str],
) -> None:
    """Run the stage as the command line asks, and say what was made: in pins, in parameters, in what a person sees.

    Args:
        run: what it did, and the digest of every output.

    Raises:
        CairnError: bad input, or what `run` raises. No output is written then.
    """
    call = parse(component, arguments)
    check_parameters({"recipe": call.recipe, "store": call.store})
    _check_key()
    section = section_of(cairn.recipe.loads(Recipe, call.recipe, "recipe parameter"), component)
    inputs = {name: _input(name, path, call.digests[name]) for name, path in call.pins.items()}
    store = _open(call.store)
    # On a volume that outlives the pod, a run that was cut short goes on where it was.
    home = Path(os.environ.get("CAIRN_WORK") or ".cairn")
    outcome, made = run(section, Job(component, inputs, call.locked, store, Resources.from_environment(), home))
    if outcome is not Outcome.RAN:
        print(f"{component.name}: {outcome.value}", file=sys.stderr, flush=True)
    known = {**inputs, **made}
    summary: Callable[[Read], Summary] = import_module(f"components.{component.name}.summary").summary
    seen = summary(Read(store, known))
    artifacts = {name: _pinned(store, digest) for name, digest in made.items()}
    for name, path in call.outputs.items():
        write_pin_file(path, artifacts[name])
    if call.page is not None:
        _write(call.page, seen.page.encode())
    _tell(call.executor_input["outputs"], component, artifacts, seen)
    if call.run is not None:
        written = cairn.recipe.written(call.recipe, "recipe parameter")
        noting(call.run, store, component, section, written)(inputs, made, outcome)


def parse(component: Component, arguments: Sequence[str]) -> Call:
    """Read the command line. Exits with 2 and a usage line when it does not fit."""
    parser = argparse.ArgumentParser(
        prog=f"python -m components.{component.name} kubeflow", description=component.description
    )
    parser.add_argument("--for-version", help="the component's version that the caller knows; another is refused")
    parser.add_argument("--recipe-text", required=True, metavar="YAML", help="the whole recipe")
    parser.add_argument("--store", required=True, metavar="URL", help="where the bytes of artifacts are")
    options = {
        "input": ("FILE", component.inputs, "the pin of an input"),
        "digest": ("SHA256", component.inputs, "the digest that an input's pin must have"),
        "output": ("FILE", component.outputs, "where the pin of an output is written"),
    }
    for option, (metavar, _, help_text) in options.items():
        parser.add_argument(f"--{option}", action="append", default=[], metavar=f"NAME={metavar}", help=help_text)
    parser.add_argument("--run", default="", metavar="NAME", help="the run that this belongs to (default: CAIRN_RUN)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="where a page for people is written")
    if not component.inputs:
        parser.add_argument(
            "--locked", default="", type=_digest, metavar="SHA256", help="use this lock file; do not look again"
        )
    parser.add_argument(
        "--executor-input", required=True, type=_executor_input, metavar="JSON", help="Kubeflow's {{$}}"
    )
    given = parser.parse_args(arguments)
    check_version(component, given.for_version)
    pairs = {option: dict(pair.partition("=")[::2] for pair in getattr(given, option)) for option in options}
    for option in ("input", "output"):
        if "" in pairs[option].values():
            parser.error(f"--{option} {' '.join(getattr(given, option))}: write it as NAME=FILE")
    for option, (_, names, _) in options.items():
        if set(pairs[option]) != set(names):
            parser.error(f"--{option}: takes {', '.join(names) or 'none'}; got {', '.join(pairs[option]) or 'none'}")
    return Call(
        recipe=given.recipe_text,
        store=given.store,
        pins={name: Path(path) for name, path in pairs["input"].items()},
        digests=pairs["digest"],
        outputs={name: Path(path) for name, path in pairs["output"].items()},
        page=given.page,
        locked=getattr(given, "locked", "") or None,
        run=run_of(given.run),
        executor_input=given.executor_input,
    )


def _digest(text: str) -> str:
    """A sha256, or nothing."""
    if text and not re.fullmatch("[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError("is not a sha256 digest")
    return text


def _executor_input(text: str) -> dict[str, Any]:
    """Kubeflow's ExecutorInput message as JSON: here, where its outputs go."""
    try:
        message: dict[str, Any] = json.loads(text)
        outputs = message["outputs"]
        said = isinstance(outputs["outputFile"], str)
        for listed in outputs.get("artifacts", {}).values():
            [descriptor] = listed["artifacts"]
            said = said and isinstance(descriptor.get("metadata", {}), dict)
    except (ValueError, KeyError, TypeError, AttributeError):
        said = False
    if not said:
        raise argparse.ArgumentTypeError("is not a message that says where each output goes: pass Kubeflow's {{$}}")
    return message


def check_parameters(parameters: Mapping[str, str]) -> None:
    """Raises PipelineError when a run-time parameter looks like a secret, which Kubeflow has shown to everybody by now,
    or is too long to be handed on."""
    for name, value in parameters.items():
        for kind in secrets.kinds(value):
            raise PipelineError(
                f"parameter {name}: looks like {kind}: name a Kubernetes secret in the resource profile instead, and "
                "change the secret: Kubeflow keeps what it was given"
            )
        if (size := len(value.encode())) > RECIPE_LIMIT:
            raise PipelineError(
                f"parameter {name}: is {size:,} bytes long, {RECIPE_LIMIT:,} can be handed on: leave out comments, or "
                "name sources by a pattern"
            )


def _check_key() -> None:
    """A pod that makes a key of its own is believed by no other, and all work is done again in each run."""
    if os.environ.get(signing.VARIABLE):
        signing.trusted_keys()  # a signer without a key is told of now, not after the work
        return
    path = signing.key_path()
    if not path.exists():
        raise AttestationError(
            f"{path}: no signing key: mount the same one at CAIRN_HOME in every pod (`signing_key` in the profile), "
            f"or say by {signing.VARIABLE} who signs"
        )


def _input(name: str, path: Path, said: str) -> str:
    """The digest of an input, on which its pin and its parameter agree."""
    digest = read_pin_file(path).digest
    if digest != said:
        raise ArtifactError(
            f"input {name}: the pin {path} is of {digest}, the digest parameter says {said!r}: take both from one task"
        )
    return digest


def _open(url: str) -> Store:
    if not url.strip():
        raise StoreError("store parameter: is empty: give the URL of the store, such as s3://bucket/folder")
    store = Store(url)
    store.check()
    return store


def _pinned(store: Store, digest: str) -> Artifact:
    artifact = store.pin(digest)
    if artifact is None:
        raise StoreError(f"{store.url}: holds no pin for {digest}")
    return artifact


def _tell(outputs: dict[str, Any], component: Component, artifacts: Mapping[str, Artifact], seen: Summary) -> None:
    """Write Kubeflow's ExecutorOutput message: digests as parameters, and what its pages show of each artifact."""
    properties: dict[str, Mapping[str, str | float]] = {"metrics": seen.metrics}
    for name, artifact in artifacts.items():
        properties[name] = {
            "digest": artifact.digest,
            "bytes": artifact.size,
            "files": len(artifact.members),
            "component": component.name,
            "version": component.version,
            **seen.properties.get(name, {}),
        }
    described = {}
    for name, listed in outputs.get("artifacts", {}).items():
        [descriptor] = listed["artifacts"]
        metadata = {**descriptor.get("metadata", {}), **_finite(properties.get(name, {}))}
        described[name] = {"artifacts": [{**descriptor, "metadata": metadata}]}
    digests = {f"{name}_digest": artifact.digest for name, artifact in artifacts.items()}
    _write(Path(outputs["outputFile"]), canonical({"artifacts": described, "parameterValues": digests}))


def _finite(properties: Mapping[str, str | float]) -> dict[str, str | float]:
    """JSON has no word for a number that is not finite."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in properties.items()
    }


def _write(path: Path, data: bytes) -> None:
    with written_aside(path) as aside:
        aside.write_bytes(data)
