"""Where two recipes, versions or sets of digests differ, name by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Absent(StrEnum):
    """Stands for a value that is not there, which null is not: null is what `ingest.c4: null` says."""

    ABSENT = "(absent)"


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same."""

    part: str
    """What kind of thing: `recipe`, `input`, `version`, `package`, `output`, `code`, `before` (an earlier stage), or
    `unreadable`, which `now` says why."""
    name: str
    then: Any
    now: Any
    """`ABSENT` where there is no such name; in a difference of digests, None where nothing lies there."""


def differences(part: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Difference, ...]:
    """One for each name whose values differ, in the order of `now`; what only `then` has comes last."""
    names = [*now, *(name for name in then if name not in now)]
    # A null that became a section is told by the keys of the section; one that a section became has none to tell it.
    unfolded = {name for name, value in then.items() if value is None and name not in now}
    unfolded = {name for name in unfolded if any(other.startswith(f"{name}.") for other in now)}
    pairs = ((name, then.get(name, Absent.ABSENT), now.get(name, Absent.ABSENT)) for name in names)
    return tuple(
        Difference(part, name, before, after)
        for name, before, after in pairs
        if before != after and name not in unfolded
    )


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings, and lists of mappings, as one mapping with dotted keys; other lists stay whole."""
    if isinstance(value, dict) and value:
        items = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        items = [(str(index), inner) for index, inner in enumerate(value)]
    else:
        return {prefix: value}
    return {
        key: found
        for part, inner in items
        for key, found in flat(inner, f"{prefix}.{part}" if prefix else part).items()
    }
