"""The data: what came in, what was dropped and why, what was kept, and what the kept text is made of."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from components.report.markup import Markup, breakable, tag
from components.report.material import Ledger, Material, Source, Tally
from components.report.table import Cell, Column, barred, table
from components.report.wording import plural, share, size, spelled, whole

SPLITS = {"train": "to learn from", "development": "to watch training by", "heldout": "to score"}


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
    came, kept = _sum(s.came for s in ledger.sources.values()), _sum(s.kept for s in ledger.sources.values())
    dropped = _added(source.dropped for source in ledger.sources.values())
    rows: list[list[Cell]] = []
    total = max(1, came.documents)

    def row(name: Cell, tally: Tally, start: int, kind: str) -> None:
        cells = barred(name, start / total, (start + tally.documents) / total, kind)
        rows.append([*cells, whole(tally.documents), share(tally.documents, came.documents), size(tally.bytes)])

    row("came in", came, 0, "whole")
    left = came.documents
    folded = _folded(dropped, most, lambda rest: plural(rest, "other reason"), lambda t: t.documents)
    for reason, tally in folded:
        left -= tally.documents
        row(
            tag(
                "span",
                tag("span", "− ", class_="soft"),
                tag("code", breakable(reason)) if reason in dropped else reason,
            ),
            tally,
            left,
            "dropped",
        )
    row("kept", kept, 0, "kept")
    start = 0
    for split in (*SPLITS, *sorted(set(ledger.splits) - set(SPLITS))):
        tally = _sum(ledger.splits.get(split, {}).values())
        row(
            tag("span", breakable(split), tag("span", f" {SPLITS.get(split, '')}", class_="soft")),
            tally,
            start,
            "split",
        )
        start += tally.documents
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
    return table("From what came in to what was kept", columns, rows, note=note, strong=(0, 1 + len(folded)))


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
