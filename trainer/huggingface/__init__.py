"""The classes of Hugging Face: what their configuration says of a shape, and what they call its weights."""

from trainer.huggingface.convert import config, from_huggingface, shape_of, to_huggingface

__all__ = ["config", "from_huggingface", "shape_of", "to_huggingface"]
