"""Goldens: what each stage made of a small fixed input, kept in tests/goldens, so that a component's version stays a
promise: same version, inputs, section and bit-affecting packages, same bytes.

A change that alters the bytes fails until the version in `metadata.yaml` is raised; only then does `make goldens` write
the golden anew. Where bits depend on the hardware, numbers are kept and compared within a tolerance.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from cairn.lineage.artifact import readable
from cairn.lineage.environment import package_version
from cairn.lineage.stage import Component
from cairn.recipe import Section

FOLDER = Path(__file__).parent / "goldens"
WRITE = "CAIRN_WRITE_GOLDENS"


@dataclass(frozen=True)
class Golden:
    """The promise, and what was made under it."""

    version: str
    inputs: dict[str, str]
    """Digests by name."""
    section: dict[str, Any]
    packages: dict[str, str]
    """Versions of the bit-affecting packages, of this stage and of what wrote its inputs."""
    made: dict[str, Any]
    """Digests of the outputs, or numbers from them."""
    tolerance: float
    """How far a number may be from the one kept; 0 where the bytes must be the same."""


def keep(
    component: Component,
    section: Section,
    inputs: Mapping[str, str],
    made: Mapping[str, Any],
    *,
    tolerance: float = 0.0,
    packages: Sequence[str] = (),
    folder: Path = FOLDER,
) -> None:
    """Compare what a stage made with its golden; with `CAIRN_WRITE_GOLDENS` set, write the golden if that is allowed.

    Fails when the golden is missing or out of date, and when the bytes changed under one version. Skips when other
    versions of the packages are installed than the golden was made with, because then nothing was promised.

    Args:
        packages: bit-affecting packages of what wrote the inputs.
    """
    path = folder / f"{component.name}.json"
    versions = component.package_versions() | {name: package_version(name) for name in packages}
    now = Golden(component.version, dict(inputs), section.model_dump(mode="json"), versions, dict(made), tolerance)
    writing = bool(os.environ.get(WRITE))
    kept = Golden(**json.loads(path.read_bytes())) if path.exists() else None
    if kept is None:
        if not writing:
            pytest.fail(f"{component.name} has no golden: run `make goldens`")
    elif kept.packages != now.packages and not writing:
        pytest.skip(f"{component.name}: {_other_packages(kept.packages, now.packages)}: nothing was promised for these")
    else:
        _compare(component, kept, now, writing)
        if _key(kept) == _key(now):
            return  # also when writing: small steps within the tolerance must not add up
    folder.mkdir(exist_ok=True)
    path.write_bytes(readable(asdict(now)))


def _compare(component: Component, kept: Golden, now: Golden, writing: bool) -> None:
    metadata = f"components/{component.name}/metadata.yaml"
    if _number(now.version) < _number(kept.version):
        pytest.fail(f"{metadata}: the version went from {kept.version} back to {now.version}: raise it")
    if _key(kept) == _key(now):
        found = list(islice(_differences(kept.made, now.made, kept.tolerance), 3))
        if found:
            refused = " The golden was not written." if writing else ""
            pytest.fail(
                f"{component.name}: what it makes changed under version {now.version} ({'; '.join(found)}): raise the "
                f"version in {metadata}, then run `make goldens`.{refused}"
            )
    elif not writing:
        pytest.fail(f"{component.name}: its golden is of {_other(kept, now)}: run `make goldens`")


def _other(kept: Golden, now: Golden) -> str:
    for what, was, is_ in (
        ("another version", kept.version, now.version),
        ("other inputs", kept.inputs, now.inputs),
        ("another section", kept.section, now.section),
    ):
        if was != is_:
            return what
    return "another tolerance"


def _key(golden: Golden) -> tuple[Any, ...]:
    return golden.version, golden.inputs, golden.section, golden.packages, golden.tolerance


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _other_packages(kept: Mapping[str, str], now: Mapping[str, str]) -> str:
    odd = [name for name in sorted(kept.keys() | now.keys()) if kept.get(name) != now.get(name)]
    pairs = (f"{name} {kept.get(name, 'not named')}, here it is {now.get(name, 'not named')}" for name in odd)
    return f"the golden was made with {'; '.join(pairs)}"


def _differences(kept: Any, made: Any, tolerance: float, where: str = "") -> Iterator[str]:
    """What is not as it was, by dotted name."""
    if isinstance(kept, dict) and isinstance(made, dict) and kept.keys() == made.keys():
        for name in kept:
            yield from _differences(kept[name], made[name], tolerance, f"{where}.{name}".lstrip("."))
    elif isinstance(kept, list) and isinstance(made, list) and len(kept) == len(made):
        for index, (was, is_) in enumerate(zip(kept, made, strict=True)):
            yield from _differences(was, is_, tolerance, f"{where}[{index}]")
    elif isinstance(kept, float) and isinstance(made, float):
        if not abs(kept - made) <= tolerance:
            yield f"{where} was {kept}, is {made}"
    elif kept != made:
        yield f"{where} was {_short(kept)}, is {_short(made)}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 40 else f"{text[:12]}…"
