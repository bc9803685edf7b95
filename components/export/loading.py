"""A model directory, loaded as a user would: by AutoModelForCausalLM, or AutoModelForMaskedLM where its configuration
names a class for that; from the files alone, in fp32.

Stricter than the library in one thing: weights that are missing, left over or of another shape are an error, where it
would draw new ones and say so in a warning.
"""

import os
from pathlib import Path
from typing import Any, Literal

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM
from transformers.utils import logging

from cairn.errors import ArtifactError, one_line


def load_model(folder: Path, attention: Literal["eager"] | None = None) -> Any:
    """The model in `folder`, ready to score.

    Args:
        attention: None is what its class has: fused attention (SDPA), or, as of GPT-1, the plain one.

    Raises:
        ArtifactError: it does not load, or its weights do not fit its class.
    """
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        # Any: the library's annotations do not know that `output_loading_info` makes a pair of what is returned.
        auto: Any = AutoModelForMaskedLM if is_masked(folder) else AutoModelForCausalLM
        loaded, said = auto.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation=attention,
            trust_remote_code=False,
            # Reported below, by name; the library would only point to its log.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise ArtifactError(f"{folder}: does not load as a model: {one_line(error)[:200]}") from None
    odd = {kind: sorted(map(str, names)) for kind, names in said.items() if names}
    if odd:
        raise ArtifactError(f"{folder}: does not load as a model: weights do not fit the class: {one_line(odd)[:200]}")
    return loaded.eval()


def is_masked(folder: Path) -> bool:
    """Whether a model guesses masked tokens, rather than the next. Raises what transformers raises."""
    names: Any = AutoConfig.from_pretrained(folder).architectures
    return bool(names) and names[0].endswith("ForMaskedLM")
