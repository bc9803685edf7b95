"""The order of training: exact shares, whole epochs through all phases, and every part of it both ways."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.orders import domains_from, training
from trainer import mixture
from trainer.mixture import CYCLE, Mixture, apportion
from trainer.order import Order, told
from trainer.recipe import Phase, Ramp
from trainer.tokens import ALL, whole

WEIGHTS = st.fixed_dictionaries({name: st.integers(0, 5) for name in ("even", "odd")}).filter(lambda w: any(w.values()))


@given(weights=st.lists(st.fractions(0, 100), min_size=1, max_size=9).filter(any), rows=st.integers(0, CYCLE))
def test_shares_are_within_a_row_of_their_weights_and_add_up(weights: list[Fraction], rows: int) -> None:
    counts = apportion(weights, rows)
    assert sum(counts) == rows
    assert all(abs(count - weight * rows / sum(weights)) < 1 for count, weight in zip(counts, weights, strict=True))


def test_weights_of_four_decimals_are_kept_to_the_row() -> None:
    weights = {"a": 0.7001, "b": 0.2998, "c": 0.0001}
    found = Mixture(0, [0], [weights], 3 * CYCLE)
    assert found.drawn(3 * CYCLE).tolist() == [21003, 8994, 3]
    domain, _ = found.draws(np.arange(CYCLE, 2 * CYCLE))
    assert np.bincount(domain).tolist() == [7001, 2998, 1]
    # Mixed well: every hundredth of a cycle has about its share of each.
    assert np.bincount(domain[:1000]).tolist() == pytest.approx([700, 300], abs=60)


PHASES = st.lists(WEIGHTS, min_size=1, max_size=4)


@settings(deadline=None)
@given(weights=PHASES, sizes=st.lists(st.integers(1, 25), min_size=4, max_size=4), seed=st.integers(0, 9))
def test_a_domain_is_drawn_in_order_through_all_cycles_and_phases(
    weights: list[dict[str, int]], sizes: Sequence[int], seed: int
) -> None:
    # Cycles of 7 rows, so that phases of 1 to 25 begin and end within one.
    begins = np.cumsum([0, *sizes])[: len(weights)].tolist()
    rows = sum(sizes[: len(weights)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixture, "CYCLE", 7)
        patch.setattr(mixture, "_cycle", mixture._cycle.__wrapped__)
        found = Mixture(seed, begins, weights, rows)
        numbers = np.arange(rows)
        domain, draw = found.draws(numbers)
        for one in range(len(found.names)):
            mine = draw[domain == one]
            assert mine.tolist() == list(range(len(mine)))
            assert found.numbers(one, mine).tolist() == numbers[domain == one].tolist()
        for upto in range(rows + 1):
            counted = np.bincount(domain[:upto], minlength=len(found.names))
            assert found.drawn(upto).tolist() == counted.tolist()
        for (begin, end), said in zip(pairwise([*begins, rows]), weights, strict=True):
            counts = Counter(found.names[one] for one in domain[begin:end].tolist())
            for name in found.names:
                exact = said.get(name, 0) / sum(said.values()) * (end - begin)
                assert abs(counts[name] - exact) < 1 + (end - begin) // 7


RECIPES = st.fixed_dictionaries(
    {
        "context": st.integers(2, 9),
        "steps": st.integers(2, 30),
        "batch": st.integers(2, 6),
        "causal": st.booleans(),
        "seed": st.integers(0, 5),
        "ramp": st.booleans(),
        "mixed": st.booleans(),
    }
)


def made(context: int, steps: int, batch: int, causal: bool, seed: int, ramp: bool, mixed: bool) -> Order:
    phases = (Phase(weights={"even": 3, "odd": 1}), Phase(begin=0.37, weights={"odd": 2, "even": 1}))
    ramps = (Ramp(until=1, batch=1), Ramp(until=steps - 1, batch=2)) if ramp and steps > 2 else ()
    rest: dict[str, Any] = {"batch_ramp": ramps, "mixture": phases if mixed else (), "seed": seed}
    streams = domains_from([11, 17, 23, 9, 14]) if mixed else {ALL: whole([74])}
    return Order(training(context=context, steps=steps, batch=batch, causal=causal, **rest), streams)


@settings(deadline=None)
@given(recipe=RECIPES)
def test_no_window_is_skipped_or_taken_twice_in_an_epoch_of_its_domain(recipe: dict[str, Any]) -> None:
    order = made(**recipe)
    domain, window = order.of(np.arange(order.rows))
    for one, size in enumerate(order.windows.tolist()):
        mine = window[domain == one].tolist()
        for begin in range(0, len(mine), size):
            epoch = mine[begin : begin + size]
            assert len(set(epoch)) == len(epoch)
            assert set(epoch) <= set(range(size))
        drawn = order.drawn(order.steps)[order.domains[one]]
        assert (drawn.rows, drawn.epochs) == (len(mine), len(mine) / size)


@settings(deadline=None)
@given(recipe=RECIPES)
def test_the_rows_that_take_a_window_are_those_that_it_is_the_window_of(recipe: dict[str, Any]) -> None:
    order = made(**recipe)
    domain, window = order.of(np.arange(order.rows))
    for one, size in enumerate(order.windows.tolist()):
        for each in range(size):
            expected = np.flatnonzero((domain == one) & (window == each)).tolist()
            assert order.rows_of(one, np.array([each])).tolist() == expected
        begun = np.concatenate([*order.begun(one), np.empty(0, np.int64)])
        epochs, rest = order.epochs(one)
        assert begun.tolist() == window[domain == one][epochs * size :].tolist()
        assert len(begun) == rest


@given(recipe=RECIPES)
def test_steps_and_rows_are_numbered_through_a_ramp(recipe: dict[str, Any]) -> None:
    order = made(**recipe)
    told_of = [(step, row) for step in range(order.steps) for row in range(order._training.batch_at(step))]
    assert [order.number(*each) for each in told_of] == list(range(order.rows))
    assert [order.step_of(number) for number in range(order.rows)] == told_of


def test_a_step_alone_is_what_it_is_among_others() -> None:
    order = made(5, 20, 4, True, 0, True, True)
    domain, window = order.of(np.arange(order.rows))
    for number in range(order.rows):
        alone = order.of(np.array([number]))
        assert (int(alone[0][0]), int(alone[1][0])) == (domain[number], window[number])


def test_what_is_drawn_is_told_and_much_repetition_warned_of() -> None:
    order = made(5, 20, 6, True, 0, False, True)
    lines = told(order.drawn(order.steps))
    assert lines[0].startswith("train text of even: 45 tokens, ")
    assert "of the sequences" in lines[0]
    assert lines[1].startswith("warning: repeats even 6.4 times, odd 12.4 times: ")
    assert "arXiv 2305.16264" in lines[1]
    assert len(told(order.drawn(3))) == 1
