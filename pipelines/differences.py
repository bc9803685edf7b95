"""Where two recipes, versions or sets of digests differ, name by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same."""

    part: str
    """What kind of thing: `recipe`, `input`, `version`, `package`, `output`, `code`, `before` (an earlier stage), or
    `unreadable`, which `now` says why."""
    name: str
    then: Any
    """None where it was not there."""
    now: Any


def differences(part: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Difference, ...]:
    """One for each name whose values differ, in the order of `now`; what only `then` has comes last."""
    names = [*now, *(name for name in then if name not in now)]
    return tuple(
        Difference(part, name, then.get(name), now.get(name)) for name in names if then.get(name) != now.get(name)
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
