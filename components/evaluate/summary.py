"""What a person sees of the scores."""

import json
from collections.abc import Mapping
from typing import Any

from components.summary import Read, Summary, table


def summary(read: Read) -> Summary:
    """Bits per byte by domain, with intervals, beside the best compressor."""
    scores = json.loads(read("scores", "scores.json"))
    if "masked" in scores:
        return _masked(scores["masked"])
    metrics, rows = {}, []
    for domain, kinds in scores["bits_per_byte"].items():
        for kind, row in kinds.items():
            if not row["documents"]:
                continue
            metrics[f"bits_per_byte_{domain}_{kind}"] = row["bits_per_byte"]
            # The recipe may ask for no compressor at all.
            best, its = min(row["compressors"].items(), key=lambda pair: pair[1], default=("none", ""))
            interval = f"{row['low']:.3f} to {row['high']:.3f}"
            rows.append((domain, kind, row["documents"], row["bits_per_byte"], interval, best, its))
    header = (
        "domain",
        "documents are",
        "documents",
        "bits per byte",
        "95 % interval",
        "best compressor",
        "its bits per byte",
    )
    page = "# Bits per byte on held-out text\n\n" + table(header, rows)
    return Summary({"scores": metrics}, metrics, page)


def _masked(scores: Mapping[str, Any]) -> Summary:
    metrics, rows = {}, []
    for rate, domains in scores.items():
        percent = f"{100 * float(rate):g}"
        for domain, kinds in domains.items():
            for kind, row in kinds.items():
                if not row["tokens"]:
                    continue
                own, right = row["bits_per_byte"], row["accuracy"]["value"]
                metrics[f"bits_per_masked_byte_{percent}_{domain}_{kind}"] = own["value"]
                metrics[f"accuracy_{percent}_{domain}_{kind}"] = right
                interval = f"{own['low']:.3f} to {own['high']:.3f}"
                rows.append((domain, kind, f"{percent} %", row["documents"], own["value"], interval, right))
    header = ("domain", "documents are", "masked", "documents", "bits per masked byte", "95 % interval", "guessed")
    page = "# Masked tokens of held-out text\n\n" + table(header, rows)
    return Summary({"scores": metrics}, metrics, page)
