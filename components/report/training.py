"""Training: loss, also by domain, how the development split is scored, learning rate and gradient norm by step."""

import math
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from components.report.markup import Markup, breakable, script_data, tag, visible
from components.report.material import Log, Material
from components.report.svg import Scale, curve, dot, label, near, shortened, svg, x_axis, y_axis
from components.report.table import Column, table
from components.report.wording import bits, plural, significant, whole

LINES = 6  # domains drawn: more cannot be told apart
ROWS = 12  # of the table
READ = 400  # logged steps that the pointer can rest on; the drawing itself has all
DOTS = 60  # scores of a line up to which each has its dot
FEW = 24  # logged steps up to which each has its dot: a line through one or two would hardly be seen
UNIT = 2**60  # to one of a measured value
SMOOTHED = 60  # logged steps from which on smoothing helps the eye


@dataclass(frozen=True)
class Line:
    """A line of a panel: the logged steps that it has, by index, and their values."""

    rows: Sequence[int]
    values: Sequence[float]
    kind: str
    """Class in the style sheet."""
    dots: bool = False


@dataclass(frozen=True)
class Panel:
    """One of the drawings above each other."""

    title: str
    height: float
    """As a share of that of the first."""
    lines: list[Line]
    log: bool = False
    zero: bool = False


Domains = Sequence[tuple[str, Mapping[int, float]]]


def section(material: Material) -> Markup:
    """The section of the page."""
    log = material.log
    names = _domains(material)
    shown = by_size(material)[:LINES]
    if not log.steps:
        return tag("section", tag("h2", "Training"), tag("p", "The training log has no line."))
    panels = _panels(log, material)
    drawn = [_drawing(panels, material, wide=wide) for wide in (True, False)]
    legend = tag(
        "ul",
        *(
            tag("li", tag("span", class_=f"key d{index}"), breakable(name), _latest(log.development.get(name)))
            for index, name in enumerate(names[:LINES])
        ),
        class_="legend",
    )
    hidden = len(names) - LINES
    below = [
        "Thin: every logged step; where many share a pixel, their first, lowest, highest and last. "
        if len(log.steps) > 1
        else "The run has one logged step. ",
        "Thick: smoothed. " if len(log.steps) >= SMOOTHED else "",
        f"{plural(hidden, 'smaller domain is', 'smaller domains are')} not drawn. " if hidden > 0 else "",
        "" if shown else "No development split was scored: ingest.split.development is 0, or drew no document. ",
        _gaps(log),
    ]
    return tag(
        "section",
        tag("h2", "Training"),
        tag("p", _lead(material)),
        tag(
            "figure",
            tag("p", _reading(log, shown, len(log.steps) - 1, material), class_="readout", id="training-readout"),
            *drawn,
            legend if names else Markup(""),
            tag("figcaption", *below),
        ),
        tag("details", tag("summary", "All numbers of this figure, at a few steps"), _table(log, shown, material)),
        tag("script", _data(log, shown, material), type="application/json", id="training-data"),
    )


def _lead(material: Material) -> str:
    manifest, shape = material.manifest, material.manifest.model
    per_step = manifest.tokens_seen / manifest.step if manifest.step else 0
    said = (
        f"{plural(manifest.step, 'step')} of {whole(per_step)} tokens, in sequences of {whole(shape.context)}, "
        f"with seed {manifest.seed}; matrices are multiplied in {manifest.precision}."
    )
    losses = [value for value in material.log.loss if math.isfinite(value)]
    per = "masked token" if material.masked else "token"
    if losses:
        said += (
            f" The loss of the last logged step is {significant(losses[-1])} nats per {per}; the first was "
            f"{significant(losses[0])}, and a guess among {whole(material.tokens.vocab_size)} tokens costs "
            f"{significant(math.log(material.tokens.vocab_size))}."
        )
    if material.log.skipped is not None:
        skipped = plural(material.log.skipped, "step was", "steps were")
        said += f" {skipped} left out, because loss or gradient norm stood out (pretrain.skip)."
    return said


def by_size(material: Material) -> Domains:
    """Development scores by domain, those with most held-out text first."""
    sizes = material.sizes
    return sorted(material.log.development.items(), key=lambda item: (-sizes.get(item[0], 0), item[0]))


