"""The quality rules: functions from a view of the document, computed once, to a reason to drop it or None.

A reason is the dotted recipe key of the threshold. Rules of C4 and FineWeb that rewrite a document (removing lines) are
not here: what is kept is kept as it is.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from components.ingest.recipe import C4, FineWeb, Gopher, Ingest

STOP_WORDS = frozenset("the be to of and that have with".split())
BULLETS = ("•", "‣", "◦", "●", "-", "*", "+")
ELLIPSES = ("...", "…")
# Ends of a sentence or a clause, in the scripts of the papers' authors and some more.
PUNCTUATION = tuple(".!?:;,\"'”’»)]。！？：；…")
SHORT_LINE = 30  # characters; FineWeb, section 3.6
_SENTENCE_END = re.compile(r"[.!?。！？][\"'”’)\]]*(?=\s|$)")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True)
class Words:
    """What the rules look at."""

    text: str
    words: list[str]
    """Runs without white space; cut off one after the largest number allowed."""

    @classmethod
    def of(cls, text: str, most: int | None) -> "Words":
        """The view of a text. With `most`, no more than `most` + 1 words are held, however long it is."""
        return cls(text, text.split() if most is None else text.split(None, most))

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not blank, without the white space around them."""
        return [line for line in map(str.strip, self.text.splitlines()) if line]


def reason(text: str, section: Ingest) -> str | None:
    """Why a document of prose is dropped, or None when it is kept."""
    # The other two look at lines and characters: without Gopher's rules no words are needed.
    view = Words.of(text, section.gopher.max_words if section.gopher else 0)
    if section.gopher and (found := gopher(view, section.gopher)):
        return f"gopher.{found}"
    if section.c4 and (found := c4(view, section.c4)):
        return f"c4.{found}"
    if section.fineweb and (found := fineweb(view, section.fineweb)):
        return f"fineweb.{found}"
    return None


def gopher(view: Words, limits: Gopher) -> str | None:
    """Rae et al. 2021, section A1.1."""
    count = len(view.words)
    if limits.min_words is not None and count < limits.min_words:
        return "min_words"
    if limits.max_words is not None and count > limits.max_words:
        return "max_words"
    if not count:
        return None
    mean = sum(map(len, view.words)) / count
    if limits.min_mean_word is not None and mean < limits.min_mean_word:
        return "min_mean_word"
    if limits.max_mean_word is not None and mean > limits.max_mean_word:
        return "max_mean_word"
    if limits.max_symbols is not None:
        symbols = max(view.text.count("#"), sum(map(view.text.count, ELLIPSES)))
        if symbols / count > limits.max_symbols:
            return "max_symbols"
    if limits.max_bullet_lines is not None and _share(view.lines, str.startswith, BULLETS) > limits.max_bullet_lines:
        return "max_bullet_lines"
    if limits.max_ellipsis_lines is not None and _share(view.lines, str.endswith, ELLIPSES) > limits.max_ellipsis_lines:
        return "max_ellipsis_lines"
    if limits.min_alphabetic is not None:
        letters = sum(word.isalpha() or _LETTER.search(word) is not None for word in view.words)
        if letters / count < limits.min_alphabetic:
            return "min_alphabetic"
    if limits.min_stop_words and len(STOP_WORDS.intersection(view.words)) < limits.min_stop_words:
        return "min_stop_words"
    return None


def c4(view: Words, limits: C4) -> str | None:
    """Raffel et al. 2020, section 2.2."""
    if limits.curly_bracket and "{" in view.text:
        return "curly_bracket"
    if limits.lorem_ipsum and "lorem ipsum" in view.text.lower():
        return "lorem_ipsum"
    if limits.min_sentences and sum(1 for _ in _SENTENCE_END.finditer(view.text)) < limits.min_sentences:
        return "min_sentences"
    return None


def fineweb(view: Words, limits: FineWeb) -> str | None:
    """Penedo et al. 2024, section 3.6."""
    if not view.lines:
        return None
    if limits.min_punctuated_lines is not None:
        punctuated = _share(view.lines, str.endswith, PUNCTUATION)
        if punctuated <= limits.min_punctuated_lines:
            return "min_punctuated_lines"
    if limits.max_duplicate_lines is not None:
        repeated = sum(map(len, view.lines)) - sum(map(len, set(view.lines)))
        if repeated / sum(map(len, view.lines)) > limits.max_duplicate_lines:
            return "max_duplicate_lines"
    if limits.max_short_lines is not None:
        short = sum(len(line) <= SHORT_LINE for line in view.lines)
        if short / len(view.lines) >= limits.max_short_lines:
            return "max_short_lines"
    return None


def _share(lines: list[str], test: Callable[[str, tuple[str, ...]], bool], marks: tuple[str, ...]) -> float:
    return sum(test(line, marks) for line in lines) / len(lines) if lines else 0.0
