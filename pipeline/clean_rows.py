"""Stage 1: rows of the input, with their labels and raw tags, become rows of items.parquet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Settings
from pipeline.config_catalog import CatalogSettings
from pipeline.counting import Counts
from pipeline.figures import numbers, vectors
from pipeline.layout import Layout
from pipeline.readers import one_array
from pipeline.rejects import Gathered, Rejects
from pipeline.spelling import normalise
from pipeline.tagging import Applications, GroupedTags, TagRules, group_tags, select_tags, split_cells, words_of


def schema_of(catalog: CatalogSettings, item_id: Any) -> Any:
    """Return the schema of items.parquet."""
    number, text = pa.int32(), pa.string()
    return pa.schema(
        [
            ("item_id", item_id),
            ("title", text),
            *((f"text.{name}", text) for name in catalog.text),
            *((f"category.{name}", text) for name in catalog.categories),
            *((f"dense.{name}", pa.float64()) for name in catalog.numbers),
            *((f"dense.{name}", pa.list_(pa.float32())) for name in catalog.vectors),
            ("tags", pa.list_(text)),
            ("tag_counts", pa.list_(number)),
            ("tag_order", pa.list_(number)),
            ("n_raw_tags", number),
            *((level, text) for level in catalog.levels),
            ("split", text),
        ]
    )


@dataclass(frozen=True)
class Cleaner:
    """Makes clean items of rows; what is counted goes into `counts`, and tags that gave nothing to the rejects."""

    settings: Settings
    layout: Layout
    rules: TagRules
    counts: Counts
    rejects: Rejects | Gathered
    labels: frozenset[str]  # names of labels as tags; they are dropped

    def clean(self, rows: Any, schema: Any, own: Applications | None = None, places: Any = None) -> Any:
        """Return rows of items.parquet. The columns of `rows` are called as in the table items, labels l0, l1 ...

        `own` are the applications of a file of tags, where there is one, and `places` their sources and lines.
        """
        catalog, layout = self.settings.catalog, self.layout
        applications = self._applications(rows, own)
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
        table = pa.table(list(columns.values()), names=list(columns)).cast(schema)
        self.counts.add(table, n_kept=grouped.n_kept, changes=grouped.changes)
        return table

    def _applications(self, rows: Any, own: Applications | None) -> Applications:
        """Return the raw tags of rows, those from a file of their own first."""
        catalog, layout, clean = self.settings.catalog, self.layout, self.settings.clean
        parts, changes = [] if own is None else [own], self.counts.changes
        if layout.tags_column:
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
        return Applications.together(parts)

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
        self.rejects.add("tag", source, line, ids, raw, grouped.reasons)

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
