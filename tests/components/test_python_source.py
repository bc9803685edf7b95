"""Python source as code without docstrings, and as docstrings: to the letter."""

import io
import json
import sysconfig
import tokenize
from pathlib import Path

import pytest

from components.ingest.python_source import texts
from tests.components.corpus import Corpus, ledger, records, source
from tests.components.corpus import texts as texts_of

SOURCE = '''\
#!/usr/bin/env python
"""The module.

    Indented in its docstring.
"""  # a comment beside it goes with it

import this


class Stone:
    """A stone."""

    weight = 1
    """Not a docstring to Python: an expression."""

    def lift(self):
        r"""Lift \\d+ of it.

        Slowly.
        """
        text = """not a docstring"""
        return text

    def drop(self): "On one line."

    async def roll(self):
        "Roll"
        'not joined, and so no docstring'
        def inner():
            """Inner."""
        return inner
'''

CODE = '''\
#!/usr/bin/env python

import this


class Stone:

    weight = 1
    """Not a docstring to Python: an expression."""

    def lift(self):
        text = """not a docstring"""
        return text

    def drop(self): "On one line."

    async def roll(self):
        'not joined, and so no docstring'
        def inner():
        return inner
'''

DOCSTRINGS = [
    "The module.\n\nIndented in its docstring.",
    "A stone.",
    "Lift \\d+ of it.\n\nSlowly.",
    "On one line.",
    "Roll",
    "Inner.",
]


def code(data: bytes | str) -> object:
    return one(data, "python-code")


def one(data: bytes | str, read: str) -> object:
    (found,) = texts(data.encode() if isinstance(data, str) else data, read, "python://stdlib/stone.py")
    return found


def test_code_is_the_source_without_the_lines_of_its_docstrings() -> None:
    assert code(SOURCE) == CODE


def test_docstrings_come_in_the_order_of_the_source_and_without_indentation() -> None:
    assert list(texts(SOURCE.encode(), "python-docstrings", "stone.py")) == DOCSTRINGS


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ('def f():\n    "a" "b"\n    return 1\n', "def f():\n    return 1\n"),
        ('def f():\n    "a" \\\n    "b"\n    return 1\n', "def f():\n    return 1\n"),
        ('def f():\n    "é"; x = 1\n', 'def f():\n    "é"; x = 1\n'),
        ('def é(): "é" # é\n', 'def é(): "é" # é\n'),
        ('def f():\n    ("in "\n     "brackets")\n    return 1\n', "def f():\n    return 1\n"),
        ('"""a\x0cb"""\nx = 1\n', "x = 1\n"),
        ('\x0c\n"""a"""\nx = 1\n', "\x0c\nx = 1\n"),
        ('def f():\n    f"{x} is computed"\n', 'def f():\n    f"{x} is computed"\n'),
        ('def f():\n    b"bytes"\n', 'def f():\n    b"bytes"\n'),
        ('""""""\nx = 1\n', '""""""\nx = 1\n'),
        ("x = 1", "x = 1"),
        ("", ""),
    ],
)
def test_what_shares_a_line_with_code_or_is_no_docstring_stays(written: str, left: str) -> None:
    assert code(written) == left


def test_line_ends_and_encodings_of_the_file_are_those_of_python() -> None:
    assert code('"""é"""\r\nx = "é"\ry = 1\n') == 'x = "é"\ny = 1\n'
    assert code('# coding: latin-1\nx = "é"\n'.encode("latin-1")) == '# coding: latin-1\nx = "é"\n'
    assert code(b"\xef\xbb\xbfx = 1\n") == "x = 1\n"


@pytest.mark.parametrize(
    "data",
    [b'print "python 2"\n', b"# coding: nonsense\nx = 1\n", b"# coding: rot13\nk = 1\n", b"x = \0 1\n", b"(" * 9999],
)
@pytest.mark.parametrize("read", ["python-code", "python-docstrings"])
def test_what_python_does_not_parse_is_refused(data: bytes, read: str) -> None:
    assert one(data, read) == ("not_python", len(data))


@pytest.mark.parametrize("data", [b"\n\n\nx = '\xff'\n", b"x = '\xff'\n", b"# coding: euc-jp\nx = '\xff\xff'\n"])
def test_a_file_that_is_not_in_its_own_encoding_is_told_with_the_byte(data: bytes) -> None:
    error = one(data, "python-code")
    assert isinstance(error, UnicodeDecodeError)
    assert error.start == data.index(b"\xff")


def test_the_help_topics_are_docstrings_and_no_code() -> None:
    topics = b"""\
version = 'no topic'
{'not': 'assigned'}
topics = {'assert': 'The assert statement', 'x': 'A ' + 'sum', 'yield': 'The yield expression'}
"""
    name = "python://stdlib/pydoc_data/topics.py"
    assert list(texts(topics, "python-docstrings", name)) == ["The assert statement", "The yield expression"]
    assert list(texts(topics, "python-code", name)) == [("help_topics", len(topics))]


def by_tokens(data: bytes) -> str:
    """The source without docstrings, found by its tokens: a statement of nothing but text that begins a block."""
    lines = data.decode().split("\n")
    dropped: set[int] = set()
    before: list[str] = []  # of the statement before
    statement: list[tokenize.TokenInfo] = []
    begins = True  # a block
    for token in tokenize.tokenize(io.BytesIO(data).readline):
        if token.type == tokenize.INDENT:
            begins = before[0] in ("def", "class", "async")
        elif token.type == tokenize.NEWLINE:
            if begins and all(part.type == tokenize.STRING and part.string[0] in "'\"rRuU" for part in statement):
                dropped.update(range(statement[0].start[0] - 1, token.start[0]))
            before, statement, begins = [part.string for part in statement], [], False
        elif token.type not in (tokenize.ENCODING, tokenize.COMMENT, tokenize.NL, tokenize.DEDENT):
            statement.append(token)
    return "\n".join(line for number, line in enumerate(lines) if number not in dropped)


@pytest.mark.parametrize("module", ["argparse", "ast", "dataclasses", "json/decoder", "functools", "pathlib", "typing"])
def test_code_of_the_standard_library_is_what_its_tokens_say(module: str) -> None:
    data = Path(sysconfig.get_path("stdlib"), f"{module}.py").read_bytes()
    left = code(data)
    assert left == by_tokens(data)
    assert left != data.decode()


def test_the_standard_library_is_two_domains_of_the_same_files(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    corpus.snapshot(
        source("python://stdlib/json", "code", read="python-code", kind="code"),
        source("python://stdlib/json", "docstrings", read="python-docstrings"),
    )
    documents = corpus.ingest()
    by_source: dict[str, list[str]] = {"code": [], "docstrings": []}
    for record in records(documents):
        by_source[record["source"]].append(record["text"])
    assert len(by_source["code"]) == 5
    first = json.__doc__ or ""
    assert by_source["docstrings"][0].splitlines()[0] == first.strip().splitlines()[0]
    assert not any(first[:40] in text for text in by_source["code"])
    assert all(row["in"]["documents"] for row in ledger(documents)["sources"].values())


def test_a_docstring_with_half_a_character_is_dropped_and_counted(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    corpus.put("a.py", '"""half \\ud83d of one"""\ndef f():\n    """whole"""\n')
    corpus.snapshot(source(corpus.text, read="python-docstrings"))
    documents = corpus.ingest()
    assert texts_of(documents) == ["whole"]
    assert ledger(documents)["sources"]["text"]["dropped"] == {"lone_surrogate": {"documents": 1, "bytes": 15}}
