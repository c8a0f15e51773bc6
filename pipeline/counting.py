"""Stage 1: what is counted while a catalog is cleaned; statistics.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CatalogError
from pipeline.rejects import SCOPES, Rejects
from pipeline.tagging import TagRules

MAX_UNKNOWN = 100  # labels that the declared taxonomy does not have, the most frequent
QUANTILES = (0, 0.25, 0.5, 0.75, 0.9, 0.99, 1)


class Counts:
    """Counts over tables of items.parquet, added one after the other."""

    def __init__(self, levels: Sequence[str]) -> None:
        self.levels = tuple(levels)
        self.n_items = 0
        self.n_raw_tags = 0  # applications, blank ones not among them
        self.n_kept = 0  # applications that gave a clean tag
        self.changes = Counter[str]()  # applications by what changed or dropped them; label_tags: tags of items
        self.n_giveaways = 0  # tags that are a label of their item, each once an item
        self.n_given_away = 0  # items with such a tag
        self.n_pairs = 0  # tags of items, each once an item
        self.lengths = Counter[int]()  # tags of an item -> items
        self.splits = Counter[str]()
        self.labelled = Counter[str]()  # the same of items with a label
        self.classes = [Counter[tuple[str, ...]]() for _ in levels]

    def add_giveaways(self, *, n_tags: int, n_items: int) -> None:
        """Count tags that give the label of their item away."""
        self.n_giveaways += n_tags
        self.n_given_away += n_items

    def add(self, table: Any, *, n_kept: int, changes: Counter[str]) -> None:
        """Count the items of a table, the applications that it keeps, and what changed or dropped applications."""
        self.n_items += table.num_rows
        self.n_raw_tags += pc.sum(table["n_raw_tags"], min_count=0).as_py()
        self.n_kept += n_kept
        self.changes.update(changes)
        lengths = _count(pc.list_value_length(table["tags"]))
        self.lengths.update(lengths)
        self.n_pairs += sum(length * count for length, count in lengths.items())
        self.splits.update(_count(table["split"]))
        self.labelled.update(_count(table["split"].filter(pc.is_valid(table[self.levels[0]]))))
        names = list(self.levels)
        for row in table.select(names).group_by(names).aggregate([([], "count_all")]).to_pylist():
            path = [row[name] for name in names]
            known = path[: path.index(None)] if None in path else path
            for depth in range(len(known)):
                self.classes[depth][tuple(known[: depth + 1])] += row["count_all"]

    def merge(self, other: Counts) -> None:
        """Count what was counted over other tables."""
        for name in ("n_items", "n_raw_tags", "n_kept", "n_giveaways", "n_given_away", "n_pairs"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("changes", "lengths", "splits", "labelled"):
            getattr(self, name).update(getattr(other, name))
        for counts, more in zip(self.classes, other.classes, strict=True):
            counts.update(more)

    def check_training(self, *, has_text: bool) -> None:
        """Raise CatalogError where there is nothing to train on."""
        if not self.labelled["train"]:
            parts = ", ".join(f"{name} {count}" for name, count in sorted(self.labelled.items()))
            remedy = "label more items, lower [clean] validation_share and test_share, or name a [catalog] split column"
            raise CatalogError(f"no labelled item is in the training part (labelled: {parts}); {remedy}")
        if not self.n_pairs and not has_text:
            raise CatalogError("no item has a tag; see [catalog] tags, tags_column and word_columns")

    def as_json(
        self,
        *,
        n_rows: dict[str, int],
        rejects: Rejects,
        rules: TagRules,
        unknown_labels: Counter[tuple[str, ...]],
    ) -> dict[str, Any]:
        """Return what statistics.json holds; `n_rows` by scope: rows of the items, of files of tags and labels."""
        clean = {found.tag for found in rules.known.values() if found.tag}
        stop_label = rules.clean.stop_label
        changed = (found.changed_by for raw, found in rules.known.items() if found.tag != raw)
        distinct = Counter(name for names in changed for name in names)
        return {
            "n_rows": n_rows["item"],
            "n_rows_of_tags": n_rows.get("tag", 0),
            "n_rows_of_labels": n_rows.get("label", 0),
            "n_items": self.n_items,
            "rejects": {scope: rejects.reasons(scope) for scope in SCOPES},
            "tag_applications": self.n_raw_tags,
            "tag_applications_kept": self.n_kept,
            "tags_of_items": self.n_pairs,
            "distinct_raw_tags": len(rules.known),
            "distinct_raw_tags_changed": sum(
                bool(found.tag) and found.tag != raw for raw, found in rules.known.items()
            ),
            "changes": {name: count for name, count in sorted(self.changes.items()) if count},
            "distinct_raw_tags_changed_by": dict(sorted(distinct.items())),
            "label_tags": {"on_their_own_items": self.n_giveaways, "items": self.n_given_away},
            "distinct_tags": len(clean),
            "tags_per_item": quantiles(self.lengths),
            "items_without_tags": self.lengths[0],
            "labels": {
                level: {
                    "known": sum(counts.values()),
                    "unknown": self.n_items - sum(counts.values()),
                    "stopped": sum(count for path, count in counts.items() if path[-1] == stop_label),
                    "classes": [{"path": list(path), "items": count} for path, count in sorted(counts.items())],
                }
                for level, counts in zip(self.levels, self.classes, strict=True)
            },
            "labels_not_in_the_taxonomy": [
                {"path": list(path), "rows": count} for path, count in unknown_labels.most_common(MAX_UNKNOWN)
            ],
            "split": {name: self.splits[name] for name in ("train", "validation", "test")},
            "split_labelled": {name: self.labelled[name] for name in ("train", "validation", "test")},
        }


def quantiles(lengths: Counter[int]) -> dict[str, float]:
    """Return mean and quantiles of numbers that are counted; each quantile is a number that occurs.

    >>> quantiles(Counter({0: 1, 2: 2, 10: 1}))["50%"], quantiles(Counter({0: 1, 2: 2, 10: 1}))["mean"]
    (2, 3.5)
    """
    total = sum(lengths.values())
    if not total:
        return {}
    values = sorted(lengths)
    upto = np.cumsum([lengths[value] for value in values])
    places = (int(np.searchsorted(upto, max(1, np.ceil(share * total)))) for share in QUANTILES)
    found = {f"{share:.0%}": float(values[place]) for share, place in zip(QUANTILES, places, strict=True)}
    mean = sum(value * count for value, count in lengths.items()) / total
    return {"mean": round(mean, 4)} | {name: int(value) for name, value in found.items()}


def _count(column: Any) -> dict[Any, int]:
    """Return how often each value occurs."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(array).to_pylist()}
