"""The DAG is defined once: dvc.yaml, the recipe and the rooms of the components all follow from it."""

from pathlib import Path

import pytest

import cairn.recipe
from cairn.lineage.stage import Component
from components.recipe import Recipe
from pipelines.stages import NAMES, dvc_yaml, stages

ROOT = Path(__file__).resolve().parents[2]


def test_dvc_yaml_is_what_the_stages_say() -> None:
    assert (ROOT / "dvc.yaml").read_text() == dvc_yaml(), "run `cairn dag --write`"


def test_every_stage_has_a_section_of_the_recipe_and_every_section_a_stage() -> None:
    assert tuple(Recipe.model_fields) == NAMES


def test_the_recipe_in_force_is_the_tiny_recipe() -> None:
    assert (ROOT / "params.yaml").read_text() == (ROOT / "recipes" / "tiny.yaml").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid(path: Path) -> None:
    cairn.recipe.load(Recipe, path)


@pytest.mark.parametrize("name", NAMES)
def test_a_room_is_called_what_its_metadata_says(name: str) -> None:
    assert Component.of(f"components.{name}").name == name


def test_the_edges_are_those_of_the_design() -> None:
    edges = {stage.name: (set(stage.inputs), set(stage.outputs)) for stage in stages()}
    assert edges == {
        "snapshot": (set(), {"sources"}),
        "ingest": ({"sources"}, {"documents"}),
        "tokenize": ({"documents"}, {"tokenizer", "tokens"}),
        "pretrain": ({"tokens"}, {"checkpoint", "optimizer"}),
        "export": ({"checkpoint", "tokenizer"}, {"model"}),
        "evaluate": ({"model", "documents"}, {"scores"}),
        "report": ({"documents", "tokens", "checkpoint", "model", "scores"}, {"report"}),
    }
