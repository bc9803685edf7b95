"""Write the pages that follow from the code, docs/components.md and docs/recipe.md. A test keeps them fresh."""

import html
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from cairn.lineage.stage import Component
from cairn.reference import ARXIV, Key, keys
from components.recipe import Recipe
from pipelines.differences import flat
from pipelines.stages import NAMES, place, stages

ROOT = Path(__file__).resolve().parent.parent
COMPONENTS = """\
A component is one stage's code under a version. The version is a promise: same version, inputs, recipe section and
bit-affecting packages give the same bytes. A change that breaks it raises the version.
"""
RECIPE = """\
`params.yaml` is the recipe in force: YAML 1.2, one section for each stage. A key that is not written down has its
default; an unknown key is an error. `cairn config explain KEY` tells the same on the command line.

Besides its sections a recipe may say for which version of Cairn it was written (`cairn: 0.1.0`): an older one then
refuses it.
"""
HEADER = "<!-- Written by `make docs` from the code. Do not edit. -->\n"


def pages() -> dict[Path, str]:
    """Path in the checkout to text."""
    return {Path("docs", "components.md"): components_page(), Path("docs", "recipe.md"): recipe_page()}


def components_page() -> str:
    """Every component: what it takes and makes, its parameters, its version and history."""
    said = list(keys(Recipe))
    parts = [HEADER, "# Components\n", COMPONENTS]
    for stage in stages():
        component = Component.of(f"components.{stage.name}")
        parts.append(f"## {stage.name}\n\n{component.description}\n")
        facts = {
            "version": f"{component.version} ({component.stability})",
            "takes": _artifacts(component.inputs),
            "makes": _artifacts(component.outputs),
            "bits depend on": ", ".join(component.packages) or "nothing besides its inputs and its recipe section",
            "tags": ", ".join(component.tags),
        }
        parts.append("\n".join(f"- **{name}** {text}" for name, text in facts.items()) + "\n")
        command = " ".join(stage.command()).replace(" --", " \\\n    --")
        parts.append(f"```\npython {command}\n```\n")
        inside = [key for key in said if key.name.startswith(f"{stage.name}.") and key.type != "section"]
        rows = [(f"`{key.name.partition('.')[2]}`", _type(key), _default(key), _text(key.meaning)) for key in inside]
        parts += ["### Parameters\n", _table(("key", "type", "default", "meaning"), rows)]
        parts += ["### History\n", "\n".join(f"- **{version}** {what}" for version, what in component.history.items())]
        parts.append("")
    return "\n".join(parts)


def recipe_page() -> str:
    """Every key of a recipe, section by section, with what the recipes of `recipes/` say."""
    recipes = {path.stem: _values(path) for path in sorted((ROOT / "recipes").glob("*.yaml"))}
    said = list(keys(Recipe))
    parts = [HEADER, "# Recipe\n", RECIPE]
    for section in [key for key in said if "section" in key.type.split(" or ")[0]]:
        prefix = f"{section.name}." if section.type != "list of: section" else f"{section.name}[]."
        depth = "##" if section.name in NAMES else "###"
        parts.append(f"{depth} {section.name}\n\n{_text(section.meaning)}\n")
        if section.type == "section or null":
            parts.append("`null` turns all of it off.\n")
        rows = []
        for key in said:
            name = key.name.removeprefix(prefix)
            if key.name.startswith(prefix) and "." not in name and "section" not in key.type.split(" or ")[0]:
                rows.append((f"`{name}`", _type(key), _default(key), *_said(key, recipes), _text(key.meaning)))
        if rows:
            parts.append(_table(("key", "type", "default", *recipes, "meaning"), rows))
    return "\n".join(parts)


def _values(path: Path) -> dict[str, Any]:
    return flat(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))


def _said(key: Key, recipes: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What each recipe says of a key; nothing where it takes the default, or has several."""
    for values in recipes.values():
        yield _code(values[key.name]) if key.name in values else ""


def _artifacts(names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} (`{place(name)}`)" for name in names) or "nothing: it looks at the world"


def _type(key: Key) -> str:
    return (
        f"{key.type}, {_code(key.bounds.removeprefix('like '))}"
        if "like " in key.bounds
        else ", ".join(filter(None, [key.type, key.bounds]))
    )


def _default(key: Key) -> str:
    return "**required**" if key.required else _code(key.default)


def _code(value: Any) -> str:
    """A value as code, also where it holds what a table is made of."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"<code>{html.escape(text).replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`"


def _text(text: str) -> str:
    """A docstring as Markdown: papers are links, paragraphs of a cell are one."""
    linked = ARXIV.sub(lambda found: f"[{found[0]}](https://arxiv.org/abs/{found[1]})", text)
    return " ".join(linked.split()).replace("|", "&#124;")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> int:
    for path, text in pages().items():
        (ROOT / path).parent.mkdir(exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")
        print(f"{path} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
