"""How often tokens were drawn in training: counted with arithmetic, as if every position had been looked at."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import affected
from pipelines.affected import drawn
from tests.trainer.tokens import counting
from trainer.data import Batches, Tokens


@given(
    cuts=st.lists(st.integers(0, 400), min_size=2, max_size=12, unique=True),
    size=st.integers(2, 400),
    context=st.integers(1, 40),
    rows=st.integers(0, 200),
    seed=st.integers(0, 3),
)
def test_what_is_drawn_is_what_the_order_of_training_says(
    cuts: list[int], size: int, context: int, rows: int, seed: int
) -> None:
    cuts = sorted(min(cut, size) for cut in cuts)
    stretches = np.array(list(zip(cuts[::2], cuts[1::2], strict=False)), np.int64).reshape(-1, 2)
    marked = np.zeros(size, np.int64)
    for start, stop in stretches:
        marked[start:stop] = 1

    class Stream:
        def __len__(self) -> int:
            return size

    batches = Batches(Stream(), context, 1, seed)  # type: ignore[arg-type]
    expected = 0
    if batches.windows > 0:
        starts = [batches.position(row, 0) for row in range(rows)]
        expected = sum(int(marked[start : start + context].sum()) for start in starts)
    assert drawn(stretches, size, context, rows, seed) == (expected, True)


def test_of_an_epoch_too_long_to_be_counted_the_share_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(Tokens.open(counting(tmp_path / "tokens")).train)
    stretches = np.array([[0, size // 2]], np.int64)
    windows = (size - 1) // 16
    monkeypatch.setattr(affected, "MOST_ROWS", 5)
    found, counted = drawn(stretches, size, 16, windows + windows // 2, 0)
    assert not counted
    assert found == pytest.approx(1.5 * size / 2, rel=0.05)
