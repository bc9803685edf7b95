"""The text of a web page: decoded as its page says, without navigation and the like, in the order in which it is read.

The extractor is Resiliparse's: in the comparison of DCLM (Li et al. 2024, arXiv 2406.11794, section 4.2) models do as
well on its text as on trafilatura's, and it is eight times as fast. Its parser takes time quadratic in the attributes
of a tag, and its extractor in the depth of the page, so both are capped before it is asked.
"""

import codecs
import re
from dataclasses import dataclass
from typing import Any

from components.ingest.recipe import Html

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_DECLARED = re.compile(rb"<meta[^>]*?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_DECLARED_WITHIN = 1024  # bytes, as browsers have it
# Labels that mean more than they say, as browsers have it (WHATWG Encoding, section 4.2).
_SUPERSETS = {"shift_jis": "cp932", "gbk": "gb18030", "gb2312": "gb18030", "euc-kr": "cp949", "iso8859-11": "cp874"}
_ATTRIBUTE = r"""[^\s/>][^\s/>=]*+(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s>]*+))?+"""
_MARKUP = re.compile(
    r"<!--(?:-?>|.*?(?:--!?>|\Z))"  # a comment, which hides tags
    r"|<(?P<raw>script|style|textarea|title|xmp|iframe|noembed|noframes)\b.*?(?:</(?P=raw)\b|\Z)"
    rf"|<(?P<end>/?)(?P<name>[a-z][^\s/>]*+)(?P<attributes>(?:[\s/]++|{_ATTRIBUTE})*+)(?:>|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_ATTRIBUTES = re.compile(_ATTRIBUTE)
_VOID = frozenset("area base br col embed hr img input link meta param source track wbr".split())


@dataclass(frozen=True)
class Unread:
    """Why a page has no text here."""

    reason: str
    told: str = ""
    """For the user, when the drop may not be what they want."""


def text_of_page(data: bytes, charset: str | None, section: Html) -> str | Unread:
    """The main text of a page.

    Args:
        charset: what was said of it when it was fetched.

    Raises:
        UnicodeDecodeError: the page is not in the encoding that it says, or, saying none, not UTF-8.
    """
    # Loading it takes longer than reading a small corpus that has no page in it.
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    page = data.decode(_encoding(data, charset)).removeprefix("\ufeff")
    depth, attributes = _measured(page)
    if section.max_attributes is not None and attributes > section.max_attributes:
        return Unread(
            "html.max_attributes",
            f"a page with {attributes:,} attributes in one tag is dropped: ingest.html.max_attributes is "
            f"{section.max_attributes:,}",
        )
    tree = HTMLTree.parse(page)
    # Tags that are never closed count as nested above, and are closed by the parser.
    if section.max_depth is not None and depth > section.max_depth and (depth := _depth(tree)) > section.max_depth:
        return Unread(
            "html.max_depth",
            f"a page nested {depth:,} deep is dropped: ingest.html.max_depth is {section.max_depth:,}",
        )
    text = str(extract_plain_text(tree, main_content=section.main_content, alt_texts=False))
    return text if text.strip() else Unread("no_text")


def _encoding(data: bytes, charset: str | None) -> str:
    from resiliparse.parse.encoding import map_encoding_to_html5

    for mark, marked in _BOMS:
        if data.startswith(mark):
            return marked
    declared = _DECLARED.search(data[:_DECLARED_WITHIN])
    for label in (charset, declared[1].decode("ascii", "replace") if declared else None):
        name: str | None = map_encoding_to_html5(label, False) if label else None
        if name is not None:
            # A page that says in ASCII that it is UTF-16 is not.
            name = "utf-8" if label != charset and name.startswith("utf-16") else name
            return _SUPERSETS.get(name, name)
    return "utf-8"


def _measured(page: str) -> tuple[int, int]:
    """How deep the tags of a page are nested, at most, and how many attributes a tag has, at most; in linear time."""
    deepest = depth = attributes = 0
    for found in _MARKUP.finditer(page):
        name = found["name"]
        if name is None:
            continue
        if name.lower() not in _VOID:
            depth = max(0, depth - 1 if found["end"] else depth + 1)
            deepest = max(deepest, depth)
        # The shortest attribute is a letter and a space.
        if len(found["attributes"]) > 2 * attributes:
            attributes = max(attributes, sum(1 for _ in _ATTRIBUTES.finditer(found["attributes"])))
    return deepest, attributes


def _depth(tree: Any) -> int:
    """How deep the elements of a page are nested; walked, not by recursion."""
    deepest = depth = 0
    node = tree.document
    while node is not None:
        if node.first_child is not None:
            node, depth = node.first_child, depth + 1
            deepest = max(deepest, depth)
            continue
        while node is not None and node.next_sibling is None:
            node, depth = node.parent_node, depth - 1
        node = node.next_sibling if node is not None else None
    return deepest
