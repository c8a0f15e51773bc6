"""Stage 1, before any work: do all files have the columns that the settings name, and of a type that can be read?

After staging, and before anything is cleaned: is a column empty that should say something?
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.errors import CatalogError
from pipeline.layout import Layout
from pipeline.readers import JSON_LINES, Wanted, kind_of, missing_column, read
from pipeline.streams import open_file

if TYPE_CHECKING:
    from pipeline.staging import Staged


def check_columns(layout: Layout) -> None:
    """Raise CatalogError for a file whose columns are not there or of a wrong type; only its beginning is read.

    An object of JSON may leave out a key, so there the first block proves nothing.
    """
    _check(layout.files.items, layout.items_wanted, layout.optional)
    if layout.files.labels:
        _check(layout.files.labels, Wanted(tuple(layout.labels_names.values())))
    if layout.files.tags:
        _check(layout.files.tags, Wanted(tuple(layout.tags_names.values())))


def check_filled(staged: Staged) -> None:
    """Raise CatalogError for a column of text or of labels that the settings name and that is empty in every row."""
    layout, connection = staged.layout, staged.database.connection
    asked = {name: ("text", layout.place(name)) for name in layout.catalog.text}
    asked |= {name: ("word_columns", layout.place(name)) for name in layout.catalog.word_columns}
    places = list(dict.fromkeys(place for _, place in asked.values()))
    counts = ", ".join(f"count({place})" for place in places) or "0"
    n_rows, *found = connection.execute(f"SELECT count(*), {counts} FROM items").fetchall()[0]
    filled = dict(zip(places, found, strict=False))
    for name, (setting, place) in asked.items():
        if n_rows and not filled[place]:
            files = ", ".join(layout.files.items[:3])
            fact = f"{files}: the column '{name}' is empty in all {n_rows:,} rows (lines {_lines(connection)})"
            raise CatalogError(f"{fact}; fill it, or take it out of [catalog] {setting}")


def _check(paths: tuple[str, ...], wanted: Wanted, optional: tuple[str, ...] = ()) -> None:
    for path in paths:
        kind = kind_of(path)
        if kind in JSON_LINES:
            continue
        known = _parquet_columns(path, wanted) if kind == ".parquet" else _first_columns(path, wanted)
        for column in wanted.columns:
            if column not in known and column not in optional:
                raise missing_column(path, column, known)


def _first_columns(path: str, wanted: Wanted) -> tuple[str, ...]:
    """Return the columns of the first block of a CSV."""
    blocks = read(path, wanted)
    known = next(blocks).known
    del blocks  # closes the file
    return known


def _parquet_columns(path: str, wanted: Wanted) -> tuple[str, ...]:
    """Return the columns of a Parquet file; raises CatalogError for one of a type that is no text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline.parquet_rows import no_text

    try:
        with open_file(path) as file:
            schema = pq.read_schema(file)
    except (pa.ArrowException, OSError, ValueError, ArithmeticError, LookupError, MemoryError) as error:
        raise CatalogError(f"{path}: cannot be read as .parquet ({error}); is the file damaged?") from None
    for name in wanted.columns:
        kind: Any = schema.field(name).type if schema.get_field_index(name) >= 0 else pa.string()
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if is_list and name in (wanted.list_column, *wanted.vectors):
            kind = kind.value_type
        if pa.types.is_nested(kind):
            raise no_text(path, name, kind)
    return tuple(schema.names)


def _lines(connection: Any) -> str:
    lines = connection.execute("SELECT line FROM items ORDER BY n LIMIT 3").fetchall()
    return ", ".join(str(line) for (line,) in lines) + ", ..."
