"""Word 8-grams as numbers: equal 8-grams, equal numbers, however the text is cut into pieces."""

import re
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.ingest import ngrams
from components.ingest.ngrams import Hasher, occurring

# Few words, so that 8-grams come again; letters of several scripts, and what is a word by itself.
TEXT = st.lists(st.sampled_from("a b é 字 _x 12 ( . \n".split(" ")), max_size=60).map(" ".join)


def hashes(text: str, hasher: Hasher | None = None) -> list[int]:
    return [int(number) for piece in (hasher or Hasher()).hashes(text) for number in piece]


@given(TEXT, st.integers(1, 9))
def test_a_text_hashed_in_pieces_has_the_hashes_of_the_whole(text: str, words: int) -> None:
    whole = hashes(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngrams, "_PIECE", words)
        assert hashes(text) == whole


@given(TEXT, TEXT)
def test_two_8_grams_have_one_hash_exactly_when_they_are_equal(first: str, second: str) -> None:
    named: dict[int, tuple[str, ...]] = {}
    for text in (first, second):
        words = re.findall(r"\w+|[^\w\s]", text)
        grams = [tuple(words[start : start + 8]) for start in range(len(words) - 7)]
        numbers = hashes(text)
        assert len(numbers) == len(grams)
        for number, gram in zip(numbers, grams, strict=True):
            assert named.setdefault(number, gram) == gram
    assert len(set(named.values())) == len(named)


@given(st.lists(TEXT, max_size=5))
def test_words_that_are_remembered_or_forgotten_change_no_hash(texts: list[str]) -> None:
    fresh = [hashes(text) for text in texts]
    one = Hasher()
    assert [hashes(text, one) for text in texts] == fresh
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngrams, "_KNOWN", 2)
        forgetful = Hasher()
        assert [hashes(text, forgetful) for text in texts] == fresh


def test_an_8_gram_is_a_polynomial_of_the_blake2b_hashes_of_its_words() -> None:
    words = "one two three four five six seven é9".split()
    numbers = [int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little") for word in words]
    base = 0x9E3779B97F4A7C15
    assert hashes(" ".join(words)) == [sum(number * base**k for k, number in enumerate(numbers)) % 2**64]
    assert hashes(" ".join(words[1:])) == []


def test_the_order_of_words_and_brackets_matters() -> None:
    assert hashes("a b c d e f g h") != hashes("b a c d e f g h")
    assert len(hashes("f(a, b)[c]; d")) == 4


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), st.lists(st.integers(0, 2**64 - 1), max_size=30))
def test_what_occurs_is_found_at_its_position(wanted: list[int], other: list[int]) -> None:
    looked_for = np.unique(np.array(wanted, np.uint64))
    seen = np.array([*other, *wanted[::2]], np.uint64)
    expected = {position for position, number in enumerate(looked_for) if number in seen}
    assert set(occurring(looked_for, seen).tolist()) == expected
