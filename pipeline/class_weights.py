"""Stage 3: weights of classes, so that rare ones count for more than their number; from the training labels alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = Any


def class_counts(labels: Array, n_classes: Sequence[int]) -> tuple[Array, ...]:
    """Return how many items each class has, int64 (n_classes,) a level; labels are (n, n_levels), -1 is unknown.

    >>> class_counts(np.array([[0, 2], [1, -1], [0, 2]]), (2, 3))
    (array([2, 1]), array([0, 0, 2]))
    """
    columns = (labels[:, level] for level in range(len(n_classes)))
    return tuple(np.bincount(column[column >= 0], minlength=n) for column, n in zip(columns, n_classes, strict=True))


def balanced(counts: Array) -> Array:
    """Return weights by which all classes that have items count the same, (n_classes,), with mean 1 over the items.

    >>> balanced(np.array([3, 1]))
    array([0.66666667, 2.        ])
    """
    return _mean_one(1 / np.maximum(counts, 1), counts)


def effective(counts: Array, beta: float) -> Array:
    """Return weights of one over the effective number of items, (1 - beta^n) / (1 - beta), with mean 1 over the items.

    Beta near 0 weighs all classes the same, near 1 it is `balanced`. Source: Cui et al. 2019, arXiv 1901.05555.

    >>> effective(np.array([2, 1]), 0.5)  # effective numbers 1.5 and 1
    array([0.85714286, 1.28571429])
    """
    # 1 - beta^n, exact where beta is near 1.
    return _mean_one((1 - beta) / -np.expm1(np.maximum(counts, 1) * np.log(beta)), counts)


def _mean_one(weights: Array, counts: Array) -> Array:
    """Return the weights scaled so that their mean over the items is 1; a class without items weighs 1.

    Only validation has such a class, which cannot be learned: a large weight would leave early stopping to it alone.
    """
    if not counts.any():
        return np.ones(len(counts))
    return np.where(counts > 0, weights * (counts.sum() / (weights * counts).sum()), 1.0)
