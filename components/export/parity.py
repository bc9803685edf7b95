"""What the export is checked with, in a process of its own: the files as a user would load them.

python -m components.export.parity MODEL EXPECTED.safetensors

EXPECTED holds `tokens` (batch, time) and the trainer's `logits` for them; the largest difference is printed as JSON.
"""

import json
import sys
from pathlib import Path

from cairn.errors import guard


def compare(model: Path, expected: Path) -> int:
    """Print how far the logits of `model` are from those expected."""
    import torch
    from safetensors.torch import load_file

    from components.export.loading import load_model

    held = load_file(expected)
    with torch.no_grad():
        logits = load_model(model, attention="eager")(held["tokens"]).logits.float()
    print(json.dumps({"largest_difference": float((logits - held["logits"]).abs().max())}))
    return 0


if __name__ == "__main__":
    sys.exit(guard(lambda: compare(Path(sys.argv[1]), Path(sys.argv[2]))))
