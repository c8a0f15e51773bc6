"""Stage 1: the rows of Parquet, by Arrow: the columns asked for only, whatever their type, as text or lists of text."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import footer
from pipeline.downloads import here
from pipeline.errors import CatalogError
from pipeline.figures import as_cells
from pipeline.readers import Broken, Rows, Wanted, make_table, one_array
from pipeline.sizes import Sizes, cuts, row_bytes
from pipeline.streams import open_file, verify_digest

BATCH = 65_536  # most rows read at a time
MAX_BYTES = 32 << 20  # of the rows given at a time
MAX_ROW = 12 << 20  # bytes of text of the longest row, and a few for each value
MAX_RATIO = 200  # of declared bytes to those in the file, where there are many


def read_parquet(path: str, wanted: Wanted, *, expected: str | None) -> Iterator[Rows]:
    """Give the rows of a Parquet file; the line of a row is its number.

    Texts that are stored as a dictionary are read as one, and written out a few rows at a time: a small file may
    declare a large table. Raises CatalogError for a column of a type that is no text, for one that declares far more
    than the file has, and where the file is not the expected one.
    """
    with open_file(path) as file:
        verify_digest(path, hashlib.file_digest(file, "sha256").hexdigest(), expected)
        source = Source.of(path, wanted)
        parquet = source.open(file)
        row = 1
        for batch in _batches(parquet, source.n_at_once, source.columns(parquet, wanted)):
            for rows in pieces(path, batch, row, parquet.schema_arrow.names, wanted):
                yield rows
                row += rows.n_rows
        file.seek(0)
        verify_digest(path, hashlib.file_digest(file, "sha256").hexdigest(), expected)


@dataclass(frozen=True)
class Source:
    """A Parquet file, and how it is read: its footer was looked at, and found to declare nothing that it has not."""

    path: str
    dictionaries: tuple[str, ...]  # columns of texts that are read as what they are stored as
    n_at_once: int  # rows that take about MAX_BYTES

    @classmethod
    def of(cls, path: str, wanted: Wanted) -> Source:
        """Return how a file is read. Raises CatalogError for a damaged one, and for one that is a bomb."""
        chunks = [chunk for chunk in _chunks(path) if chunk.belongs_to(wanted.columns)]
        _refuse_bomb(path, chunks)
        found = {chunk.path for chunk in chunks if chunk.is_dictionary and chunk.is_simple(wanted.columns)}
        return cls(path, tuple(sorted(found)), _batch_rows(chunks))

    def open(self, file: Any) -> Any:
        """Return the Parquet file that lies in an open one, or has a path or URL."""
        import pyarrow.parquet as pq

        file = here(file) if isinstance(file, str) else file
        return pq.ParquetFile(file, read_dictionary=list(self.dictionaries), page_checksum_verification=True)

    def columns(self, parquet: Any, wanted: Wanted) -> list[str]:
        """Return those of the wanted columns that the file has."""
        return [name for name in wanted.columns if name in parquet.schema_arrow.names]


def pieces(path: str, batch: Any, row: int, known: Sequence[str], wanted: Wanted) -> Iterator[Rows]:
    """Give the rows of a batch that begins with the row of that number, so many at a time that memory is bounded."""
    sizes = row_bytes(batch.columns, batch.num_rows)
    for start, stop in cuts(sizes, max_rows=BATCH, max_bytes=MAX_BYTES):
        piece = batch.slice(start, stop - start)
        too_long = _are_too_long(piece, sizes[start:stop])
        yield _rows(path, piece, row + start, tuple(known), wanted, too_long=too_long)


def _batches(parquet: Any, n_rows: int, columns: Sequence[str]) -> Iterator[Any]:
    """Give batches of at most so many rows, none from two groups: lists of two dictionaries do not fit one array."""
    for group in range(parquet.num_row_groups):
        yield from parquet.iter_batches(n_rows, row_groups=[group], columns=columns)


@dataclass(frozen=True)
class _Chunk:
    """What a Parquet file says of a column in a group of rows."""

    path: str  # tags.list.element, for instance
    n_rows: int
    n_values: int
    n_bytes: int  # once unpacked
    n_packed: int
    is_dictionary: bool

    def belongs_to(self, columns: Sequence[str]) -> bool:
        """Return whether this is a part of one of the columns."""
        return any(self.path == name or self.path.startswith(f"{name}.") for name in columns)

    def is_simple(self, columns: Sequence[str]) -> bool:
        """Return whether this is a column or a list of texts; what lies deeper is refused in a moment."""
        return any(self.path in (name, f"{name}.list.element", f"{name}.list.item") for name in columns)

    @property
    def declared(self) -> int:
        """Return the bytes that reading takes, texts of a dictionary once."""
        return max(self.n_bytes, 4 * self.n_values if self.n_values > self.n_rows else 0)


def _chunks(path: str) -> list[_Chunk]:
    """Return the column chunks of a file; raises CatalogError where its footer is damaged."""
    command = [sys.executable, "-P", footer.__file__, here(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        told = done.stderr.strip().splitlines() or [f"its reader ended with {done.returncode}"]
        raise CatalogError(f"{path}: cannot be read as .parquet ({told[-1].strip()[:200]}); is the file damaged?")
    return [_Chunk(**chunk) for chunk in json.loads(done.stdout)]


def _refuse_bomb(path: str, chunks: Sequence[_Chunk]) -> None:
    """Raise CatalogError for a column that declares far more bytes or values than the file can mean."""
    for chunk in chunks:
        if chunk.declared > 2 * MAX_BYTES and chunk.declared > MAX_RATIO * chunk.n_packed:
            fact = f"the column '{chunk.path}' unpacks {chunk.n_packed:,} bytes to {chunk.declared:,}"
            raise CatalogError(f"{path}: {fact}, more than {MAX_RATIO} times as much; no catalog is like that")


def _batch_rows(chunks: Sequence[_Chunk]) -> int:
    """Return how many rows to read at a time so that they take about MAX_BYTES."""
    per_row: dict[str, float] = {}
    for chunk in chunks:
        per_row[chunk.path] = max(per_row.get(chunk.path, 0), chunk.declared / max(1, chunk.n_rows))
    return int(min(BATCH, max(1, MAX_BYTES / max(1, sum(per_row.values())))))


def _rows(path: str, batch: Any, first: int, known: tuple[str, ...], wanted: Wanted, *, too_long: Any) -> Rows:
    """Return the rows of a batch; those that are too long, or have bytes that are not UTF-8, come apart."""
    whole, batch = batch, batch.filter(pa.array(~too_long))
    places = np.flatnonzero(~too_long)
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
        elif name in wanted.vectors and (is_list or pa.types.is_fixed_size_list(column.type)):
            column = as_cells(column)
        bad |= _not_utf8(column)
        text_ids |= (
            name == wanted.id_column and not pa.types.is_integer(column.type) and column.null_count < len(column)
        )
        columns[name] = column
    row, keep = first + places, pa.array(~bad)
    broken = [_broken(columns, lists, int(place), int(row[place])) for place in np.flatnonzero(bad)]
    broken += [_too_long(whole, int(place), first) for place in np.flatnonzero(too_long)]
    good = {name: _text(path, name, one_array(column.filter(keep))) for name, column in columns.items()}
    good_lists = None if lists is None else _text_lists(path, wanted.list_column, one_array(lists.filter(keep)))
    return Rows(make_table(row[~bad], row[~bad], good, good_lists), tuple(broken), known, text_ids)


def _decoded(column: Any) -> Any:
    """Return a column without dictionary, lists of one too.

    Whole numbers that were stored as floats, for an empty one, become numbers.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_list(column.type) and pa.types.is_dictionary(column.type.value_type):
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        values = pc.list_flatten(column).dictionary_decode()
        column = pa.ListArray.from_arrays(offsets, values, mask=pc.is_null(column))
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


