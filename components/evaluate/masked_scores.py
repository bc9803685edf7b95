"""The scores of a model that guesses masked tokens.

scores.json      for each rate and domain, naive and filtered: documents, masked tokens and their bytes; bits per masked
                 token and byte and the share of first guesses that are right, each with its interval
documents.jsonl  for every held-out document and rate: masked tokens, bytes, bits and hits, for paired comparison
samples.json     held-out text in which tokens were masked, what the model guessed and what was there

No compressor stands beside: the model is shown most of the text, and a compressor nothing.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cairn.lineage.artifact import canonical, readable
from components.evaluate.bits import stride_of
from components.evaluate.bootstrap import interval
from components.evaluate.masked import Found, MaskedScorer
from components.evaluate.recipe import Evaluate
from components.tokenize.encoding import Ids

MEASURES = {"bits_per_byte": ("bits", "bytes"), "bits_per_token": ("bits", "tokens"), "accuracy": ("hits", "tokens")}
"""What is told of the masked tokens of documents: a sum, by another."""


def evaluate_masked(
    section: Evaluate,
    scorer: MaskedScorer,
    heldout: Sequence[Mapping[str, Any]],
    chosen: Mapping[tuple[str, str], Sequence[int]],
    scores: Path,
) -> None:
    """Fill `scores`.

    Args:
        chosen: the documents of each domain and set.

    Raises:
        StageError: the tokens do not add up to the bytes of the text.
    """
    stride = stride_of(section, scorer.scorer)
    encoded = [scorer.scorer.encode(record["text"]) for record in heldout]
    found = {str(rate): found_at(section, scorer, heldout, encoded, rate, stride) for rate in section.mask_rates}
    table: dict[str, Any] = {rate: {} for rate in found}
    for rate, of_documents in found.items():
        for (domain, kind), indices in chosen.items():
            row = masked_row([of_documents[index] for index in indices], section)
            table[rate].setdefault(domain, {})[kind] = row
    context = scorer.scorer.context
    setting = {"context": context, "stride": stride, "leak_threshold": section.leak_threshold, "seed": section.seed}
    (scores / "scores.json").write_bytes(readable({"masked": table, "setting": setting}))
    with open(scores / "documents.jsonl", "wb") as file:
        for index, record in enumerate(heldout):
            kept = {name: record[name] for name in ("id", "domain", "bytes", "overlap")}
            masked = {rate: asdict(of_documents[index]) for rate, of_documents in found.items()}
            file.write(canonical({**kept, "masked": masked}) + b"\n")
    samples = _samples(section, scorer, heldout, encoded, chosen)
    (scores / "samples.json").write_bytes(readable(samples))
    _show(table)


def found_at(
    section: Evaluate,
    scorer: MaskedScorer,
    heldout: Sequence[Mapping[str, Any]],
    encoded: Sequence[Ids],
    rate: float,
    stride: int,
) -> list[Found]:
    """What the model makes of every document at one rate, rounded to what repeats on other machines."""
    at = [
        scorer.places(record["id"], len(ids), rate, section.seed) for record, ids in zip(heldout, encoded, strict=True)
    ]
    found = scorer.score(encoded, at, stride)
    return [Found(one.tokens, one.bytes, round(one.bits, 2), one.hits) for one in found]


def masked_row(found: Sequence[Found], section: Evaluate) -> dict[str, Any]:
    """What a domain scored over these documents."""
    tokens = sum(one.tokens for one in found)
    row: dict[str, Any] = {"documents": len(found), "tokens": tokens, "bytes": sum(one.bytes for one in found)}
    if not tokens:
        return row
    for measure, (part, whole) in MEASURES.items():
        parts, wholes = [getattr(one, part) for one in found], [getattr(one, whole) for one in found]
        low, high = interval(parts, wholes, section.resamples, section.seed)
        row[measure] = {"value": round(sum(parts) / sum(wholes), 4), "low": round(low, 4), "high": round(high, 4)}
    return row


def _samples(
    section: Evaluate,
    scorer: MaskedScorer,
    heldout: Sequence[Mapping[str, Any]],
    encoded: Sequence[Ids],
    chosen: Mapping[tuple[str, str], Sequence[int]],
) -> list[dict[str, Any]]:
    samples = []
    size = min(1 + section.prompt_tokens + section.continuation_tokens, scorer.scorer.context)
    for (domain, kind), indices in chosen.items():
        for index in indices[: section.prompts] if kind == "filtered" else ():
            ids = encoded[index][:size]
            at = scorer.places(heldout[index]["id"], len(ids), section.mask_rates[0], section.seed)
            pieces = scorer.filled(ids, at)
            samples.append({"domain": domain, "document": heldout[index]["id"], "pieces": pieces})
    return samples


def _show(table: Mapping[str, Any]) -> None:
    """The scores as a table on stderr."""
    for rate, domains in table.items():
        for domain, kinds in domains.items():
            for kind, row in kinds.items():
                named = f"evaluate: {domain} {kind}, {100 * float(rate):g} % masked"
                if not row["tokens"]:
                    print(f"{named}: no documents", file=sys.stderr)
                    continue
                own = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**row["bits_per_byte"])
                right = row["accuracy"]["value"]
                said = f"{own} bits per masked byte, {right:.1%} guessed, over {row['documents']} documents"
                print(f"{named}: {said}", file=sys.stderr)
