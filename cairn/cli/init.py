"""`cairn init`: a new project in this folder, from a recipe and, if asked, one's own text."""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from cairn.errors import RecipeError

GITIGNORE = ("/.cairn/", "/artifacts/", "/wandb/", "/dvc_plots/")
# DVC walks the whole folder unless told not to.
DVCIGNORE = (".venv", ".cairn", ".git")
OWN_TEXT = "# A model trained from your own text, under snapshot.sources.\n"
OWN_THRESHOLDS = (
    "  # The quality rules have the thresholds of their papers, made for web pages in English. `cairn run` tells what\n"
    "  # they drop; `cairn config explain gopher` (c4, fineweb) says what each is, and null turns one off.\n"
)
DVC_CONFIG = """\
[core]
    remote = store
    analytics = false
    check_update = false
    autostage = false
['remote "store"']
    url = ../.cairn/store
    verify = true
[plots]
    html_template = plots/page.html
"""
DVC_GITIGNORE = ("/config.local", "/tmp", "/cache")


def _known(incomplete: str = "") -> list[str]:
    """Names of recipes that begin so."""
    from cairn.lineage.environment import ROOT

    return sorted(path.stem for path in (ROOT / "recipes").glob(f"{incomplete}*.yaml"))


def init(
    recipe: Annotated[
        str, typer.Option("--recipe", help="Which recipe to begin with.", autocompletion=_known)
    ] = "tiny",
    text: Annotated[
        list[str] | None,
        typer.Option("--text", help="Your own text: a file, folder, glob or URL. May be given several times."),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the text, an SPDX expression. Asked for.")] = None,
    kind: Annotated[str | None, typer.Option(help="prose, or code: then the rules for prose are off.")] = None,
    domain: Annotated[str | None, typer.Option(help="What the text is about; scores are for each domain.")] = None,
    git: Annotated[bool, typer.Option(help="Make a Git repository where there is none.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace params.yaml and dvc.yaml.")] = False,
) -> None:
    """Set up a project in this folder: the recipe, dvc.yaml, and the settings of DVC and Git."""
    from cairn.lineage.artifact import written_aside
    from pipelines import plots
    from pipelines.stages import RECIPE, dvc_yaml

    standing = [str(path) for path in (RECIPE, Path("dvc.yaml")) if path.exists()]
    if standing and not force:
        raise RecipeError(f"{standing[0]}: is there already: --force replaces it, or begin in an empty folder")
    if not text:
        unused = [f"--{name}" for name, said in (("licence", licence), ("kind", kind), ("domain", domain)) if said]
        if unused:
            raise RecipeError(f"{unused[0]}: says something about your own text: name the text with --text")
    content = _recipe(recipe)
    if text:
        content = _with_sources(content, [_source(uri, licence, kind, domain) for uri in text])
    in_git = _in_git() or (git and _git_init())
    files = {RECIPE: content, Path("dvc.yaml"): dvc_yaml(), **_settings(in_git), **plots.files()}
    with ExitStack() as all_or_none:
        for path, said in files.items():
            all_or_none.enter_context(written_aside(path)).write_text(said, encoding="utf-8")
    others = f" and {len(files) - 2} settings of DVC and Git" if len(files) > 2 else ""
    print(f"{RECIPE}, dvc.yaml{others} written")
    print(
        "next: `cairn doctor` looks whether everything is there, `cairn run` makes the model"
        if text
        else "next: `cairn run` makes the model, or put your own text under snapshot.sources in params.yaml first"
    )


def _recipe(name: str) -> str:
    from cairn.lineage.environment import ROOT

    if name not in _known():
        raise RecipeError(f"--recipe {name}: no such recipe; there are {', '.join(_known())}")
    return (ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def _with_sources(content: str, sources: list[dict[str, str]]) -> str:
    """The recipe with these sources; what else it says, comments too, is kept. Raises RecipeError and SourceError."""
    import cairn.recipe
    from cairn import recipe_text
    from components.recipe import Recipe

    names: set[str] = set()
    for source in sources:
        source["name"] = _unused(source["name"], names)
    content = _about_own_text(content)
    said = recipe_text.read(content)
    recipe_text.replace(said["snapshot"]["sources"], sources)
    content = recipe_text.write(said, like=content)
    cairn.recipe.loads(Recipe, content, "params.yaml")
    return content


def _about_own_text(content: str) -> str:
    """The recipe without what it says, in comments and thresholds, about the corpus that it was made for."""
    lines = content.splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    content = f"{OWN_TEXT}{''.join(lines[first:])}"
    return re.sub(r"  # Docstrings are short.*?(?=  split:\n)", OWN_THRESHOLDS, content, flags=re.DOTALL)


def _unused(name: str, names: set[str]) -> str:
    wanted, number = name, 2
    while name in names:
        name, number = f"{wanted}-{number}", number + 1
    names.add(name)
    return name


def _source(uri: str, licence: str | None, kind: str | None, domain: str | None) -> dict[str, str]:
    """One source, with what was not said asked for on a terminal.

    Raises RecipeError where nobody can be asked for the licence: it is never guessed.
    """
    _check(uri, licence=licence, kind=kind, domain=domain)
    stem = re.split(r"[*?\[]", uri)[0].rstrip("/").rpartition("/")[2].partition(".")[0] or "text"
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("._-") or "text"
    if sys.stdin.isatty():
        domain = domain or typer.prompt(f"{uri}: what is the text about, in a word", default=name)
        kind = kind or typer.prompt(f"{uri}: prose or code", default="prose")
        licence = licence or typer.prompt(f"{uri}: its licence (SPDX, such as CC-BY-4.0; LicenseRef-own for your own)")
    if licence is None:
        raise RecipeError(
            f"--text {uri}: say --licence: an SPDX expression such as CC-BY-4.0, or LicenseRef-own for your own text"
        )
    _check(uri, licence=licence, kind=kind, domain=domain)
    return {"name": name, "uri": uri, "domain": domain or name, "kind": kind or "prose", "licence": licence}


def _check(uri: str, **said: str | None) -> None:
    """What was said of a text, in the words in which it was said: nobody knows the recipe that is not written yet.

    Raises RecipeError, naming the option, and SourceError when there is no such text.
    """
    import json

    from pydantic import ValidationError

    from cairn.errors import SourceError
    from components.snapshot.objects import find
    from components.snapshot.recipe import Source

    # What was not said will be asked for, or left out.
    whole = {"domain": "text", "licence": "LicenseRef-own", **{name: one for name, one in said.items() if one}}
    try:
        checked = Source.model_validate_json(json.dumps({"name": "text", "uri": uri, **whole}))
        if "://" not in uri:
            find(checked, "--text")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = str(first["loc"][0]) if first["loc"] else "uri"
        message = first["msg"].removeprefix("Value error, ")
        named = f"--text {uri}" if option == "uri" else f"--{option} {whole[option]}"
        raise RecipeError(f"{named}: {message[0].lower()}{message[1:]}") from None
    except SourceError as error:
        raise SourceError(str(error).replace("--text.uri: ", "--text ", 1)) from None


def _settings(in_git: bool) -> dict[Path, str]:
    """The files of Git and DVC that are not there, or lack lines."""
    found: dict[Path, str] = {}
    if not Path(".dvc/config").exists():
        # Without Git, DVC must be told so.
        alone = "" if in_git else "    no_scm = true\n"
        found[Path(".dvc/config")] = DVC_CONFIG.replace("[core]\n", f"[core]\n{alone}")
    wanted: Mapping[str, tuple[str, ...]] = {".dvcignore": DVCIGNORE}
    if in_git:
        wanted = {".gitignore": GITIGNORE, ".dvc/.gitignore": DVC_GITIGNORE, **wanted}
    for name, needed in wanted.items():
        text = Path(name).read_text(encoding="utf-8") if Path(name).exists() else ""
        missing = [line for line in needed if line not in text.splitlines()]
        if missing:
            found[Path(name)] = (text if text.endswith("\n") or not text else f"{text}\n") + "\n".join([*missing, ""])
    return found


def _in_git() -> bool:
    if shutil.which("git") is None:
        return False
    command = ["git", "rev-parse", "--is-inside-work-tree"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _git_init() -> bool:
    if shutil.which("git") is None:
        return False
    subprocess.run(["git", "init", "--quiet"], check=True)
    return True
