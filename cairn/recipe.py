"""What every recipe section shares: strict loading, dotted overrides, and errors that name file, line and key.

A recipe is YAML 1.2 (so `1e-3` is a number). The sections themselves live beside the code that they steer; the whole
`Recipe` is in `components/recipe.py`. Besides its sections it may say for which version of Cairn it was written
(`cairn: 0.1.0`): an older one then refuses it by that, not by the first key that it does not know.
"""

import datetime
import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from cairn import version
from cairn.errors import RecipeError, one_line


class Section(BaseModel):
    """A part of the recipe. Frozen, strict about types, and closed: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


def _spdx(licence: str) -> str:
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        canonicalize_license_expression(licence)
    except InvalidLicenseExpression:
        raise ValueError(
            f"{licence!r} is not an SPDX expression, such as CC-BY-4.0; for a licence without an SPDX name write "
            "LicenseRef-…"
        ) from None
    return licence


Licence = Annotated[str, AfterValidator(_spdx)]
"""An SPDX licence expression; `LicenseRef-…` for a licence without an SPDX name."""

S = TypeVar("S", bound=Section)


def load(model: type[S], path: Path, overrides: Sequence[str] = ()) -> S:
    """Read `path` as `model`, after applying `key.subkey=value` overrides.

    Raises:
        RecipeError: the file is missing, is not YAML, or does not fit the model. The first fault is named by file,
            line and dotted key, with the nearest known key where one is close; further faults are counted.
    """
    return loads(model, text_of(path), str(path), overrides)


def text_of(path: Path) -> str:
    """The text of a recipe. Raises RecipeError when the file is missing or is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        # Not every file that is read so is a recipe: profiles and components' metadata are too.
        way_out = ": `cairn init` writes one" if path.name == "params.yaml" else ""
        raise RecipeError(f"{path}: no such file{way_out}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {one_line(error)}") from None


def loads(model: type[S], text: str, name: str, overrides: Sequence[str] = ()) -> S:
    """Like `load`, for text that is at hand; `name` is what messages call it."""
    data = written(text, name, overrides)
    _check_version(data.pop("cairn", None), text, name, overrides)
    if date := next(_dates(data, []), None):
        dotted = ".".join(map(str, date))
        place = _place(dotted, date, text, name, overrides)
        raise RecipeError(f"{place}: {dotted}: write the date in quotes: DVC, which reads it too, takes no bare one")
    try:
        # JSON mode: strict about scalars, yet a YAML list may be a tuple.
        return model.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        raise _explain(error, model, text, name, overrides) from None