def _domains(material: Material) -> list[str]:
    """All domains that something is drawn of, in the order of their colours."""
    sizes = material.sizes
    scored = [name for name, _ in by_size(material)]
    others = material.log.by_domain.keys() - material.log.development.keys()
    return [*scored, *sorted(others, key=lambda name: (-sizes.get(name, 0), name))]


def _latest(measured: Mapping[int, float] | None) -> str:
    return f" {bits(measured[max(measured)])}" if measured else ""


def _panels(log: Log, material: Material) -> list[Panel]:
    rows = range(len(log.steps))

    def noisy(values: Sequence[float], kind: str) -> list[Line]:
        if len(rows) < SMOOTHED:
            return [Line(rows, values, kind, dots=len(rows) <= FEW)]
        return [Line(rows, values, f"{kind} raw"), Line(rows, _smoothed(values), kind)]

    per = "masked token" if material.masked else "token"
    panels = [Panel(f"Training loss, nats per {per}", 1.0, noisy(log.loss, "accent"), log=True)]
    # Not every step has text of every domain, and few are scored: the steps between are no gaps.
    drawn = list(enumerate(_domains(material)[:LINES]))
    trained = [(index, log.by_domain[name]) for index, name in drawn if name in log.by_domain]
    scored = [(index, log.development[name]) for index, name in drawn if name in log.development]
    if trained:
        lines = [
            Line(list(told), _smoothed(list(told.values())), f"d{index}", dots=len(told) <= FEW)
            for index, told in trained
        ]
        smoothed = ", smoothed" if max(len(told) for _, told in trained) >= SMOOTHED else ""
        panels.append(Panel(f"Training loss by domain{smoothed}, nats per {per}", 0.62, lines, log=True))
    if scored:
        lines = [Line(list(told), list(told.values()), f"d{index}", dots=len(told) <= DOTS) for index, told in scored]
        panels.append(Panel(f"Development split, {material.development_unit}", 0.62, lines, log=True))
    panels.append(Panel("Learning rate", 0.34, [Line(rows, log.lr, "plain", dots=len(rows) <= FEW)], zero=True))
    panels.append(Panel("Gradient norm, before clipping", 0.44, noisy(log.grad_norm, "plain"), log=True))
    return panels


def drawing(material: Material) -> tuple[Markup, list[str]]:
    """The wide drawing of a log that has a line, and the names of the domains in it, d0 to d5."""
    return _drawing(_panels(material.log, material), material, wide=True), _domains(material)[:LINES]


def _drawing(panels: Sequence[Panel], material: Material, *, wide: bool) -> Markup:
    log = material.log
    width, left, unit = (760, 54, 230) if wide else (320, 50, 170)
    right = width - 22
    x = Scale.over(log.steps, left, right, counts=True)
    drawn: list[Markup] = []
    top = 28.0
    heights = [max(54.0, round(unit * panel.height)) for panel in panels]
    last = top + sum(heights) + 42 * (len(panels) - 1)
    drawn.append(x_axis(x, top, last, 8 if wide else 4, "step"))
    places = [x(step) for step in log.steps]
    for panel, height in zip(panels, heights, strict=True):
        values = [value for line in panel.lines for value in line.values]
        y = Scale.over([*values, 0.0] if panel.zero else values, top + height, top, log=panel.log, pad=0.03)
        drawn.append(label(0, top - 11, panel.title, "title"))
        drawn.append(y_axis(y, left, right, max(4, int(height / (30 if wide else 26)))))
        for line in panel.lines:
            xs = [places[row] for row in line.rows]
            drawn.append(curve(xs, line.values, y, line.kind))
            if line.dots:
                shown = ((at, value) for at, value in zip(xs, line.values, strict=True) if y.shows(value))
                drawn += [dot(at, y(value), 3, line.kind) for at, value in shown]
        top += height + 42
    return svg(
        f"training-{'wide' if wide else 'narrow'}",
        width,
        last + 44,
        f"Loss, development {material.development_name}, learning rate and gradient norm over the steps of training",
        _lead(material),
        *drawn,
        class_=("wide" if wide else "narrow") + " readable",
        data_left=x.start,
        data_right=x.stop,
        data_low=x.low,
        data_high=x.high,
        data_bottom=last,
    )


