"""Stage 2: sparse matrices out of arrays, without SciPy's looking them through, and counts that are added up."""

from __future__ import annotations

from copy import copy
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix


def csr(data: Any, columns: NDArray[np.int32], indptr: NDArray[np.int64], *, n_columns: int) -> Any:
    """Return a CSR matrix with int32 indices wherever they suffice."""
    index_type = np.int32 if len(columns) < 2**31 else np.int64
    arrays = (columns.astype(index_type, copy=False), indptr.astype(index_type, copy=False))
    return _filled(csr_matrix, (len(indptr) - 1, n_columns), data, *arrays)


def csc(data: Any, rows: NDArray[Any], indptr: NDArray[Any], *, n_rows: int) -> Any:
    """Return a CSC matrix of arrays as they are."""
    return _filled(csc_matrix, (n_rows, len(indptr) - 1), data, rows, indptr)


@lru_cache(maxsize=16)
def _empty(kind: Any, shape: tuple[int, int]) -> Any:
    return kind(shape, dtype=np.float32)


def _filled(kind: Any, shape: tuple[int, int], data: Any, indices: NDArray[Any], indptr: NDArray[Any]) -> Any:
    # Set, not passed: SciPy would look through all of them once more, and one item should not pay for that.
    matrix = copy(_empty(kind, shape))
    matrix.data, matrix.indices, matrix.indptr = np.asarray(data, np.float32), indices, indptr
    return matrix


def by_id(counts: Any, ids: NDArray[np.int32], *, n_columns: int) -> Any:
    """Return counts (CSR) with column `ids[column] - 1` for each column, CSC; id 0 drops a column.

    Rows ascend within a column of the result, and so columns within a row, as no two columns have one id.
    """
    columns = ids[counts.indices] - np.int32(1)
    kept = columns >= 0
    if kept.all():
        return csr(counts.data, columns, counts.indptr, n_columns=n_columns).tocsc()
    indptr = np.concatenate([[0], np.cumsum(kept)])[counts.indptr]
    return csr(counts.data[kept], columns[kept], indptr, n_columns=n_columns).tocsc()


def merged(matrix: Any, *, join: Any = np.add) -> Any:
    """Return a CSR matrix with what stands twice in a row added up (or joined), and columns in ascending order.

    Two transpositions do it: they take a step a value, where sorting each row takes several.

    >>> merged(csr_matrix(([1, 1, 1], [2, 0, 2], [0, 3]), shape=(1, 3))).indices.tolist()
    [0, 2]
    """
    ascends = np.ones(matrix.nnz + 1, np.bool_)
    ascends[1:-1] = matrix.indices[1:] > matrix.indices[:-1]
    ascends[matrix.indptr] = True
    if ascends.all():
        return matrix
    columns = matrix.tocsc()  # rows ascend within a column: the same place twice is side by side
    first = np.ones(columns.nnz, np.bool_)
    first[1:] = columns.indices[1:] != columns.indices[:-1]
    starts = columns.indptr[:-1]
    first[starts[starts < columns.nnz]] = True
    if first.all():
        return columns.tocsr()
    kept = np.flatnonzero(first)
    sums = join.reduceat(columns.data, kept)
    indptr = np.searchsorted(kept, columns.indptr).astype(columns.indptr.dtype)
    return csc(sums, columns.indices[kept], indptr, n_rows=matrix.shape[0]).tocsr()
