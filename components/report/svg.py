"""Line and bar drawings as SVG text: scales, ticks, thinning, and the few elements that they need.

Colours, fonts and line widths are the style sheet's. Coordinates are rounded, so the same numbers give the same bytes.
"""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from components.report.markup import Markup, join, number, tag

FURTHEST = 1e250  # from zero: sums, products and ratios of larger numbers can leave the range of a float


@dataclass(frozen=True)
class Scale:
    """A map from values between `low` and `high` to pixels between `start` and `stop`."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False
    counts: bool = False
    """Whether values are whole, and so the ticks too."""

    @classmethod
    def over(
        cls,
        values: Iterable[float],
        start: float,
        stop: float,
        *,
        log: bool = False,
        counts: bool = False,
        pad: float = 0.0,
    ) -> "Scale":
        """A scale that shows all finite values; those beyond `FURTHEST` at its edge.

        Args:
            log: logarithmic, if every value is positive and the largest is at least a quarter above the smallest.
            counts: values are whole numbers.
            pad: empty space at both ends, as a share of the whole.
        """
        finite = [near(value) for value in values if math.isfinite(value)]
        low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
        largest = max(abs(low), abs(high))
        if high - low <= max(1e-13 * largest, 1 / FURTHEST):  # too near each other for ticks between them
            # One value is in the middle, but zero is at the bottom: what is measured here is never less.
            room = max(0.5, 1e-12 * largest) if counts else largest / 10
            low, high = (low - room, high + room) if counts or largest > 1 / FURTHEST else (0.0, 1.0)
            log = False
        log = log and low > 1 / FURTHEST and high / low >= 1.25
        if log:
            factor = math.exp((math.log(high) - math.log(low)) * pad)
            return cls(low / factor, high * factor, start, stop, log)
        room = (high - low) * pad
        return cls(low - room, high + room, start, stop, counts=counts)

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        value = near(value)
        if self.log:
            share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def shows(self, value: float) -> bool:
        """Whether a value has a pixel: not one that is no number, or on a logarithmic scale zero."""
        return math.isfinite(value) and (value > 0 or not self.log)

    def ticks(self, most: int) -> list[float]:
        """Round values on the scale, about `most` at most and, where it can be, two at least."""
        if self.log:
            found = _log_ticks(self.low, self.high, most)
            if len(found) >= 2:
                return found
        return _linear_ticks(self.low, self.high, most, 1.0 if self.counts else 0.0)


def near(value: float) -> float:
    """A value, or `FURTHEST` in its place."""
    return max(min(value, FURTHEST), -FURTHEST)


def _linear_ticks(low: float, high: float, most: int, least: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten (Heckbert 1990, "Nice numbers for graph labels"), `least` apart."""
    step = max((high - low) / max(1, most), least)
    power = math.floor(math.log10(step))
    factor = next(f for f in (1, 2, 5, 10) if f * 10.0**power >= step * (1 - 1e-9))
    step = factor * 10.0**power
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Rounded, for 3 * 0.1 is not 0.3.
    return [round(index * step, max(0, -power)) for index in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    """The densest of a few sets of round numbers that has at most `most` between low and high."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in (
        (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9),
        (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8),
        (1, 1.5, 2, 3, 5),
        (1, 2, 5),
        (1, 3),
        (1,),
    ):
        found = [float(f"{factor}e{power}") for power in powers for factor in factors]
        found = [tick for tick in found if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(found) <= most:
            return found
    return found[:: math.ceil(len(found) / most)]


def labels(ticks: Sequence[float], log: bool = False) -> list[str]:
    """Ticks as short as they can be read: 0.05, 20k, 4×10⁻⁵. All in one form, but for those of a logarithmic scale."""
    if log:
        return [said for tick in ticks for said in labels([tick])]
    largest = max((abs(tick) for tick in ticks), default=0.0)
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size <= largest < 1e15:
            unit = 1e3 if letter == "k" else size
            return [f"{tick / unit:g}{letter}" if tick else "0" for tick in ticks]
    if 1e-3 <= largest < 1e4 or not largest:
        decimals = next((d for d in range(7) if all(abs(t - round(t, d)) <= 1e-9 * largest for t in ticks)), 6)
        return [f"{tick:,.{decimals}f}" if tick else "0" for tick in ticks]
    return ["0" if not tick else scientific(tick) for tick in ticks]


def scientific(value: float) -> str:
    """0.00004 as 4×10⁻⁵."""
    mantissa, exponent = f"{value:.2e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{float(mantissa):g}×10{raised}"


def thin(xs: Sequence[float], values: Sequence[float], positive: bool = False) -> list[list[int]]:
    """Indices of the points of a line, cut where there is a gap, with at most four in each column of one pixel.

    The first, lowest, highest and last point of a column stay, so that no spike is lost and the drawing is, pixel for
    pixel, that of all points (M4: Jugel et al. 2014, VLDB 7(10)).

    Args:
        xs: pixels, ascending.
        values: what is at each; not a finite number is a gap.
        positive: whether only a value above zero can be shown.
    """
    runs: list[list[int]] = []
    run: list[int] = []
    column = -1
    first = low = high = last = 0

    def close() -> None:
        if column >= 0:
            run.extend(sorted({first, low, high, last}))

    for index, (x, value) in enumerate(zip(xs, values, strict=True)):
        if value - value != 0 or (positive and value <= 0):  # infinite or no number
            close()
            if run:
                runs.append(run)
            run, column = [], -1
        elif int(x) != column:
            close()
            column, first, low, high, last = int(x), index, index, index, index
        else:
            last = index
            if value < values[low]:
                low = index
            elif value > values[high]:
                high = index
    close()
    if run:
        runs.append(run)
    return runs


def curve(xs: Sequence[float], values: Sequence[float], y: Scale, class_: str) -> Markup:
    """A line through values at pixels; one between two gaps is a dot."""
    runs = thin(xs, values, positive=y.log)
    path = "".join(
        "M" + "L".join(f"{_written(xs[i])} {_written(y(values[i]))}" for i in run) + ("h0" if len(run) == 1 else "")
        for run in runs
    )
    return tag("path", class_=f"curve {class_}", d=path) if path else Markup("")


def _written(pixel: float) -> str:
    return f"{pixel:.1f}".removesuffix(".0")


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return tag("line", x1=_px(x1), y1=_px(y1), x2=_px(x2), y2=_px(y2), class_=class_)


def box(x: float, y: float, width: float, height: float, class_: str) -> Markup:
    """A rectangle."""
    return tag("rect", x=_px(x), y=_px(y), width=_px(width), height=_px(height), class_=class_)


def dot(x: float, y: float, radius: float, class_: str) -> Markup:
    """A circle."""
    return tag("circle", cx=_px(x), cy=_px(y), r=_px(radius), class_=class_)


def label(x: float, y: float, said: str, class_: str = "", anchor: str | None = None) -> Markup:
    """A line of text whose base line begins, ends (`end`) or has its middle (`middle`) at (x, y)."""
    return tag("text", said, x=_px(x), y=_px(y), class_=class_ or None, text_anchor=anchor)


def shortened(said: str, width: float) -> str:
    """Text that fits into so many pixels in any common font, with an ellipsis where it was cut."""
    left = width
    for index, character in enumerate(said):
        left -= _width(character)
        if left < 0:
            return said[: max(0, index - 1)] + "…"
    return said


def _width(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF":
        return 14
    return 11.5 if character.isupper() or character in "mw@%⟨⟩" else 5 if character in "iljtf.,:;'|/ " else 8.2


def marked(title: str, *content: Markup) -> Markup:
    """Elements that tell their numbers when the pointer rests on them."""
    return tag("g", tag("title", title), *content)


def y_axis(scale: Scale, left: float, right: float, most: int) -> Markup:
    """Grid lines from left to right, each with its value to the left."""
    ticks = scale.ticks(most)
    drawn = []
    for tick, said in zip(ticks, labels(ticks, scale.log), strict=True):
        y = scale(tick)
        drawn += [line(left, y, right, y, "grid"), label(left - 8, y + 4, said, "tick", "end")]
    return join(drawn)


def x_axis(scale: Scale, top: float, bottom: float, most: int, said: str) -> Markup:
    """Grid lines from top to bottom with their values below; `said` names the axis, at its right end."""
    ticks = scale.ticks(most)
    drawn = []
    for tick, value in zip(ticks, labels(ticks), strict=True):
        x = scale(tick)
        drawn += [line(x, top, x, bottom, "grid"), label(x, bottom + 17, value, "tick", "middle")]
    return join([*drawn, label(scale.stop, bottom + 36, said, "axis", "end")])


def svg(
    name: str, width: float, height: float, title: str, description: str, *content: Markup, class_: str = "",
    **attributes: str | float,
) -> Markup:  # fmt: skip
    """The whole drawing. `name` is unique on the page; title and description are for those who cannot see it."""
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", description, id=f"{name}-desc"),
        *content,
        viewBox=f"0 0 {number(width)} {number(height)}",
        id=name,
        class_=class_ or None,
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
        **attributes,
    )


def _px(value: float) -> float:
    return round(float(value), 1)
