"""The operations that layers and losses are written over, on arrays (NumPy) and on graphs (Theano, PyTensor).

`of(x)` picks by the type of its arguments: an expression of an engine gives that engine, anything else
gives `numeric`. Arithmetic, comparison, slicing and indexing by a slice are the objects' own operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from pipeline.ops import numeric

Array: TypeAlias = Any  # a NumPy array, a SciPy matrix, or a variable of an engine
ENGINES = ("theano", "pytensor")


class Ops(Protocol):
    """What `numeric` (a module) and `symbolic.Engine` (an object) both offer."""

    def constant(self, value: float, like: Array) -> Array:
        """Return the number in the dtype of `like`, so that float32 stays float32 and float64 stays exact."""

    def cast(self, x: Array, like: Array) -> Array:
        """Return x in the dtype of `like`; a mask of booleans becomes 0 and 1."""

    def dot(self, x: Array, weight: Array) -> Array:
        """Return x @ weight, dense (n, m); a sparse x (n, k) takes the sparse product."""

    def sum_rows(self, table: Array, index: Array, mask: Array) -> Array:
        """Return the sum over t of mask[i, t] * table[index[i, t]], (n, m); a repeated index counts each time."""

    def sum(self, x: Array, *, axis: int | None = None, keepdims: bool = False) -> Array:
        """Return the sum, kept in the dtype of x."""

    def mean(self, x: Array, *, axis: int | None = None, keepdims: bool = False) -> Array:
        """Return the mean, kept in the dtype of x."""

    def sqrt(self, x: Array) -> Array:
        """Return the square root."""

    def exp(self, x: Array) -> Array:
        """Return e^x; exactly 0 for minus infinity."""

    def log_sum_exp(self, x: Array, *, axis: int) -> Array:
        """Return log(sum(exp(x))) along an axis; minus infinity adds nothing, and one entry must be finite."""

    def maximum(self, x: Array, bound: float) -> Array:
        """Return the larger of x and bound, in the dtype of x."""

    def sigmoid(self, x: Array) -> Array:
        """Return 1 / (1 + exp(-x))."""

    def relu(self, x: Array) -> Array:
        """Return max(x, 0)."""

    def log_softmax(self, logits: Array) -> Array:
        """Return the log-probabilities of each row, (n, n_classes)."""

    def keep_topk(self, x: Array, k: int) -> Array:
        """Return x where it is among the k largest of its row, (n,) or (n_rows, n); minus infinity elsewhere.

        So its weight in a softmax is exactly 0. Ties go to the lower index; gradients to what is kept, only.
        """

    def take_columns(self, x: Array, index: Sequence[int]) -> Array:
        """Return x[:, index], (n, len(index)); a column may be taken more than once."""

    def pick(self, matrix: Array, column: Array) -> Array:
        """Return matrix[i, column[i]] of each row, (n,)."""

    def take(self, values: Array, index: Array) -> Array:
        """Return values[index], (n,), of an array of values, (n_values,)."""

    def negative_log_likelihood(self, logits: Array, target: Array) -> Array:
        """Return -log softmax(logits)[i, target[i]] of each row, (n,); every target must be a class."""


def of(*values: Array) -> Ops:
    """Return the operations for these values: an engine's where one of them is a variable of it.

    >>> import numpy
    >>> of(numpy.zeros(3)).__name__
    'pipeline.ops.numeric'
    """
    for value in values:
        name = type(value).__module__.partition(".")[0]
        if name in ENGINES:
            from pipeline.ops import symbolic  # here, as scoring must do without

            return symbolic.engine(name)
    return numeric
