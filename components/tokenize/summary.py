"""What a person sees of tokenizer and tokens."""

import json

from components.summary import Read, Summary


def summary(read: Read) -> Summary:
    """Tokens in each split, and how many bytes of text one stands for."""
    manifest = json.loads(read("tokens", "tokens.json"))
    total = {
        split: {unit: sum(shard[unit] for shard in said["shards"]) for unit in ("tokens", "documents", "bytes")}
        for split, said in manifest["splits"].items()
    }
    tokens = {f"{split}_tokens": counted["tokens"] for split, counted in total.items()}
    per_token = {
        f"{split}_bytes_per_token": round(counted["bytes"] / counted["tokens"], 3)
        for split, counted in total.items()
        if counted["tokens"]
    }
    vocabulary = {"vocabulary": manifest["vocab_size"]}
    return Summary(
        {"tokenizer": vocabulary, "tokens": {**tokens, **vocabulary, "dtype": manifest["dtype"]}},
        {**tokens, **per_token, **vocabulary},
    )
