"""Stage 1: how many bytes rows take once they are text, and where to cut them so that memory is bounded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

PER_VALUE = 16  # bytes of a value beside its text
Sizes = npt.NDArray[np.int64]


def row_bytes(columns: Iterable[Any], n_rows: int, *, per_value: int = PER_VALUE) -> Sizes:
    """Return the bytes of each row of some columns as text, (n_rows,); a dictionary counts as if it were written out.

    >>> row_bytes([pa.array(["abc", None]), pa.array([["a", "bc"], []])], 2).tolist()
    [70, 32]
    """
    total = np.zeros(n_rows, np.int64)
    for column in columns:
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        total += per_value
        if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
            upto = np.concatenate([[0], np.cumsum(_lengths(pc.list_flatten(array)) + per_value)])
            ends = np.cumsum(lengths)
            total += upto[ends] - upto[ends - lengths]
        else:
            total += _lengths(array)
    return total


def cuts(sizes: Sizes, *, max_rows: int, max_bytes: int) -> list[tuple[int, int]]:
    """Return start and stop of runs of rows, at most so many and so large; a row that is larger stands alone.

    >>> cuts(np.array([3, 3, 9, 1, 1, 1, 1]), max_rows=3, max_bytes=6)
    [(0, 2), (2, 3), (3, 6), (6, 7)]
    """
    upto = np.cumsum(sizes)
    found, start, before = [], 0, 0
    while start < len(sizes):
        fitting = int(np.searchsorted(upto, before + max_bytes, side="right"))
        stop = min(max(fitting, start + 1), start + max_rows)
        found.append((start, stop))
        start, before = stop, int(upto[stop - 1])
    return found


def _lengths(array: Any) -> Sizes:
    """Return the bytes of each value."""
    if pa.types.is_dictionary(array.type):
        known = np.append(_lengths(array.dictionary), 0)
        return np.asarray(known[pc.fill_null(array.indices, len(known) - 1).to_numpy(zero_copy_only=False)], np.int64)
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        return np.asarray(pc.fill_null(pc.binary_length(array), 0), np.int64)
    return np.full(len(array), 8, np.int64)