def _are_too_long(batch: Any, sizes: Sizes) -> npt.NDArray[np.bool_]:
    """Return which rows have too much text to be read."""
    if not (sizes > MAX_ROW).any():
        return np.zeros(batch.num_rows, np.bool_)
    return row_bytes(batch.columns, batch.num_rows, per_value=4) > MAX_ROW


def _too_long(batch: Any, place: int, first: int) -> Broken:
    """Return a row that is too long to be read; of its values the numbers and dates are shown."""
    values = {
        name: column[place].as_py()
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
        if pa.types.is_primitive(column.type)
    }
    shown = json.dumps(values, ensure_ascii=False, default=str)
    return Broken(first + place, first + place, shown, f"row over {MAX_ROW >> 20} MB")


def _broken(columns: dict[str, Any], lists: Any, place: int, row: int) -> Broken:
    """Return a row that is not UTF-8, as JSON."""
    values = {name: _shown(column[place]) for name, column in columns.items()}
    if lists is not None:
        values["tags"] = [_shown(value) for value in lists[place].values] if lists[place].is_valid else None
    return Broken(row, row, json.dumps(values, ensure_ascii=False, default=str), "not UTF-8")


def _shown(scalar: Any) -> Any:
    """Return a value for people, bytes that are not UTF-8 among them."""
    if not scalar.is_valid:
        return None
    kind = scalar.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        return scalar.as_buffer().to_pybytes().decode(errors="backslashreplace")
    return scalar.as_py()
