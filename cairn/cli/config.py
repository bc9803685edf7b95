"""`cairn config`: the recipe in force. Shown with its defaults, changed key by key, explained."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cairn.cli.output import AsJson, paragraph, print_json, show, table, written
from cairn.errors import RecipeError

if TYPE_CHECKING:
    from cairn.reference import Key
    from components.recipe import Recipe

app = typer.Typer(help="Show, change and explain the recipe in force.", no_args_is_help=True)


def _names(incomplete: str) -> list[str]:
    """Dotted names that begin so, for completion."""
    from cairn.reference import keys
    from components.recipe import Recipe

    return [key.name for key in keys(Recipe) if key.name.startswith(incomplete)]


@app.command("show")
def show_recipe(
    key: Annotated[
        str | None, typer.Argument(help="Only this key or section.", autocompletion=_names, show_default=False)
    ] = None,
    json: AsJson = False,
) -> None:
    """Show every key with its value and where that comes from: a line of params.yaml, or the default."""
    values = _values()
    chosen = {name: said for name, said in values.items() if key is None or f"{name}.".startswith(f"{key}.")}
    if not chosen and key is not None:
        from cairn.reference import find
        from components.recipe import Recipe

        return show_recipe(find(Recipe, key).name, json)
    if json:
        return print_json({name: {"value": value, "from": origin} for name, (value, origin) in chosen.items()})
    from rich.text import Text

    rows = table("key", "value", "from")
    for name, (value, origin) in chosen.items():
        rows.add_row(name, Text(written(value)), Text(origin, style="dim" if origin == "default" else ""))
    return show(rows)


@app.command("set")
def set_keys(
    changes: Annotated[list[str], typer.Argument(help="What to set, such as pretrain.optimizer.lr=3e-4.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and write nothing.")] = False,
) -> None:
    """Change keys of params.yaml. Comments and order stay; nothing is written that is not a valid recipe."""
    import cairn.recipe
    from cairn import recipe_text
    from cairn.lineage.artifact import written_aside
    from components.recipe import Recipe
    from pipelines.differences import differences
    from pipelines.stages import RECIPE

    before = cairn.recipe.load(Recipe, RECIPE)
    after = cairn.recipe.load(Recipe, RECIPE, changes)
    old = RECIPE.read_text(encoding="utf-8")
    said = recipe_text.read(old)
    then = _flat(before, said)
    for change in changes:
        cairn.recipe.apply(said, change, lambda value, _: recipe_text.read(value))
    text = recipe_text.write(said, like=old)
    if cairn.recipe.loads(Recipe, text, str(RECIPE)) != after:
        raise RecipeError(f"{RECIPE}: cannot be changed without changing more than was asked: edit it by hand")
    for one in differences("recipe", then, _flat(after, said)):
        print(f"{one.name}: {written(one.then)} → {written(one.now)}")
    if not dry_run:
        with written_aside(RECIPE) as aside:
            aside.write_text(text, encoding="utf-8")


@app.command()
def explain(
    key: Annotated[str, typer.Argument(help="A key, or its last part where that is enough.", autocompletion=_names)],
    json: AsJson = False,
) -> None:
    """Say what a key means, which values it takes, what it is now, and which paper it is from."""
    from cairn.reference import find, keys
    from components.recipe import Recipe

    found = find(Recipe, key)
    inside = [one for one in keys(Recipe) if one.name.startswith((f"{found.name}.", f"{found.name}[]."))]
    now = _now(found)
    if json:
        said = {"key": found.name, "type": found.type, "bounds": found.bounds, "required": found.required}
        said |= {"default": found.default, "meaning": found.meaning, "section": found.section, "papers": found.papers}
        return print_json({**said, "now": now, "keys": [one.name for one in inside]})
    print(found.name)
    paragraph(found.meaning or found.section)
    print()
    rows = table("", "")
    rows.show_header = False
    if not inside:
        rows.add_row("  type", ", ".join(filter(None, [found.type, found.bounds])))
        rows.add_row("  default", "none: it must be in the recipe" if found.required else written(found.default))
        for name, (value, origin) in now.items():
            rows.add_row("  now" if name == found.name else f"  {name}", f"{written(value)} ({origin})")
    for one in inside:
        rows.add_row(f"  {one.name}", one.meaning.partition(". ")[0].rstrip("."))
    for paper in found.papers:
        rows.add_row("  paper", paper)
    return show(rows)


def _flat(recipe: "Recipe", said: Any) -> dict[str, Any]:
    """A recipe by dotted keys, with the version of Cairn that its text says it is for: no section holds that."""
    from pipelines.differences import flat

    return {name: said[name] for name in ("cairn",) if name in said} | flat(recipe.model_dump(mode="json"))


def _values() -> dict[str, tuple[Any, str]]:
    """Dotted key to value and origin, for the whole recipe in force. Raises RecipeError when it is not valid."""
    import cairn.recipe
    from cairn import recipe_text
    from components.recipe import Recipe
    from pipelines.differences import flat
    from pipelines.stages import RECIPE

    recipe = cairn.recipe.load(Recipe, RECIPE)
    written_down = recipe_text.lines(RECIPE.read_text(encoding="utf-8"))
    return {
        name: (value, f"{RECIPE}:{written_down[name]}" if name in written_down else "default")
        for name, value in flat(recipe.model_dump(mode="json")).items()
    }


def _now(key: "Key") -> dict[str, tuple[Any, str]]:
    """What the recipe in force says of a key; nothing where there is no recipe, or no valid one: it may be what the
    person is about to put right."""
    from pipelines.stages import RECIPE

    if not Path(RECIPE).exists():
        return {}
    try:
        values = _values()
    except RecipeError:
        return {}
    return {name: said for name, said in values.items() if _without_numbers(name) == key.name}


def _without_numbers(name: str) -> str:
    import re

    return re.sub(r"\.\d+(?=\.|$)", "[]", name)
