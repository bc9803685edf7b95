"""A recipe as a person wrote it: changed key by key, with its comments, order and spelling kept."""

import difflib
import itertools
from collections.abc import Mapping, Sequence
from functools import cache
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.representer import RoundTripRepresenter

# Columns that a mapping, the text of a list's item, and its hyphen are moved in by: the ways in which YAML is written.
COLUMNS = ((2, 4, 2), (2, 2, 0), (4, 6, 4), (4, 4, 2), (4, 2, 0), (4, 4, 0))
# Empty, as ruamel would have it, looks as if something had been forgotten; but some write it so.
NULLS = ("null", "", "~")


def read(text: str) -> Any:
    """The mapping in `text`, to be changed in place and given to `write`. A value read so is spelled as it was."""
    return _yaml().load(text)


def write(recipe: Any, like: str) -> str:
    """The text of a mapping from `read`, written the way the text `like` is, so that other lines stay as they are."""
    untouched = read(like)
    best = min(itertools.product(COLUMNS, NULLS), key=lambda way: _changed(like, _dumped(untouched, *way)))
    _close_gaps(recipe)
    return _dumped(recipe, *best)


def lines(text: str) -> dict[str, int]:
    """The line (from 1) of every key that is written down, by its dotted name; items of lists are numbered."""
    return dict(_lines(read(text), ""))


def _dumped(recipe: Any, columns: tuple[int, int, int], null: str) -> str:
    mapping, sequence, offset = columns
    yaml = _yaml()
    yaml.indent(mapping=mapping, sequence=sequence, offset=offset)
    yaml.Representer = _representer(null)
    text = StringIO()
    yaml.dump(recipe, text)
    return text.getvalue()


def _changed(before: str, after: str) -> int:
    """How many lines differ."""
    return len(list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0)))


def _close_gaps(node: Any) -> None:
    """Put a key that was added before the blank line that followed its section, not after it."""
    if isinstance(node, CommentedMap):
        *_, before, last = [None, None, *node]
        added = last is not None and node.lc.data is not None and last not in node.lc.data
        if added and before in node.ca.items:
            node.ca.items[last] = node.ca.items.pop(before)
    for inner in node.values() if isinstance(node, CommentedMap) else node if isinstance(node, CommentedSeq) else ():
        _close_gaps(inner)


def _lines(node: Any, prefix: str) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    if isinstance(node, CommentedMap):
        pairs: Any = ((key, node.lc.key(key)[0], inner) for key, inner in node.items())
    elif isinstance(node, CommentedSeq):
        pairs = ((index, node.lc.item(index)[0], inner) for index, inner in enumerate(node))
    else:
        return found
    for key, line, inner in pairs:
        name = f"{prefix}{key}"
        found += [(name, line + 1), *_lines(inner, f"{name}.")]
    return found


def replace(items: Any, values: Sequence[Mapping[str, Any]]) -> None:
    """Put mappings in the place of those of a list from `read`. The blank line or comment that follows it stays."""
    last = items[-1]
    while isinstance(inner := last[list(last)[-1]], CommentedMap) and inner:
        last = inner  # what follows a mapping is kept with the innermost key before it
    follows = last.ca.items.get(list(last)[-1])
    items[:] = [CommentedMap(value) for value in values]
    if follows:
        items[-1].ca.items[list(items[-1])[-1]] = follows


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000
    return yaml


@cache
def _representer(null: str) -> type[RoundTripRepresenter]:
    class Representer(RoundTripRepresenter):
        """Writes null in this way."""

    Representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", null)
    )
    return Representer
