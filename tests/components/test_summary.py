"""Pages for people: what comes from the text or the recipe stays text."""

import html
import re

from hypothesis import given
from hypothesis import strategies as st

from components.summary import escaped, table


def test_words_stand_left_and_numbers_right() -> None:
    drawn = table(("source", "documents", "bits per byte"), [("walks", 1200, 0.86419), ("notes", 7, 1.5)])
    assert drawn.splitlines() == [
        "| source | documents | bits per byte |",
        "| --- | ---: | ---: |",
        "| walks | 1,200 | 0.864 |",
        "| notes | 7 | 1.500 |",
    ]


def test_a_table_of_nothing_has_its_header() -> None:
    assert table(("source", "by"), []) == "| source | by |\n| --- | --- |\n"


def test_markup_in_a_name_is_shown_and_not_obeyed() -> None:
    drawn = table(("source",), [("<script>alert(1)</script>",), ("a | b\n# `c` [d](e)",)])
    assert not re.search(r"[<>`\[\]()#](?!\d+;)", drawn)
    assert drawn.count("|") == 2 * 4
    assert html.unescape(drawn.splitlines()[2]) == "| <script>alert(1)</script> |"


@given(st.text())
def test_a_reader_gets_back_every_text_that_can_be_printed_on_one_line(text: str) -> None:
    shown = escaped(text)
    assert shown.isprintable()
    printable = "".join(one if one.isprintable() else "\ufffd" for one in " ".join(text.split()))
    assert html.unescape(shown) == printable
