"""Stage 1: a file becomes batches of rows, each with its line; a row that cannot be read comes apart, with its reason.

CSV and TSV are parsed by Arrow, JSON lines by DuckDB's JSON functions, a line at a time, Parquet by Arrow: no
Python loop over rows that are good. The extension decides: .csv .tsv .jsonl .ndjson .json .parquet, and .gz or .zst
behind the texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CatalogError
from pipeline.inputs import extensions
from pipeline.streams import TextStream

# Names that no column of a file has, as these characters are no text.
ROW, LINE = "\ufdd0row", "\ufdd0line"  # number of the row among the rows of the file, line where it begins, from 1
LISTS = "\ufdd0lists"  # the column in which a reader gives the values of `list_column` that are lists
DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True)
class Wanted:
    """What is asked of a file."""

    columns: tuple[str, ...]
    list_column: str = ""  # its values may be lists; they come in the column LISTS
    id_column: str = ""  # whether its values are text by their type matters
    names: tuple[str, ...] = ()  # names of the columns of a CSV without header
    vectors: tuple[str, ...] = ()  # columns whose values may be lists of numbers; they come as text


@dataclass(frozen=True)
class Broken:
    """A row that cannot be read."""

    row: int  # number among the rows of the file, from 1
    line: int  # where it begins in the file, from 1
    raw: str
    reason: str


@dataclass(frozen=True)
class Rows:
    """The rows of a block of a file."""

    table: Any  # ROW, LINE (int64), each column asked for (string; null where absent or empty), LISTS (list<string>)
    broken: tuple[Broken, ...]
    known: tuple[str, ...]  # the columns that the block has
    text_ids: bool  # is an id text by its type, whatever it looks like?

    @property
    def n_rows(self) -> int:
        """Return the number of rows, the broken ones among them."""
        return int(self.table.num_rows) + len(self.broken)


def read(path: str, wanted: Wanted, *, expected: str | None = None) -> Iterator[Rows]:
    """Give the rows of a file, block by block, in order.

    Raises CatalogError where the file is absent, empty, damaged or of another kind, and after its last block where
    its bytes are not those whose SHA-256 is `expected`. The digest of a text is taken of the very bytes that are
    parsed; Parquet is read in jumps, so its digest is taken on the open file before and after.
    """
    from pipeline.csv_rows import read_csv
    from pipeline.json_rows import read_json
    from pipeline.parquet_rows import read_parquet

    kind = kind_of(path)
    try:
        if kind == ".parquet":
            yield from read_parquet(path, wanted, expected=expected)
            return
        with TextStream(path) as stream:
            yield from (read_csv if kind in DELIMITERS else read_json)(stream, wanted)
            stream.verify(expected)
    # A damaged Parquet file may raise almost anything: names that are no text, sizes below zero.
    except (pa.ArrowException, OSError, ValueError, ArithmeticError, LookupError, MemoryError) as error:
        raise CatalogError(f"{path}: cannot be read as {kind} ({one_line(error)}); is the file damaged?") from None


def read_columns(path: str, *, columns: Sequence[str], expected: str | None = None) -> Any:
    """Return a whole small file as one table of row, line and the columns.

    Raises CatalogError for a column that is not there and for any row that cannot be read.
    """
    blocks = list(read(path, Wanted(tuple(columns)), expected=expected))
    for broken in (row for block in blocks for row in block.broken):
        raise CatalogError(f"{path} line {broken.line}: {broken.reason}: {broken.raw[:80]}")
    known = tuple(dict.fromkeys(name for block in blocks for name in block.known))
    for column in columns:
        if column not in known:
            raise missing_column(path, column, known)
    return pa.concat_tables([block.table for block in blocks])


def kind_of(path: str) -> str:
    """Return the extension that says how a file is read; raises CatalogError for one that is not known.

    >>> kind_of("tags.CSV.gz")
    '.csv'
    """
    kind, _ = extensions(path)
    allowed = (*DELIMITERS, *JSON_LINES, ".parquet")
    if kind not in allowed:
        raise CatalogError(f"{path}: extension '{kind}' is not one of {', '.join(allowed)} (texts also .gz, .zst)")
    return kind


def missing_column(path: str, column: str, known: Sequence[str]) -> CatalogError:
    """Return the error for a column that is not there, with a near name.

    >>> print(missing_column("a.csv", "titel", ["item_id", "Title"]))
    a.csv: there is no column 'titel'; did you mean 'Title'? It has: item_id, Title; see [catalog]
    """
    folded = {name.casefold(): name for name in known}
    near = get_close_matches(column.casefold(), folded, n=1)
    suggestion = f"did you mean '{folded[near[0]]}'? " if near else ""
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return CatalogError(f"{path}: there is no column '{column}'; {suggestion}It has: {shown}; see [catalog]")


def make_table(row: Any, line: Any, columns: Mapping[str, Any], lists: Any = None) -> Any:
    """Return the table of Rows from row and line numbers and string columns.

    An empty string becomes null, and NUL, which files of C programs cannot hold, the replacement character.
    """
    lists = pa.nulls(len(row), pa.list_(pa.string())) if lists is None else _tidy_lists(one_array(lists))
    arrays = [pa.array(row, pa.int64()), pa.array(line, pa.int64()), *map(_tidy, columns.values()), lists]
    return pa.table(arrays, names=[ROW, LINE, *columns, LISTS])


def without_nul(column: Any) -> Any:
    r"""Return a string column with every NUL as the replacement character.

    >>> without_nul(pa.array(["a\0b"]))[0].as_py()
    'a�b'
    """
    return pc.replace_substring(column, "\0", "\ufffd")


def one_line(error: Exception) -> str:
    """Return the first line of an error of a library."""
    return str(error).strip().split("\n")[0][:200]


def numbers(first: int, count: int) -> Any:
    """Return `count` numbers from `first` on, int64."""
    return np.arange(first, first + count, dtype=np.int64)


def one_array(column: Any) -> Any:
    """Return a column as one array that begins at its own start."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    return array.take(pa.array(numbers(0, len(array)))) if array.offset else array


def _tidy_lists(lists: Any) -> Any:
    values = without_nul(pc.cast(lists.values, pa.string()))
    return pa.ListArray.from_arrays(pc.cast(lists.offsets, pa.int32()), values, mask=pc.is_null(lists))


def _tidy(column: Any) -> Any:
    column = without_nul(column)
    return pc.if_else(pc.equal(pc.binary_length(column), 0), None, column)
