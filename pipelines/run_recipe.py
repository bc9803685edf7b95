"""Puts a run's recipe into a project's, key by key, so that comments, order and the other sections stay."""

from collections.abc import Mapping
from typing import Any

from ruamel.yaml.comments import CommentedMap

import cairn.recipe
from cairn import recipe_text
from cairn.errors import RecipeError
from components.recipe import Recipe
from pipelines.stages import RECIPE


def adopted(text: str, recipe: Mapping[str, Any], sections: Mapping[str, Any]) -> str:
    """The recipe in `text` with sections of another in place of its own.

    Args:
        recipe: stage to its section, as it was written.
        sections: the same with defaults filled in: what the result must come to.

    Raises RecipeError when the two do not come to the same.
    """
    said = recipe_text.read(text)
    for name, section in recipe.items():
        if isinstance(said.get(name), CommentedMap):
            _become(said[name], section)
        else:
            said[name] = section
    made = recipe_text.write(said, like=text)
    now = cairn.recipe.loads(Recipe, made, str(RECIPE)).model_dump(mode="json")
    if any(now[name] != section for name, section in sections.items()):
        raise RecipeError(f"{RECIPE}: the run's record does not spell the recipe that it ran: edit the file by hand")
    return made


def _become(mapping: CommentedMap, wanted: Mapping[str, Any]) -> None:
    """Make `mapping` equal to `wanted`, touching nothing that is equal already."""
    for key in [key for key in mapping if key not in wanted]:
        del mapping[key]
    for key, value in wanted.items():
        there = mapping.get(key)
        if isinstance(there, CommentedMap) and isinstance(value, Mapping):
            _become(there, value)
        elif key not in mapping or there != value or isinstance(there, bool) != isinstance(value, bool):
            mapping[key] = value