def written(text: str, name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What a recipe says, after overrides and before defaults: nothing but its form was checked.

    Raises RecipeError when it is no YAML, or no mapping.
    """
    data = _parse(text, name)
    if not isinstance(data, dict):
        raise RecipeError(f"{name}:1: a recipe is a mapping of sections, not {type(data).__name__}")
    for override in overrides:
        apply(data, override)
    return data


def _parse(text: str, name: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"{name}:{line}: not valid YAML: {one_line(error.problem)}") from None
    except YAMLError as error:
        raise RecipeError(f"{name}: not valid YAML: {one_line(error)}") from None


def _dates(node: Any, where: list[str | int]) -> Iterator[list[str | int]]:
    """The place of every value that YAML takes for a date."""
    if isinstance(node, datetime.date):
        yield where
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        yield from _dates(value, [*where, key])


def _check_version(wanted: Any, text: str, name: str, overrides: Iterable[str]) -> None:
    if wanted is None:
        return
    place = f"{_place('cairn', ['cairn'], text, name, overrides)}: cairn"
    if not isinstance(wanted, str) or not re.fullmatch(r"\d+(\.\d+)+", wanted):
        raise RecipeError(f"{place}: write the version of Cairn as {version.installed()} (got {json.dumps(wanted)})")
    if version.is_newer(wanted, version.installed()):
        raise RecipeError(f"{place}: written for Cairn {wanted}, but {version.installed()} is installed: update Cairn")


def apply(data: dict[str, Any], override: str, parse: Callable[[str, str], Any] = _parse) -> None:
    """Set one dotted key in place. A number in the path indexes a list.

    Args:
        parse: reads the value; its second argument is what messages call it.
    """
    key, separator, value = override.partition("=")
    if not separator or not all(key.split(".")):
        raise RecipeError(f"override {override!r}: write it as section.key=value")
    *parents, last = key.split(".")
    node: Any = data
    for part in parents:
        if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict):
            node = node.setdefault(part, {})
        else:
            raise RecipeError(f"override {override!r}: {part!r} is not a section")
    parsed = parse(value, f"override {override!r}")
    if isinstance(node, list) and last.isdecimal() and int(last) < len(node):
        node[int(last)] = parsed
    elif isinstance(node, dict):
        node[last] = parsed
    else:
        raise RecipeError(f"override {override!r}: {'.'.join(parents)} has no keys")


def _explain(
    error: ValidationError, model: type[Section], text: str, name: str, overrides: Iterable[str]
) -> RecipeError:
    told = error.errors(include_url=False)
    # A list is called too short when an item of it is at fault.
    items = [fault["loc"] for fault in told if fault["type"] != "too_short"]
    faults = [
        fault
        for fault in told
        if fault["type"] != "too_short" or not any(loc[: len(fault["loc"])] == fault["loc"] for loc in items)
    ]
    first = faults[0]
    where = [part for part in first["loc"] if isinstance(part, (str, int))]
    dotted = ".".join(map(str, where))
    # A model validator reports no key of its own: it blames its section.
    named = f"{dotted}: " if dotted else ""
    place = _place(dotted, where, text, name, overrides)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return RecipeError(f"{place}: {named}{_fault(first, model, where)}{more}")


def _place(dotted: str, where: Sequence[str | int], text: str, name: str, overrides: Iterable[str]) -> str:
    """The override that set a key, else the file and line where it is written."""
    overridden = next((o for o in overrides if dotted.startswith(o.partition("=")[0])), None)
    return f"override {overridden!r}" if overridden else f"{name}:{_line(text, where)}"


def _fault(fault: ErrorDetails, model: type[Section], where: list[str | int]) -> str:
    if fault["type"] == "extra_forbidden":
        known = _keys(model, where[:-1])
        close = difflib.get_close_matches(str(where[-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(sorted(known))}"
        return f"unknown key; {hint}"
    if fault["type"] == "missing":
        return "missing: add it"
    if fault["type"] == "model_type" and (keys := _keys(model, where)):
        form = ", ".join(f"{name}: …" for name in keys)
        return f"is a section: write it as {{{form}}} (got {json.dumps(fault['input'], default=str)})"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return message
    shown = json.dumps(fault["input"], default=str)
    if fault["type"] == "string_type" and type(fault["input"]) in (int, float):  # such as a digest, all of digits
        return f"is text, and {shown[:20]}{'...' * (len(shown) > 20)} is read as a number: write it in quotes"
    return f"{message[0].lower()}{message[1:]} (got {shown if len(shown) < 60 else shown[:57] + '...'})"


def _keys(model: type[Section], where: Iterable[str | int]) -> list[str]:
    """The field names of the section at `where`; empty when it is not a section."""
    current: Any = model
    for part in where:
        if isinstance(part, int) or current is None:
            continue
        field = current.model_fields.get(part)
        current = _section_in(field.annotation) if field else None
    return list(current.model_fields) if current else []


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)


def _line(text: str, where: Sequence[str | int]) -> int:
    """The line (from 1) of the key at `where`, or of the nearest parent that is written down."""
    node: Any = YAML(typ="rt").load(text)
    line = 0
    for part in where:
        try:
            if isinstance(node, CommentedMap):
                line = node.lc.key(part)[0]
            elif isinstance(node, CommentedSeq):
                line = node.lc.item(part)[0]
            node = node[part]
        except (KeyError, IndexError, TypeError):
            break
    return line + 1
