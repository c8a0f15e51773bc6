"""Stage 3: what training minimises, from the logits and labels of every level; written over `ops` like the layers.

A label of -1 is unknown: the row counts for nothing at that level, and a level is divided by the number
of its known labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline import ops
from pipeline.ops import Array


@dataclass(frozen=True)
class Objective:
    """The weighted sum over levels of the mean negative log-likelihood of the labels that are known."""

    level_weights: tuple[float, ...] = ()  # empty: 1 each
    label_smoothing: float = 0.0  # probability spread evenly over the classes of a level

    def __call__(self, logits: Sequence[Array], labels: Array) -> Array:
        """Return the loss, a scalar.

        logits are (n, n_classes) a level; labels int32 (n, n_levels), -1 is unknown. A level without a
        known label adds nothing.
        """
        totals = [self.total(level_logits, labels[:, level]) for level, level_logits in enumerate(logits)]
        return self.combine(totals)

    def total(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """Return one level's sum of losses over its known labels, and how many these are."""
        o = ops.of(logits, labels)
        known = o.cast(labels >= 0, logits)
        # Class 0 stands in for an unknown label, with weight 0: the engines refuse a target of -1.
        losses = self.row_losses(logits, o.maximum(labels, 0))
        return o.sum(losses * known), o.sum(known)

    def row_losses(self, logits: Array, target: Array) -> Array:
        """Return each row's cross-entropy against (1 - smoothing) of its class and smoothing spread evenly, (n,)."""
        o = ops.of(logits, target)
        losses = o.negative_log_likelihood(logits, target)
        if not self.label_smoothing:
            return losses
        # The smoothed cross-entropy, with the fused negative log-likelihood as the only softmax in it:
        # -(1 - e) log p_t - e mean(log p) = -log p_t + e (logit_t - mean(logits)).
        spread = o.pick(logits, target) - o.mean(logits, axis=1)
        return losses + o.constant(self.label_smoothing, logits) * spread

    def combine(self, totals: Sequence[tuple[Array, Array]]) -> Array:
        """Return the weighted sum over levels of sum / max(1, number of known labels)."""
        weights = self.level_weights or (1.0,) * len(totals)
        loss = None
        for weight, (total, n_known) in zip(weights, totals, strict=True):
            o = ops.of(total)
            part = o.constant(weight, total) * total / o.maximum(n_known, 1)
            loss = part if loss is None else loss + part
        return loss
