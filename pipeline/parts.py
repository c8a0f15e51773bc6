"""Stage 2's shards as the parts train, validation and test, read by position: one shard in memory at a time.

Where an item stands in its part does not depend on how the items were cut into shards, so neither does what is
made of a range of positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.class_weights import class_counts
from pipeline.errors import FeatureError
from pipeline.examples import Examples
from pipeline.partition import SPLITS
from pipeline.shards import LabelledItems, Widths, join, read_labels, read_shard, read_split, rows


class Part:
    """The items of one split; a source of examples for training (`pipeline.examples.Source`)."""

    def __init__(self, paths: list[Path], widths: Widths, *, split: int, counts: list[int]) -> None:
        self.widths = widths
        self._paths = paths
        self._split = split
        self._starts = np.concatenate([[0], np.cumsum(counts)])  # position of each shard's first item; and the end
        self._held: tuple[int, LabelledItems] | None = None  # the shard that was read last, and its items

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def n_positions(self) -> int:
        """Return the number of positions, one an item."""
        return len(self)

    def items(self, start: int, stop: int) -> LabelledItems:
        """Return the items of these positions, in order. Raises FeatureError where a shard is damaged or foreign."""
        starts = self._starts
        touched = np.flatnonzero((starts[:-1] < stop) & (starts[1:] > start) & (np.diff(starts) > 0))
        pieces = []
        for shard in touched.tolist():
            first = int(starts[shard])
            pieces.append(rows(self._shard(shard), slice(max(start - first, 0), stop - first)))
        return join(pieces) if pieces else LabelledItems.none(self.widths)

    def read(self, start: int, stop: int) -> Examples:
        """Return the items of these positions as examples."""
        items = self.items(start, stop)
        return Examples.of(items.tag_index, items.labels, features=items.features, dense=items.dense)

    def class_counts(self) -> tuple[NDArray[np.int64], ...]:
        """Return how many items each class has, (n_classes,) a level; only the labels are read."""
        totals = tuple(np.zeros(n_classes, np.int64) for n_classes in self.widths.n_classes)
        for path in self._paths:
            labels, split = read_labels(path)
            found = class_counts(labels[split == self._split], self.widths.n_classes)
            totals = tuple(total + more for total, more in zip(totals, found, strict=True))
        return totals

    def _shard(self, shard: int) -> LabelledItems:
        if self._held is None or self._held[0] != shard:
            self._held = None  # Before the next is read: else there would be two.
            items, split, widths = read_shard(self._paths[shard])
            if widths != self.widths:
                raise _foreign(self._paths[shard], widths, self.widths)
            mask = split == self._split
            self._held = (shard, items if mask.all() else rows(items, mask))
        return self._held[1]


@dataclass(frozen=True)
class Parts:
    """All labelled items of a folder of stage 2, and the sizes that they share."""

    train: Part
    validation: Part
    test: Part
    widths: Widths


def open_parts(folder: Path) -> Parts:
    """Return the parts of a folder of shards, of which only the split has been read.

    Raises FeatureError where the folder has no shards, or one is damaged or does not fit the others.
    """
    paths = sorted(folder.glob("features-*.h5"))
    if not paths:
        raise FeatureError(f"{folder}: there is no features-00000.h5; run stage 2")
    found = [read_split(path) for path in paths]
    first = found[0][1]
    for path, (_, widths) in zip(paths, found, strict=True):
        if widths != first:
            raise _foreign(path, widths, first)
    counts: NDArray[np.int64] = np.stack([np.bincount(split, minlength=len(SPLITS)) for split, _ in found])
    train, validation, test = (
        Part(paths, first, split=code, counts=counts[:, code].tolist()) for code in range(len(SPLITS))
    )
    return Parts(train, validation, test, first)


def _foreign(path: Path, found: Widths, others: Widths) -> FeatureError:
    return FeatureError(f"{path}: holds {found}, the shards before it {others}; run stage 2 again")
