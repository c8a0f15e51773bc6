"""Stage 1: the rows of CSV and TSV, by Arrow: quotes doubled, line breaks allowed within them, any number of lines.

A blank line is no row. A last row that nobody writes is added to the text: where it does not
come out at the end, a quote was never closed and has eaten it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CatalogError
from pipeline.readers import DELIMITERS, Broken, Rows, Wanted, kind_of, make_table, one_line
from pipeline.streams import MARKED, TextStream, unmark

BLOCK = 8 << 20  # bytes parsed at a time; a row must fit into it
_END = "\ufdd0\ufdd0end"


def read_csv(stream: TextStream, wanted: Wanted) -> Iterator[Rows]:
    """Give the rows of a CSV or TSV; raises CatalogError for a header or a quote that cannot be."""
    import pyarrow.csv as arrow_csv

    delimiter = DELIMITERS[kind_of(stream.path)]
    names = _names(stream, wanted, delimiter)
    stream.append(f"\n{_END}{delimiter * (len(names) - 1)}\n".encode())
    counter = _Counter(names, wanted, has_header=not wanted.names)
    places = [str(place) for place in range(len(names))]
    try:
        reader = arrow_csv.open_csv(
            pa.PythonFile(stream, mode="r"),
            # One thread: only then does Arrow tell the number of a row that it cannot take.
            read_options=arrow_csv.ReadOptions(column_names=places, block_size=BLOCK, use_threads=False),
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter,
                newlines_in_values=True,
                ignore_empty_lines=False,
                invalid_row_handler=counter.skip,
            ),
            convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(places, pa.string())),
        )
        for batch in reader:
            yield counter.rows(batch, marked=stream.marked, blank_lines=stream.blank_lines)
    except pa.ArrowInvalid as error:
        place = f"{stream.path} after line {counter.line - 1}"
        raise CatalogError(f"{place}: a quote never closes, or a row is over 8 MB ({one_line(error)})") from None
    if not counter.ended:
        raise CatalogError(f"{stream.path}: a quote that opens in line {counter.last_line} or below never closes")


def _names(stream: TextStream, wanted: Wanted, delimiter: str) -> tuple[str, ...]:
    """Return the names of the columns: of the settings where they give them, else of the header."""
    try:
        first = next(csv.reader(io.StringIO(stream.head(BLOCK)), delimiter=delimiter))
    except csv.Error as error:
        raise CatalogError(f"{stream.path} line 1: cannot be read ({error})") from None
    if wanted.names and len(first) != len(wanted.names):
        fact = f"line 1 has {len(first)} fields, [catalog] column_names names {len(wanted.names)}"
        raise CatalogError(f"{stream.path}: {fact}")
    names = wanted.names or tuple(name.strip() for name in first)
    for name in names:
        if unmark(name) != name:
            raise CatalogError(f"{stream.path} line 1: the header is not UTF-8: {unmark(name)}; save it as UTF-8")
        if name in wanted.columns and names.count(name) > 1:
            raise CatalogError(f"{stream.path} line 1: the column '{name}' stands there {names.count(name)} times")
    return names


class _Counter:
    """Counts rows and lines, and keeps the rows that Arrow could not take until their place is known."""

    def __init__(self, names: Sequence[str], wanted: Wanted, *, has_header: bool) -> None:
        self.line = 1  # where the next row of any kind begins
        self.last_line = 1  # where the last row began
        self.ended = False  # has the added row come out?
        self._names = tuple(names)
        self._wanted = wanted
        self._header = has_header
        self._physical = 1  # number of the next row of any kind, as Arrow counts
        self._row = 0  # rows so far
        self._waiting: dict[int, str] = {}  # physical number -> text with too many or too few fields

    def skip(self, row: Any) -> str:
        """Take note of a row with too many or too few fields, and let Arrow go on."""
        count = f"{row.actual_columns} fields instead of {row.expected_columns}"
        self._waiting[row.number] = f"{count}\n{row.text}"
        return "skip"

    def rows(self, batch: Any, *, marked: bool, blank_lines: set[int]) -> Rows:
        """Return the rows of a batch without header, blank lines, the added row, and rows that are not UTF-8."""
        good, broken = self._places(batch.num_rows)
        lines = np.ones(len(good) + len(broken), np.int64)  # lines that each row of any kind takes
        for column in batch.columns:
            lines[good] += pc.count_substring(column, "\n").to_numpy(zero_copy_only=False)
        texts = [self._waiting.pop(self._physical + place).split("\n", 1) for place in broken]
        lines[broken] += np.array([text.count("\n") for _, text in texts], np.int64)
        counts = np.ones(len(lines), np.bool_)
        start = self.line + np.cumsum(lines) - lines
        counts[good] = ~self._blank(batch, start[good], blank_lines)
        if self._header and self._physical == 1 and len(lines):
            counts[0] = False
        row, line = self._row + np.cumsum(counts), start
        wrong = [
            Broken(int(row[place]), int(line[place]), unmark(text), reason)
            for place, (reason, text) in zip(broken, texts, strict=True)
        ]
        keep = counts[good]
        if marked:
            bad = self._bad_bytes(batch) & keep
            keep &= ~bad
            wrong += self._not_utf8(batch, np.flatnonzero(bad), row[good], line[good])
        self._advance(counts, lines, line)
        names = self._names
        columns = {
            name: batch.column(names.index(name)) if name in names else pa.nulls(batch.num_rows, pa.string())
            for name in self._wanted.columns
        }
        table = make_table(row[good], line[good], columns).filter(pa.array(keep))
        return Rows(table, tuple(wrong), names, text_ids=False)

    def _places(self, n_good: int) -> tuple[npt.NDArray[np.int64], list[int]]:
        """Return the places, among the next rows of any kind, of the good ones and of the broken ones."""
        broken: list[int] = []
        for number in sorted(self._waiting):
            if number - self._physical <= n_good + len(broken):
                broken.append(number - self._physical)
        return np.delete(np.arange(n_good + len(broken)), broken), broken

    def _blank(self, batch: Any, start: Any, blank_lines: set[int]) -> npt.NDArray[np.bool_]:
        """Return which rows are blank lines, and take the added row for one of them.

        To Arrow a blank line and a row of empty fields are the same; the stream knows which lines are blank.
        """
        blank = np.ones(batch.num_rows, np.bool_)
        for column in batch.columns:
            blank &= pc.equal(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
        empty = np.flatnonzero(blank)
        blank[empty] = [int(line) in blank_lines for line in start[empty]]
        blank_lines.difference_update(start[empty].tolist())
        if batch.num_rows and batch.column(0)[-1].as_py() == _END:
            blank[-1] = self.ended = True
        return blank

    def _bad_bytes(self, batch: Any) -> npt.NDArray[np.bool_]:
        bad = np.zeros(batch.num_rows, np.bool_)
        for column in batch.columns:
            bad |= pc.match_substring_regex(column, MARKED).to_numpy(zero_copy_only=False)
        return bad

    def _not_utf8(self, batch: Any, places: Any, row: Any, line: Any) -> list[Broken]:
        fields = [column.take(pa.array(places)).to_pylist() for column in batch.columns]
        records = (dict(zip(self._names, map(unmark, values), strict=True)) for values in zip(*fields, strict=True))
        texts = (json.dumps(record, ensure_ascii=False) for record in records)
        return [
            Broken(int(row[place]), int(line[place]), text, "not UTF-8")
            for place, text in zip(places, texts, strict=True)
        ]

    def _advance(self, counts: Any, lines: Any, line: Any) -> None:
        if counts.any():
            self.last_line = int(line[np.flatnonzero(counts)[-1]])
        self.line += int(lines.sum())
        self._physical += len(lines)
        self._row += int(counts.sum())
