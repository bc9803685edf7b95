"""What the export is checked with, in a process of its own: the files as a user would load them.

python -m components.export.parity MODEL TOKENS.safetensors LOGITS.safetensors
"""

import os
import sys
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"


def main(model: str, asked: str, answered: str) -> None:
    """Write the fp32 logits of `model` for the tokens in `asked`."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    # A pair, because of `output_loading_info`; the library's own annotation does not know.
    pair: Any = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False, output_loading_info=True
    )
    loaded, said = pair
    odd = {kind: sorted(map(str, names)) for kind, names in said.items() if names}
    if odd:
        sys.exit(f"weights do not fit the class: {odd}")
    with torch.no_grad():
        logits = loaded.eval()(load_file(asked)["tokens"]).logits
    save_file({"logits": logits.float().contiguous()}, answered)


if __name__ == "__main__":
    main(*sys.argv[1:])
