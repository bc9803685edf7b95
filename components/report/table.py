"""Tables, the one form in which every number of the page can be read."""

from collections.abc import Sequence
from dataclasses import dataclass

from components.report.markup import Markup, breakable, join, tag

Cell = Markup | str


@dataclass(frozen=True)
class Column:
    """A column: its heading, and whether it holds numbers, words or a bar."""

    heading: str
    kind: str = "number"


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    *,
    note: str = "",
    strong: Sequence[int] = (),
) -> Markup:
    """A table whose first cell in a row is its heading. It scrolls by itself where it is wider than the page.

    Args:
        note: a line below, such as what was left out.
        strong: rows that sum up others.
    """
    head = tag("tr", *(tag("th", column.heading, scope="col", class_=column.kind) for column in columns))
    body = []
    for index, row in enumerate(rows):
        first, *others = row
        cells = [tag("th", first, scope="row", class_=columns[0].kind)]
        cells += [tag("td", cell, class_=column.kind) for cell, column in zip(others, columns[1:], strict=True)]
        body.append(tag("tr", *cells, class_="strong" if index in strong else None))
    drawn = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    # The focus lets the arrow keys scroll it.
    scrolled = tag("div", drawn, class_="scroll", tabindex="0", role="region", aria_label=caption)
    return join([scrolled, tag("p", note, class_="note")]) if note else scrolled


def barred(name: Markup | str, start: float, stop: float, class_: str) -> list[Cell]:
    """The first two cells of a row: its name, and a bar from one share to another, both in 0–1.

    On a narrow screen the bar is below the name. Its numbers are in the cells that follow.
    """
    said = breakable(name) if isinstance(name, str) else name
    drawn = _bar(start, stop, class_)
    return [tag("div", said, drawn), drawn]


def _bar(start: float, stop: float, class_: str) -> Markup:
    begin, width = 100 * start, 100 * (stop - start)
    if stop > start and width < 0.75:  # a sliver can still be seen
        begin, width = min(begin, 99.25), 0.75
    drawn = tag("rect", x=round(begin, 2), y=0, width=round(width, 2), height=10, class_=class_)
    return tag("svg", drawn, viewBox="0 0 100 10", preserveAspectRatio="none", aria_hidden="true", class_="bar")
