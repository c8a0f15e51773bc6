"""Stage 1: the rows of Parquet, by Arrow: the columns asked for only, whatever their type, as text or lists of text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CatalogError
from pipeline.readers import Broken, Rows, Wanted, make_table, numbers, one_array
from pipeline.streams import open_file, verify_digest

BATCH = 65_536  # rows read at a time


def read_parquet(path: str, wanted: Wanted, *, expected: str | None) -> Iterator[Rows]:
    """Give the rows of a Parquet file; the line of a row is its number.

    Raises CatalogError for a column of a type that is no text, and where the file is not the expected one.
    """
    import pyarrow.parquet as pq

    with open_file(path) as file:
        verify_digest(path, hashlib.file_digest(file, "sha256").hexdigest(), expected)
        parquet = pq.ParquetFile(file)
        known = tuple(parquet.schema_arrow.names)
        columns = [name for name in wanted.columns if name in known]
        row = 1
        for batch in parquet.iter_batches(BATCH, columns=columns):
            yield _rows(path, batch, row, known, wanted)
            row += batch.num_rows
        file.seek(0)
        verify_digest(path, hashlib.file_digest(file, "sha256").hexdigest(), expected)


def _rows(path: str, batch: Any, first: int, known: tuple[str, ...], wanted: Wanted) -> Rows:
    """Return the rows of a batch; those with bytes that are not UTF-8 come apart."""
    columns, lists, bad = {}, None, np.zeros(batch.num_rows, np.bool_)
    text_ids = False
    for name in wanted.columns:
        column = batch.column(name) if name in batch.schema.names else pa.nulls(batch.num_rows, pa.string())
        column = _decoded(column)
        is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        if is_list and name == wanted.list_column:
            parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
            bad[parents[_not_utf8(pc.list_flatten(column))]] = True
            column, lists = pa.nulls(batch.num_rows, pa.string()), column
        bad |= _not_utf8(column)
        text_ids |= (
            name == wanted.id_column and not pa.types.is_integer(column.type) and column.null_count < len(column)
        )
        columns[name] = column
    row, keep = numbers(first, batch.num_rows), pa.array(~bad)
    broken = [_broken(columns, lists, int(place), first) for place in np.flatnonzero(bad)]
    good = {name: _text(path, name, one_array(column.filter(keep))) for name, column in columns.items()}
    good_lists = None if lists is None else _text_lists(path, wanted.list_column, one_array(lists.filter(keep)))
    return Rows(make_table(row[~bad], row[~bad], good, good_lists), tuple(broken), known, text_ids)


def _decoded(column: Any) -> Any:
    """Return a column without dictionary; whole numbers that were stored as floats, for an empty one, as numbers."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
        whole = pc.all(pc.equal(pc.trunc(column), column)).as_py()
        small = pc.all(pc.less(pc.abs(column), 2.0**53)).as_py()
        if whole and small:
            return pc.cast(column, pa.int64())
    return column


def _text(path: str, name: str, column: Any) -> Any:
    """Return a column of any simple type as strings."""
    try:
        return pc.cast(column, pa.string())
    except pa.ArrowNotImplementedError:
        raise no_text(path, name, column.type) from None


def no_text(path: str, name: str, kind: Any) -> CatalogError:
    """Return the error for a column of a type that is no text."""
    return CatalogError(f"{path}: the column '{name}' is {str(kind)[:60]}; text is needed, or for tags a list of it")


def _text_lists(path: str, name: str, lists: Any) -> Any:
    """Return a column of lists as lists of strings."""
    values, offsets = _text(path, name, _decoded(lists.values)), pc.cast(lists.offsets, pa.int32())
    return pa.ListArray.from_arrays(offsets, values, mask=pc.is_null(lists))


def _not_utf8(column: Any) -> npt.NDArray[np.bool_]:
    """Return which values are not UTF-8; Arrow does not look when it reads Parquet."""
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind)):
        return np.zeros(len(column), np.bool_)
    try:
        pc.cast(pc.cast(column, pa.large_binary()), pa.large_string())
        return np.zeros(len(column), np.bool_)
    except pa.ArrowInvalid:
        values = pc.cast(column, pa.large_binary()).to_pylist()
        return np.array([value is not None and not _valid(value) for value in values], np.bool_)


def _valid(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _broken(columns: dict[str, Any], lists: Any, place: int, first: int) -> Broken:
    """Return a row that is not UTF-8, as JSON."""
    values = {name: _shown(column[place]) for name, column in columns.items()}
    if lists is not None:
        values["tags"] = [_shown(value) for value in lists[place].values] if lists[place].is_valid else None
    return Broken(first + place, first + place, json.dumps(values, ensure_ascii=False, default=str), "not UTF-8")


def _shown(scalar: Any) -> Any:
    """Return a value for people, bytes that are not UTF-8 among them."""
    if not scalar.is_valid:
        return None
    kind = scalar.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        return scalar.as_buffer().to_pybytes().decode(errors="backslashreplace")
    return scalar.as_py()
