"""The operations of the layers on NumPy arrays and SciPy matrices: what scoring runs on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from pipeline.errors import FeatureError

Array = Any  # a NumPy array; for `dot` also a SciPy matrix


def constant(value: float, like: Array) -> Array:
    """Return the number as a scalar in the dtype of `like`."""
    return like.dtype.type(value)


def cast(x: Array, like: Array) -> Array:
    """Return x in the dtype of `like`; x may be a number."""
    return np.asarray(x).astype(like.dtype)


def dot(x: Array, weight: Array) -> Array:
    """Return x @ weight, dense, (n, m); x is dense or a SciPy matrix.

    >>> dot(np.array([[1.0, 2.0]]), np.array([[1.0], [10.0]]))
    array([[21.]])
    """
    return x @ weight


def sum_rows(table: Array, index: Array, mask: Array) -> Array:
    """Return the sum over t of mask[i, t] * table[index[i, t]], (n, m), as one product with a CSR matrix.

    Entries of mask zero are left out. Raises FeatureError for an index outside the table.

    >>> sum_rows(np.array([[0.0], [1.0], [5.0]]), np.array([[2, 0, 2], [1, 2, 0]]), np.array([[1.0, 0, 1], [1, 1, 0]]))
    array([[10.],
           [ 6.]])
    """
    check_index(index, n_rows=table.shape[0])
    kept = mask != 0
    indptr = np.zeros(index.shape[0] + 1, np.int32)
    np.cumsum(kept.sum(axis=1), out=indptr[1:])
    bag = sparse.csr_matrix((mask[kept], index[kept], indptr), shape=(index.shape[0], table.shape[0]))
    return bag @ table


def check_index(index: Array, *, n_rows: int) -> None:
    """Raise FeatureError where an index is below 0 or not below n_rows."""
    if index.size and (index.min() < 0 or index.max() >= n_rows):
        wrong = index[(index < 0) | (index >= n_rows)].flat[0]
        raise FeatureError(
            f"index {wrong} is outside the table of {n_rows:,} rows (0 to {n_rows - 1:,}); "
            "make the features with the vocabulary of this model"
        )


def sum(x: Array, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """Return the sum."""
    return x.sum(axis=axis, keepdims=keepdims)


def mean(x: Array, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """Return the mean."""
    return x.mean(axis=axis, keepdims=keepdims)


def sqrt(x: Array) -> Array:
    """Return the square root."""
    return np.sqrt(x)


def exp(x: Array) -> Array:
    """Return e^x; exactly 0 for minus infinity."""
    return np.exp(x)


def log_sum_exp(x: Array, *, axis: int) -> Array:
    """Return log(sum(exp(x))) along an axis; the largest entry is taken off first, so exp cannot overflow.

    >>> log_sum_exp(np.log(np.array([[1.0, 2.0, 5.0]])), axis=1).round(12) == np.log(8).round(12)
    array([ True])
    """
    largest = x.max(axis=axis, keepdims=True)
    return np.log(np.exp(x - largest).sum(axis=axis)) + largest.squeeze(axis)


def maximum(x: Array, bound: float) -> Array:
    """Return the larger of x and bound, in the dtype of x."""
    return np.maximum(x, x.dtype.type(bound))


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)); exp overflows to infinity below -88 (float32), which rightly gives 0."""
    with np.errstate(over="ignore"):
        result = np.exp(-x)
    result += 1
    return np.reciprocal(result, out=result)


def relu(x: Array) -> Array:
    """Return max(x, 0).

    >>> relu(np.array([-2.0, 0.5]))
    array([0. , 0.5])
    """
    return np.maximum(x, x.dtype.type(0))


def log_softmax(logits: Array) -> Array:
    """Return the log-probabilities of each row; the row's largest logit is taken off first, so exp cannot overflow.

    >>> np.exp(log_softmax(np.array([[1000.0, 1000.0]])))
    array([[0.5, 0.5]])
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def keep_topk(x: Array, k: int) -> Array:
    """Return x where it is among the k largest of its row, minus infinity elsewhere; ties go to the lower index.

    >>> keep_topk(np.array([3.0, 1.0, 3.0, 3.0]), 2)
    array([  3., -inf,   3., -inf])
    """
    order = np.argsort(-x, axis=-1, kind="stable")
    rank = np.argsort(order, axis=-1, kind="stable")
    return np.where(rank < k, x, x.dtype.type(-np.inf))


def take_columns(x: Array, index: Sequence[int]) -> Array:
    """Return x[:, index], (n, len(index)).

    >>> take_columns(np.array([[1.0, 2.0]]), (1, 0, 1))
    array([[2., 1., 2.]])
    """
    return x[:, np.asarray(index, np.int32)]


def pick(matrix: Array, column: Array) -> Array:
    """Return matrix[i, column[i]] of each row, (n,)."""
    return matrix[np.arange(matrix.shape[0]), column]


def take(values: Array, index: Array) -> Array:
    """Return values[index], (n,)."""
    return values[index]


def negative_log_likelihood(logits: Array, target: Array) -> Array:
    """Return -log softmax(logits)[i, target[i]] of each row, (n,)."""
    return -pick(log_softmax(logits), target)
