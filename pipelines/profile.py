"""The resource profile: which images, and how much of which machines.

It is compiled into the pipeline, the recipe is not: nothing in a profile changes what is made, only where and how fast.
Without one, the compiled pipeline holds a placeholder for the images and cannot be submitted.
"""

import difflib
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

import cairn.recipe
from cairn.recipe import Section
from components.image import PINNED, PLACEHOLDER
from pipelines.stages import NAMES


def _pinned(image: str) -> str:
    if image != PLACEHOLDER and not PINNED.fullmatch(image):
        raise ValueError(f"name the image by its digest, repository@sha256:…; a tag such as {image!r} can be moved")
    return image


Image = Annotated[str, AfterValidator(_pinned)]


class Machine(Section):
    """What one stage runs in. What is not said is left to the cluster."""

    image: Image | None = None
    """Null is the image of the profile."""
    cpu: str | None = Field(default=None, pattern=r"^(\d+(\.\d+)?|\d+m)$")
    """Processors, as Kubernetes writes them: `2`, `500m`."""
    memory: str | None = Field(default=None, pattern=r"^\d+([EPTGMK]i?)?$")
    """As Kubernetes writes it: `16Gi`."""
    accelerator: str | None = None
    """Its resource name: `nvidia.com/gpu`."""
    accelerators: int = Field(default=1, ge=1)
    """How many, when there is an `accelerator`."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables such as `CAIRN_PROCESSES` and `CAIRN_WORK`. Never a secret: whoever sees the pipeline sees them."""


class Profile(Section):
    """Images and machines of all stages."""

    image: Image = PLACEHOLDER
    """The image of every stage that does not name its own."""
    stages: dict[str, Machine] = Field(default_factory=dict)
    """Stage name to what it needs."""

    @field_validator("stages")
    @classmethod
    def _known(cls, stages: dict[str, Machine]) -> dict[str, Machine]:
        for name in stages:
            if name not in NAMES:
                close = difflib.get_close_matches(name, NAMES, n=1)
                raise ValueError(
                    f"no stage {name!r}; " + (f"did you mean {close[0]!r}?" if close else ", ".join(NAMES))
                )
        return stages

    def machine(self, stage: str) -> Machine:
        """What a stage runs in, its image filled in."""
        machine = self.stages.get(stage, Machine())
        return machine.model_copy(update={"image": machine.image or self.image})

    @classmethod
    def read(cls, path: Path) -> "Profile":
        """Raises RecipeError, naming file, line and key."""
        return cairn.recipe.load(cls, path)
