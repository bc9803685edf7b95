"""What a person decides about the exported model."""

from typing import Literal

from pydantic import Field

from cairn.recipe import Licence, Section


class Export(Section):
    """The form in which the model is handed on."""

    name: str = Field(default="cairn-tiny", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What the model card calls it."""
    licence: Licence = "Apache-2.0"
    """SPDX expression for the licence of the weights; `LicenseRef-…` for a licence without an SPDX name."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights in the files."""
    shard_bytes: int = Field(default=4_000_000_000, gt=0)
    """Size of a weights file at most."""
    tolerance: float = Field(default=1e-4, gt=0)
    """Largest difference of a logit from the trainer's, as a share of the largest logit (at least of 1)."""
