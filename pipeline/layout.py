"""Stage 1: which columns of which files are read, and what they are called in the tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.config_catalog import CatalogSettings
from pipeline.errors import CatalogError
from pipeline.inputs import Role
from pipeline.readers import Wanted
from pipeline.tables import Files


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

    @property
    def items_wanted(self) -> Wanted:
        """Return what is read of the items."""
        catalog = self.catalog
        return Wanted(self.columns, self.tags_column, catalog.item_id, catalog.column_names, catalog.vectors)

    @property
    def optional(self) -> tuple[str, ...]:
        """Return the columns of the items that may be missing: labels, where the catalog is only scored."""
        return self.label_columns if self.role == "scoring" else ()

    @property
    def labels_names(self) -> dict[str, str]:
        """Return the columns that are read of the file of labels, by what they are called in its table."""
        levels = {f"l{k}": name for k, name in enumerate(self.catalog.label_columns)}
        return {"id": self.id_column("labels")} | levels

    @property
    def tags_names(self) -> dict[str, str]:
        """Return the columns that are read of the file of tags, by what they are called in its table."""
        catalog = self.catalog
        if not catalog.tags_column:
            raise CatalogError(f"{self.files.tags[0]}: which column holds the tags? Name it in [catalog] tags_column")
        names = {"tag": catalog.tags_column, "count": catalog.tags_count, "given_by": catalog.tags_user}
        return {"id": self.id_column("tags")} | {key: name for key, name in names.items() if name}

    def id_column(self, what: Literal["tags", "labels"]) -> str:
        """Return the column of the id in the file of tags or labels; as in the items, where none is named."""
        catalog = self.catalog
        own = catalog.tags_item_id if what == "tags" else catalog.labels_item_id
        if not (own or catalog.item_id):
            raise CatalogError(f"[catalog] {what}: rows are joined by id; name it in [catalog] {what}_item_id")
        return own or catalog.item_id
