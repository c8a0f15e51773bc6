"""Stage 4: how good labels, paths and probabilities are. Classes are counted by full path, never by name alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.integer[Any]]
Flags = npt.NDArray[np.bool_]


def accuracy(predicted: Indices, given: Indices) -> float | None:
    """Return the share of the known labels (given >= 0) that are predicted right; None where none is known.

    >>> accuracy(np.array([0, 1, 2]), np.array([0, 2, -1]))
    0.5
    """
    known = given >= 0
    return float(np.mean(predicted[known] == given[known])) if known.any() else None


def path_accuracy(predicted: Indices, given: Indices) -> float | None:
    """Return the share of items whose whole path is right, of those known at every level; both (n, n_levels).

    >>> path_accuracy(np.array([[0, 1], [0, 1], [0, 1]]), np.array([[0, 1], [0, 2], [0, -1]]))
    0.5
    """
    known = (given >= 0).all(axis=1)
    return float(np.mean((predicted[known] == given[known]).all(axis=1))) if known.any() else None


def majority_class(counts: Indices) -> int | None:
    """Return the class with the most items, the lower of equals; None where no class has one.

    >>> majority_class(np.array([0, 1, 2, 2])), majority_class(np.array([0, 0]))
    (2, None)
    """
    return int(np.argmax(counts)) if counts.any() else None


def log_loss(probability: Floats) -> float | None:
    """Return the mean negative natural logarithm of the probabilities that the given labels have; None without any.

    A probability of zero counts as the smallest positive float64.

    >>> round(log_loss(np.array([0.5, 0.25])), 4)
    1.0397
    """
    if not len(probability):
        return None
    return float(-np.log(np.maximum(probability.astype(np.float64), np.finfo(np.float64).tiny)).mean())


def expected_calibration_error(confidence: Floats, correct: Flags, *, n_bins: int = 15) -> float | None:
    """Return the mean over the items of |accuracy - mean confidence| of the item's bin; None without items.

    Bins are equally wide and closed above, (0, 1/15] to (14/15, 1]; a confidence of 0 falls in the first.
    Source: Guo et al. 2017, arXiv 1706.04599.

    >>> round(expected_calibration_error(np.array([1.0, 1.0, 0.6]), np.array([True, False, True])), 4)
    0.4667
    """
    if not len(confidence):
        return None
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    gap = np.bincount(bins, weights=correct - confidence.astype(np.float64), minlength=n_bins)
    return float(np.abs(gap).sum() / len(confidence))


def f1_scores(predicted: Indices, given: Indices) -> dict[str, float | None]:
    """Return `macro_f1` and `weighted_f1` over the known labels; None where none is known.

    The F1 of a class is 2 TP / (2 TP + FP + FN). Macro is the plain mean over the classes that are given or
    predicted at least once, weighted the mean by how often a class is given; as scikit-learn defines both.

    >>> f1_scores(np.array([0, 0, 1]), np.array([0, 1, 1]))
    {'macro_f1': 0.6666666666666666, 'weighted_f1': 0.6666666666666666}
    """
    known = given >= 0
    if not known.any():
        return {"macro_f1": None, "weighted_f1": None}
    predicted, given = predicted[known], given[known]
    size = int(np.max([predicted, given])) + 1
    hits = np.bincount(given[predicted == given], minlength=size)
    n_given, n_predicted = np.bincount(given, minlength=size), np.bincount(predicted, minlength=size)
    seen = n_given + n_predicted > 0
    f1 = 2 * hits[seen] / (n_given + n_predicted)[seen]
    return {"macro_f1": float(f1.mean()), "weighted_f1": float(np.average(f1, weights=n_given[seen]))}
