"""Stage 3: which weights are kept: those of the best epoch, the best mean over some epochs' ends, or the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.history import Epoch, best_epoch
from pipeline.ops import Array

Weights = Mapping[str, Array]  # parameters by dotted name, running statistics included


@dataclass(frozen=True)
class Kept:
    """What training remembers of the epochs so far, beside the weights that move on.

    With `window` = 1 the candidate of an epoch is its weights; else the mean of the weights at the ends of the last
    `window` epochs (fewer at first). Validation, early stopping and the choice of the best epoch look at candidates,
    so what is measured is what would be kept. Source: Izmailov et al. 2018, arXiv 1803.05407. With `last` the newest
    candidate is kept, and validation only tells.
    """

    window: int = 1
    last: bool = False
    history: tuple[Epoch, ...] = ()
    recent: tuple[Weights, ...] = ()  # at the ends of the last epochs, the oldest first, at most `window`
    best: Weights = field(default_factory=dict)  # the candidate that is kept; empty before the first

    def with_weights(self, weights: Weights) -> Kept:
        """Return what is known once an epoch has ended with these weights."""
        return replace(self, recent=(*self.recent, weights)[-self.window :])

    @property
    def candidate(self) -> Weights:
        """Return the weights that would be kept of the last epoch."""
        return mean(self.recent)

    def with_epoch(self, epoch: Epoch, candidate: Weights) -> Kept:
        """Return what is known once the candidate of an epoch was validated."""
        found = replace(self, history=(*self.history, epoch))
        return replace(found, best=candidate) if found.epoch == epoch.number else found

    @property
    def epoch(self) -> int:
        """Return the number of the epoch whose candidate is kept; there must be one."""
        return self.history[-1].number if self.last else best_epoch(self.history)


def mean(snapshots: Sequence[Weights]) -> Weights:
    """Return the mean of weights, summed in float64, in their own dtype.

    >>> mean([{"bias": np.float32([1, 2])}, {"bias": np.float32([2, 4])}])["bias"].tolist()
    [1.5, 3.0]
    """
    if len(snapshots) == 1:
        return snapshots[0]
    means = {}
    for name, first in snapshots[0].items():
        total = np.zeros(first.shape, np.float64)
        for snapshot in snapshots:
            total += snapshot[name]
        means[name] = (total / len(snapshots)).astype(first.dtype)
    return means
