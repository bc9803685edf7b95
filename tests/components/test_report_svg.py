"""Scales, ticks and thinning: what is drawn is what was measured."""

import math
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from components.report.svg import Scale, curve, labels, shortened, svg, thin, x_axis, y_axis

reals = st.floats(-1e12, 1e12)
values = st.lists(st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf]), min_size=1, max_size=400)


@given(values, st.integers(1, 50))
def test_thinning_keeps_every_extreme_and_every_gap(found: list[float], columns: int) -> None:
    xs = [index * columns / len(found) for index in range(len(found))]
    runs = thin(xs, found)
    kept = [index for run in runs for index in run]
    assert kept == sorted(set(kept))
    assert all(math.isfinite(found[index]) for index in kept)
    finite = [value for value in found if math.isfinite(value)]
    if finite:
        assert {min(finite), max(finite)} <= {found[index] for index in kept}
    # A line is never drawn over a gap, and every stretch between two gaps is drawn.
    gaps = [index for index, value in enumerate(found) if not math.isfinite(value)]
    for run in runs:
        assert not any(run[0] < gap < run[-1] for gap in gaps)
    stretches = "".join("." if math.isfinite(value) else " " for value in found).split()
    assert len(runs) == len(stretches)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=2000), st.integers(1, 40))
def test_thinning_leaves_at_most_four_points_in_a_column(found: list[float], columns: int) -> None:
    xs = [index * columns / len(found) for index in range(len(found))]
    (run,) = thin(xs, found)
    assert len(run) <= 4 * columns
    assert (run[0], run[-1]) == (0, len(found) - 1)


@given(reals, reals, st.integers(1, 12), st.booleans())
def test_ticks_are_on_the_scale_and_not_too_many(one: float, other: float, most: int, log: bool) -> None:
    scale = Scale.over([one, other], 0, 100, log=log)
    ticks = scale.ticks(most)
    assert len(ticks) <= 2 * most + 2
    room = (scale.high - scale.low) * 1e-6
    assert all(scale.low - room <= tick <= scale.high + room for tick in ticks)
    assert ticks == sorted(set(ticks))
    assert len(labels(ticks, scale.log)) == len(ticks)


@pytest.mark.parametrize(
    ("low", "high", "log", "said"),
    [
        (0.0, 1900.0, False, ["0", "500", "1,000", "1,500"]),
        (0.0, 100_000.0, False, ["0", "20k", "40k", "60k", "80k", "100k"]),
        (0.0, 0.016, False, ["0", "0.005", "0.010", "0.015"]),
        (0.0, 3e-4, False, ["0", "1×10⁻⁴", "2×10⁻⁴", "3×10⁻⁴"]),
        (2.3, 8.3, True, ["2.5", "3", "4", "5", "6", "8"]),
        (0.002, 12_000.0, True, ["0.01", "1", "100", "10k"]),
        (3.0, 3.0, False, ["2.8", "3.0", "3.2"]),
        (0.0, 0.0, False, ["0", "0.5", "1.0"]),
    ],
)
def test_ticks_read_well(low: float, high: float, log: bool, said: list[str]) -> None:
    scale = Scale.over([low, high], 0, 100, log=log)
    assert labels(scale.ticks(6 if log else 5 if high > 1e4 else 4), scale.log) == said


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [(1, 1, ["1"]), (1000, 1000, ["1,000"]), (1, 2, ["1", "2"]), (1, 5, ["1", "2", "3", "4", "5"]), (7, 7, ["7"])],
)
def test_steps_are_counted_in_whole_numbers(first: int, last: int, said: list[str]) -> None:
    scale = Scale.over([first, last], 0, 100, counts=True)
    assert labels(scale.ticks(8)) == said


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=6), st.booleans(), st.booleans())
@example([1e308, -1e308], False, False)
@example([1e308, 5e-324], True, False)
@example([0.0, 5e-324], False, False)
@example([1.0, 1.0 + 2**-52], False, True)
def test_any_numbers_have_a_scale_with_ticks_and_pixels_on_it(found: list[float], log: bool, counts: bool) -> None:
    scale = Scale.over(found, 100, 0, log=log, counts=counts, pad=0.03)
    for tick, said in zip(scale.ticks(5), labels(scale.ticks(5), scale.log), strict=True):
        assert -1 <= scale(tick) <= 101
        assert said
    for value in found:
        if scale.shows(value):
            assert -0.001 <= scale(value) <= 100.001


def test_nothing_but_gaps_still_makes_a_scale() -> None:
    scale = Scale.over([math.nan, math.inf], 0, 100)
    assert (scale(0.0), scale(1.0)) == (0, 100)


def test_zero_and_below_are_gaps_on_a_logarithmic_scale() -> None:
    scale = Scale.over([1.0, 100.0], 100, 0, log=True)
    assert scale.log
    drawn = curve([0, 1, 2], [1.0, 0.0, 100.0], scale, "plain").text
    assert drawn == '<path class="curve plain" d="M0 100h0M2 0h0"></path>'


def test_a_drawing_is_well_formed_and_says_what_it_shows() -> None:
    scale = Scale.over([0.0, 10.0], 20, 280)
    drawn = svg(
        "try", 300, 200, "A <title>", 'It says "so"', y_axis(scale, 20, 280, 5), x_axis(scale, 10, 180, 5, "step")
    )
    root = ElementTree.fromstring(drawn.text)
    assert root.find("title").text == "A <title>"  # type: ignore[union-attr]
    assert root.find("desc").text == 'It says "so"'  # type: ignore[union-attr]
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "try-title try-desc"


@given(st.text(max_size=300), st.integers(20, 700))
def test_a_shortened_name_fits_and_says_that_it_was_cut(name: str, width: int) -> None:
    said = shortened(name, width)
    assert said == name or (said.endswith("…") and name.startswith(said[:-1]))
    assert len(said) <= width / 5 + 1
