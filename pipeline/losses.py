"""Stage 3: the losses of rows, from the logits of one level and their labels; written over `ops` like the layers.

Smoothing is the same for all: the label is the given class with probability 1 - smoothing, and any class of the level
with probability smoothing / n_classes; the loss is the mean over these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline import ops
from pipeline.ops import Array

RowLosses = Callable[[Array, Array, float], Array]


def negative_log_likelihood(logits: Array, target: Array, smoothing: float) -> Array:
    """Return -log softmax(logits)[target] of each row, smoothed, (n,); logits are (n, n_classes), target int32 (n,)."""
    o = ops.of(logits, target)
    losses = o.negative_log_likelihood(logits, target)
    if not smoothing:
        return losses
    # The smoothed cross-entropy, with the fused negative log-likelihood as the only softmax in it:
    # -(1 - e) log p_t - e mean(log p) = -log p_t + e (logit_t - mean(logits)).
    spread = o.pick(logits, target) - o.mean(logits, axis=1)
    return losses + o.constant(smoothing, logits) * spread


def squared_hinge(logits: Array, target: Array, smoothing: float) -> Array:
    """Return the squared hinge of each row, one class against the rest, smoothed, (n,).

    The sum over classes of max(0, 1 - y f)^2, with y = 1 for the label and -1 for the others, as LinearSVC has it, and
    f = logit - 1. Source: Tang 2013, arXiv 1306.0239.
    """
    o = ops.of(logits, target)
    # Logits start near 0, where every class but the label is to be: with f = logit hundreds of easy negatives
    # would have the first steps, and the clipping of the gradient, to themselves. A softmax sees no difference.
    as_other = _square(o.relu(logits))
    losses = o.sum(as_other, axis=1)
    two = o.constant(2, logits)
    if not smoothing:
        given = o.pick(logits, target)
        return losses + _square(o.relu(two - given)) - _square(o.relu(given))
    dearer = _square(o.relu(two - logits)) - as_other  # what a class costs more as the label than as another
    kept, spread = o.constant(1 - smoothing, logits), o.constant(smoothing, logits)
    return losses + kept * o.pick(dearer, target) + spread * o.mean(dearer, axis=1)


LOSSES: Mapping[str, RowLosses] = {"nll": negative_log_likelihood, "hinge": squared_hinge}


def _square(x: Array) -> Array:
    return x * x
