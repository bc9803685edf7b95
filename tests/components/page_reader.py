"""Reads a report the way a browser does, with the parser of the standard library: elements, tables, drawings."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "wbr"}


@dataclass
class Element:
    """An element and what is in it."""

    tag: str
    attributes: dict[str, str | None]
    parts: "list[Element | str]" = field(default_factory=list)

    @property
    def raw(self) -> str:
        """All text in it."""
        return "".join(self._texts())

    @property
    def text(self) -> str:
        """All text in it, with each run of white space made one space."""
        return " ".join(self.raw.split())

    def _texts(self) -> list[str]:
        return [text for part in self.parts for text in ([part] if isinstance(part, str) else part._texts())]

    def all(self, tag: str, class_: str | None = None) -> "list[Element]":
        """Elements of this name in it, in order."""
        found = []
        for part in self.parts:
            if isinstance(part, Element):
                if part.tag == tag and (class_ is None or class_ in (part.attributes.get("class") or "").split()):
                    found.append(part)
                found += part.all(tag, class_)
        return found


class Page(HTMLParser):
    """A page, parsed. Raises AssertionError when an element is not closed where it should be."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self._open = [self.root]
        self.feed(html)
        self.close()
        assert self._open == [self.root], [element.tag for element in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self._open[-1].parts.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].parts.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].parts.append(data)

    def table(self, caption: str) -> list[list[str]]:
        """The cells of a table, its heading first."""
        (found,) = [table for table in self.root.all("table") if table.all("caption")[0].text == caption]
        return [[cell.text for cell in row.parts if isinstance(cell, Element)] for row in found.all("tr")]

    def key_figure(self, name: str) -> list[str]:
        """The value of a key figure, and the notes below it."""
        (found,) = [
            box
            for box in self.root.all("div")
            for heading in box.all("dt")
            if heading.text == name and box.tag == "div"
        ]
        return [said.text for said in found.all("dd")]

    def elements(self) -> list[Element]:
        """Every element."""

        def walk(element: Element) -> list[Element]:
            inner = [part for part in element.parts if isinstance(part, Element)]
            return [*inner, *(found for part in inner for found in walk(part))]

        return walk(self.root)


def drawings(html: str) -> list[str]:
    """The SVG of the page, as text."""
    return re.findall(r"<svg .*?</svg>", html, re.DOTALL)