def _smoothed(values: Sequence[float]) -> list[float]:
    """The running mean of a running median: a spike leaves no trace in it, and a change no steps. Both are of as many
    values before as after, but for the end of the run, so they do not lag behind a falling loss. A gap stays a gap."""
    reach = len(values) // 60
    windows = [(here - min(reach, here), min(len(values), here + min(reach, here) + 1)) for here in range(len(values))]
    window: list[float] = []  # sorted
    begin = end = 0
    medians = []
    for value, (first, last) in zip(values, windows, strict=True):
        for entering in values[end:last]:
            if math.isfinite(entering):
                insort(window, entering)
        for leaving in values[begin:first]:
            if math.isfinite(leaving):
                del window[bisect_left(window, leaving)]
        begin, end = first, last
        medians.append(window[len(window) // 2] if math.isfinite(value) else math.nan)
    known = [math.isfinite(median) for median in medians]
    # Summed as whole numbers: a sum of floats that has once been large has lost what is small.
    summands = (round(near(median) * UNIT) if there else 0 for median, there in zip(medians, known, strict=True))
    sums = [0, *accumulate(summands)]
    counts = [0, *accumulate(map(int, known))]
    return [
        (sums[last] - sums[first]) / (UNIT * (counts[last] - counts[first])) if there else math.nan
        for there, (first, last) in zip(known, windows, strict=True)
    ]


def _gaps(log: Log) -> str:
    missing = sum(not math.isfinite(value) for value in log.loss)
    if not missing:
        return ""
    return f"At {plural(missing, 'logged step')} the loss is missing or not a number: the line has a gap there. "


def _names(domains: Domains, material: Material) -> list[str]:
    """What can be read at a logged step."""
    return [
        "loss",
        "learning rate",
        "gradient norm",
        *(f"{shortened(name, 200)} {material.development_name}" for name, _ in domains),
    ]


def _numbers(log: Log, domains: Domains, row: int) -> list[str | None]:
    """What there is to read at one; None for what was not measured."""
    values = [log.loss[row], log.lr[row], log.grad_norm[row]]
    values += [measured.get(row, math.nan) for _, measured in domains]
    return [significant(value) if math.isfinite(value) else None for value in values]


def _reading(log: Log, domains: Domains, row: int, material: Material) -> str:
    """Names and numbers of one logged step; the script writes the same words."""
    told = zip(_names(domains, material), _numbers(log, domains, row), strict=True)
    said = (f"{name} {value}" for name, value in told if value is not None)
    return " · ".join([f"step {whole(log.steps[row])}", *said])


def _data(log: Log, domains: Domains, material: Material) -> Markup:
    """What the script reads out: evenly spaced steps, and those at which the development split was scored."""
    count = len(log.steps)
    scored = _scored(domains)
    rows = sorted({*range(0, count, max(1, count // READ)), *scored[:: max(1, len(scored) // READ)], count - 1})
    values = [_numbers(log, domains, row) for row in rows]
    return script_data(
        {
            "steps": [log.steps[row] for row in rows],
            "names": [visible(name) for name in _names(domains, material)],
            "values": values,
        }
    )


def _table(log: Log, domains: Domains, material: Material) -> Markup:
    count = len(log.steps)
    candidates = _scored(domains) or range(count)
    spread = [candidates[index * (len(candidates) - 1) // (ROWS - 1)] for index in range(ROWS)]
    columns = [Column("step"), Column("tokens"), Column("loss"), Column("learning rate"), Column("gradient norm")]
    columns += [Column(f"{shortened(name, 200)}, {material.development_name}") for name, _ in domains]
    lines = []
    for row in sorted({0, *spread, count - 1}):
        line = [whole(log.steps[row]), whole(log.tokens[row]) if math.isfinite(log.tokens[row]) else "–"]
        line += [significant(column[row]) for column in (log.loss, log.lr, log.grad_norm)]
        lines.append([*line, *(significant(measured.get(row, math.nan)) for _, measured in domains)])
    note = f"{plural(count, 'logged step')} in all, in training.jsonl of the checkpoint artifact."
    return table("Training", columns, lines, note=note)


def _scored(domains: Domains) -> list[int]:
    return sorted({row for _, measured in domains for row in measured})
