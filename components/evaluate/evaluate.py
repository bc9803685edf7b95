"""Scores: bits per byte of the exported model by domain, beside compressors, and a few continuations.

scores.json      for each domain, naive and filtered: documents, bytes, bits per byte with its interval, compressors
documents.jsonl  bits and bytes of every held-out document, for paired comparison with another model
samples.json     greedy continuations of held-out text

Of a model that guesses masked tokens these files tell something else: see masked_scores.py.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from cairn.errors import StageError
from cairn.lineage.artifact import canonical, readable
from components.evaluate.bits import Scorer, stride_of
from components.evaluate.bootstrap import interval
from components.evaluate.compressors import compress
from components.evaluate.masked import MaskedScorer
from components.evaluate.masked_scores import evaluate_masked
from components.evaluate.recipe import Evaluate
from components.ingest.documents import read_split
from components.tokenize.encoding import Ids

SETS = ("naive", "filtered")


def evaluate(section: Evaluate, *, model: Path, documents: Path, scores: Path, work: Path, workers: int) -> None:
    """Fill `scores`.

    Raises:
        StageError: there is no held-out text.
        ArtifactError: the model does not load, or the documents are damaged.
    """
    heldout = list(read_split(documents, "heldout"))
    if not heldout:
        raise StageError("no document is held out: raise ingest.split.heldout, or add text")
    scorer = Scorer(model, section.threads)
    chosen = by_domain(heldout, section)
    if scorer.masked:
        evaluate_masked(section, MaskedScorer(scorer, model), heldout, chosen, scores)
        return
    texts = {
        f"{domain} {kind}": [heldout[index]["text"] for index in indices]
        for (domain, kind), indices in chosen.items()
        if indices
    }
    compressed = compress(
        documents, texts, section.ppmd_orders, section.zstd_dictionaries, section.prime_bytes, work / "text", workers
    )
    stride = stride_of(section, scorer)
    encoded = [scorer.encode(record["text"]) for record in heldout]
    # Rounded, because the last digits of fp32 depend on the machine, and these files are hashed.
    bits = [round(found, 2) for found in scorer.bits(encoded, stride)]
    table: dict[str, Any] = {}
    for (domain, kind), indices in chosen.items():
        row = row_of([bits[i] for i in indices], [heldout[i]["bytes"] for i in indices], section)
        if indices:
            row["compressors"] = {name: round(found[f"{domain} {kind}"], 4) for name, found in compressed.items()}
        table.setdefault(domain, {})[kind] = row
    setting = {"context": scorer.context, "stride": stride, "leak_threshold": section.leak_threshold}
    (scores / "scores.json").write_bytes(readable({"bits_per_byte": table, "setting": setting}))
    with open(scores / "documents.jsonl", "wb") as file:
        for record, found in zip(heldout, bits, strict=True):
            kept = {name: record[name] for name in ("id", "domain", "bytes", "overlap")}
            file.write(canonical({**kept, "bits": found}) + b"\n")
    (scores / "samples.json").write_bytes(readable(_samples(section, scorer, heldout, encoded, chosen)))
    shutil.rmtree(work / "text")
    _show(table)


def by_domain(heldout: list[dict[str, Any]], section: Evaluate) -> dict[tuple[str, str], list[int]]:
    """Which documents count: those of each domain, and of these the ones that the leak filter leaves."""
    return {
        (domain, kind): [
            index
            for index, record in enumerate(heldout)
            if record["domain"] == domain and (kind == "naive" or record["overlap"] < section.leak_threshold)
        ]
        for domain in sorted({record["domain"] for record in heldout})
        for kind in SETS
    }


def row_of(bits: list[float], sizes: list[int], section: Evaluate) -> dict[str, Any]:
    """What a domain scored over these documents, but for the compressors."""
    if not bits:
        return {"documents": 0, "bytes": 0}
    low, high = interval(bits, sizes, section.resamples, section.seed)
    return {
        "documents": len(bits),
        "bytes": sum(sizes),
        "bits_per_byte": round(sum(bits) / sum(sizes), 4),
        "low": round(low, 4),
        "high": round(high, 4),
    }


def _samples(
    section: Evaluate,
    scorer: Scorer,
    heldout: list[dict[str, Any]],
    encoded: list[Ids],
    chosen: dict[tuple[str, str], list[int]],
) -> list[dict[str, str]]:
    samples = []
    for (domain, kind), indices in chosen.items():
        for index in indices[: section.prompts] if kind == "filtered" else ():
            prompt, continuation = scorer.continuation(
                encoded[index], section.prompt_tokens, section.continuation_tokens
            )
            document = heldout[index]["id"]
            samples.append({"domain": domain, "document": document, "prompt": prompt, "continuation": continuation})
    return samples


def _show(table: dict[str, Any]) -> None:
    """The scores as a table on stderr."""
    for domain, kinds in table.items():
        for kind, row in kinds.items():
            if not row["documents"]:
                print(f"evaluate: {domain} {kind}: no documents", file=sys.stderr)
                continue
            beside = ", ".join(f"{name} {value:.3f}" for name, value in row["compressors"].items())
            own = f"{row['bits_per_byte']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
            said = f"{domain} {kind}: {own} bits per byte over {row['documents']} documents; {beside}"
            print(f"evaluate: {said}", file=sys.stderr)
