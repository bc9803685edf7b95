"""What a person sees of tokenizer and tokens."""

import json
from collections.abc import Mapping

from components.summary import Read, Summary, table
from components.tokenize.fertility import GROUPS, per_token, per_word


def summary(read: Read) -> Summary:
    """Tokens in each split, and how much text one stands for: by domain and by source."""
    manifest = json.loads(read("tokens", "tokens.json"))
    total = {
        split: {unit: sum(shard[unit] for shard in said["shards"]) for unit in ("tokens", "documents", "bytes")}
        for split, said in manifest["splits"].items()
    }
    tokens = {f"{split}_tokens": counted["tokens"] for split, counted in total.items()}
    each = {
        f"{split}_bytes_per_token": round(counted["bytes"] / counted["tokens"], 3)
        for split, counted in total.items()
        if counted["tokens"]
    }
    train = manifest["splits"]["train"]
    fertility = {
        f"train_{name}_{domain}": round(measure(counts), 3)
        for domain, counts in train["domains"].items()
        for name, measure in (("bytes_per_token", per_token), ("tokens_per_word", per_word))
    }
    vocabulary = {"vocabulary": manifest["vocab_size"]}
    return Summary(
        {"tokenizer": vocabulary, "tokens": {**tokens, **vocabulary, "dtype": manifest["dtype"]}},
        {**tokens, **each, **fertility, **vocabulary},
        "# What a token of the train split stands for\n\n"
        + "\n".join(_table(column, train[group]) for group, column in GROUPS.items()),
    )


def _table(column: str, groups: Mapping[str, Mapping[str, int]]) -> str:
    rows = [
        (name, counts["documents"], counts["tokens"], per_token(counts), per_word(counts))
        for name, counts in groups.items()
    ]
    return table((column, "documents", "tokens", "bytes per token", "tokens per word"), rows)
