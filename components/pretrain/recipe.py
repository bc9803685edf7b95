"""The `pretrain` section: what the trainer is asked to do."""

from trainer.recipe import Training


class Pretrain(Training):
    """One training run."""
