"""Bits per byte: the model with its interval beside the compressors, for every domain."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from components.report.markup import Markup, breakable, join, tag
from components.report.material import Domain, Score, Scores
from components.report.svg import Scale, dot, label, line, marked, shortened, svg, x_axis
from components.report.table import Cell, Column, table
from components.report.wording import NARROW, bits, plural, share, size, whole

SETS = (("all", "naive"), ("filtered", "filtered"))


@dataclass(frozen=True)
class Shown:
    """A domain, or all those that are not shown one by one."""

    name: str
    domain: Domain


def headline(scores: Scores) -> tuple[str, Score]:
    """What was scored in words, and the score over all domains: filtered where that leaves text, else all of it."""
    domains = list(scores.bits_per_byte.values())
    for said, kind in (("held-out text, filtered", "filtered"), ("held-out text", "naive")):
        score = combined([getattr(domain, kind) for domain in domains])
        if math.isfinite(score.bits_per_byte):
            several = f", all {len(domains)} domains" if len(domains) > 1 else ""
            return f"{said}{several}", score
    return "held-out text", Score(documents=0, bytes=0)


def combined(scores: Sequence[Score]) -> Score:
    """The score of several domains together: means weighted by bytes.

    The interval follows from the domains' own, taken as independent (MOVER: Zou and Donner 2008, Stat. Med. 27(10));
    that of one domain is its own. A compressor is there if it is there for every domain.
    """
    told = [score for score in scores if score.bytes and math.isfinite(score.bits_per_byte)]
    if not told:
        return Score(documents=0, bytes=0)
    total = sum(score.bytes for score in told)
    weights = [score.bytes / total for score in told]
    mean = math.fsum(w * score.bits_per_byte for w, score in zip(weights, told, strict=True))
    down = math.hypot(*(w * (score.bits_per_byte - score.low) for w, score in zip(weights, told, strict=True)))
    up = math.hypot(*(w * (score.high - score.bits_per_byte) for w, score in zip(weights, told, strict=True)))
    names = set.intersection(*(set(score.compressors) for score in told))
    compressors = {
        name: math.fsum(w * score.compressors[name] for w, score in zip(weights, told, strict=True))
        for name in sorted(names)
    }
    return Score(
        documents=sum(score.documents for score in told),
        bytes=total,
        bits_per_byte=mean,
        low=mean - down,
        high=mean + up,
        compressors=compressors,
    )


def best(score: Score) -> tuple[str, float] | None:
    """The compressor with the fewest bits per byte."""
    finite = [(value, name) for name, value in score.compressors.items() if math.isfinite(value)]
    if not finite:
        return None
    value, name = min(finite)
    return name, value


def compressor(name: str) -> str:
    """What people call a compressor: PPMd order 12; zstd -19, 110 KB dictionary."""
    words = name.split("_")
    if words[0] == "ppmd" and len(words) == 2:
        return f"PPMd order{NARROW}{words[1]}"
    if words[0] == "zstd" and len(words) == 4 and words[2] == "dict":
        return f"zstd -{words[1]}, {words[3].removesuffix('k')} KiB dictionary"
    return name


def shown(scores: Scores, most: int) -> list[Shown]:
    """The largest domains one by one, and the rest as one."""
    ordered = sorted(scores.bits_per_byte.items(), key=lambda item: (-item[1].naive.bytes, item[0]))
    kept = [Shown(name, domain) for name, domain in ordered[:most]]
    rest = [domain for _, domain in ordered[most:]]
    if rest:
        together = {kind: combined([getattr(domain, kind) for domain in rest]) for _, kind in SETS}
        kept.append(Shown(plural(len(rest), "more domain"), Domain(**together)))
    return kept


def section(scores: Scores, most: int) -> Markup:
    """The section of the page."""
    rows = shown(scores, most)
    figure = tag(
        "figure",
        drawing(rows, wide=True),
        drawing(rows, wide=False),
        tag(
            "ul",
            tag("li", tag("span", class_="key model"), "the model and its 95 % interval"),
            tag("li", tag("span", class_="key best"), "the best compressor"),
            tag("li", tag("span", class_="key other"), "the other compressors"),
            class_="legend",
        ),
        tag(
            "figcaption",
            "Intervals are of the choice of held-out documents (drawn with replacement), not of the seed of training. "
            "The compressors have seen the training text.",
        ),
    )
    return tag(
        "section",
        tag("h2", "Bits per byte"),
        tag("p", *_lead(scores)),
        figure,
        tag("details", tag("summary", "All numbers of this figure"), _table(rows)),
    )


def _lead(scores: Scores) -> list[Markup | str]:
    threshold = share(scores.setting.leak_threshold, 1)
    said: list[Markup | str] = [
        "How many bits the model needs for one byte of text that it was not trained on; fewer is better. ",
        tag("em", "Filtered"),
        f" leaves out documents of which {threshold.replace('.0', '')} or more of the word 8-grams occur in the "
        "training text. ",
    ]
    for name, kind in (("filtered", "filtered"), ("held-out", "naive")):
        pairs = [
            (score.bits_per_byte, found[1])
            for score in (getattr(domain, kind) for domain in scores.bits_per_byte.values())
            if math.isfinite(score.bits_per_byte) and (found := best(score))
        ]
        if pairs:
            won = sum(own < other for own, other in pairs)
            total = plural(len(pairs), "domain")
            if len(pairs) == 1:
                beaten = "needs fewer bits than" if won else "does not reach"
                said.append(tag("strong", f"On {name} text the model {beaten} the best compressor."))
            else:
                said.append(tag("strong", f"On {name} text the model beats the best compressor in {won} of {total}."))
            return said
    said.append("No compressor was run on this text.")
    return said


def drawing(rows: Sequence[Shown], *, wide: bool) -> Markup:
    """One line for each domain and set; marks by bits per byte."""
    width, left, right = (760, 76, 540) if wide else (320, 62, 262)
    row_height, head_height, top = 28, 32, 26 if wide else 6
    values = [
        value
        for row in rows
        for score in (row.domain.naive, row.domain.filtered)
        for value in (score.bits_per_byte, score.low, score.high, *score.compressors.values())
    ]
    scale = Scale.over(values, left, right, pad=0.04)
    bottom = top + len(rows) * (head_height + len(SETS) * row_height)
    drawn = [x_axis(scale, top, bottom, 8 if wide else 4, "bits per byte")]
    if wide:
        drawn += [label(616, 14, "model", "axis", "end"), label(width, 14, "best compressor", "axis", "end")]
    y = float(top)
    for row in rows:
        drawn.append(marked(row.name, label(0, y + 21, shortened(row.name, width), "name")))
        y += head_height
        for said, kind in SETS:
            drawn.append(_row(getattr(row.domain, kind), said, scale, y + row_height / 2 - 4, width, wide))
            y += row_height
    described = "; ".join(f"{row.name}: {_spoken(row.domain)}" for row in rows)
    return svg(
        f"scores-{'wide' if wide else 'narrow'}",
        width,
        bottom + 44,
        "Bits per byte of the model and of compressors, by domain",
        described,
        *drawn,
        class_="wide" if wide else "narrow",
    )


def _row(score: Score, said: str, scale: Scale, y: float, width: float, wide: bool) -> Markup:
    named = label(0, y + 4, said, "tick")
    own = score.bits_per_byte
    if not math.isfinite(own):
        return join([named, label(scale.start, y + 4, "no score" if score.documents else "no documents", "tick")])
    drawn = [named, line(scale.start, y, scale.stop, y, "rule")]
    first = best(score)
    for name, value in sorted(score.compressors.items()):
        if math.isfinite(value):
            tall, kind = (9, "best") if first and name == first[0] else (5, "other")
            x = scale(value)
            drawn.append(marked(f"{compressor(name)}: {bits(value, 4)}", line(x, y - tall, x, y + tall, kind)))
    interval = ""
    if math.isfinite(score.low) and math.isfinite(score.high):
        interval = f" [{bits(score.low, 4)}, {bits(score.high, 4)}]"
        drawn.append(line(scale(score.low), y, scale(score.high), y, "interval"))
    drawn.append(marked(f"model: {bits(own, 4)}{interval}", dot(scale(own), y, 5, "model")))
    if wide:
        drawn += [
            label(616, y + 4, bits(own), "value", "end"),
            label(width, y + 4, bits(first[1]) if first else "–", "tick", "end"),
        ]
    else:
        drawn.append(label(width, y + 4, bits(own), "value", "end"))
    return join(drawn)


def _table(rows: Sequence[Shown]) -> Markup:
    found = {name for row in rows for _, kind in SETS for name in getattr(row.domain, kind).compressors}
    names = sorted(found, key=_natural)
    columns = [Column("domain", "word"), Column("text", "word"), Column("documents"), Column("bytes")]
    columns += [Column("model"), Column("95 % interval"), *(Column(compressor(name)) for name in names)]
    lines: list[list[Cell]] = []
    for row in rows:
        for said, kind in SETS:
            score: Score = getattr(row.domain, kind)
            interval = f"{bits(score.low, 4)} – {bits(score.high, 4)}" if math.isfinite(score.low) else "–"
            cells: list[Cell] = [breakable(row.name), said, whole(score.documents), whole(score.bytes)]
            cells += [bits(score.bits_per_byte, 4), interval]
            lines.append([*cells, *(bits(score.compressors.get(name, math.nan), 4) for name in names)])
    return table("Bits per byte on held-out text", columns, lines)


def _spoken(domain: Domain) -> str:
    parts = []
    for said, kind in SETS:
        score: Score = getattr(domain, kind)
        first = best(score)
        beside = f", best compressor {bits(first[1])}" if first else ""
        own = bits(score.bits_per_byte) if score.documents else "no documents"
        parts.append(f"{said} {own}{beside}, {size(score.bytes)}")
    return "; ".join(parts)


def _natural(name: str) -> list[tuple[int, int | str]]:
    """An order in which ppmd_5 is before ppmd_12."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name)]
