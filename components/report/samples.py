"""Samples: how the model goes on from the beginning of held-out documents, or fills in what was masked in it."""

from components.report.markup import Markup, join, tag
from components.report.material import MaskedSample, Piece, Sample
from components.report.wording import plural

CAUSAL = (
    "The beginning of held-out documents, and how the model goes on from there, taking the likeliest token each time."
)
MASKED = (
    "The beginning of held-out documents, in which some tokens were masked: marked is the token that the model held "
    "for the likeliest, and struck out beside it, where it is another, what was there."
)
NONE = "There are none: evaluate.prompts is 0, or the leak filter left no document."
BREAK = "↵"
CHARACTERS = 4000  # of a prompt or a continuation that are shown


def section(samples: list[Sample | MaskedSample], most: int) -> Markup:
    """The section of the page: the first samples of every domain in turn, so that each domain has its say."""
    turns: dict[str, int] = {}
    ordered = []
    for place, sample in enumerate(samples):
        turns[sample.domain] = turns.get(sample.domain, -1) + 1
        ordered.append((turns[sample.domain], place, sample))
    chosen = [sample for _, _, sample in sorted(ordered, key=lambda item: item[:2])[:most]]
    if not chosen:
        return tag("section", tag("h2", "Samples"), tag("p", NONE))
    rest = len(samples) - len(chosen)
    more = f" {plural(rest, 'more is', 'more are')} in samples.json of the scores artifact." if rest else ""
    return tag(
        "section",
        tag("h2", "Samples"),
        tag(
            "p",
            (MASKED if any(isinstance(sample, MaskedSample) for sample in chosen) else CAUSAL) + more,
        ),
        *(_sample(sample) for sample in chosen),
    )


def _sample(sample: Sample | MaskedSample) -> Markup:
    return tag(
        "figure",
        tag("figcaption", tag("bdi", sample.domain), " · document ", tag("code", sample.document[:12])),
        tag("pre", *_text(sample)),
        class_="sample",
    )


def _text(sample: Sample | MaskedSample) -> list[Markup]:
    if isinstance(sample, MaskedSample):
        return [_piece(piece) for piece in sample.pieces]
    return [tag("bdi", _cut(sample.prompt)), tag("mark", tag("bdi", _cut(sample.continuation)))]


def _piece(piece: Piece) -> Markup:
    if piece.was is None:
        return tag("bdi", _cut(piece.text))
    # A line break is seen as a token; one that was not there breaks no line.
    was = piece.was.replace("\n", f"{BREAK}\n")
    if piece.guess == piece.was:
        return tag("mark", tag("bdi", _cut(was)))
    guess = piece.guess.replace("\n", BREAK)
    return join([tag("mark", tag("bdi", _cut(guess))), tag("s", tag("bdi", _cut(was)))])


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]}…"
