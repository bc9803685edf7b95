"""The pages that follow from the code are fresh, and what they say of a key is what the section says."""

from pathlib import Path

import pytest
from pydantic import Field

from cairn.errors import RecipeError
from cairn.lineage.stage import Component
from cairn.recipe import Section
from cairn.reference import find, keys
from pipelines.stages import NAMES
from tools.reference import pages

ROOT = Path(__file__).resolve().parents[1]


class Rates(Section):
    """How fast (Somebody 2020, arXiv 2001.00001)."""

    lr: float = Field(default=1e-3, gt=0, le=1)
    """Step size."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Two of them (arXiv 1412.6980,
    algorithm 1)."""


class Source(Section):
    """Where text is."""

    uri: str = Field(min_length=1)
    """A path."""


class Whole(Section):
    rates: Rates | None = Rates()
    """Null for none."""
    sources: tuple[Source, ...] = Field(min_length=1)
    """At least one."""


@pytest.mark.parametrize("path", sorted(pages()), ids=str)
def test_a_page_that_follows_from_the_code_is_fresh(path: Path) -> None:
    assert (ROOT / path).read_text() == pages()[path], "run `make docs`"


@pytest.mark.parametrize("name", NAMES)
def test_the_history_of_a_component_ends_with_its_version(name: str) -> None:
    component = Component.of(f"components.{name}")
    assert component.history, name
    assert list(component.history)[-1] == component.version, f"say in components/{name}/metadata.yaml what is other"


def test_every_page_is_in_the_navigation() -> None:
    listed = (ROOT / "mkdocs.yml").read_text()
    assert all(f": {page.name}\n" in listed for page in (ROOT / "docs").glob("*.md"))


def test_a_key_has_its_type_bounds_default_meaning_and_papers() -> None:
    found = {key.name: key for key in keys(Whole)}
    assert list(found) == ["rates", "rates.lr", "rates.betas", "sources", "sources[].uri"]
    lr = found["rates.lr"]
    assert (lr.type, lr.bounds, lr.default, lr.required) == ("number", "> 0, ≤ 1", 1e-3, False)
    assert lr.papers == ["https://arxiv.org/abs/2001.00001"], "its section's, as it names none"
    betas = found["rates.betas"]
    assert (betas.type, betas.bounds) == ("list of 2: number", "")
    assert betas.meaning == "Two of them (arXiv 1412.6980, algorithm 1)."
    assert betas.papers == ["https://arxiv.org/abs/1412.6980"]
    assert (found["sources"].type, found["sources"].bounds) == ("list of: section", "at least 1")
    uri = found["sources[].uri"]
    assert (uri.type, uri.bounds, uri.required) == ("text", "not empty", True)


def test_a_key_is_found_by_its_number_in_a_list_and_by_its_end() -> None:
    assert find(Whole, "sources.3.uri").name == "sources[].uri"
    assert find(Whole, "lr").name == "rates.lr"
    with pytest.raises(RecipeError, match=r"rate\.lr: no such key of the recipe: did you mean rates\.lr\?"):
        find(Whole, "rate.lr")
