"""`cairn config`: shown with origins, changed without loss, explained."""

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import cairn.recipe
from cairn.reference import keys
from cairn.version import installed
from components.recipe import Recipe
from tests.cli.conftest import Cairn

ROOT = Path(__file__).resolve().parents[2]
TINY = (ROOT / "recipes" / "tiny.yaml").read_text()
STEPS = YAML(typ="safe").load(TINY)["pretrain"]["steps"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project of the default recipe."""
    (tmp_path / "params.yaml").write_text(TINY)
    return tmp_path


def line_of(text: str) -> int:
    return TINY[: TINY.index(text)].count("\n") + 1


def test_show_has_every_key_with_its_value_and_where_it_is_from(cairn: Cairn, folder: Path) -> None:
    said = json.loads(cairn("config", "show", "--json", at=folder).out)
    assert said["pretrain.steps"] == {"value": STEPS, "from": f"params.yaml:{line_of(f'  steps: {STEPS}')}"}
    assert said["pretrain.optimizer.betas"] == {"value": [0.9, 0.95], "from": "default"}
    assert said["snapshot.sources.1.kind"]["value"] == "prose"
    recipe = cairn_recipe(folder)
    assert len(said) == len(list(leaves(recipe.model_dump(mode="json"))))


def test_show_takes_the_end_of_a_name(cairn: Cairn, folder: Path) -> None:
    said = cairn("config", "show", "schedule", at=folder)
    lines = [line.split() for line in said.out.splitlines()]
    assert lines[0] == ["key", "value", "from"]
    keys = ("kind", "warmup", "decay", "shape", "final")
    assert [line[0] for line in lines[1:]] == [f"pretrain.schedule.{key}" for key in keys]
    assert lines[5][1:] == ["0.0", "default"]


@pytest.mark.parametrize(
    ("change", "before", "after"),
    [
        ("pretrain.steps=7", f"  steps: {STEPS}\n", "  steps: 7\n"),
        ("pretrain.optimizer.lr=3e-4", "    lr: 0.016\n", "    lr: 3e-4\n"),
        ("ingest.gopher.min_words=5", "    min_words: null\n", "    min_words: 5\n"),
        ("evaluate.ppmd_orders=[5, 6]", "  ppmd_orders: [5, 6, 8, 12]\n", "  ppmd_orders: [5, 6]\n"),
        ("snapshot.sources.1.domain=help", "      domain: text\n", "      domain: help\n"),
        ("pretrain.mode=fast", "  evaluate_every: 250\n\nexport", "  evaluate_every: 250\n  mode: fast\n\nexport"),
    ],
)
def test_set_changes_one_place_and_nothing_else(
    cairn: Cairn, folder: Path, change: str, before: str, after: str
) -> None:
    assert TINY.count(before) == 1
    assert cairn("config", "set", change, at=folder).code == 0
    assert (folder / "params.yaml").read_text() == TINY.replace(before, after)


def test_set_says_what_changed_and_a_dry_run_changes_nothing(cairn: Cairn, folder: Path) -> None:
    said = cairn("config", "set", "pretrain.steps=7", "pretrain.clip=1.0", "--dry-run", at=folder)
    assert said.out == f"pretrain.steps: {STEPS} → 7\n"
    assert (folder / "params.yaml").read_text() == TINY


@pytest.mark.parametrize("null", ["null", "", "~"])
@pytest.mark.parametrize(
    ("mapping", "sequence", "offset"), [(2, 4, 2), (2, 2, 0), (4, 6, 4), (4, 4, 2), (4, 2, 0), (4, 4, 0)]
)
def test_set_leaves_other_lines_alone_however_they_are_moved_in(
    cairn: Cairn, folder: Path, mapping: int, sequence: int, offset: int, null: str
) -> None:
    margin, item = " " * mapping, " " * offset + "-" + " " * (sequence - offset - 1)
    recipe: dict[str, Any] = YAML(typ="safe").load(TINY)
    (first, second), others = recipe["snapshot"]["sources"], {**recipe, "snapshot": None}
    lines = ["snapshot:  # what is read", f"{margin}sources:"]
    for source in (first, second):
        pairs = [f"{key}: {value}" for key, value in source.items()]
        lines += [f"{margin}{item}{pairs[0]}", *(f"{margin}{' ' * sequence}{pair}" for pair in pairs[1:])]
    del others["snapshot"], others["ingest"]
    lines += ["ingest:", f"{margin}gopher:", f"{margin}{margin}min_words: {null}".rstrip()]
    lines += [f"{name}: {json.dumps(section)}" for name, section in others.items()]
    before = "\n".join([*lines, ""])
    (folder / "params.yaml").write_text(before)
    said = cairn("config", "set", "snapshot.sources.1.domain=help", at=folder)
    assert said.code == 0, said.err
    assert (folder / "params.yaml").read_text() == before.replace("domain: text", "domain: help")


def test_set_tells_a_section_that_becomes_null_from_one_that_is_not_there(cairn: Cairn, folder: Path) -> None:
    said = cairn("config", "set", "ingest.c4=null", at=folder).out.splitlines()
    assert said[0] == "ingest.c4: (absent) → null"
    assert "ingest.c4.lorem_ipsum: true → (absent)" in said[1:]


def test_set_says_for_which_cairn_a_recipe_is(cairn: Cairn, folder: Path) -> None:
    (folder / "params.yaml").write_text(TINY.replace(f"cairn: {installed()}\n\n", ""))
    assert cairn("config", "set", f"cairn={installed()}", at=folder).out == f"cairn: (absent) → {installed()}\n"
    assert (folder / "params.yaml").read_text().endswith(f"\ncairn: {installed()}\n")
    said = cairn("config", "set", "cairn=99.0.0", at=folder)
    assert said.code == 2
    assert said.err.startswith("error: override 'cairn=99.0.0': cairn: written for Cairn 99.0.0, but ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("pretrain.stepps=7", "override 'pretrain.stepps=7': pretrain.stepps: unknown key; did you mean 'steps'?"),
        ("pretrain.steps=0", "override 'pretrain.steps=0': pretrain.steps: input should be greater than 0 (got 0)"),
        ("pretrain.batch=6", "params.yaml:"),
        ("pretrain.steps", "override 'pretrain.steps': write it as section.key=value"),
        ("pretrain.steps=[", "override 'pretrain.steps=[':1: not valid YAML"),
    ],
)
def test_what_is_no_recipe_is_not_written(cairn: Cairn, folder: Path, change: str, message: str) -> None:
    said = cairn("config", "set", change, at=folder)
    assert said.code == 2
    assert said.err.startswith(f"error: {message}")
    assert said.err.count("\n") == 1
    assert (folder / "params.yaml").read_text() == TINY


def test_explain_tells_meaning_type_bounds_default_value_and_paper(cairn: Cairn, folder: Path) -> None:
    said = json.loads(cairn("config", "explain", "weight_decay", "--json", at=folder).out)
    assert said["key"] == "pretrain.optimizer.weight_decay"
    assert said["meaning"].startswith("For the matrices of the blocks only")
    assert (said["type"], said["bounds"], said["default"], said["required"]) == ("number", "≥ 0", 0.1, False)
    assert said["papers"] == ["https://arxiv.org/abs/2501.00656"]
    shown = cairn("config", "explain", "pretrain.steps", at=folder).out
    assert "Optimizer steps." in shown
    assert "none: it must be in the recipe" in shown
    assert f"{STEPS} (params.yaml:{line_of(f'  steps: {STEPS}')})" in shown


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("seed", "seed: which of ingest.split.seed, pretrain.seed, evaluate.seed?"),
        (
            "pretrain.optimiser.lr",
            "pretrain.optimiser.lr: no such key of the recipe: did you mean pretrain.optimizer.lr?",
        ),
        ("xyzzy", "xyzzy: no such key of the recipe: `cairn config show` lists them"),
    ],
)
def test_a_key_that_is_not_there_is_told_with_the_nearest(cairn: Cairn, folder: Path, key: str, message: str) -> None:
    said = cairn("config", "explain", key, at=folder)
    assert said.code == 2
    assert said.err.startswith(f"error: {message}")
    assert said.err.count("\n") == 1


def test_explain_works_where_the_recipe_is_broken_or_not_there(cairn: Cairn, folder: Path) -> None:
    (folder / "params.yaml").write_text("pretrain: {steps: many}\n")
    assert "Optimizer steps." in cairn("config", "explain", "pretrain.steps", at=folder).out
    (folder / "params.yaml").unlink()
    assert "Optimizer steps." in cairn("config", "explain", "pretrain.steps", at=folder).out


def test_every_key_says_what_it_means() -> None:
    assert [key.name for key in keys(Recipe) if not key.meaning] == []


def cairn_recipe(folder: Path) -> Recipe:
    return cairn.recipe.load(Recipe, folder / "params.yaml")


def leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        return [leaf for inner in value for leaf in leaves(inner)]
    return [value]
