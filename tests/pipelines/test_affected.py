"""How often tokens were drawn in training: counted with arithmetic, as if every position had been looked at."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.affected import drawn
from tests.trainer.orders import domains_from, training
from trainer.order import Order
from trainer.recipe import Phase
from trainer.tokens import ALL, Runs, whole


@settings(deadline=None)
@given(
    cuts=st.lists(st.integers(0, 400), min_size=2, max_size=12, unique=True),
    lengths=st.lists(st.integers(20, 60), min_size=4, max_size=8),
    context=st.integers(2, 9),
    steps=st.integers(1, 60),
    seed=st.integers(0, 3),
    mixed=st.booleans(),
)
def test_what_is_drawn_is_what_the_order_of_training_says(
    cuts: list[int], lengths: list[int], context: int, steps: int, seed: int, mixed: bool
) -> None:
    size = sum(lengths)
    cuts = sorted(min(cut, size) for cut in cuts)
    stretches = np.array(list(zip(cuts[::2], cuts[1::2], strict=False)), np.int64).reshape(-1, 2)
    marked = np.zeros(size, np.int64)
    for start, stop in stretches:
        marked[start:stop] = 1
    mixture = (Phase(weights={"even": 0.7, "odd": 0.3}), Phase(begin=0.6, weights={"odd": 1.0})) if mixed else ()
    streams: dict[str, Runs] = domains_from(lengths) if mixed else {ALL: whole([size])}
    order = Order(training(context=context, steps=steps, seed=seed, mixture=mixture), streams)
    expected = 0
    for domain, window in zip(*order.of(np.arange(order.rows)), strict=True):
        runs = streams[order.domains[domain]]
        for _, _, start, length in zip(*runs.pieces(window[None] * context, context), strict=True):
            expected += int(marked[start : start + length].sum())
    assert drawn(stretches, order, streams) == expected
