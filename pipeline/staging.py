"""Stage 1, joining: the items, their labels and the applications of their tags, as tables that `n` joins.

items         n, source, line, id, text_id, size, lists, c0, c1 ...   a column each that the settings name
labels        n, l0, l1 ...                                     trimmed, stops carried down; null is unknown
applications  n, source, line, tag, count, given_by             where tags have a file of their own
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Settings
from pipeline.declared import read_declared
from pipeline.errors import CatalogError
from pipeline.figures import numbers, vectors
from pipeline.inputs import Role
from pipeline.labels import NOT_DECLARED, CheckedLabels, check_labels
from pipeline.layout import Layout
from pipeline.readers import LISTS, ROW, Rows, Wanted
from pipeline.schema import check_columns
from pipeline.sizes import row_bytes
from pipeline.splitting import NAMES
from pipeline.tables import Block, Database, Files
from pipeline.taxonomy import Taxonomy

_NUMBER = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"


@dataclass(frozen=True)
class Staged:
    """The catalog as tables, and how many rows there were."""

    database: Database
    layout: Layout
    taxonomy: Taxonomy | None  # the declared one
    n_rows: dict[str, int]  # rows read by scope: of the items, and of the files of tags and labels
    unknown_labels: Counter[tuple[str, ...]]  # paths that the declared taxonomy does not have, and their rows


def stage(database: Database, settings: Settings, *, role: Role) -> Staged:
    """Read items, labels and tags into tables; raises CatalogError for what cannot be read."""
    files = Files.of(settings, role=role, planned=database.expected)
    catalog = settings.catalog
    taxonomy = None
    for file in files.taxonomy:
        taxonomy = read_declared(file, catalog, stop_label=settings.clean.stop_label, expected=database.digest(file))
    layout = Layout(catalog, files, role)
    check_columns(layout)
    labels = CheckedRows(settings, taxonomy)
    n_rows = {"item": _stage_items(database, layout, labels)}
    if files.labels:
        n_rows["label"] = _stage_labels(database, layout, labels)
    if files.tags:
        n_rows["tag"] = _stage_tags(database, layout)
    return Staged(database, layout, taxonomy, n_rows, labels.unknown)


@dataclass(frozen=True)
class CheckedRows:
    """The check of the labels of rows; it counts those that the declared taxonomy does not have."""

    settings: Settings
    taxonomy: Taxonomy | None
    unknown: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def check(self, rows: Rows) -> CheckedLabels:
        """Return the labels of rows, and what is wrong with them."""
        catalog, stop = self.settings.catalog, self.settings.clean.stop_label
        columns = [rows.table[name] for name in catalog.label_columns]
        checked = check_labels(catalog.levels, columns, stop_label=stop, taxonomy=self.taxonomy)
        foreign = pc.fill_null(pc.ends_with(checked.reasons, NOT_DECLARED), False)
        for path in zip(*(column.filter(foreign).to_pylist() for column in checked.columns), strict=True):
            self.unknown[path[: path.index(None)] if None in path else path] += 1
        return checked


def _stage_items(database: Database, layout: Layout, labels: CheckedRows) -> int:
    """Make the tables items and, where the items hold them, labels; return the number of rows read."""
    catalog, columns = layout.catalog, layout.columns
    cells = "".join(f", c{k} VARCHAR" for k in range(len(columns)))
    fixed = "n BIGINT, source VARCHAR, line BIGINT, id VARCHAR, text_id BOOLEAN, size BIGINT, lists VARCHAR[]"
    database.create(f"items ({fixed}{cells})")
    names = {layout.place(name): name for name in columns} | (
        {"lists": layout.tags_column} if layout.tags_column else {}
    )
    n_rows = 0
    for path, before, rows in database.read(layout.files.items, layout.items_wanted, optional=layout.optional):
        database.add("items", "item", items_block(path, before, rows, layout, labels))
        n_rows += rows.n_rows
    if not n_rows:
        raise CatalogError(f"{', '.join(layout.files.items)}: has no rows; a catalog needs at least one item")
    if catalog.item_id:
        database.reject_duplicates("items", "item", names)
    if layout.label_columns:
        picked = ", ".join(f"{layout.place(name)} AS l{k}" for k, name in enumerate(layout.label_columns))
        database.connection.execute(f"CREATE VIEW labels AS SELECT n, {picked} FROM items")
    return n_rows


def items_block(path: str, before: int, rows: Rows, layout: Layout, labels: CheckedRows) -> Block:
    """Return rows of the items with their labels and split checked."""
    table = rows.table
    values = {name: table[name] for name in layout.columns}
    reasons = pa.nulls(len(table), pa.string())
    if layout.label_columns:
        checked = labels.check(rows)
        values |= dict(zip(layout.label_columns, checked.columns, strict=True))
        reasons = checked.reasons
    if layout.split:
        spelt = pc.utf8_lower(pc.utf8_trim_whitespace(table[layout.split]))
        place = pc.index_in(spelt, pa.array(list(NAMES)))
        values[layout.split] = pc.take(pa.array(list(NAMES.values())), place)
        unknown = pc.and_(pc.is_valid(spelt), pc.is_null(place))
        reasons = pc.if_else(unknown, "split is not train, validation or test", reasons)
    for names, parse, what in (
        (layout.catalog.numbers, numbers, "number"),
        (layout.catalog.vectors, vectors, "vector"),
    ):
        for name in names:
            reasons = pc.if_else(parse(table[name])[1], f"{name} is not a {what}", reasons)
    number = pc.cast(pc.add(table[ROW], before), pa.string())
    ids = table[layout.catalog.item_id] if layout.catalog.item_id else number
    size = pa.array(row_bytes([*values.values(), table[LISTS]], len(table)))
    cells = {"text_id": pa.repeat(rows.text_ids, len(table)), "size": size, "lists": table[LISTS]}
    cells |= {layout.place(name): column for name, column in values.items()}
    tags = layout.tags_column
    return Block.of(path, before, rows, ids=ids, cells=cells, reasons=reasons, list_column=tags)


def _stage_labels(database: Database, layout: Layout, labels: CheckedRows) -> int:
    """Make the table labels from the file of labels; return the number of rows read."""
    names = layout.labels_names
    levels = [name for name in names if name != "id"]
    cells = "".join(f", {level} VARCHAR" for level in levels)
    database.create(f"raw_labels (n BIGINT, source VARCHAR, line BIGINT, id VARCHAR{cells})")
    n_rows = 0
    for path, before, rows in database.read(layout.files.labels, Wanted(tuple(names.values()))):
        checked = labels.check(rows)
        columns = dict(zip(levels, checked.columns, strict=True))
        ids = rows.table[names["id"]]
        block = Block.of(path, before, rows, ids=ids, cells=columns, reasons=checked.reasons)
        database.add("raw_labels", "label", block)
        n_rows += rows.n_rows
    database.reject_duplicates("raw_labels", "label", names)
    database.reject_orphans("raw_labels", "label", names)
    picked = ", ".join(f"r.{level}" for level in levels)
    database.create(f"labels AS SELECT i.n, {picked} FROM raw_labels r JOIN items i ON r.id = i.id ORDER BY i.n")
    return n_rows


def _stage_tags(database: Database, layout: Layout) -> int:
    """Make the table applications from the file of tags; return the number of rows read."""
    catalog = layout.catalog
    names = layout.tags_names
    cells = "tag VARCHAR, count DOUBLE, given_by VARCHAR"
    database.create(f"raw_tags (n BIGINT, source VARCHAR, line BIGINT, id VARCHAR, {cells})")
    n_rows = 0
    for path, before, rows in database.read(layout.files.tags, Wanted(tuple(names.values()))):
        tag = rows.table[catalog.tags_column]
        nothing = pa.nulls(len(tag), pa.string())
        empty = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(pc.fill_null(tag, ""))), 0)
        reasons = pc.if_else(empty, "empty tag", nothing)
        count = pa.repeat(1.0, len(tag))
        if catalog.tags_count:
            count = _positive(rows.table[catalog.tags_count])
            wrong = pc.and_(pc.is_null(count), pc.is_null(reasons))
            reasons = pc.if_else(wrong, f"{catalog.tags_count} is not a number above 0", reasons)
        user = rows.table[catalog.tags_user] if catalog.tags_user else nothing
        cells_of = {"tag": tag, "count": count, "given_by": user}
        ids = rows.table[names["id"]]
        block = Block.of(path, before, rows, ids=ids, cells=cells_of, reasons=reasons)
        database.add("raw_tags", "tag", block)
        n_rows += rows.n_rows
    database.reject_orphans("raw_tags", "tag", names)
    database.create(
        "applications AS SELECT i.n, r.source, r.line, r.tag, r.count, r.given_by"
        " FROM raw_tags r JOIN items i ON r.id = i.id ORDER BY i.n, r.n"
    )
    return n_rows


def _positive(column: Any) -> Any:
    """Return the numbers above 0 of a string column; anything else is null."""
    text = pc.utf8_trim_whitespace(column)
    number = pc.cast(pc.if_else(pc.match_substring_regex(text, _NUMBER), text, None), pa.float64())
    return pc.if_else(pc.and_(pc.greater(number, 0), pc.less(number, 1e9)), number, None)
