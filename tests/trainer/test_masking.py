"""Masks: the same whoever makes them, as many in every row, spread evenly, and replaced as often as they should be."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn.errors import ArtifactError, RecipeError, StageError
from cairn.recipe import load
from components.recipe import Recipe
from tests.trainer.tokens import counting
from trainer.masking import IGNORED, Masked, Vocabulary, mask, places
from trainer.preflight import check
from trainer.recipe import Masking, ModelShape, Training
from trainer.tokens import Tokens

ROOT = Path(__file__).resolve().parents[2]
CONTEXT, END, MASK = 64, 0, 7
VOCABULARY = Vocabulary(size=500, end_of_text=END, mask=MASK)
FIRST_AT = [[1, 3, 6, 12, 15]]
FIRST_INPUTS = [[9, 7, 11, 7, 13, 14, 19, 16, 17, 18, 19, 20, 287, 22, 23, 7]]


def text(rows: int, seed: int = 0, context: int = CONTEXT) -> np.ndarray:
    """Ordinary tokens."""
    ids = np.random.default_rng(seed).integers(1, VOCABULARY.size, (rows, context))
    return np.where(ids == MASK, MASK + 1, ids)


def made(rows: np.ndarray, rate: float = 0.3, replacement: str = "bert", step: int = 3, first: int = 0) -> Masked:
    return mask(Masking(rate=rate, replacement=replacement), VOCABULARY, 5, step, first, rows)  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 12), unique=True).map(sorted))
def test_the_masks_of_a_row_do_not_depend_on_how_a_step_is_shared_out(cuts: list[int]) -> None:
    rows = text(12)
    whole = made(rows)
    for start, stop in zip([0, *cuts], [*cuts, 12], strict=True):
        part = made(rows[start:stop], first=start)
        for name in ("inputs", "at", "targets"):
            assert np.array_equal(getattr(part, name), getattr(whole, name)[start:stop])


def test_other_seeds_steps_and_rows_have_other_masks() -> None:
    rows = np.repeat(text(1), 3, 0)
    found = {tuple(row) for step in (0, 1) for row in made(rows, step=step).at}
    found |= {tuple(row) for row in mask(Masking(), VOCABULARY, 6, 0, 0, rows).at}
    assert len(found) == 9


def test_masks_are_those_of_the_first_version() -> None:
    # A run that goes on after an update has to see what it would have seen.
    rows = np.arange(1, 17)[None] + 8
    found = mask(Masking(), VOCABULARY, 1, 2, 3, rows)
    assert (found.at.tolist(), found.inputs.tolist()) == (FIRST_AT, FIRST_INPUTS)


@pytest.mark.parametrize("rate", [0.15, 0.3, 0.5])
def test_every_row_has_the_same_number_of_masks_spread_evenly_over_its_places(rate: float) -> None:
    rows = text(4000)
    found = made(rows, rate)
    k = places(rate, CONTEXT)
    assert found.at.shape == found.targets.shape == (4000, k)
    assert np.all(np.diff(found.at, axis=1) > 0)
    assert np.array_equal(np.take_along_axis(rows, found.at, 1), found.targets)
    share = np.bincount(found.at.ravel(), minlength=CONTEXT) / 4000
    spread = np.sqrt(k / CONTEXT * (1 - k / CONTEXT) / 4000)
    assert np.abs(share - k / CONTEXT).max() < 4 * spread
    # Two neighbours are masked together as often as chance has it.
    both = np.diff(found.at, axis=1) == 1
    assert both.sum() / 4000 == pytest.approx(k * (k - 1) / CONTEXT, rel=0.05)


def test_of_the_masked_tokens_four_fifths_are_hidden_a_tenth_are_random_and_a_tenth_stay() -> None:
    rows = text(4000)
    found = made(rows)
    now = np.take_along_axis(found.inputs, found.at, 1)
    hidden, kept = now == MASK, now == found.targets
    assert hidden.mean() == pytest.approx(0.8, abs=0.005)
    # A random token may happen to be the one that was there.
    assert kept.mean() == pytest.approx(0.1 + 0.1 / (VOCABULARY.size - 2), abs=0.005)
    random = now[~hidden & ~kept]
    assert set(random.tolist()) == set(range(VOCABULARY.size)) - {END, MASK}
    counts = np.bincount(random, minlength=VOCABULARY.size)[[t for t in range(VOCABULARY.size) if t not in (END, MASK)]]
    expected = len(random) / (VOCABULARY.size - 2)
    assert ((counts - expected) ** 2 / expected).sum() / (VOCABULARY.size - 3) == pytest.approx(1.0, abs=0.3)
    # Neither depends on the place.
    early = found.at < CONTEXT // 2
    assert hidden[early].mean() == pytest.approx(hidden[~early].mean(), abs=0.01)


def test_what_is_not_masked_stays_and_mask_only_hides_all() -> None:
    rows = text(50)
    for replacement in ("bert", "mask"):
        found = made(rows, replacement=replacement)
        others = np.ones_like(rows, bool)
        np.put_along_axis(others, found.at, False, 1)
        assert np.array_equal(found.inputs[others], rows[others])
    assert np.all(np.take_along_axis(found.inputs, found.at, 1) == MASK)


@given(st.integers(0, CONTEXT), st.integers(0, 1000))
def test_the_end_of_a_document_is_never_masked_and_where_other_tokens_run_out_fewer_are_learned(
    others: int, seed: int
) -> None:
    rows = text(3, seed)
    row = np.random.default_rng(seed).permutation(CONTEXT)[others:]
    rows[1, row] = END
    found = made(rows)
    k = places(0.3, CONTEXT)
    assert np.array_equal(found.inputs == END, rows == END)
    assert found.at.shape == (3, k)
    assert np.all(np.diff(found.at, axis=1) > 0)
    assert (found.targets != IGNORED).sum(1).tolist() == [k, min(k, others), k]
    assert not (found.targets == END).any()


@pytest.mark.parametrize(("rate", "context", "k"), [(0.15, 512, 77), (0.3, 256, 77), (0.01, 16, 1), (0.99, 2, 2)])
def test_so_many_places_are_masked(rate: float, context: int, k: int) -> None:
    assert places(rate, context) == k
    assert made(text(2, context=context), rate).at.shape == (2, k)


# What goes wrong

SHAPE = ModelShape.model_validate({"named": "bert-base", "layers": 1, "context": 16})


def test_a_recipe_that_masks_without_a_mask_token_is_refused_when_it_is_read() -> None:
    asked = ["pretrain.model={named: bert-base}"]
    with pytest.raises(RecipeError, match=r"tokenize\.mask_token names none: set it, such as to <\|mask\|>"):
        load(Recipe, ROOT / "recipes" / "tiny.yaml", asked)
    assert load(Recipe, ROOT / "recipes" / "tiny.yaml", [*asked, "tokenize.mask_token=<|mask|>"]).pretrain.masked


def test_tokens_without_a_mask_token_are_refused_before_training(tmp_path: Path) -> None:
    root = counting(tmp_path / "tokens")
    training = Training(model=SHAPE, steps=1, batch=2, micro_batch=2)
    with pytest.raises(StageError, match="the tokens have no mask token, with which a bidirectional model learns: set"):
        check(training, Tokens.open(root), 1)
    said = json.loads((root / "tokens.json").read_text())
    (root / "tokens.json").write_text(json.dumps({**said, "mask": 63}))
    check(training, Tokens.open(root), 1)


@pytest.mark.parametrize("mask", [64, -1])
def test_a_mask_token_beyond_the_vocabulary_is_told(tmp_path: Path, mask: int) -> None:
    root = counting(tmp_path / "tokens")
    said = json.loads((root / "tokens.json").read_text())
    (root / "tokens.json").write_text(json.dumps({**said, "mask": mask}))
    with pytest.raises(ArtifactError, match=f"a special token has id {mask}, beyond vocab_size 64"):
        Tokens.open(root)
