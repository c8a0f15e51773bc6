"""Stage 1: the taxonomy of a catalog, learned from its labels or declared."""

from __future__ import annotations

from collections import Counter

from pipeline.config import Settings
from pipeline.errors import CatalogError
from pipeline.staging import Staged
from pipeline.taxonomy import Taxonomy


def find_ladder(staged: Staged, settings: Settings) -> Taxonomy:
    """Return the declared taxonomy, else that of the classes with [clean] min_class_items labelled items.

    Labels stay as they are: of a class that is not in the taxonomy, a label is unknown to training.
    Raises CatalogError where no item has a label, no class has enough items, or all labels are one path.
    """
    catalog, smallest = settings.catalog, settings.clean.min_class_items
    found = _count_classes(staged, len(catalog.levels))
    place = ", ".join(staged.layout.files.labels or staged.layout.files.items)
    columns = ", ".join(catalog.label_columns)
    if not found:
        remedy = "name the columns of the labels in [catalog] level_columns, or the file in [catalog] labels"
        raise CatalogError(f"{place}: no item has a label in {columns}; {remedy}")
    common = [path for path, count in found.items() if count >= smallest]
    if not common:
        raise CatalogError(f"{place}: no label has [clean] min_class_items = {smallest} items; lower it")
    taxonomy = Taxonomy.of(catalog.levels, common, stop_label=settings.clean.stop_label)
    if set(taxonomy.n_classes) == {1}:
        path = " > ".join(taxonomy.classes[-1][0])
        raise CatalogError(
            f"{place}: one class only in {columns}: {path}; there is nothing to learn with fewer than two"
        )
    return staged.taxonomy or taxonomy


def _count_classes(staged: Staged, n_levels: int) -> dict[tuple[str, ...], int]:
    """Return the number of labelled items of every class of every level."""
    levels = ", ".join(f"l{k}" for k in range(n_levels))
    query = f"SELECT {levels}, count(*) FROM labels WHERE l0 IS NOT NULL GROUP BY {levels}"
    counts = Counter[tuple[str, ...]]()
    for *labels, count in staged.database.connection.execute(query).fetchall():
        path = labels[: labels.index(None)] if None in labels else labels
        for depth in range(1, len(path) + 1):
            counts[tuple(path[:depth])] += count
    return counts
