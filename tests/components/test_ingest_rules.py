"""The quality rules of the papers, each on both sides of its threshold."""

from typing import Any

import pytest

from components.ingest.recipe import C4, FineWeb, Gopher, Ingest
from components.ingest.rules import reason

OFF: dict[str, dict[str, Any]] = {
    "gopher": dict.fromkeys(Gopher.model_fields),
    "c4": {"min_sentences": None, "lorem_ipsum": False, "curly_bracket": False},
    "fineweb": dict.fromkeys(FineWeb.model_fields),
}
DEFAULT: dict[str, dict[str, Any]] = {
    "gopher": Gopher().model_dump(),
    "c4": C4().model_dump(),
    "fineweb": FineWeb().model_dump(),
}


def judged(text: str, rule: str, threshold: object) -> str | None:
    """The verdict on a text when no other rule is on."""
    part, _, key = rule.partition(".")
    limits = {name: {**off, **({key: threshold} if name == part else {})} for name, off in OFF.items()}
    return reason(text, Ingest.model_validate(limits))


def lines(number: int, marked: int, plain: str, special: str) -> str:
    """So many lines, of which the last ones are special."""
    return "\n".join([plain] * (number - marked) + [special] * marked)


def distinct(number: int, marked: int, plain: str, special: str) -> str:
    """The same, and no line like another."""
    return "\n".join(
        (special if line >= number - marked else plain).replace("#", f"{line:03d}") for line in range(number)
    )


RULES = [
    # rule, its default, a text that is kept by a hair, one that is dropped by a hair
    ("gopher.min_words", 50, "word " * 50, "word " * 49),
    ("gopher.max_words", 100_000, "w " * 100_000, "w " * 100_001),
    ("gopher.min_mean_word", 3.0, "ab abcd " * 5, "ab abcd " * 5 + "ab"),
    ("gopher.max_mean_word", 10.0, "a" * 9 + " " + "b" * 11, "a" * 10 + " " + "b" * 11),
    ("gopher.max_symbols", 0.1, "word " * 9 + "#tag", "word " * 8 + "#tag #tag"),
    ("gopher.max_symbols", 0.1, "word " * 9 + "so…", "word " * 8 + "so… then..."),
    ("gopher.max_symbols", 0.1, "word " * 18 + "# # so... then…", "word " * 17 + "# # #"),
    ("gopher.max_bullet_lines", 0.9, lines(10, 9, "plain", "- point"), lines(10, 10, "plain", "- point")),
    ("gopher.max_bullet_lines", 0.9, lines(20, 18, "plain", "  • point"), lines(20, 19, "plain", "  • point")),
    ("gopher.max_ellipsis_lines", 0.3, lines(10, 3, "plain.", "and so…  "), lines(10, 4, "plain.", "and so...")),
    ("gopher.min_alphabetic", 0.8, "word " * 8 + "12 3", "word " * 7 + "12 3 4"),
    ("gopher.min_alphabetic", 0.8, "ß é 字 x1 " * 2 + "1 2", "ß é 字 1x " * 2 + "1 2 3"),
    ("gopher.min_stop_words", 2, "the way and the stones", "the way, the stones; The end: and. THAT"),
    ("c4.min_sentences", 3, "One. Two! Three?", "One. Two! v1.2.3 is three"),
    ("c4.min_sentences", 3, "He said “One.” (Two.) 三。", "No.1 is not. Two."),
    ("c4.lorem_ipsum", True, "lorem and ipsum", "Lorem Ipsum dolor"),
    ("c4.curly_bracket", True, "an end }", "a begin {"),
    ("fineweb.min_punctuated_lines", 0.12, lines(25, 4, "plain", "end."), lines(25, 3, "plain", "end.")),
    ("fineweb.min_punctuated_lines", 0.12, lines(8, 1, "plain", "said “so”  "), lines(9, 1, "plain", "said “so”  ")),
    (
        "fineweb.max_duplicate_lines",
        0.1,
        distinct(9, 0, "line #...", "") + "\n" + "line 000...",  # 11 of 110 characters
        distinct(9, 0, "line #...", "")[:-1] + "\n\n  line 000...\n",  # 11 of 109
    ),
    (
        "fineweb.max_short_lines",
        0.67,
        distinct(100, 66, f"{'l' * 27} #", f"{'s' * 26} #"),  # 31 characters, 30 characters
        distinct(100, 67, f"{'l' * 27} #", f"{'s' * 26} #"),
    ),
]


@pytest.mark.parametrize(("rule", "threshold", "kept", "dropped"), RULES)
def test_a_rule_drops_beyond_its_threshold_and_keeps_on_it(
    rule: str, threshold: object, kept: str, dropped: str
) -> None:
    assert judged(kept, rule, threshold) is None
    assert judged(dropped, rule, threshold) == rule


@pytest.mark.parametrize(("rule", "threshold", "kept", "dropped"), RULES)
def test_a_threshold_that_is_off_drops_nothing(rule: str, threshold: object, kept: str, dropped: str) -> None:
    assert judged(dropped, rule, OFF[rule.partition(".")[0]][rule.partition(".")[2]]) is None


@pytest.mark.parametrize(("rule", "threshold"), sorted({(rule, threshold) for rule, threshold, *_ in RULES}, key=str))
def test_the_thresholds_of_the_table_are_the_defaults_of_the_recipe(rule: str, threshold: object) -> None:
    part, _, key = rule.partition(".")
    assert DEFAULT[part][key] == threshold


def test_every_rule_of_the_recipe_is_in_the_table() -> None:
    tried = {rule for rule, *_ in RULES}
    assert tried == {f"{part}.{key}" for part, keys in DEFAULT.items() for key in keys}


def test_a_whole_part_can_be_off() -> None:
    bad = "{ lorem ipsum"
    assert reason(bad, Ingest(gopher=None)) == "c4.curly_bracket"
    assert reason(bad, Ingest(gopher=None, c4=None)) == "fineweb.min_punctuated_lines"
    assert reason(bad, Ingest(gopher=None, c4=None, fineweb=None)) is None


def test_the_first_rule_that_drops_a_document_is_its_reason() -> None:
    assert reason("# {", Ingest()) == "gopher.min_words"


def test_blank_lines_count_for_nothing() -> None:
    text = lines(10, 9, "plain", "- point").replace("\n", "\n\n \n")
    assert judged(text, "gopher.max_bullet_lines", 0.9) is None


def test_text_of_white_space_alone_is_dropped_by_the_first_rule_that_counts() -> None:
    assert reason(" \n\t\n", Ingest()) == "gopher.min_words"
    assert judged(" \n", "gopher.min_mean_word", 3.0) is None
    assert judged(" \n", "fineweb.min_punctuated_lines", 0.12) is None


def test_ordinary_prose_is_kept_by_all_rules() -> None:
    text = (
        "A cairn is a pile of stones that marks a path where there is no path to be seen. Walkers add a stone as they "
        "pass.\nIn fog, you walk from one to the next, and you do not leave one before you have seen the next. That "
        "is the whole of the art.\nThe word is Gaelic, and it is older than the maps that we carry with us today.\n"
    )
    assert reason(text, Ingest()) is None
