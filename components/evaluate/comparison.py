"""Two scores compared document by document. Both models read the same text, so what is hard about a document cancels
out, and the difference is known far better than the two intervals side by side would have it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cairn.errors import ArtifactError
from components.evaluate.bootstrap import interval

SETS = ("naive", "filtered")


@dataclass(frozen=True)
class Scored:
    """One held-out document."""

    domain: str
    bytes: int
    bits: float
    overlap: float
    """Share of its word 8-grams that occur in train."""


@dataclass(frozen=True)
class Scores:
    """A scores artifact."""

    documents: Mapping[str, Scored]
    """By document id."""
    table: Mapping[str, Any]
    """Domain and set to documents, bytes, bits per byte and its interval."""
    setting: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One domain, all of it or what the leak filter leaves, under two models."""

    domain: str
    set: str
    first: Mapping[str, Any]
    """As `scores.json` has it, over all documents of that score; empty where it has none."""
    second: Mapping[str, Any]
    documents: int
    """Documents that both scored."""
    difference: float | None
    """Bits per byte of the second less those of the first, over the documents that both scored; None without any."""
    low: float | None
    """The difference's paired 95 % interval."""
    high: float | None

    @property
    def verdict(self) -> str:
        """What the interval allows to say of the second. It covers the choice of documents, not training's seed."""
        if self.low is None or self.high is None:
            return "no common documents"
        return "better" if self.high < 0 else "worse" if self.low > 0 else "not clearly different"


def read_scores(folder: Path) -> Scores:
    """Read a scores artifact. Raises ArtifactError when it is missing, damaged or none."""
    path = folder / "scores.json"
    try:
        said = json.loads(path.read_bytes())
        if "masked" in said:
            return _read_masked(folder, said)
        table, setting = dict(said["bits_per_byte"]), dict(said["setting"])
        for kinds in table.values():
            for kind in SETS:
                row = kinds[kind]
                if row["documents"]:
                    _ = float(row["bits_per_byte"]), float(row["low"]), float(row["high"])
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file: the evaluate stage makes it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: is damaged, or no scores of this version: {error!r}") from None
    return Scores(_documents(folder / "documents.jsonl"), table, setting)


def _read_masked(folder: Path, said: Mapping[str, Any]) -> Scores:
    """Masked tokens at the first rate: bits and bytes are those of the tokens that were masked."""
    rate, domains = next(iter(said["masked"].items()))
    table = {
        domain: {kind: {**row, **row.get("bits_per_byte", {})} for kind, row in kinds.items()}
        for domain, kinds in domains.items()
    }
    for kinds in table.values():
        for row in kinds.values():
            if row["tokens"]:
                row["bits_per_byte"] = float(row["value"])
    return Scores(_documents(folder / "documents.jsonl", rate), table, {**said["setting"], "masked": float(rate)})


def compare(first: Scores, second: Scores, resamples: int = 2000, seed: int = 0) -> list[Row]:
    """Every domain of either, both sets.

    Raises ArtifactError when one is of a model that guesses masked tokens and the other is not.
    """
    if ("masked" in first.setting) != ("masked" in second.setting):
        raise ArtifactError(
            "one model was scored by the next token and the other by masked tokens, which are bits of different "
            "things: compare runs of one kind (pretrain.model.causal)"
        )
    domains = [*first.table, *(domain for domain in second.table if domain not in first.table)]
    # Of masked models, those that other tokens were masked in are left out: another tokenizer, or another seed.
    common = [
        name
        for name, document in first.documents.items()
        if name in second.documents and second.documents[name].bytes == document.bytes
    ]
    rows = []
    for domain in domains:
        for kind in SETS:
            chosen = [name for name in common if all(_counts(one, name, domain, kind) for one in (first, second))]
            rows.append(_row(first, second, domain, kind, chosen, resamples, seed))
    return rows


def _row(
    first: Scores, second: Scores, domain: str, kind: str, chosen: Sequence[str], resamples: int, seed: int
) -> Row:
    one, other = (scores.table.get(domain, {}).get(kind, {}) for scores in (first, second))
    if not chosen:
        return Row(domain, kind, one, other, documents=0, difference=None, low=None, high=None)
    # Both have the same bytes, so the difference of two ratios is one ratio, and its interval the paired one.
    bits = [second.documents[name].bits - first.documents[name].bits for name in chosen]
    sizes = [first.documents[name].bytes for name in chosen]
    low, high = interval(bits, sizes, resamples, seed)
    return Row(domain, kind, one, other, len(chosen), sum(bits) / sum(sizes), low, high)


def _counts(scores: Scores, name: str, domain: str, kind: str) -> bool:
    document = scores.documents[name]
    return (
        document.bytes > 0
        and document.domain == domain
        and (kind == "naive" or document.overlap < scores.setting["leak_threshold"])
    )


def _documents(path: Path, rate: str | None = None) -> dict[str, Scored]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file: the evaluate stage makes it") from None
    found = {}
    for number, line in enumerate(lines, 1):
        try:
            said = json.loads(line)
            scored = said if rate is None else said["masked"][rate]
            document = Scored(str(said["domain"]), int(scored["bytes"]), float(scored["bits"]), float(said["overlap"]))
            found[str(said["id"])] = document
        except (ValueError, KeyError, TypeError):
            raise ArtifactError(f"{path}:{number}: is damaged: run the evaluate stage again") from None
    return found
