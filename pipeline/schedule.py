"""Stage 3: the step size of every step."""

from __future__ import annotations

import math

from pipeline.config_learning import TrainingSettings


def rate_of(settings: TrainingSettings, step: int, steps_per_epoch: int) -> float:
    """Return the step size of a step, counted from 0 over all epochs."""
    return learning_rate(
        step,
        highest=settings.learning_rate,
        n_steps=settings.epochs * steps_per_epoch,
        n_warm_up=settings.warm_up * steps_per_epoch,
        cosine=settings.schedule == "cosine",
    )


def learning_rate(step: int, *, highest: float, n_steps: int, n_warm_up: float = 0.0, cosine: bool = False) -> float:
    """Return the step size of step `step` (from 0) of n_steps.

    It rises in a straight line over the first n_warm_up steps, then stays at `highest`, or falls to 0 along half a
    cosine until the end. Sources: Goyal et al. 2017, arXiv 1706.02677 (warm-up); Loshchilov and Hutter 2017,
    arXiv 1608.03983 (cosine).

    >>> [learning_rate(step, highest=1.0, n_steps=6, n_warm_up=2) for step in range(6)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]
    >>> [round(learning_rate(step, highest=1.0, n_steps=6, n_warm_up=2, cosine=True), 3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    risen = min(1.0, (step + 1) / n_warm_up) if n_warm_up else 1.0
    if not cosine:
        return highest * risen
    gone = max(0.0, step - n_warm_up) / max(1.0, n_steps - n_warm_up)
    return highest * risen * (1 + math.cos(math.pi * min(1.0, gone))) / 2
