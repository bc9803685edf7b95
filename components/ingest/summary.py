"""What a person sees of the documents: the ledger."""

import json
from collections import Counter

from components.summary import Read, Summary, table


def summary(read: Read) -> Summary:
    """What came in, what was kept in each split, and what was dropped by which rule."""
    ledger = json.loads(read("documents", "ledger.json"))
    sources = ledger["sources"]
    came = sum(row["in"]["documents"] for row in sources.values())
    splits = {
        split: {unit: sum(row[unit] for row in domains.values()) for unit in ("documents", "bytes")}
        for split, domains in ledger["splits"].items()
    }
    kept = sum(counted["documents"] for counted in splits.values())
    dropped: Counter[tuple[str, str]] = Counter()
    for name, row in sources.items():
        dropped.update({(name, rule): counted["documents"] for rule, counted in row["dropped"].items()})
    composition = [
        (split, domain, counted["documents"], counted["bytes"])
        for split, domains in ledger["splits"].items()
        for domain, counted in domains.items()
    ]
    page = "\n".join(
        (
            "# Documents\n",
            table(
                ("source", "licence", "objects", "documents in", "kept"),
                [
                    (name, row["licence"], row["objects"], row["in"]["documents"], row["kept"]["documents"])
                    for name, row in sources.items()
                ],
            ),
            "## Kept\n",
            table(("split", "domain", "documents", "bytes"), composition),
            "## Dropped\n",
            table(("source", "by", "documents"), [(*who, number) for who, number in dropped.most_common()]),
        )
    )
    properties = {f"{split}_{unit}": splits[split][unit] for split in splits for unit in ("documents", "bytes")}
    metrics = {"documents_in": came, "documents_kept": kept, "documents_dropped": came - kept}
    return Summary({"documents": properties}, {**metrics, **properties}, page)
