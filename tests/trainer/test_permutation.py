"""The permutation that the order of training is computed with: a bijection of any size, both ways, that mixes well."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.permutation import key, permute, unpermute


@given(size=st.integers(1, 3000), seed=st.integers(0, 2**64), turn=st.integers(0, 5))
def test_it_is_a_bijection_and_can_be_computed_backwards(size: int, seed: int, turn: int) -> None:
    every, word = np.arange(size), key(seed, turn, "domain a")
    image = permute(every, size, word)
    assert np.array_equal(np.sort(image), every)
    assert np.array_equal(unpermute(image, size, word), every)


@given(size=st.integers(1, 2**62 - 1), parts=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20))
def test_it_can_be_computed_backwards_in_a_range_of_any_size(size: int, parts: list[float]) -> None:
    index = np.array([min(int(part * size), size - 1) for part in parts])
    word = key(0, 0, "")
    image = permute(index, size, word)
    assert ((image >= 0) & (image < size)).all()
    assert np.array_equal(unpermute(image, size, word), index)


def test_it_differs_between_seeds_epochs_and_domains_and_never_changes() -> None:
    every = np.arange(1000)
    names = [(seed, turn, stream) for seed in (0, 1) for turn in (0, 1) for stream in ("domain a", "domain b")]
    orders = [permute(every, 1000, key(*name)) for name in names]
    assert len({tuple(order.tolist()) for order in orders}) == len(names)
    # Written down, because a run that resumes under a later version must go on in the same order.
    assert orders[0][:6].tolist() == FIRST_SIX


FIRST_SIX = [208, 595, 219, 884, 553, 67]


def test_one_index_alone_goes_where_it_goes_among_others() -> None:
    word = key(7, 0, "x")
    together = permute(np.arange(100), 100, word)
    assert [int(permute(np.array([index]), 100, word)[0]) for index in range(100)] == together.tolist()
    assert permute(np.empty(0, np.int64), 100, word).tolist() == []


@pytest.mark.parametrize("size", [7, 100, 1 << 12, 10_007])
def test_every_place_is_as_likely_as_any_other(size: int) -> None:
    # Where the first, a middle and the last index go, over 1,400 keys, in 7 bins: chi-squared with 6 degrees of
    # freedom is below 27.9 but once in 10,000.
    index = np.array([0, size // 2, size - 1])
    images = np.array([permute(index, size, key(seed, 0, "bins")) for seed in range(1400)])
    edges = np.arange(8) * size / 7
    for column in images.T:
        found, _ = np.histogram(column, edges)
        expected = 1400 * np.diff(np.ceil(edges)) / size
        assert ((found - expected) ** 2 / expected).sum() < 27.9


def test_neighbours_go_apart_and_seeds_have_nothing_in_common() -> None:
    size = 100_003
    every = np.arange(size)
    image = permute(every, size, key(0, 0, "a"))
    # A random order leaves 2 of n neighbours beside each other, on average; a place is kept by 1 of n.
    assert (np.abs(np.diff(image)) == 1).sum() < 12
    assert abs(np.corrcoef(image[:-1], image[1:])[0, 1]) < 0.015
    for seed in range(1, 9):
        assert (permute(every, size, key(seed, 0, "a")) == image).sum() < 12


def test_all_orders_of_a_few_windows_are_about_as_likely() -> None:
    # 24 orders of four, 2,400 keys: chi-squared with 23 degrees of freedom is below 54 but in 3 of 10,000.
    orders = [tuple(permute(np.arange(4), 4, key(seed, 0, "few")).tolist()) for seed in range(2400)]
    counts = np.array([orders.count(order) for order in set(orders)])
    assert len(counts) == 24
    assert ((counts - 100.0) ** 2 / 100).sum() < 54
