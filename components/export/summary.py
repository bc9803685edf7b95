"""What a person sees of the exported model: its card."""

import json

from components.summary import Read, Summary


def summary(read: Read) -> Summary:
    """The model card, and what loads the files."""
    config = json.loads(read("model", "config.json"))
    manifest = json.loads(read("checkpoint", "checkpoint.json"))
    properties = {
        "parameters": manifest["parameters"],
        "tokens_seen": manifest["tokens_seen"],
        "class": config["architectures"][0],
        "dtype": config["dtype"],
        "context": manifest["model"]["context"],
        "vocabulary": config["vocab_size"],
    }
    card = read("model", "README.md").decode()
    # The header of a card is for machines; Kubeflow's page would show it as text.
    return Summary({"model": properties}, page=card.partition("\n---\n")[2].lstrip())
