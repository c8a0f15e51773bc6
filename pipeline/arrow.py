"""Arrow arrays out of NumPy's and Python's and back, straight from their bytes.

`pyarrow.array` and `to_numpy` do the same, but import pandas first, to recognise its objects: most of the time from the
start of a process to its first prediction. So what a prediction needs is made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numpy.typing import ArrayLike

NAMES = {"float": "float32", "double": "float64"}  # NumPy's of Arrow's types, where they differ
LARGEST = 2**31 - 1  # offsets of strings are int32


def numbers(values: npt.NDArray[Any], *, mask: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Return numbers of one dimension in the type of their dtype; null where the mask is true. Nothing is copied.

    >>> numbers(np.array([1, 2, 3], np.int32), mask=np.array([False, True, False])).to_pylist()
    [1, None, 3]
    """
    values = np.ascontiguousarray(values)
    valid = None if mask is None or not mask.any() else pa.py_buffer(np.packbits(~mask, bitorder="little"))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [valid, pa.py_buffer(values)])


def flags(truth: npt.NDArray[np.bool_]) -> pa.Array:
    """Return booleans.

    >>> flags(np.array([True, False])).to_pylist()
    [True, False]
    """
    return pa.Array.from_buffers(pa.bool_(), len(truth), [None, pa.py_buffer(np.packbits(truth, bitorder="little"))])


def values(array: Any, *, null: float | None = None) -> npt.NDArray[Any]:
    """Return the numbers or booleans of an array, `null` where it has none; numbers without nulls are not copied.

    Raises ValueError where there are nulls and nothing is said that stands for them.

    >>> values(numbers(np.array([1.5, 2.0, 0.5]))[1:]), values(flags(np.array([True, False])))
    (array([2. , 0.5]), array([ True, False]))
    >>> values(numbers(np.array([7, 8]), mask=np.array([True, False])), null=0)
    array([0, 8])
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if array.null_count and null is None:
        raise ValueError(f"{array.null_count} of {len(array)} values are null")
    dtype = dtype_of(array.type)
    is_flag = dtype == np.bool_  # a bit each
    stored = np.frombuffer(array.buffers()[1] if len(array) else b"", np.uint8 if is_flag else dtype)
    stored = np.unpackbits(stored, bitorder="little") if is_flag else stored
    found = stored[array.offset : array.offset + len(array)].astype(dtype, copy=False)
    return np.where(values(array.is_valid()), found, dtype.type(null)) if array.null_count else found


def dtype_of(kind: Any) -> np.dtype[Any]:
    """Return NumPy's type of a type of numbers or booleans.

    >>> dtype_of(pa.float32()), dtype_of(pa.bool_())
    (dtype('float32'), dtype('bool'))
    """
    return np.dtype(NAMES.get(str(kind), str(kind)))


def strings(texts: Sequence[str]) -> pa.Array:
    """Return strings. Raises UnicodeEncodeError for half a surrogate pair, which is no text.

    >>> strings(["é", "", "ab"]).to_pylist()
    ['é', '', 'ab']
    """
    encoded = [text.encode() for text in texts]
    buffers = [None, pa.py_buffer(_offsets(list(map(len, encoded)))), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)


def lists(lengths: ArrayLike, values: pa.Array, *, mask: pa.Array | None = None) -> pa.ListArray:
    """Return values that lie end to end as lists of these lengths; null where the mask (of Arrow) is true.

    >>> lists([2, 0], strings(["a", "b"])).to_pylist()
    [['a', 'b'], []]
    """
    return pa.ListArray.from_arrays(numbers(_offsets(lengths)), values, mask=mask)


def string_lists(rows: Sequence[Sequence[str]]) -> pa.ListArray:
    """Return rows of strings.

    >>> string_lists([["a"], [], ["b", "c"]]).to_pylist()
    [['a'], [], ['b', 'c']]
    """
    return lists(list(map(len, rows)), strings(list(chain.from_iterable(rows))))


def _offsets(lengths: ArrayLike) -> npt.NDArray[np.int32]:
    """Return where each of the parts begins that lie end to end, and where the last one ends, (n + 1,)."""
    ends = np.cumsum(np.asarray(lengths, np.int64))
    if len(ends) and ends[-1] > LARGEST:
        raise OverflowError(f"{len(ends):,} values of {ends[-1]:,} parts do not fit an array of Arrow")
    return np.concatenate([[0], ends]).astype(np.int32)
