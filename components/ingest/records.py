"""The fields of a record: found by a dotted path, and told when they are not what the recipe says."""

from collections.abc import Iterable
from datetime import date
from typing import Any

from cairn.errors import SourceError
from components.snapshot.lock import LockedSource

MOST_SAID = 10_000  # characters of a field besides the text
_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}


def kind_of(value: Any) -> str:
    """What a value of JSON is, in words."""
    return "null" if value is None else _KINDS.get(type(value), f"a {type(value).__name__}")


def steps(path: str, names: Iterable[str]) -> list[str]:
    """The keys that lead to a field. A record that has the whole path as a key has no use for its dots."""
    return [path] if path in names else path.split(".")


def text_of(record: Any, source: LockedSource, where: str) -> str:
    """The text of a record. Raises SourceError when it has none."""
    path = source.text_field
    if not isinstance(record, dict):
        raise SourceError(f"{where}: is {kind_of(record)}, not an object with a field {path!r}")
    found: Any = record
    within = ""
    for name in steps(path, record):
        if not isinstance(found, dict):
            raise SourceError(f"{where}: field {within!r} is {kind_of(found)}, not an object with a field {name!r}")
        if name not in found:
            had = f"{within!r} has" if within else "it has"
            raise SourceError(f"{where}: has no field {path!r}; {choose(had, found, source)}")
        found, within = found[name], f"{within}.{name}" if within else name
    if not isinstance(found, str):
        raise SourceError(f"{where}: field {path!r} is {kind_of(found)}, not text")
    return found


def said_of(record: dict[str, Any], source: LockedSource, where: str) -> dict[str, str]:
    """What the recipe wants kept of a record besides its text; without what it does not have.

    Raises:
        SourceError: such a field is neither text nor a number nor a date, or very long.
    """
    if source.fields is None:
        return {}
    said = {}
    for name, path in source.fields.paths().items():
        found: Any = record
        for step in steps(path, record):
            found = found.get(step) if isinstance(found, dict) else None
        if found is not None:
            said[name] = as_said(found, path, where)
    return said


def as_said(value: Any, path: str, where: str) -> str:
    """A value as it is kept. Raises SourceError as `said_of` does."""
    if isinstance(value, date):  # and a time of day
        return value.isoformat()
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SourceError(f"{where}: field {path!r} is {kind_of(value)}, not text, a number or a date")
    text = str(value)
    if len(text) > MOST_SAID:
        raise SourceError(f"{where}: field {path!r} has {len(text):,} characters; at most {MOST_SAID:,} are kept")
    return text


def choose(had: str, names: Iterable[Any], source: LockedSource, key: str = "text_field") -> str:
    """The way out when a field is not there. `had` is such as "it has"; `key`, what of the source names the field."""
    shown = ", ".join(sorted(map(str, names))[:8]) or "none"
    return f"{had} {shown}: set {key} of source {source.name!r}"
