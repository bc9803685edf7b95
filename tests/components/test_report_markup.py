"""Whatever the data holds, it is text on the page and nothing else."""

import json
import re
import unicodedata
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from components.report.markup import breakable, escaped, number, script_data, tag
from tests.components.page_reader import Page

# Surrogates too: a name may come from a JSON file that spells half of a pair.
anything = st.text(st.characters(exclude_categories=()), max_size=60) | st.text(
    "<>&\"'/!-\x00\u202e script", max_size=40
)
HOSTILE = (
    "</svg><script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "<!--times-->",
    "]]>&lt;&#60;\x00\r\n\t\x1b[31m",
    "\u202egnp.exe\u202c\u2066\u2069\u200f",
    "\ud800\udfff\ufffe\uffff",
)


@given(anything)
@example(HOSTILE[0])
@example(HOSTILE[1])
def test_data_in_content_and_attributes_makes_no_element(data: str) -> None:
    html = tag("p", data, breakable(data), title=data).text
    page = Page(html)
    names = [element.tag for element in page.elements()]
    assert set(names) <= {"p", "bdi", "wbr"}
    assert names.count("p") == names.count("bdi") == 1
    assert list(page.elements()[0].attributes) == ["title"]
    ElementTree.fromstring(html)


@given(anything)
def test_nothing_is_written_that_is_not_seen_as_it_is(data: str) -> None:
    written = escaped(data)
    written.encode("utf-8")
    for character in written:
        assert character in "\t\n" or unicodedata.category(character) not in ("Cc", "Cs"), hex(ord(character))
        assert not 0x202A <= ord(character) <= 0x202E
        assert not 0x2066 <= ord(character) <= 0x2069


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_ordinary_text_comes_back_as_it_was(data: str) -> None:
    (element,) = Page(tag("pre", data).text).elements()
    assert element.raw == data


def test_what_cannot_be_seen_is_named() -> None:
    assert escaped("a\x00b\x1b\x7f\x85\u202e\ud800\r\n") == "a␀b␛␡⟨U+0085⟩⟨U+202E⟩⟨U+D800⟩␍\n"


@given(st.recursive(anything, lambda inner: st.lists(inner, max_size=4)))
@example(list(HOSTILE))
def test_data_for_the_script_stays_in_its_element_and_comes_back(value: object) -> None:
    html = tag("script", script_data(value), type="application/json").text
    (element,) = Page(html).elements()
    assert json.loads(element.raw) == json.loads(json.dumps(value))
    assert not re.search(r"[<>&]", html[len('<script type="application/json">') : -len("</script>")])


def test_data_for_the_script_is_finite() -> None:
    with pytest.raises(ValueError, match="JSON"):
        script_data(float("nan"))


@pytest.mark.parametrize(
    ("value", "said"), [(3, "3"), (0.1 + 0.2, "0.3"), (-0.001, "-0"), (100.0, "100"), (7.256, "7.26")]
)
def test_coordinates_are_short(value: float, said: str) -> None:
    assert number(value) == said
