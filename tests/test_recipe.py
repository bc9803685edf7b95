"""Reading a recipe: strict, with overrides, and with errors that say where and what to do."""

import re
from pathlib import Path

import pytest
from pydantic import Field, model_validator

from cairn.errors import RecipeError
from cairn.recipe import Section, load
from cairn.version import installed


class Optimizer(Section):
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)


class Source(Section):
    uri: str


class Pretrain(Section):
    steps: int = Field(default=10, gt=0)
    optimizer: Optimizer = Optimizer()
    sources: tuple[Source, ...] = ()
    note: str | None = None

    @model_validator(mode="after")
    def _even(self) -> "Pretrain":
        if self.steps % 2:
            raise ValueError(f"steps must be even, not {self.steps}")
        return self


class Recipe(Section):
    pretrain: Pretrain = Pretrain()


def read(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    (tmp_path / "params.yaml").write_text(text)
    return load(Recipe, tmp_path / "params.yaml", overrides)


def refused(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, text, *overrides)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_a_number_in_scientific_notation_is_a_number(tmp_path: Path) -> None:
    assert read(tmp_path, "pretrain:\n  optimizer:\n    lr: 3e-4\n").pretrain.optimizer.lr == 3e-4


def test_a_list_becomes_a_tuple_and_a_whole_number_a_float(tmp_path: Path) -> None:
    assert read(tmp_path, "pretrain: {optimizer: {betas: [1, 0.5]}}").pretrain.optimizer.betas == (1.0, 0.5)


def test_an_override_wins_over_the_file_and_reaches_into_lists(tmp_path: Path) -> None:
    text = "pretrain:\n  steps: 4\n  sources:\n    - uri: a\n    - uri: b\n"
    recipe = read(tmp_path, text, "pretrain.steps=6", "pretrain.optimizer.lr=3e-4", "pretrain.sources.1.uri=c")
    assert (recipe.pretrain.steps, recipe.pretrain.optimizer.lr) == (6, 3e-4)
    assert [source.uri for source in recipe.pretrain.sources] == ["a", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "pretrain:\n  steps: 4\n  optimzer:\n    lr: 1\n",
            "params.yaml:3: pretrain.optimzer: unknown key; did you mean 'optimizer'?",
        ),
        ("pretrian: {}\n", "params.yaml:1: pretrian: unknown key; did you mean 'pretrain'?"),
        ("pretrain:\n\n  steps: many\n", 'params.yaml:3: pretrain.steps: input should be a valid integer (got "many")'),
        (
            f"pretrain:\n  note: {'1' * 64}\n",
            f"params.yaml:2: pretrain.note: is text, and {'1' * 20}... is read as a number: write it in quotes",
        ),
        ("pretrain:\n  steps: 0\n", "params.yaml:2: pretrain.steps: input should be greater than 0 (got 0)"),
        ('pretrain:\n  steps: "4"\n', 'params.yaml:2: pretrain.steps: input should be a valid integer (got "4")'),
        ("pretrain:\n  steps: 5\n", "params.yaml:1: pretrain: steps must be even, not 5"),
        (
            "pretrain:\n  sources:\n    - uri: a\n    - url: b\n",
            "params.yaml:4: pretrain.sources.1.uri: missing: add it",
        ),
        ("pretrain:\n  steps: 2\n  steps: 4\n", "params.yaml:3: not valid YAML: found duplicate key"),
        ("pretrain: [\n", "params.yaml:2: not valid YAML"),
        ("- a\n", "params.yaml:1: a recipe is a mapping of sections, not list"),
        ("", "params.yaml:1: a recipe is a mapping of sections, not NoneType"),
        ("pretrain:\n  note: '2020-01-01'\n  zzz: 1\n", "params.yaml:3: pretrain.zzz: unknown key; known keys: note"),
        # `dvc repro` would end with "Unsupported value of type 'date'".
        ("pretrain:\n  note: 2020-01-01\n", "params.yaml:2: pretrain.note: write the date in quotes: DVC, which reads"),
    ],
)
def test_a_fault_is_told_by_file_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    told = refused(tmp_path, text)
    assert told.startswith(message)
    assert "\n" not in told


@pytest.mark.parametrize(
    ("written_for", "message"),
    [
        ("99.0", "params.yaml:2: cairn: written for Cairn 99.0, but "),
        ("0.1", "params.yaml:2: cairn: write the version of Cairn as "),
        ("[1]", "params.yaml:2: cairn: write the version of Cairn as "),
        ("latest", "params.yaml:2: cairn: write the version of Cairn as "),
    ],
)
def test_a_newer_cairn_is_asked_for_before_any_key_is_looked_at(tmp_path: Path, written_for: str, message: str) -> None:
    quoted = f'"{written_for}"' if written_for == "99.0" else written_for
    assert refused(tmp_path, f"# A recipe.\ncairn: {quoted}\nunheard_of: 1\n").startswith(message)


def test_a_recipe_for_this_cairn_or_an_older_one_is_read(tmp_path: Path) -> None:
    for version in ("0.0.1", installed()):
        assert read(tmp_path, f"cairn: {version}\npretrain: {{steps: 4}}\n").pretrain.steps == 4


def test_several_faults_are_counted(tmp_path: Path) -> None:
    assert refused(tmp_path, "pretrain:\n  steps: a\n  note: 1\n  x: 1\n").endswith("(and 2 more)")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "pretrain.optimizer.lrr=1",
            "override 'pretrain.optimizer.lrr=1': pretrain.optimizer.lrr: unknown key; did you mean 'lr'?",
        ),
        ("pretrain.steps", "override 'pretrain.steps': write it as section.key=value"),
        ("pretrain.steps.x=1", "override 'pretrain.steps.x=1': pretrain.steps has no keys"),
        ("pretrain.steps=[", "override 'pretrain.steps=[':1: not valid YAML"),
    ],
)
def test_a_fault_in_an_override_names_the_override(tmp_path: Path, override: str, message: str) -> None:
    assert refused(tmp_path, "pretrain:\n  steps: 4\n", override).startswith(message)


def test_a_missing_recipe_says_where_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=re.escape("params.yaml: no such file: `cairn init` writes one")):
        load(Recipe, tmp_path / "params.yaml")


def test_a_missing_file_that_is_no_recipe_is_not_called_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"profile\.yaml: no such file$"):
        load(Recipe, tmp_path / "profile.yaml")


def test_the_version_may_be_overridden_and_is_checked_then_too(tmp_path: Path) -> None:
    assert read(tmp_path, "pretrain: {}\n", f"cairn={installed()}") == Recipe()
    said = refused(tmp_path, f"cairn: {installed()}\n", "cairn=99.0")
    assert said.startswith("override 'cairn=99.0': cairn: write the version of Cairn as ")
    assert refused(tmp_path, "pretrain: {}\n", "cairn=99.0.0").startswith("override 'cairn=99.0.0': cairn: written for")


def test_a_recipe_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"params\.yaml: cannot be read"):
        load(Recipe, tmp_path / "params.yaml")
