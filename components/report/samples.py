"""Samples: how the model goes on from the beginning of held-out documents."""

from components.report.markup import Markup, tag
from components.report.material import Sample
from components.report.wording import plural

CHARACTERS = 4000  # of a prompt or a continuation that are shown


def section(samples: list[Sample], most: int) -> Markup:
    """The section of the page: the first samples of every domain in turn, so that each domain has its say."""
    turns: dict[str, int] = {}
    ordered = []
    for place, sample in enumerate(samples):
        turns[sample.domain] = turns.get(sample.domain, -1) + 1
        ordered.append((turns[sample.domain], place, sample))
    chosen = [sample for _, _, sample in sorted(ordered, key=lambda item: item[:2])[:most]]
    if not chosen:
        return tag("section", tag("h2", "Samples"), tag("p", "No continuation was asked for."))
    rest = len(samples) - len(chosen)
    more = f" {plural(rest, 'more is', 'more are')} in samples.json of the scores artifact." if rest else ""
    return tag(
        "section",
        tag("h2", "Samples"),
        tag(
            "p",
            "The beginning of held-out documents, and how the model goes on from there, taking the likeliest token "
            f"each time.{more}",
        ),
        *(_sample(sample) for sample in chosen),
    )


def _sample(sample: Sample) -> Markup:
    return tag(
        "figure",
        tag("figcaption", tag("bdi", sample.domain), " · document ", tag("code", sample.document[:12])),
        tag("pre", tag("bdi", _cut(sample.prompt)), tag("mark", tag("bdi", _cut(sample.continuation)))),
        class_="sample",
    )


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]}…"
