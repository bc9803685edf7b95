"""How the learning rate moves: a pure function of the step.

The rate does not follow the batch: a ramp of the batch is there to make more updates of the same text at the beginning.
"""

import math

from trainer.recipe import Schedule


def rate(schedule: Schedule, step: int, steps: int) -> float:
    """The factor on every learning rate at `step` (from 0) of `steps`: warm-up, plateau, decay.

    The step after the last one would have the share `final` of the rate; so no step is spent at a rate of zero.
    """
    warmup = schedule.warmup * steps
    if step + 1 < warmup:
        return (step + 1) / warmup
    decay = schedule.decay * steps if schedule.kind == "wsd" else steps - warmup
    left = steps - step
    if left >= decay:
        return 1.0
    return schedule.final + (1 - schedule.final) * _fallen(schedule, left / decay)


def _fallen(schedule: Schedule, left: float) -> float:
    """The rate, from 1 to 0, when the share `left` of the decay is still to come."""
    if schedule.kind == "cosine":
        return (1 - math.cos(math.pi * left)) / 2
    if schedule.kind == "wsd" and schedule.shape == "sqrt":
        return 1 - math.sqrt(1 - left)
    return left
