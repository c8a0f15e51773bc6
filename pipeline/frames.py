"""What a model takes and gives in Python: rows of tags, batches and tables of Arrow, DataFrames of pandas.

A DataFrame comes from whoever imported pandas: nothing here does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline import arrow
from pipeline.errors import ModelError
from pipeline.figures import numbers

if TYPE_CHECKING:
    from pipeline.model import Model

TAGS = pa.list_(pa.string())
ASKED = ("item_id", "title", "given_path")  # columns of the scores that are there if the items had what they hold
EXAMPLE = '[["zombies", "farmhouse"]]'


def is_frame(data: object) -> bool:
    """Return whether this is a DataFrame of pandas; where pandas was never imported nothing is."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(data, pandas.DataFrame)


def is_table(data: object) -> bool:
    """Return whether this is a table of any kind, not rows of tags."""
    return isinstance(data, pa.RecordBatch | pa.Table) or is_frame(data)


def read(model: Model, data: Any) -> pa.RecordBatch:
    """Return items as `score_batch` takes them, tags raw, from rows of tags, an Arrow batch or table, or a DataFrame.

    A table has `tags` (lists of strings), each column that the model reads, called as in the catalog (`plot`), and
    where they are known item_id, title and labels under the names of the levels. Rows of tags have nothing else: what
    the model reads besides counts as missing. Raises ModelError for anything else, and for a column that is missing
    or of another type.
    """
    if not is_table(data):
        return _of_rows(model, data)
    known = names_of(data)
    wanted = {"tags": ("tags", TAGS)} | _columns_of(model)
    for name, _ in wanted.values():
        if name not in known:
            raise ModelError(f"column '{name}' is missing, which the model reads; the columns are {known}")
    wanted |= {name: (name, pa.string()) for name in ("title", *model.taxonomy.levels) if name in known}
    has_id = "item_id" in known
    table = _of_frame(data, [*(["item_id"] if has_id else []), *{name for name, _ in wanted.values()}])
    columns = {name: _cast(table, column, kind) for name, (column, kind) in wanted.items()}
    item_id = _one(table, "item_id") if has_id else arrow.numbers(np.arange(table.num_rows))
    return pa.RecordBatch.from_pydict({"item_id": item_id, **columns})


def names_of(table: Any) -> list[str]:
    """Return the names of the columns of a table of any kind."""
    return list(table.columns if is_frame(table) else table.schema.names)


def give(data: Any, scores: pa.RecordBatch, *, levels: Sequence[str]) -> Any:
    """Return scores in the kind of table that the items came in; without item_id, title, given_path if they had none.

    A DataFrame keeps its index and has labels as strings, as it has when pandas reads scores.parquet.
    """
    had = set(names_of(data))
    had |= {"given_path"} if levels[0] in had else set()
    scores = scores.drop_columns([name for name in ASKED if name not in had])
    if isinstance(data, pa.RecordBatch):
        return scores
    table = pa.Table.from_batches([scores])
    if isinstance(data, pa.Table):
        return table
    frame = pa.table({name: plain(scores.column(name)) for name in scores.schema.names}).to_pandas()
    return frame.set_index(data.index)


def plain(array: Any) -> Any:
    """Return an array with strings in place of a dictionary's codes, within lists too.

    >>> plain(pa.array([["a"], None]).cast(pa.list_(pa.string()))).to_pylist()
    [['a'], None]
    """
    if pa.types.is_list(array.type):
        return pa.ListArray.from_arrays(array.offsets, plain(array.values), mask=array.is_null())
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _of_rows(model: Model, rows: Any) -> pa.RecordBatch:
    if isinstance(rows, str) or not isinstance(rows, Sequence) or not all(map(_is_tags, rows)):
        raise ModelError(f"{rows!r:.80}: rows of tags are expected, such as {EXAMPLE}, or a table with a column 'tags'")
    try:
        columns = {"item_id": arrow.numbers(np.arange(len(rows))), "tags": arrow.string_lists(rows)}
    except UnicodeEncodeError as error:
        raise ModelError(f"{error.object!r:.80} is not text: it has half a surrogate pair") from error
    return pa.RecordBatch.from_pydict(columns | {name: pa.nulls(len(rows)) for name in model.transform.columns.names})


def _is_tags(row: object) -> bool:
    return isinstance(row, Sequence) and not isinstance(row, str) and all(isinstance(tag, str) for tag in row)


def _of_frame(table: Any, names: list[str]) -> Any:
    """Return the table with Arrow's columns; of a DataFrame only those that are named are looked at."""
    if not is_frame(table):
        return table
    try:
        return pa.Table.from_pandas(table[names], preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ModelError(f"the DataFrame cannot be read: {str(error).splitlines()[0]}") from error


def _columns_of(model: Model) -> dict[str, tuple[str, Any]]:
    """Return for each column that the transform reads what the user calls it, and its type."""
    columns = model.transform.columns
    text = {f"text.{name}": (name, pa.string()) for name in columns.text}
    text |= {f"category.{name}": (name, pa.string()) for name in columns.categories}
    text |= {f"dense.{name}": (name, pa.float64()) for name in columns.numbers}
    return text | {f"dense.{name}": (name, pa.list_(pa.float32())) for name in columns.vectors}


def _cast(table: Any, name: str, kind: Any) -> Any:
    """Return a column in the type that the model reads it in; cells of text may hold numbers."""
    array = _one(table, name)
    if array.null_count == len(array):  # whatever type pandas guessed of nothing
        return pa.nulls(len(array), kind)
    try:
        return (
            numbers(array.cast(pa.string()))[0] if kind == pa.float64() and _is_text(array.type) else array.cast(kind)
        )
    except pa.ArrowException as error:
        remedy = '; split it first: frame["tags"].str.split(";")' if kind == TAGS else ""
        raise ModelError(f"column '{name}' is {array.type}, {kind} is expected{remedy}") from error


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _one(table: Any, name: str) -> Any:
    column = table.column(name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
