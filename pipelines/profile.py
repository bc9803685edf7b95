"""The resource profile: which images, and how much of which machines.

It is compiled into the pipeline, the recipe is not: nothing in a profile changes what is made, only where and how fast.
Without one, the compiled pipeline holds a placeholder for the images and cannot be submitted.
"""

import difflib
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

import cairn.recipe
from cairn.recipe import Section
from components.image import PINNED, PLACEHOLDER
from pipelines.stages import NAMES


def _pinned(image: str) -> str:
    if image != PLACEHOLDER and not PINNED.fullmatch(image):
        raise ValueError(f"name the image by its digest, repository@sha256:…; a tag such as {image!r} can be moved")
    return image


def _named(variables: dict[str, str]) -> dict[str, str]:
    for name in variables:
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"{name!r} is no name of a variable: letters, digits and _ make one")
        if name == "CAIRN_IMAGE":
            raise ValueError(f"{name} is set to `image`: attestations say with it what the stage ran in")
    return variables


def _referring(secrets: dict[str, str]) -> dict[str, str]:
    for name, reference in _named(secrets).items():
        if not re.fullmatch(rf"{_SECRET}/[-\w.]+", reference):
            # Perhaps the secret itself, so it is not repeated.
            raise ValueError(f"{name}: write secret-name/key: a Kubernetes secret, and the key in it")
    return secrets


_SECRET = r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?"  # the name of a Kubernetes secret
Image = Annotated[str, AfterValidator(_pinned)]
Variables = Annotated[dict[str, str], AfterValidator(_named)]
Secrets = Annotated[dict[str, str], AfterValidator(_referring)]

HOME = "/etc/cairn"
"""Where a pod finds the signing key that a profile names: its `CAIRN_HOME`."""


class Machine(Section):
    """What one stage runs in. What is not said is left to the cluster."""

    image: Image | None = None
    """Null is the image of the profile."""
    cpu: str | None = Field(default=None, pattern=r"^(\d+(\.\d+)?|\d+m)$")
    """Processors, as Kubernetes writes them: `2`, `500m`."""
    memory: str | None = Field(default=None, pattern=r"^\d+([EPTGMK]i?)?$")
    """As Kubernetes writes it: `16Gi`."""
    accelerator: str | None = Field(default=None, pattern=r"^[\w./-]+$")
    """Its resource name: `nvidia.com/gpu`."""
    accelerators: int = Field(default=1, ge=1)
    """How many, when there is an `accelerator`."""
    environment: Variables = Field(default_factory=dict)
    """Variables such as `CAIRN_PROCESSES` and `CAIRN_WORK`. Never a secret: whoever sees the pipeline sees them."""
    secrets: Secrets = Field(default_factory=dict)
    """Variables whose values Kubernetes secrets hold, each as `secret-name/key`."""

    @field_validator("secrets")
    @classmethod
    def _once(cls, secrets: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        for name in secrets:
            if name in info.data.get("environment", {}):
                raise ValueError(f"{name} is in `environment` too: take it out of one")
        return secrets


class Profile(Section):
    """Images and machines of all stages."""

    image: Image = PLACEHOLDER
    """The image of every stage that does not name its own."""
    signing_key: str | None = Field(default=None, pattern=rf"^{_SECRET}$")
    """The Kubernetes secret that holds the one key, as `signing-key.pem`, which all stages sign attestations with and
    know each other's by. Null where the image or a volume has it at `CAIRN_HOME`, or `CAIRN_SIGNER` says who signs."""
    secrets: Secrets = Field(default_factory=dict)
    """Those of every stage, such as the store's credentials."""
    stages: dict[str, Machine] = Field(default_factory=dict)
    """Stage name to what it needs."""

    @field_validator("secrets")
    @classmethod
    def _no_home(cls, secrets: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        _one_home(set(secrets), info)
        return secrets

    @field_validator("stages")
    @classmethod
    def _known(cls, stages: dict[str, Machine], info: ValidationInfo) -> dict[str, Machine]:
        for name, machine in stages.items():
            _one_home({*machine.environment, *machine.secrets}, info, f"{name}: ")
            if name not in NAMES:
                close = difflib.get_close_matches(name, NAMES, n=1)
                raise ValueError(
                    f"no stage {name!r}; " + (f"did you mean {close[0]!r}?" if close else ", ".join(NAMES))
                )
        return stages

    def machine(self, stage: str) -> Machine:
        """What a stage runs in: image and secrets of the profile filled in where it says nothing else."""
        machine = self.stages.get(stage, Machine())
        common = {name: said for name, said in self.secrets.items() if name not in machine.environment}
        return machine.model_copy(
            update={"image": machine.image or self.image, "secrets": {**common, **machine.secrets}}
        )

    @classmethod
    def read(cls, path: Path) -> "Profile":
        """Raises RecipeError, naming file, line and key."""
        return cairn.recipe.load(cls, path)


def _one_home(variables: set[str], info: ValidationInfo, where: str = "") -> None:
    if info.data.get("signing_key") and "CAIRN_HOME" in variables:
        raise ValueError(f"{where}CAIRN_HOME is where `signing_key` is mounted: name only one of them")
