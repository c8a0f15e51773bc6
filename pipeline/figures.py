"""Stage 1: cells of text become numbers and vectors.

A cell that is empty, or `nan`, is missing. A vector is written with commas, semicolons or blanks between its
numbers, in brackets or without.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_MISSING = r"^(?i:\s*nan\s*)$"
_BETWEEN = r"[\s,;]+"
_AROUND = " \t\r\n,;[]()"


def numbers(cells: Any) -> tuple[Any, Any]:
    """Return cells as float64, null where one is missing or wrong, and which are wrong.

    >>> values, wrong = numbers(pa.array([" 1.5", "nan", "many", None, "1e999"]))
    >>> values.to_pylist(), wrong.to_pylist()
    ([1.5, None, None, None, None], [False, False, True, False, True])
    """
    cells = _filled(cells)
    values = _cast(pc.utf8_trim_whitespace(cells), pa.float64())
    return values, pc.and_(pc.is_valid(cells), pc.is_null(values))


def vectors(cells: Any) -> tuple[Any, Any]:
    """Return cells as lists of float32, null where one is missing or wrong, and which are wrong.

    >>> values, wrong = vectors(pa.array(["[0.5, 1]", "0.5 1", "a b", None, "[]"]))
    >>> values.to_pylist(), wrong.to_pylist()
    ([[0.5, 1.0], [0.5, 1.0], None, None, []], [False, False, True, False, False])
    """
    cells = _filled(cells)
    bare = pc.utf8_trim(cells, _AROUND)
    lists = pc.split_pattern_regex(bare, _BETWEEN)
    empty = pc.equal(pc.binary_length(bare), 0)
    lists = pc.if_else(empty, pa.scalar([], lists.type), lists)
    values = _cast(pc.list_flatten(lists), pa.float32())
    parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    is_wrong = np.zeros(len(cells), np.bool_)
    is_wrong[parents[pc.is_null(values).to_numpy(zero_copy_only=False)]] = True
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    missing = pc.or_(pc.is_null(cells), pa.array(is_wrong))
    return pa.ListArray.from_arrays(offsets, values, mask=missing), pa.array(is_wrong)


def as_cells(lists: Any) -> Any:
    """Return a list column of numbers as cells of text; a null among the numbers makes a cell that is wrong.

    >>> as_cells(pa.array([[0.5, 1], [None], None])).to_pylist()
    ['0.5,1', 'null', None]
    """
    kind = pa.list_(pa.string())
    texts = pc.fill_null(pc.cast(lists.flatten(), pa.string()), "null")
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, texts).cast(kind), ",")
    return pc.if_else(pc.is_null(lists), None, joined)


def _filled(cells: Any) -> Any:
    cells = cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells
    return pc.if_else(pc.match_substring_regex(cells, _MISSING), None, cells)


def _cast(texts: Any, kind: Any) -> Any:
    """Return texts as numbers, null where one is no finite number."""
    is_number = pc.match_substring_regex(texts, r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$")
    texts = pc.replace_substring_regex(pc.if_else(is_number, texts, None), r"^\+", "")
    values = pc.cast(texts, kind)
    return pc.if_else(pc.is_finite(values), values, None)
