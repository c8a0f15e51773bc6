"""Stage 3: what training minimises, from the logits and labels of every level; written over `ops` like the layers.

A label of -1 is unknown: the row counts for nothing at that level, and a level is divided by the number
of its known labels. A stop, the class that says that a path has ended above, is a class like the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline import ops
from pipeline.class_weights import balanced, effective
from pipeline.config_learning import TrainingSettings
from pipeline.errors import TrainingError
from pipeline.losses import LOSSES
from pipeline.ops import Array

Loss = Callable[[Sequence[Array], Array], Array]  # (log-probabilities of every level, labels) -> a scalar
Totals = list[tuple[Array, Array]]  # sums of losses, and what they are divided by


class Goal(Protocol):
    """What training minimises: of variables it is a graph, of arrays a number."""

    def __call__(self, logits: Sequence[Array], labels: Array) -> Array:
        """Return the loss, a scalar; logits are (n, n_classes) a level, labels int32 (n, n_levels), -1 is unknown."""

    def totals(self, logits: Sequence[Array], labels: Array) -> Totals:
        """Return sums that may be added up over parts of the items, with their divisors, for `combine`."""

    def combine(self, totals: Totals) -> Array:
        """Return the loss of all items whose totals were added up."""


@dataclass(frozen=True, eq=False)
class Objective:
    """The weighted sum over levels of the mean loss of the labels that are known."""

    level_weights: tuple[float, ...] = ()  # empty: 1 each
    label_smoothing: float = 0.0  # probability spread evenly over the classes of a level
    loss: str = "nll"  # a name in `losses.LOSSES`
    class_weights: tuple[Array, ...] = ()  # (n_classes,) a level: an item counts as much as its class; empty: 1 each

    def __call__(self, logits: Sequence[Array], labels: Array) -> Array:
        """Return the loss, a scalar. A level without a known label adds nothing."""
        return self.combine(self.totals(logits, labels))

    def totals(self, logits: Sequence[Array], labels: Array) -> Totals:
        """Return every level's sum of weighted losses over its known labels, and how many these are."""
        return [self._total(level, level_logits, labels[:, level]) for level, level_logits in enumerate(logits)]

    def _total(self, level: int, logits: Array, labels: Array) -> tuple[Array, Array]:
        o = ops.of(logits, labels)
        known = o.cast(labels >= 0, logits)
        # Class 0 stands in for an unknown label, with weight 0: the engines refuse a target of -1.
        target = o.maximum(labels, 0)
        losses = LOSSES[self.loss](logits, target, self.label_smoothing) * known
        if self.class_weights:
            losses = losses * o.take(self.class_weights[level].astype(logits.dtype), target)
        return o.sum(losses), o.sum(known)

    def combine(self, totals: Totals) -> Array:
        """Return the weighted sum over levels of sum / max(1, number of known labels)."""
        weights = self.level_weights or (1.0,) * len(totals)
        loss = None
        for weight, (total, n_known) in zip(weights, totals, strict=True):
            o = ops.of(total)
            part = o.constant(weight, total) * total / o.maximum(n_known, 1)
            loss = part if loss is None else loss + part
        return loss


@dataclass(frozen=True)
class OwnObjective:
    """A loss of the user's own. Over parts of the items its values are averaged, each weighing as many as it has."""

    loss: Loss

    def __call__(self, logits: Sequence[Array], labels: Array) -> Array:
        """Return loss(log-probabilities of every level, labels). Raises TrainingError where that is not a scalar."""
        o = ops.of(*logits)
        value = self.loss([o.log_softmax(level) for level in logits], labels)
        if np.ndim(value) != 0:
            raise TrainingError(
                f"a loss is one number, and yours has {np.ndim(value)} dimensions; take its mean or sum"
            )
        # Labels are integers, and with float32 they make float64.
        return o.cast(np.float64(value) if isinstance(value, float) else value, logits[0])

    def totals(self, logits: Sequence[Array], labels: Array) -> Totals:
        """Return the loss times the number of items, and that number."""
        n_items = np.asarray(float(len(labels)))
        return [(self(logits, labels) * n_items, n_items)]

    def combine(self, totals: Totals) -> Array:
        """Return the mean over items."""
        ((total, n_items),) = totals
        return total / n_items


def make_objective(
    settings: TrainingSettings, class_counts: Sequence[Array] | None = None, *, loss: Loss | None = None
) -> Goal:
    """Return what the settings ask for, or the loss of the user's own.

    Class weights are made of the number of training items of each class, (n_classes,) a level. Raises TrainingError
    where these are missing.
    """
    if loss is not None:
        return OwnObjective(loss)
    weights: tuple[Array, ...] = ()
    if settings.class_weights != "none":
        if class_counts is None:
            raise TrainingError(f"class_weights = {settings.class_weights} needs the number of items of each class")
        weights = tuple(
            balanced(level) if settings.class_weights == "balanced" else effective(level, settings.class_weights_beta)
            for level in class_counts
        )
    return Objective(settings.level_weights, settings.label_smoothing, settings.loss, weights)
