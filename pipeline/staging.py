"""Stage 1, joining: the items, their labels and the applications of their tags, as tables that `n` joins.

items         n, source, line, id, text_id, lists, c0, c1 ...   a column each that the settings name
labels        n, l0, l1 ...                                     trimmed, stops carried down; null is unknown
applications  n, source, line, tag                              where tags have a file of their own
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import CatalogSettings, Settings
from pipeline.errors import CatalogError
from pipeline.figures import numbers, vectors
from pipeline.inputs import Role
from pipeline.labels import CheckedLabels, check_labels
from pipeline.readers import LISTS, ROW, Rows, Wanted
from pipeline.splitting import NAMES
from pipeline.tables import Block, Database, Files
from pipeline.taxonomy import Taxonomy


@dataclass(frozen=True)
class Layout:
    """Which columns of the items are read, and where they stand in the table."""

    catalog: CatalogSettings
    files: Files
    role: Role

    @property
    def tags_column(self) -> str:
        """Return the column of the items that holds tags, if one does."""
        return "" if self.files.tags else self.catalog.tags_column

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Return the columns of the items that hold labels, if they do."""
        return () if self.files.labels else self.catalog.label_columns

    @property
    def split(self) -> str:
        """Return the column that holds the split; a catalog that is only scored needs none."""
        return self.catalog.split if self.role == "training" else ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of the items that are read, each once."""
        catalog = self.catalog
        names = (catalog.item_id, catalog.title, *catalog.text, self.tags_column, *catalog.word_columns)
        others = (*catalog.categories, *catalog.numbers, *catalog.vectors)
        return tuple(dict.fromkeys(name for name in (*names, *others, *self.label_columns, self.split) if name))

    def place(self, column: str) -> str:
        """Return what a column of the items is called in the table items."""
        return f"c{self.columns.index(column)}"


@dataclass(frozen=True)
class Staged:
    """The catalog as tables, and how many rows there were."""

    database: Database
    layout: Layout
    taxonomy: Taxonomy | None  # the declared one
    n_rows: dict[str, int]  # rows read by scope: of the items, and of the files of tags and labels


def stage(database: Database, settings: Settings, *, role: Role) -> Staged:
    """Read items, labels and tags into tables; raises CatalogError for what cannot be read."""
    files = Files.of(settings, role=role)
    catalog = settings.catalog
    taxonomy = None
    for file in files.taxonomy:
        taxonomy = Taxonomy.read(
            file,
            levels=catalog.levels,
            columns=catalog.label_columns,
            stop_label=settings.clean.stop_label,
            expected=database.digest(file),
        )
    layout = Layout(catalog, files, role)
    labels = _Labels(settings, taxonomy)
    n_rows = {"item": _stage_items(database, layout, labels)}
    if files.labels:
        n_rows["label"] = _stage_labels(database, layout, labels)
    if files.tags:
        n_rows["tag"] = _stage_tags(database, layout)
    return Staged(database, layout, taxonomy, n_rows)


@dataclass(frozen=True)
class _Labels:
    settings: Settings
    taxonomy: Taxonomy | None

    def check(self, rows: Rows) -> CheckedLabels:
        catalog, stop = self.settings.catalog, self.settings.clean.stop_label
        columns = [rows.table[name] for name in catalog.label_columns]
        return check_labels(catalog.levels, columns, stop_label=stop, taxonomy=self.taxonomy)


def _stage_items(database: Database, layout: Layout, labels: _Labels) -> int:
    """Make the tables items and, where the items hold them, labels; return the number of rows read."""
    catalog, columns = layout.catalog, layout.columns
    cells = "".join(f", c{k} VARCHAR" for k in range(len(columns)))
    fixed = "n BIGINT, source VARCHAR, line BIGINT, id VARCHAR, text_id BOOLEAN, lists VARCHAR[]"
    database.create(f"items ({fixed}{cells})")
    wanted = Wanted(columns, layout.tags_column, catalog.item_id, catalog.column_names, catalog.vectors)
    optional = layout.label_columns if layout.role == "scoring" else ()
    names = {layout.place(name): name for name in columns} | (
        {"lists": layout.tags_column} if layout.tags_column else {}
    )
    n_rows = 0
    for path, before, rows in database.read(layout.files.items, wanted, optional=optional):
        database.add("items", "item", _items_block(path, before, rows, layout, labels))
        n_rows += rows.n_rows
    if not n_rows:
        raise CatalogError(f"{', '.join(layout.files.items)}: has no rows; a catalog needs at least one item")
    if catalog.item_id:
        database.reject_duplicates("items", "item", names)
    if layout.label_columns:
        picked = ", ".join(f"{layout.place(name)} AS l{k}" for k, name in enumerate(layout.label_columns))
        database.connection.execute(f"CREATE VIEW labels AS SELECT n, {picked} FROM items")
    return n_rows


def _items_block(path: str, before: int, rows: Rows, layout: Layout, labels: _Labels) -> Block:
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
    cells = {"text_id": pa.repeat(rows.text_ids, len(table)), "lists": table[LISTS]}
    cells |= {layout.place(name): column for name, column in values.items()}
    tags = layout.tags_column
    return Block.of(path, before, rows, ids=ids, cells=cells, reasons=reasons, list_column=tags)


def _stage_labels(database: Database, layout: Layout, labels: _Labels) -> int:
    """Make the table labels from the file of labels; return the number of rows read."""
    catalog = layout.catalog
    id_column = catalog.labels_item_id or _id_column(catalog, "labels")
    levels = [f"l{k}" for k in range(len(catalog.levels))]
    names = {"id": id_column} | dict(zip(levels, catalog.label_columns, strict=True))
    cells = "".join(f", {level} VARCHAR" for level in levels)
    database.create(f"raw_labels (n BIGINT, source VARCHAR, line BIGINT, id VARCHAR{cells})")
    n_rows = 0
    for path, before, rows in database.read(layout.files.labels, Wanted((id_column, *catalog.label_columns))):
        checked = labels.check(rows)
        columns = dict(zip(levels, checked.columns, strict=True))
        ids = rows.table[id_column]
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
    id_column = catalog.tags_item_id or _id_column(catalog, "tags")
    if not catalog.tags_column:
        raise CatalogError(f"{layout.files.tags[0]}: which column holds the tags? Name it in [catalog] tags_column")
    names = {"id": id_column, "tag": catalog.tags_column}
    database.create("raw_tags (n BIGINT, source VARCHAR, line BIGINT, id VARCHAR, tag VARCHAR)")
    n_rows = 0
    for path, before, rows in database.read(layout.files.tags, Wanted((id_column, catalog.tags_column))):
        tag = rows.table[catalog.tags_column]
        empty = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(pc.fill_null(tag, ""))), 0)
        reasons = pc.if_else(empty, "empty tag", pa.nulls(len(tag), pa.string()))
        ids = rows.table[id_column]
        block = Block.of(path, before, rows, ids=ids, cells={"tag": tag}, reasons=reasons)
        database.add("raw_tags", "tag", block)
        n_rows += rows.n_rows
    database.reject_orphans("raw_tags", "tag", names)
    database.create(
        "applications AS SELECT i.n, r.source, r.line, r.tag FROM raw_tags r JOIN items i ON r.id = i.id"
        " ORDER BY i.n, r.n"
    )
    return n_rows


def _id_column(catalog: CatalogSettings, what: str) -> str:
    """Return the column of the id in a file of tags or labels, where it is called as in the items."""
    if not catalog.item_id:
        raise CatalogError(f"[catalog] {what}: rows are joined by id; name it in [catalog] {what}_item_id")
    return catalog.item_id
