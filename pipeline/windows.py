"""Stage 1: the staged items, window by window in the order of the input, with clean tags: rows of items.parquet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Settings
from pipeline.counting import Counts
from pipeline.figures import numbers, vectors
from pipeline.readers import one_array
from pipeline.sizes import PER_VALUE, cuts
from pipeline.spelling import normalise
from pipeline.splitting import SQL, thresholds
from pipeline.staging import Staged
from pipeline.tagging import Applications, GroupedTags, TagRules, group_tags, select_tags, split_cells, words_of

WINDOW = 65_536  # most rows of the items taken at a time; a row group of items.parquet
MAX_BYTES = 32 << 20  # and most bytes of them and of the applications of their tags
PART = 64  # rows that stay together


@dataclass(frozen=True)
class Windows:
    """The clean items of a staged catalog; what is counted on the way goes into `counts`."""

    staged: Staged
    settings: Settings
    rules: TagRules
    counts: Counts
    labels: frozenset[str] = frozenset()  # names of labels as tags; they are dropped where the settings say so

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
        sizes = self._part_sizes()
        for first, last in cuts(sizes, max_rows=max(1, WINDOW // PART), max_bytes=MAX_BYTES):
            window = {"start": first * PART, "stop": last * PART}
            rows = self._query(self._items_query, **window, **thresholds(self.settings.clean))
            # Sorted here: DuckDB would lay all texts of a window side by side first.
            rows = rows.take(pc.sort_indices(rows["n"]))
            if rows.num_rows:
                yield self._clean(rows, window)

    def _part_sizes(self) -> npt.NDArray[np.int64]:
        """Return the bytes of each PART rows of the input, (n_parts,)."""
        queries = [f"SELECT n // {PART} AS part, sum(size) AS size FROM items GROUP BY part"]
        if self.staged.layout.files.tags:
            size = f"sum(strlen(tag) + coalesce(strlen(given_by), 0) + {4 * PER_VALUE})"
            queries.append(f"SELECT n // {PART} AS part, {size} AS size FROM applications GROUP BY part")
        union = " UNION ALL ".join(queries)
        found = self.staged.database.connection.sql(union).to_arrow_table()
        part, size_of = (np.asarray(found[name].cast(pa.int64())) for name in ("part", "size"))
        sizes = np.zeros(int(part.max(initial=-1)) + 1, np.int64)
        np.add.at(sizes, part, size_of)
        return sizes

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
        """

    def _query(self, query: str, **parameters: Any) -> Any:
        return self.staged.database.connection.sql(query, params=parameters).to_arrow_table()

    def _clean(self, rows: Any, window: dict[str, int]) -> Any:
        """Return the rows of items.parquet of a window."""
        catalog, layout = self.settings.catalog, self.staged.layout
        applications, places = self._applications(rows, window)
        grouped = group_tags(applications, rows.num_rows, self.rules)
        self._reject(grouped, applications, places, rows)
        labels = [one_array(rows[f"l{k}"]) for k in range(len(catalog.levels))]
        tags, counts, order = self._without_labels(grouped, labels)
        empty = pa.nulls(rows.num_rows, pa.string())
        columns = {
            "item_id": rows["id"],
            "title": rows[layout.place(catalog.title)] if catalog.title else empty,
            **{f"text.{name}": rows[layout.place(name)] for name in catalog.text},
            **{f"category.{name}": rows[layout.place(name)] for name in catalog.categories},
            **{f"dense.{name}": numbers(rows[layout.place(name)])[0] for name in catalog.numbers},
            **{f"dense.{name}": vectors(rows[layout.place(name)])[0] for name in catalog.vectors},
            "tags": tags,
            "tag_counts": counts,
            "tag_order": order,
            "n_raw_tags": pa.array(grouped.n_raw, pa.int32()),
            **{level: rows[f"l{k}"] for k, level in enumerate(catalog.levels)},
            "split": rows["split"],
        }
        table = pa.table(list(columns.values()), names=list(columns)).cast(self.schema)
        self.counts.add(table, n_kept=grouped.n_kept, changes=grouped.changes)
        return table

    def _applications(self, rows: Any, window: dict[str, int]) -> tuple[Applications, Any]:
        """Return the raw tags of a window; of those from a file of their own also source and line, (n, 2)."""
        catalog, layout, clean = self.settings.catalog, self.staged.layout, self.settings.clean
        parts, places, changes = [], None, self.counts.changes
        if layout.files.tags:
            columns = "n, source, line, tag, count, given_by"
            where = "n >= $start AND n < $stop"
            places = self._query(f"SELECT {columns} FROM applications WHERE {where} ORDER BY n, line", **window)
            row = np.searchsorted(rows["n"].to_numpy(), places["n"].to_numpy())
            user = one_array(places["given_by"]).dictionary_encode("encode").indices.to_numpy(zero_copy_only=False)
            given = {"count": places["count"].to_numpy(), "user": user}
            parts.append(Applications.of(row, one_array(places["tag"]), **given))
        elif layout.tags_column:
            cells = one_array(rows[layout.place(layout.tags_column)])
            parts.append(
                Applications.of_lists(
                    split_cells(cells, separators=catalog.tag_separators, clean=clean, changes=changes)
                )
            )
            parts.append(Applications.of_lists(one_array(rows["lists"])))
        for name in catalog.word_columns:
            parts.append(
                Applications.of_lists(words_of(one_array(rows[layout.place(name)]), clean=clean, changes=changes))
            )
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

    def _without_labels(self, grouped: GroupedTags, labels: list[Any]) -> tuple[Any, Any, Any]:
        """Count the tags that give their item's label away; return tags, counts, order, without labels if so set."""
        tags, lists = pc.list_flatten(grouped.tags), self.rules.lists
        parents = pc.list_parent_indices(grouped.tags)
        gives_away = np.zeros(len(tags), np.bool_)
        for column in labels:
            names = column.dictionary_encode()
            spelt = [lists.spell(normalise(name, self.rules.clean)) for name in names.dictionary.to_pylist()]
            own = pa.array(spelt, pa.string()).take(names.indices).take(parents)
            gives_away |= pc.fill_null(pc.equal(tags, own), False).to_numpy(zero_copy_only=False)
        items = parents.to_numpy(zero_copy_only=False)[gives_away]
        self.counts.add_giveaways(n_tags=int(gives_away.sum()), n_items=len(np.unique(items)))
        is_label = pc.is_in(tags, pa.array(sorted(self.labels), pa.string())).to_numpy(zero_copy_only=False)
        if not is_label.any():
            return grouped.tags, grouped.counts, grouped.order
        grouped.changes["label_tags"] += int(is_label.sum())
        tags, counts, order = (select_tags(found, ~is_label) for found in (grouped.tags, grouped.counts, grouped.order))
        return tags, counts, order
