"""Training: loss, bits per byte on the development split, learning rate and gradient norm over the steps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from components.report.markup import Markup, script_data, tag
from components.report.material import Log, Material
from components.report.svg import Scale, curve, dot, label, shortened, svg, thin, x_axis, y_axis
from components.report.table import Column, table
from components.report.wording import bits, plural, significant, whole

LINES = 6  # development domains drawn: more cannot be told apart
ROWS = 12  # of the table
READ = 400  # logged steps that the pointer can rest on; the drawing itself has all
SMOOTHED = 60  # logged steps from which on a running mean helps the eye


@dataclass(frozen=True)
class Panel:
    """One of the drawings above each other."""

    title: str
    height: float
    curves: list[tuple[list[float], str]]
    """Values for each logged step and the class of the line, in the order of drawing."""
    dots: bool = False
    log: bool = False
    zero: bool = False


def section(material: Material) -> Markup:
    """The section of the page."""
    log = material.log
    domains = _development(material)
    if not log.steps:
        return tag("section", tag("h2", "Training"), tag("p", "The training log has no line."))
    panels = _panels(log, domains)
    drawn = [_drawing(log, panels, material, wide=wide) for wide in (True, False)]
    legend = tag(
        "ul",
        *(
            tag("li", tag("span", class_=f"key d{index}"), tag("bdi", name), f" {bits(_last(values))}")
            for index, (name, values) in enumerate(domains[:LINES])
        ),
        class_="legend",
    )
    hidden = len(domains) - LINES
    below = [
        "Thin: every logged step; where many share a pixel, their first, lowest, highest and last. "
        if len(log.steps) > 1
        else "The run has one logged step. ",
        "Thick: a running mean of the loss. " if len(log.steps) >= SMOOTHED else "",
        f"{plural(hidden, 'smaller domain is', 'smaller domains are')} not drawn. " if hidden > 0 else "",
        "" if domains else "No development split was scored: ingest.split.development is 0, or drew no document. ",
        _gaps(log),
    ]
    return tag(
        "section",
        tag("h2", "Training"),
        tag("p", *_lead(material)),
        tag(
            "figure",
            tag("p", _reading(log, domains, len(log.steps) - 1), class_="readout", id="training-readout"),
            *drawn,
            legend if domains else Markup(""),
            tag("figcaption", *below),
        ),
        tag("details", tag("summary", "All numbers of this figure, at a few steps"), _table(log, domains)),
        tag("script", _data(log, domains), type="application/json", id="training-data"),
    )


def _lead(material: Material) -> list[Markup | str]:
    manifest, shape = material.manifest, material.manifest.model
    per_step = manifest.tokens_seen / manifest.step if manifest.step else 0
    said: list[Markup | str] = [
        f"{plural(manifest.step, 'step')} of {whole(per_step)} tokens, in sequences of {whole(shape.context)}, "
        f"with seed {manifest.seed}; matrices are multiplied in {manifest.precision}. "
    ]
    losses = [value for value in material.log.column("loss") if math.isfinite(value)]
    if losses:
        said.append(
            f"The loss of the last logged step is {significant(losses[-1])} nats per token; the first was "
            f"{significant(losses[0])}, and a guess among {whole(material.tokens.vocab_size)} tokens costs "
            f"{significant(math.log(material.tokens.vocab_size))}."
        )
    return said


def _development(material: Material) -> list[tuple[str, list[float]]]:
    """Development bits per byte by domain, those with most held-out text first; NaN where it was not measured."""
    sizes = {name: domain.naive.bytes for name, domain in material.scores.bits_per_byte.items()}
    measured = material.log.development()
    return sorted(measured.items(), key=lambda item: (-sizes.get(item[0], 0), item[0]))


def _panels(log: Log, domains: Sequence[tuple[str, list[float]]]) -> list[Panel]:
    loss = log.column("loss")
    smooth = [(_running_mean(loss, len(loss) / 50), "accent")] if len(loss) >= SMOOTHED else []
    first = [(loss, "raw" if smooth else "accent"), *smooth]
    panels = [Panel("Training loss, nats per token", 1.0, first, log=True)]
    if domains:
        lines = [(values, f"d{index}") for index, (_, values) in enumerate(domains[:LINES])]
        panels.append(Panel("Development split, bits per byte", 0.62, lines, dots=True, log=True))
    panels.append(Panel("Learning rate", 0.34, [(log.column("lr"), "plain")], zero=True))
    panels.append(Panel("Gradient norm, before clipping", 0.44, [(log.column("grad_norm"), "plain thin")], log=True))
    return panels


def _drawing(log: Log, panels: Sequence[Panel], material: Material, *, wide: bool) -> Markup:
    width, left, unit = (760, 50, 230) if wide else (320, 42, 170)
    right = width - 6
    x = Scale.over(log.steps, left, right)
    drawn: list[Markup] = []
    top = 28.0
    heights = [max(54.0, round(unit * panel.height)) for panel in panels]
    last = top + sum(heights) + 42 * (len(panels) - 1)
    drawn.append(x_axis(x, top, last, 8 if wide else 4, "step"))
    places = [x(step) for step in log.steps]
    for panel, height in zip(panels, heights, strict=True):
        values = [value for line, _ in panel.curves for value in line]
        if panel.zero:
            values.append(0.0)
        y = Scale.over(values, top + height, top, log=panel.log, pad=0.03)
        drawn.append(label(0, top - 11, panel.title, "title"))
        drawn.append(y_axis(y, left, right, max(2, int(height / (32 if wide else 28)))))
        for line, kind in panel.curves:
            drawn += _curve(places, line, y, kind, panel.dots, right - left, left)
        top += height + 42
    return svg(
        f"training-{'wide' if wide else 'narrow'}",
        width,
        last + 44,
        "Loss, development bits per byte, learning rate and gradient norm over the steps of training",
        "".join(str(part) for part in _lead(material) if isinstance(part, str)),
        *drawn,
        class_=("wide" if wide else "narrow") + " readable",
        data_left=x.start,
        data_right=x.stop,
        data_low=x.low,
        data_high=x.high,
        data_bottom=last,
    )


def _curve(
    places: Sequence[float], values: Sequence[float], y: Scale, kind: str, dots: bool, width: float, left: float
) -> list[Markup]:
    finite = [
        (a, y(b)) if b - b == 0 and (b > 0 or not y.log) else (a, math.nan) for a, b in zip(places, values, strict=True)
    ]
    if not dots:
        return [curve(thin(finite, width, left), kind)]
    # Measured every so many steps: the steps between are no gaps.
    measured = [(a, b) for a, b in finite if b == b]
    drawn = [curve(thin(measured, width, left), kind)]
    if len(measured) <= 60:
        drawn += [dot(a, b, 3, kind) for a, b in measured]
    return drawn


def _running_mean(values: Sequence[float], span: float) -> list[float]:
    """Exponential, with its start corrected (Kingma and Ba 2014, section 3); a gap stays a gap."""
    keep = 1 - 1 / max(1.0, span)
    mean, weight = 0.0, 0.0
    found = []
    for value in values:
        if value - value != 0:
            found.append(math.nan)
            continue
        mean = keep * mean + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        found.append(mean / weight)
    return found


def _gaps(log: Log) -> str:
    missing = sum(1 for value in log.column("loss") if value - value != 0)
    if not missing:
        return ""
    return f"At {plural(missing, 'logged step')} the loss is missing or not a number: the line has a gap there. "


def _reading(log: Log, domains: Sequence[tuple[str, list[float]]], row: int) -> str:
    """What the pointer reads at one logged step; the script writes the same words."""
    parts = [f"step {whole(log.steps[row])}"]
    parts += [
        f"{name} {significant(values[row])}" for name, values in _read(log, domains) if values[row] == values[row]
    ]
    return " · ".join(parts)


def _read(log: Log, domains: Sequence[tuple[str, list[float]]]) -> list[tuple[str, list[float]]]:
    named = [
        ("loss", log.column("loss")),
        ("learning rate", log.column("lr")),
        ("gradient norm", log.column("grad_norm")),
    ]
    return named + [(f"{shortened(name, 170)} bits per byte", values) for name, values in domains[:LINES]]


def _table(log: Log, domains: Sequence[tuple[str, list[float]]]) -> Markup:
    count = len(log.steps)
    measured = [row for row in range(count) if any(values[row] == values[row] for _, values in domains)]
    candidates = measured or list(range(count))
    spread = [candidates[index * (len(candidates) - 1) // (ROWS - 1)] for index in range(ROWS)]
    rows = sorted({0, *spread, count - 1})
    columns = [Column("step"), Column("tokens"), Column("loss"), Column("learning rate"), Column("gradient norm")]
    columns += [Column(f"{name}, bits per byte") for name, _ in domains[:LINES]]
    lines = []
    for row in rows:
        tokens = log.column("tokens")[row]
        line = [whole(log.steps[row]), whole(tokens) if math.isfinite(tokens) else "–"]
        line += [significant(log.column(name)[row]) for name in ("loss", "lr", "grad_norm")]
        lines.append([*line, *(significant(values[row]) for _, values in domains[:LINES])])
    note = f"{plural(count, 'logged step')} in all, in training.jsonl of the checkpoint artifact."
    return table("Training", columns, lines, note=note)


def _data(log: Log, domains: Sequence[tuple[str, list[float]]]) -> Markup:
    """What the script reads out: evenly spaced rows, and those at which the development split was scored."""
    count = len(log.steps)
    stride = max(1, count // READ)
    scored = [row for row in range(count) if any(values[row] == values[row] for _, values in domains)]
    rows = sorted({*range(0, count, stride), *scored[:: max(1, len(scored) // READ)], count - 1})
    read = _read(log, domains)
    return script_data(
        {
            "steps": [log.steps[row] for row in rows],
            "names": [name for name, _ in read],
            "values": [[significant(v[row]) if v[row] == v[row] else None for row in rows] for _, v in read],
        }
    )


def _last(values: Sequence[float]) -> float:
    return next((value for value in reversed(values) if value == value), math.nan)
