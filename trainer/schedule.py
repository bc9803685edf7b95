"""How the learning rate moves: a pure function of the step."""

from trainer.recipe import Schedule


def rate(schedule: Schedule, step: int, steps: int) -> float:
    """The factor on every learning rate at `step` (from 0) of `steps`: warm-up, plateau, linear decay."""
    warmup = schedule.warmup * steps
    if step + 1 < warmup:
        return (step + 1) / warmup
    decay = schedule.decay * steps
    left = steps - step
    if left >= decay:
        return 1.0
    return schedule.final + (1 - schedule.final) * left / decay
