"""Stage 1: the staged items, window by window in the order of the input, with clean tags: rows of items.parquet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import Settings
from pipeline.counting import Counts
from pipeline.figures import numbers, vectors
from pipeline.readers import one_array
from pipeline.splitting import SQL, thresholds
from pipeline.staging import Staged
from pipeline.tagging import Applications, GroupedTags, TagRules, group_tags, split_cells, words_of

WINDOW = 65_536  # rows of the items taken at a time; a row group of items.parquet


@dataclass(frozen=True)
class Windows:
    """The clean items of a staged catalog; what is counted on the way goes into `counts`."""

    staged: Staged
    settings: Settings
    rules: TagRules
    counts: Counts

    @cached_property
    def schema(self) -> Any:
        """Return the schema of items.parquet."""
        catalog, text = self.settings.catalog, pa.string()
        number = "coalesce(try_cast(id AS BIGINT)::VARCHAR = id AND NOT text_id, false)"
        query = f"SELECT coalesce(bool_and({number}), false) FROM items"
        numbers = self.staged.database.connection.execute(query).fetchall()[0][0]
        return pa.schema(
            [
                ("item_id", pa.int64() if numbers else text),
                ("title", text),
                *((f"text.{name}", text) for name in catalog.text),
                *((f"category.{name}", text) for name in catalog.categories),
                *((f"dense.{name}", pa.float64()) for name in catalog.numbers),
                *((f"dense.{name}", pa.list_(pa.float32())) for name in catalog.vectors),
                ("tags", pa.list_(text)),
                ("tag_counts", pa.list_(pa.int32())),
                ("tag_order", pa.list_(pa.int32())),
                ("n_raw_tags", pa.int32()),
                *((level, text) for level in catalog.levels),
                ("split", text),
            ]
        )

    def __iter__(self) -> Iterator[Any]:
        """Give tables of items.parquet; rejected tags go to the rejects on the way."""
        last = self.staged.database.connection.execute("SELECT max(n) FROM items").fetchall()[0][0]
        for start in range(0, -1 if last is None else last + 1, WINDOW):
            rows = self._query(self._items_query, start, **thresholds(self.settings.clean))
            if rows.num_rows:
                yield self._clean(rows, start)

    @cached_property
    def _items_query(self) -> str:
        layout = self.staged.layout
        cells = [f"items.{layout.place(name)} AS {layout.place(name)}" for name in layout.columns]
        labels = [f"labels.l{k} AS l{k}" for k in range(len(self.settings.catalog.levels))]
        split = f"coalesce({layout.place(layout.split)}, {SQL})" if layout.split else SQL
        return f"""
            SELECT {", ".join(["items.n AS n", "source", "line", "id", "lists", *cells, *labels])}, {split} AS split
            FROM items
            LEFT JOIN (SELECT * FROM labels WHERE n >= $start AND n < $stop) labels ON labels.n = items.n
            WHERE items.n >= $start AND items.n < $stop
            ORDER BY items.n
        """

    def _query(self, query: str, start: int, **parameters: Any) -> Any:
        parameters |= {"start": start, "stop": start + WINDOW}
        return self.staged.database.connection.sql(query, params=parameters).to_arrow_table()

    def _clean(self, rows: Any, start: int) -> Any:
        """Return the rows of items.parquet of a window."""
        catalog, layout = self.settings.catalog, self.staged.layout
        applications, places = self._applications(rows, start)
        grouped = group_tags(applications, rows.num_rows, self.rules)
        self._reject(grouped, applications, places, rows)
        empty = pa.nulls(rows.num_rows, pa.string())
        columns = {
            "item_id": rows["id"],
            "title": rows[layout.place(catalog.title)] if catalog.title else empty,
            **{f"text.{name}": rows[layout.place(name)] for name in catalog.text},
            **{f"category.{name}": rows[layout.place(name)] for name in catalog.categories},
            **{f"dense.{name}": numbers(rows[layout.place(name)])[0] for name in catalog.numbers},
            **{f"dense.{name}": vectors(rows[layout.place(name)])[0] for name in catalog.vectors},
            "tags": grouped.tags,
            "tag_counts": grouped.counts,
            "tag_order": grouped.order,
            "n_raw_tags": pa.array(grouped.n_raw, pa.int32()),
            **{level: rows[f"l{k}"] for k, level in enumerate(catalog.levels)},
            "split": rows["split"],
        }
        table = pa.table(list(columns.values()), names=list(columns)).cast(self.schema)
        self.counts.add(table)
        return table

    def _applications(self, rows: Any, start: int) -> tuple[Applications, Any]:
        """Return the raw tags of a window; of those from a file of their own also source and line, (n, 2)."""
        catalog, layout, clean = self.settings.catalog, self.staged.layout, self.settings.clean
        parts, places = [], None
        if layout.files.tags:
            query = "SELECT n, source, line, tag FROM applications WHERE n >= $start AND n < $stop ORDER BY n, line"
            places = self._query(query, start)
            row = np.searchsorted(rows["n"].to_numpy(), places["n"].to_numpy())
            parts.append(Applications.of(row, one_array(places["tag"])))
        elif layout.tags_column:
            cells = one_array(rows[layout.place(layout.tags_column)])
            parts.append(Applications.of_lists(split_cells(cells, separators=catalog.tag_separators, clean=clean)))
            parts.append(Applications.of_lists(one_array(rows["lists"])))
        for name in catalog.word_columns:
            parts.append(Applications.of_lists(words_of(one_array(rows[layout.place(name)]), clean=clean)))
        return Applications.together(parts), places

    def _reject(self, grouped: GroupedTags, applications: Applications, places: Any, rows: Any) -> None:
        """Put tags that gave nothing among the rejects, with their own place or that of their item."""
        n_own = 0 if places is None else places.num_rows
        if not len(grouped.rejected):
            return
        own, of_item = grouped.rejected[grouped.rejected < n_own], grouped.rejected[grouped.rejected >= n_own]
        item = applications.row[np.concatenate([own, of_item])]
        source = rows["source"].take(pa.array(applications.row[of_item])).to_pylist()
        line = rows["line"].take(pa.array(applications.row[of_item])).to_pylist()
        if len(own):
            source = places["source"].take(pa.array(own)).to_pylist() + source
            line = places["line"].take(pa.array(own)).to_pylist() + line
        ids = rows["id"].take(pa.array(item)).to_pylist()
        raw = applications.raw.take(pa.array(grouped.rejected)).to_pylist()
        self.staged.database.rejects.add("tag", source, line, ids, raw, grouped.reasons)
