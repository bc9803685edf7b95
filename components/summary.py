"""What a person sees, in Kubeflow's pages, of what a stage made: properties of artifacts, numbers to compare runs by, a
page. Each component says it in its `summary.py`, from a few small files of its outputs."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cairn.lineage.store import Store

_MARKUP = frozenset(string.punctuation) - frozenset("-.,:")


@dataclass(frozen=True)
class Read:
    """What there is to say it from. Called, it gives the bytes of one small file, by the name of its artifact and the
    path in it."""

    store: Store
    digests: Mapping[str, str]
    """Of the inputs and outputs of the stage."""

    def __call__(self, name: str, path: str) -> bytes:
        """Raises StoreError when the file is not there, or not what its digest says."""
        return self.store.read_member(self.digests[name], path)


@dataclass(frozen=True)
class Summary:
    """What a person sees of a stage."""

    properties: Mapping[str, Mapping[str, str | float]] = field(default_factory=dict)
    """Properties of each output, besides digest, size and version, which every output has."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Numbers that runs are compared by."""
    page: str = ""
    """Markdown, or HTML where the component says so."""


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table: words to the left, numbers to the right. No text in it is taken for markup."""
    numbers = [bool(rows) and all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(header))]
    ruler = ["---:" if number else "---" for number in numbers]
    lines = [list(header), ruler, *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def escaped(text: str) -> str:
    """`text` as Markdown that shows it as it is, on one line. What cannot be printed becomes U+FFFD."""
    # Numeric references: no Markdown reader takes them for markup, inside a table or out.
    shown = (f"&#{ord(one)};" if one in _MARKUP else one for one in " ".join(text.split()))
    return "".join(one if one.isprintable() else "\ufffd" for one in shown)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) else escaped(str(value))
