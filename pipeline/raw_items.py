"""Stage 5: items of Parquet files that are cleaned by the process that scores them, without a database between.

Stage 1 joins, finds duplicates and counts; a catalog that needs none of that goes by here, several times as fast, by
the same functions: raw_plan.py says whether it does. What a row is rejected for is the same, too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import arrow
from pipeline.clean_rows import Cleaner, schema_of
from pipeline.config import Settings
from pipeline.counting import Counts
from pipeline.layout import Layout
from pipeline.model import load_rules
from pipeline.parquet_rows import Source, pieces
from pipeline.rejects import Gathered
from pipeline.staging import CheckedRows, items_block
from pipeline.tables import Files
from pipeline.tagging import TagRules


@dataclass(frozen=True)
class Plan:
    """Which files there are, and what their items are called by."""

    sources: tuple[Source, ...]
    n_rows: tuple[int, ...]  # of each file
    numbers: bool  # ids are whole numbers

    def to_json(self) -> dict[str, Any]:
        """Return what `of_json` reads."""
        return asdict(self)

    @classmethod
    def of_json(cls, facts: Mapping[str, Any]) -> Plan:
        """Return the plan that another process made."""
        sources = tuple(
            Source(found["path"], tuple(found["dictionaries"]), found["n_at_once"]) for found in facts["sources"]
        )
        return cls(sources, tuple(facts["n_rows"]), facts["numbers"])


class Cleaned(NamedTuple):
    """Rows of the input, those that are kept as clean items."""

    items: pa.Table  # as in items.parquet
    places: npt.NDArray[np.int64]  # (n_items,), which rows these are, from 0
    rejects: pa.Table
    n_tags: int  # raw ones


class RawItems:
    """The rows of the files by their place, cleaned as they are read."""

    def __init__(self, settings: Settings, model: Path, plan: Plan) -> None:
        self.settings, lists = load_rules(model, settings)
        self.layout = Layout(self.settings.catalog, Files.of(self.settings, role="scoring"), "scoring")
        self.plan = plan
        self.rules = TagRules(self.settings.clean, lists)
        self.schema = schema_of(self.settings.catalog, pa.int64() if plan.numbers else pa.string())
        self._starts = [0, *accumulate(plan.n_rows)]
        self.n_items = self._starts[-1]
        self._rows = [Rows(source, self.layout) for source in plan.sources]

    def read(self, start: int, stop: int) -> Cleaned:
        """Return the rows from start to before stop."""
        rejects, counts = Gathered(), Counts(self.settings.catalog.levels)
        cleaner = Cleaner(self.settings, self.layout, self.rules, counts, rejects, self.rules.lists.labels)
        found = []
        labels = CheckedRows(self.settings, None)
        for file, row, batch in self._batches(start, stop):
            source, before = self.plan.sources[file].path, self._starts[file]
            for rows in pieces(source, batch, row + 1, self._rows[file].known, self.layout.items_wanted):
                block = items_block(source, before, rows, self.layout, labels)
                block.reject("item", rejects)
                found.append(self._with_labels(block.good))
        # At once: what is done for each distinct tag is the larger part of the work.
        kept = pa.concat_tables(found).combine_chunks()
        items = cleaner.clean(kept, self.schema) if kept.num_rows else self.schema.empty_table()
        return Cleaned(items, arrow.values(kept["n"]), rejects.table, counts.n_raw_tags)

    def _batches(self, start: int, stop: int) -> Iterator[tuple[int, int, Any]]:
        """Give file, first row within it, and rows."""
        while start < stop:
            file = bisect_right(self._starts, start) - 1
            end = min(stop, self._starts[file + 1])
            before = self._starts[file]
            for row, batch in self._rows[file].read(start - before, end - before):
                yield file, row, batch
            start = end

    def _with_labels(self, rows: Any) -> Any:
        """Return rows with what the database would add: columns of the labels, and a split."""
        for level, name in enumerate(self.layout.label_columns):
            rows = rows.append_column(f"l{level}", rows[self.layout.place(name)])
        return rows.append_column("split", pa.nulls(len(rows), pa.string()))


class Rows:
    """Rows of a Parquet file by their place; who asks for them in their order has each group read once."""

    def __init__(self, source: Source, layout: Layout) -> None:
        self.source = source
        self.layout = layout
        self._reader: Iterator[tuple[int, Any]] = iter(())
        self._last: tuple[int, Any] = (0, None)
        self._group = -1

    @cached_property
    def _file(self) -> Any:
        return self.source.open(self.source.path)

    @cached_property
    def _ends(self) -> list[int]:
        """Return behind which row each group ends."""
        groups = range(self._file.num_row_groups)
        return list(accumulate(self._file.metadata.row_group(group).num_rows for group in groups))

    @property
    def known(self) -> list[str]:
        """Return the columns of the file."""
        return list(self._file.schema_arrow.names)

    def read(self, start: int, stop: int) -> Iterator[tuple[int, Any]]:
        """Give first row and rows, from start to before stop."""
        while start < stop:
            group = bisect_right(self._ends, start)
            if group != self._group or start < self._last[0]:
                self._group, self._reader = group, self._read_group(group)
                self._last = next(self._reader)
            first, batch = self._last
            if start >= first + batch.num_rows:
                self._last = next(self._reader)
                continue
            found = batch.slice(start - first, stop - start)
            yield start, found
            start += found.num_rows

    def _read_group(self, group: int) -> Iterator[tuple[int, Any]]:
        """Give first row and rows of a group."""
        columns = self.source.columns(self._file, self.layout.items_wanted)
        row = self._ends[group - 1] if group else 0
        batches = self._file.iter_batches(self.source.n_at_once, row_groups=[group], columns=columns, use_threads=False)
        for batch in batches:
            yield row, batch
            row += batch.num_rows
