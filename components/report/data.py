"""The data: what came in, what was dropped and why, what was kept, and what the kept text is made of."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from components.report.markup import Markup, breakable, tag
from components.report.material import Fertility, Ledger, Material, Source, Tally
from components.report.table import Cell, Column, barred, table
from components.report.wording import plural, share, size, spelled, whole

SPLITS = {"train": "to learn from", "development": "to watch training by", "heldout": "to score"}


@dataclass(frozen=True)
class Outcome:
    """What became of some of the documents that came in."""

    name: str
    tally: Tally
    start: int
    """Documents to the left of its bar."""
    kind: str
    """Class in the style sheet: whole, dropped, kept or split."""
    key: bool = False
    """Whether the name is a reason of the ledger."""


def section(material: Material, most: int) -> Markup:
    """The section of the page."""
    ledger = material.ledger
    return tag(
        "section",
        tag("h2", "Data"),
        tag("p", _lead(material)),
        _funnel(ledger, most),
        tag("h3", "What the kept text is made of"),
        tag("div", *_composition(ledger, most), class_="pairs"),
        *_fertility(material, most),
    )


def _lead(material: Material) -> str:
    ledger = material.ledger
    came, kept = _sum(s.came for s in ledger.sources.values()), _sum(s.kept for s in ledger.sources.values())
    train = _sum(ledger.splits.get("train", {}).values())
    tokens = material.tokens.count("train")
    said = (
        f"{plural(len(ledger.sources), 'source')} gave {plural(came.documents, 'document')} ({size(came.bytes)}), "
        f"of which {whole(kept.documents)} were kept. "
    )
    if tokens:
        said += (
            f"The {plural(train.documents, 'document')} to train on are {size(train.bytes)} of text and "
            f"{spelled(tokens)} tokens, {train.bytes / tokens:.2f} bytes each."
        )
    return said


def _funnel(ledger: Ledger, most: int) -> Markup:
    """Documents from top to bottom: each bar begins where what is left ends."""
    found = outcomes(ledger, most)
    came, total = found[0].tally, max(1, found[0].tally.documents)
    rows: list[list[Cell]] = []
    for one in found:
        name: Cell = one.name
        if one.kind == "dropped":
            reason = tag("code", breakable(one.name)) if one.key else one.name
            name = tag("span", tag("span", "− ", class_="soft"), reason)
        elif one.kind == "split":
            purpose = f" {SPLITS.get(one.name, '')}"
            name = tag("span", breakable(one.name), tag("span", purpose, class_="soft"))
        cells = barred(name, one.start / total, (one.start + one.tally.documents) / total, one.kind)
        told = [whole(one.tally.documents), share(one.tally.documents, came.documents), size(one.tally.bytes)]
        rows.append([*cells, *told])
    columns = [
        Column("outcome", "word"),
        Column("of all documents", "drawn"),
        Column("documents"),
        Column("share"),
        Column("bytes"),
    ]
    note = (
        "A reason is the key of the recipe that dropped the document, as in the ledger. Bytes of what came in, was "
        "dropped or kept are of raw text; bytes of a split are of the final text."
    )
    sums = [index for index, one in enumerate(found) if one.kind in ("whole", "kept")]
    return table("From what came in to what was kept", columns, rows, note=note, strong=sums)


def outcomes(ledger: Ledger, most: int) -> list[Outcome]:
    """All that came in, what was dropped by reason, the largest `most` one by one, all that was kept, its splits."""
    came, kept = _sum(s.came for s in ledger.sources.values()), _sum(s.kept for s in ledger.sources.values())
    dropped = _added(source.dropped for source in ledger.sources.values())
    found = [Outcome("came in", came, 0, "whole")]
    left = came.documents
    for reason, tally in _folded(dropped, most, lambda rest: plural(rest, "other reason"), lambda t: t.documents):
        left -= tally.documents
        found.append(Outcome(reason, tally, left, "dropped", key=reason in dropped))
    found.append(Outcome("kept", kept, 0, "kept"))
    start = 0
    for split in (*SPLITS, *sorted(set(ledger.splits) - set(SPLITS))):
        tally = _sum(ledger.splits.get(split, {}).values())
        found.append(Outcome(split, tally, start, "split"))
        start += tally.documents
    return found


def _composition(ledger: Ledger, most: int) -> list[Markup]:
    def by(heading: Callable[[str, Source], str]) -> dict[str, Tally]:
        return _added({heading(name, source): source.kept} for name, source in ledger.sources.items())

    groups = [
        ("By domain", "domain", by(lambda _, source: source.domain)),
        ("By source", "source", by(lambda name, _: name)),
        ("By licence", "licence", by(lambda _, source: source.licence)),
        ("By split", "split", {split: _sum(domains.values()) for split, domains in ledger.splits.items()}),
    ]
    return [_shares(caption, noun, tallies, most) for caption, noun, tallies in groups]


def _shares(caption: str, noun: str, tallies: Mapping[str, Tally], most: int) -> Markup:
    total = max(1, sum(tally.bytes for tally in tallies.values()))
    rows: list[list[Cell]] = []
    for name, tally in _folded(tallies, most, lambda rest: plural(rest, f"other {noun}"), lambda t: t.bytes):
        cells = barred(name, 0, tally.bytes / total, "kept")
        rows.append([*cells, share(tally.bytes, total), size(tally.bytes), whole(tally.documents)])
    columns = [Column(noun, "word"), Column("", "drawn"), Column("share"), Column("bytes"), Column("documents")]
    return tag("div", table(caption, columns, rows))


def _fertility(material: Material, most: int) -> list[Markup]:
    """Nothing where the tokens do not tell, as those of tokenize before 0.4.0."""
    train = material.tokens.splits.get("train")
    if train is None or not train.domains:
        return []
    note = (
        "Of the split to train on. A word is what white space parts; languages that write none have long ones. Tokens "
        "that end documents are left out. The more tokens text takes, the less of it a context holds."
    )
    groups = [("domain", train.domains), ("source", train.sources)]
    tables = [tag("div", _tokens_of(noun, counts, most)) for noun, counts in groups]
    return [tag("h3", "What a token stands for"), tag("div", *tables, class_="pairs"), tag("p", note, class_="note")]


def _tokens_of(noun: str, counts: Mapping[str, Fertility], most: int) -> Markup:
    ordered = sorted(counts.items(), key=lambda item: (-item[1].tokens, item[0]))
    if len(ordered) > most + 1:
        rest = [one for _, one in ordered[most:]]
        sums = {unit: sum(getattr(one, unit) for one in rest) for unit in Fertility.model_fields}
        ordered = [*ordered[:most], (plural(len(rest), f"other {noun}"), Fertility(**sums))]
    rows: list[list[Cell]] = []
    for name, one in ordered:
        tokens = one.tokens - one.documents
        per_token = f"{one.bytes / tokens:.2f}" if tokens else "–"
        rows.append([breakable(name), whole(tokens), per_token, f"{tokens / one.words:.2f}" if one.words else "–"])
    columns = [Column(noun, "word"), Column("tokens"), Column("bytes per token"), Column("tokens per word")]
    return table(f"Tokens by {noun}", columns, rows)


def _folded(
    tallies: Mapping[str, Tally], most: int, rest: Callable[[int], str], size: Callable[[Tally], int]
) -> Sequence[tuple[str, Tally]]:
    """The largest, and all others as one."""
    ordered = sorted(tallies.items(), key=lambda item: (-size(item[1]), item[0]))
    if len(ordered) <= most + 1:
        return ordered
    return [*ordered[:most], (rest(len(ordered) - most), _sum(tally for _, tally in ordered[most:]))]


def _added(parts: Iterable[Mapping[str, Tally]]) -> dict[str, Tally]:
    documents: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for part in parts:
        for name, tally in part.items():
            documents[name] += tally.documents
            sizes[name] += tally.bytes
    return {name: Tally(documents=documents[name], bytes=sizes[name]) for name in documents}


def _sum(tallies: Iterable[Tally]) -> Tally:
    listed = list(tallies)
    return Tally(documents=sum(t.documents for t in listed), bytes=sum(t.bytes for t in listed))
