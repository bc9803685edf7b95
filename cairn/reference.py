"""What can be said of every key of a recipe, taken from the sections: type, bounds, default, meaning, paper."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cairn.errors import RecipeError
from cairn.recipe import Section

TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
BOUNDS = {
    "exclusiveMinimum": "> {}",
    "minimum": "≥ {}",
    "exclusiveMaximum": "< {}",
    "maximum": "≤ {}",
    "pattern": "like {}",
    "minItems": "at least {}",
}
ARXIV = re.compile(r"arXiv[ :]?(\d{4}\.\d{4,5})")


@dataclass(frozen=True)
class Key:
    """One key of a recipe, or one section."""

    name: str
    """Dotted; `[]` stands for the number of a list's item."""
    type: str
    """In words; `section` for a section."""
    bounds: str
    """In signs; empty when any value of the type will do."""
    required: bool
    default: Any
    """As JSON; None also where the key is required."""
    meaning: str
    """The docstring of the field; of a section, that of the section."""
    section: str
    """The docstring of the section that the key is in."""

    @property
    def papers(self) -> list[str]:
        """Addresses of the papers that the docstrings name; the section's when the field names none."""
        found = ARXIV.findall(self.meaning) or ARXIV.findall(self.section)
        return [f"https://arxiv.org/abs/{number}" for number in dict.fromkeys(found)]


def keys(model: type[Section]) -> list[Key]:
    """Every key of `model` in the order in which it is defined, each section before its keys."""
    schema = model.model_json_schema()
    return list(_keys(schema, schema.get("$defs", {}), ""))


def find(model: type[Section], asked: str) -> Key:
    """The key of that dotted name, or the only one whose name ends so.

    Raises RecipeError with the nearest names when there is none, or with all when there are several.
    """
    # In a recipe the items of a list have numbers; here they are all alike.
    wanted = re.sub(r"\.\d+(?=\.|$)", "[]", asked)
    known = {key.name: key for key in keys(model)}
    if wanted in known:
        return known[wanted]
    endings = [name for name in known if name.endswith(f".{wanted}")]
    if len(endings) == 1:
        return known[endings[0]]
    if endings:
        raise RecipeError(f"{asked}: which of {', '.join(endings)}?")
    raise RecipeError(f"{asked}: no such key of the recipe{_hint(wanted, list(known))}")


def _hint(wanted: str, names: list[str]) -> str:
    close = difflib.get_close_matches(wanted, names, n=1)
    if not close:
        # The last word may be right, or nearly so, where the path to it is not.
        last = difflib.get_close_matches(wanted.rpartition(".")[2], {name.rpartition(".")[2] for name in names}, n=1)
        close = [name for name in names if last and name.rpartition(".")[2] == last[0]][:3]
    return f": did you mean {' or '.join(close)}?" if close else ": `cairn config show` lists them"


def _keys(schema: Mapping[str, Any], sections: Mapping[str, Any], prefix: str) -> Iterator[Key]:
    about = schema.get("description", "")
    for name, said in schema.get("properties", {}).items():
        inner = _section(said, sections)
        whole = f"{prefix}{name}"
        yield Key(
            name=whole,
            type=_type(said, sections),
            bounds=_bounds(said),
            required=name in schema.get("required", ()),
            default=said.get("default"),
            meaning=_joined(said.get("description") or (inner or {}).get("description", "")),
            section=_joined(about),
        )
        if inner is not None:
            item = "[]" if said.get("type") == "array" else ""
            yield from _keys(inner, sections, f"{whole}{item}.")


def _section(said: Mapping[str, Any], sections: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The section that a field holds, also in a list or where it may be null."""
    if "$ref" in said:
        return sections.get(said["$ref"].rpartition("/")[2])
    inner = [*said.get("anyOf", ()), *([said["items"]] if "items" in said else ())]
    return next((found for one in inner if (found := _section(one, sections)) is not None), None)


def _type(said: Mapping[str, Any], sections: Mapping[str, Any]) -> str:
    if "anyOf" in said:
        return " or ".join(_type(one, sections) for one in said["anyOf"])
    if "$ref" in said:
        return "section"
    if "enum" in said or "const" in said:
        *some, last = map(str, said.get("enum", [said.get("const")]))
        return f"{', '.join(some)} or {last}" if some else last
    if "prefixItems" in said:
        return f"list of {len(said['prefixItems'])}: {_type(said['prefixItems'][0], sections)}"
    if said.get("type") == "array":
        return f"list of: {_type(said['items'], sections)}"
    if "additionalProperties" in said:
        return f"mapping of names to: {_type(said['additionalProperties'], sections)}"
    return TYPES[said["type"]]


def _bounds(said: Mapping[str, Any]) -> str:
    if "prefixItems" in said:
        return ""  # the type says how many
    one = next((one for one in said.get("anyOf", ()) if one.get("type") != "null"), said)
    if one.get("minLength") == 1:
        return "not empty"
    return ", ".join(form.format(one[name]) for name, form in BOUNDS.items() if name in one)


def _joined(text: str) -> str:
    """A docstring with its lines joined; paragraphs stay apart."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
