"""Python source as two kinds of text: code without docstrings, and docstrings. The code is parsed and never run.

The help texts that `help()` shows, `pydoc_data/topics.py` of the standard library, are prose in a Python literal: each
of its values counts as a docstring, and the file is no code.
"""

import ast
import io
import tokenize
import warnings
from collections.abc import Iterator

HELP_TOPICS = "/pydoc_data/topics.py"
Refusal = tuple[str, int]
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def texts(data: bytes, read: str, uri: str) -> Iterator[str | Refusal | UnicodeDecodeError]:
    """The texts of one source file.

    Args:
        read: `python-code`, for one text: the source without its docstrings; or `python-docstrings`, for each of them
            in the order of the source, indentation removed as `inspect.cleandoc` does.

    Yields:
        A text; or the reason why there is none, with its size in bytes: `not_python` for what this interpreter cannot
        parse, `help_topics` for the file that is no code; or the error when the file is not in its own encoding.
    """
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        # Lines as the parser counts them: a form feed ends none.
        source = data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        yield error
        return
    except (SyntaxError, LookupError):
        yield _fault(data)
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield "not_python", len(data)
        return
    topics = uri.endswith(HELP_TOPICS)
    if read == "python-docstrings":
        yield from _help_topics(tree) if topics else _docstrings(tree)
    elif topics:
        yield "help_topics", len(data)
    else:
        yield _without_docstrings(source, tree)


def _fault(data: bytes) -> Refusal | UnicodeDecodeError:
    """`detect_encoding` reports bad UTF-8 in the first two lines as a syntax error: tell the two apart."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error
    return "not_python", len(data)


def _docstrings(tree: ast.Module) -> Iterator[str]:
    for node in _documented(tree):
        yield ast.get_docstring(node) or ""


def _help_topics(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for value in node.value.values:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value


def _without_docstrings(source: str, tree: ast.Module) -> str:
    lines = source.split("\n")
    dropped: set[int] = set()
    for node in _documented(tree):
        docstring = node.body[0]
        first, last = docstring.lineno - 1, (docstring.end_lineno or docstring.lineno) - 1
        # The parser counts columns in bytes of UTF-8.
        before = lines[first].encode()[: docstring.col_offset].strip()
        after = lines[last].encode()[docstring.end_col_offset :].strip()
        # One that shares a line with code stays: `def f(): "text"`.
        if not before and (not after or after.startswith(b"#")):
            dropped.update(range(first, last + 1))
    return "\n".join(line for number, line in enumerate(lines) if number not in dropped)


def _documented(
    tree: ast.Module,
) -> list[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """What has a docstring, in the order of the source."""
    found = [node for node in ast.walk(tree) if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False)]
    return sorted(found, key=lambda node: (node.body[0].lineno, node.body[0].col_offset))
