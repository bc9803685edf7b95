"""What a person sees of training."""

import json

from components.summary import Read, Summary


def summary(read: Read) -> Summary:
    """Size of the model, length of the training, and the last logged step."""
    manifest = json.loads(read("checkpoint", "checkpoint.json"))
    shape = manifest["model"]
    lengths = {"parameters": manifest["parameters"], "tokens_seen": manifest["tokens_seen"], "steps": manifest["step"]}
    last = json.loads(read("checkpoint", "training.jsonl").splitlines()[-1])
    model = {
        "shape": f"{shape['layers']} layers of {shape['width']}, {shape['heads']} heads, context {shape['context']}",
        "seed": manifest["seed"],
        "precision": manifest["precision"],
    }
    numbers = {name: value for name, value in last.items() if name not in ("step", "tokens")}
    return Summary(
        {"checkpoint": {**lengths, **model}, "optimizer": {"steps": manifest["step"]}}, {**lengths, **numbers}
    )
