"""The scores of a model that guesses masked tokens: bits per masked byte with intervals, by domain and rate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from components.report.markup import Markup, breakable, join, tag
from components.report.material import MaskedScore, MaskedScores, Measure
from components.report.svg import Scale, dot, label, line, marked, shortened, svg, x_axis
from components.report.table import Cell, Column, table
from components.report.wording import NARROW, bits, plural, share, whole

SETS = (("all", "naive"), ("filtered", "filtered"))


@dataclass(frozen=True)
class Row:
    """One line of the figure: a domain, a set and a rate."""

    domain: str
    said: str
    score: MaskedScore


def percent(rate: str) -> str:
    """A rate as people write it."""
    return f"{100 * float(rate):g}{NARROW}%"


def headline(scores: MaskedScores) -> tuple[str, str, list[str]]:
    """The first figure of the page: what it is, its value and its notes. At the first rate, over all domains weighted
    by their masked bytes, filtered where that leaves text."""
    rate, domains = next(iter(scores.masked.items()))
    for said, kind in (("held-out text, filtered", "filtered"), ("held-out text", "naive")):
        told: list[MaskedScore] = [getattr(domain, kind) for domain in domains.values()]
        told = [score for score in told if score.bits_per_byte is not None]
        if told:
            value = _mean([score.bits_per_byte for score in told], [score.bytes for score in told])
            right = _mean([score.accuracy for score in told], [score.tokens for score in told])
            several = f", all {len(domains)} domains" if len(domains) > 1 else ""
            notes = [
                f"{said}{several}, {percent(rate)} of the tokens masked",
                f"95{NARROW}% interval {bits(value.low)} – {bits(value.high)}",
                f"{share(right.value, 1)} of the masked tokens guessed",
            ]
            return "Bits per masked byte", bits(value.value), notes
    return "Bits per masked byte", bits(math.nan), ["held-out text"]


def section(scores: MaskedScores, most: int) -> Markup:
    """The section of the page."""
    rows = _rows(scores, most)
    hidden = len(next(iter(scores.masked.values()))) - most
    return tag(
        "section",
        tag("h2", "Bits per masked byte"),
        tag(
            "p",
            "How many bits the model needs for one byte of the tokens that were hidden from it in text that it was not "
            "trained on, when it sees all others; fewer is better. ",
            tag("em", "Filtered"),
            f" leaves out documents of which {share(scores.setting.leak_threshold, 1).replace('.0', '')} or more of "
            "the word 8-grams occur in the training text. This is no compression, and no compressor stands beside it: "
            "the model is shown most of the text.",
        ),
        tag(
            "figure",
            _drawing(rows, wide=True),
            _drawing(rows, wide=False),
            tag(
                "figcaption",
                "Intervals are of the choice of held-out documents (drawn with replacement), not of the seed of "
                "training. Which tokens of a document are masked follows from its text, the tokenizer and the "
                "seed of evaluate alone.",
                f" {plural(hidden, 'smaller domain is', 'smaller domains are')} not shown." if hidden > 0 else "",
            ),
        ),
        tag("details", tag("summary", "All numbers of this figure"), _table(rows)),
    )


def _rows(scores: MaskedScores, most: int) -> list[Row]:
    first = next(iter(scores.masked.values()))
    ordered = sorted(first, key=lambda name: (-first[name].naive.bytes, name))[:most]
    return [
        Row(name, f"{said}, {percent(rate)} masked", getattr(domains[name], kind))
        for name in ordered
        for said, kind in SETS
        for rate, domains in scores.masked.items()
        if name in domains
    ]


def _drawing(rows: Sequence[Row], *, wide: bool) -> Markup:
    width, left, right = (760, 160, 560) if wide else (320, 150, 262)
    top, head, height = 26 if wide else 6, 32, 26
    values = [number for row in rows for number in _numbers(row.score.bits_per_byte)]
    scale = Scale.over(values, left, right, pad=0.04)
    domains = list(dict.fromkeys(row.domain for row in rows))
    bottom = top + len(domains) * head + len(rows) * height
    drawn = [x_axis(scale, top, bottom, 8 if wide else 3, "bits per masked byte")]
    if wide:
        drawn += [label(636, 14, "bits", "axis", "end"), label(width, 14, "guessed", "axis", "end")]
    y, shown = float(top), ""
    for row in rows:
        if row.domain != shown:
            drawn.append(marked(row.domain, label(0, y + 21, shortened(row.domain, width), "name")))
            y, shown = y + head, row.domain
        drawn.append(_line(row, scale, y + height / 2 - 4, width, wide))
        y += height
    described = "; ".join(f"{row.domain}, {row.said}: {_value(row.score.bits_per_byte)}" for row in rows)
    return svg(
        f"scores-{'wide' if wide else 'narrow'}",
        width,
        bottom + 44,
        "Bits per masked byte of the model, by domain",
        described,
        *drawn,
        class_="wide" if wide else "narrow",
    )


def _line(row: Row, scale: Scale, y: float, width: float, wide: bool) -> Markup:
    named = label(0, y + 4, row.said, "tick")
    own, right = row.score.bits_per_byte, row.score.accuracy
    if own is None or right is None:
        return join([named, label(scale.start, y + 4, "no documents", "tick")])
    interval = f"{bits(own.value, 4)} [{bits(own.low, 4)}, {bits(own.high, 4)}]"
    drawn = [
        named,
        line(scale.start, y, scale.stop, y, "rule"),
        line(scale(own.low), y, scale(own.high), y, "interval"),
        marked(f"model: {interval}", dot(scale(own.value), y, 5, "model")),
    ]
    if wide:
        drawn += [
            label(636, y + 4, bits(own.value), "value", "end"),
            label(width, y + 4, share(right.value, 1), "tick", "end"),
        ]
    else:
        drawn.append(label(width, y + 4, bits(own.value), "value", "end"))
    return join(drawn)


def _table(rows: Sequence[Row]) -> Markup:
    columns = [Column("domain", "word"), Column("text", "word"), Column("documents"), Column("masked tokens")]
    columns += [Column("their bytes"), Column("bits per byte"), Column("bits per token"), Column("guessed")]
    lines: list[list[Cell]] = []
    for row in rows:
        score = row.score
        counts = [whole(score.documents), whole(score.tokens), whole(score.bytes)]
        measures = [_value(score.bits_per_byte), _value(score.bits_per_token), _value(score.accuracy)]
        lines.append([breakable(row.domain), row.said, *counts, *measures])
    return table("Masked tokens of held-out text, with 95 % intervals", columns, lines)


def _value(measure: Measure | None) -> str:
    if measure is None:
        return "–"
    return f"{bits(measure.value, 4)} [{bits(measure.low, 4)}, {bits(measure.high, 4)}]"


def _numbers(measure: Measure | None) -> list[float]:
    return [] if measure is None else [measure.value, measure.low, measure.high]


def _mean(measures: Sequence[Measure | None], sizes: Sequence[int]) -> Measure:
    """Of several domains together: weighted, and the interval from theirs, taken as independent (MOVER: Zou and Donner
    2008, Stat. Med. 27(10))."""
    told = [(one, size / sum(sizes)) for one, size in zip(measures, sizes, strict=True) if one is not None]
    mean = math.fsum(weight * one.value for one, weight in told)
    down = math.hypot(*(weight * (one.value - one.low) for one, weight in told))
    up = math.hypot(*(weight * (one.high - one.value) for one, weight in told))
    return Measure(value=mean, low=mean - down, high=mean + up)
