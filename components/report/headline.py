"""The head of the page: what the model is, the key figures, and the place for time, speed and machine."""

import math
import re
from collections.abc import Sequence

from cairn.progress import duration
from components.report import masked, scores
from components.report.markup import Markup, breakable, tag
from components.report.material import MaskedScores, Material
from components.report.slots import slot
from components.report.svg import scientific
from components.report.times import Times
from components.report.wording import bits, plural, short, spelled, whole


def header(material: Material) -> Markup:
    """The head of the page."""
    manifest, shape = material.manifest, material.manifest.model
    kind = (
        "A bidirectional language model, which fills in masked tokens," if material.masked else "A base language model"
    )
    train = material.tokens.count("train")
    passes = f"{manifest.tokens_seen / train:.2g} passes over {short(train)}" if train else ""
    return tag(
        "header",
        tag("p", "Pre-training report", class_="kicker"),
        tag("h1", breakable(material.name), class_="long" if len(material.name) > 48 else None),
        tag(
            "p",
            f"{kind} of {spelled(manifest.parameters)} parameters, trained on {spelled(manifest.tokens_seen)} tokens.",
            class_="lead",
        ),
        tag(
            "dl",
            _figure(*_score(material), "first"),
            _figure(
                "Parameters",
                short(manifest.parameters),
                [f"{plural(shape.layers, 'layer')} of width {whole(shape.width)}", _of_words(material.architecture)],
            ),
            _figure("Tokens seen", short(manifest.tokens_seen), [passes]),
            _figure(
                "Compute",
                scientific(6.0 * manifest.parameters * manifest.tokens_seen),
                ["FLOP, as 6 × parameters × tokens"],
            ),
            class_="figures",
        ),
        slot(
            "times",
            "Time, speed and machine are not on this page: it is an artifact, named by its digest, and the same "
            "run has the same page. They are in the attestation of the training run; ",
            tag("code", "cairn report"),
            " shows them here.",
        ),
    )


def _score(material: Material) -> tuple[str, str, list[str]]:
    if isinstance(material.scores, MaskedScores):
        return masked.headline(material.scores)
    what, score = scores.headline(material.scores)
    first = scores.best(score)
    interval = f"95 % interval {bits(score.low)} – {bits(score.high)}" if math.isfinite(score.low) else ""
    beside = f"best compressor {bits(first[1])}, {scores.compressor(first[0])}" if first else "no compressor beside it"
    return "Bits per byte", bits(score.bits_per_byte), [what, interval, beside]


def machine(times: Times | None) -> Markup:
    """What an attestation tells of the run."""
    if times is None:
        said = (
            "The store holds no attestation of this training run that a trusted key signed, so its time is not known."
        )
        return tag("p", said, class_="times")
    since = f"from step {whole(times.resumed_at)}, where it was resumed" if times.resumed_at else "of training"
    many = f"{plural(times.processes, 'process', 'processes')}, {plural(times.threads, 'thread')} each"
    code = f"code {times.commit[:12]}" + (", with changes" if times.changed else "") if times.commit else ""
    return tag(
        "dl",
        _figure("Time", duration(times.seconds), [since, f"done {times.finished[:16].replace('T', ' ')} UTC"]),
        _figure("Speed", short(times.tokens_per_second), ["tokens per second"]),
        _figure("Machine", times.processor, [many, f"{times.peak_gib:.2f} GiB at most", code], "words"),
        class_="figures",
    )


def _of_words(name: str) -> Markup | str:
    """The name of a class, which may be broken between its words."""
    first, *rest = re.split(r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?=LMHead)", name)
    return tag("bdi", first, *(part for word in rest for part in (tag("wbr"), word))) if name else ""


def _figure(name: str, value: str, notes: Sequence[Markup | str], class_: str | None = None) -> Markup:
    told = [tag("dd", note, class_="note") for note in notes if note]
    return tag("div", tag("dt", name), tag("dd", value, class_="value"), *told, class_=class_)
