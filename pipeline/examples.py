"""Stage 3: labelled items that training reads, in memory or from wherever a `Source` has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy import sparse

from pipeline.class_weights import class_counts
from pipeline.errors import FeatureError, TrainingError
from pipeline.network import Inputs, NetworkConfig
from pipeline.ops.numeric import check_index

Array = Any
CHUNK = 2048  # items of a forward pass: fixed, as the last bits of a product change with the number of its rows


class Source(Protocol):
    """Labelled items, had by ranges of positions; a position may have no item."""

    @property
    def n_positions(self) -> int:
        """Return the number of positions."""

    def __len__(self) -> int:
        """Return the number of items."""

    def read(self, start: int, stop: int) -> Examples:
        """Return the items of the positions from start up to stop, in order."""


@dataclass(frozen=True)
class Examples:
    """Labelled items in memory."""

    tag_index: Array  # int32 (n, n_tags); 0 pads
    features: Array | None  # CSR float32 (n, n_features), whose rows are cheap to take; None: no features
    dense: Array | None  # float32 (n, n_dense); None: no dense columns
    labels: Array  # int32 (n, n_levels); -1 is unknown

    @classmethod
    def of(
        cls, tag_index: Array, labels: Array, *, features: Array | None = None, dense: Array | None = None
    ) -> Examples:
        """Return examples of arrays in any of the usual dtypes; features may be CSC, CSR or dense.

        Raises FeatureError where the arrays are not of the same length.
        """
        parts = {"tag_index": tag_index, "features": features, "dense": dense, "labels": labels}
        lengths = {name: part.shape[0] for name, part in parts.items() if part is not None}
        if len(set(lengths.values())) > 1:
            raise FeatureError(f"arrays of examples differ in length: {lengths}")
        return cls(
            tag_index=np.asarray(tag_index, np.int32),
            features=sparse.csr_matrix(features, dtype=np.float32) if _has_columns(features) else None,
            dense=np.asarray(dense, np.float32) if _has_columns(dense) else None,
            labels=np.asarray(labels, np.int32),
        )

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def take(self, index: Array) -> Examples:
        """Return the examples of this index (an array or a slice), in its order."""
        features = None if self.features is None else self.features[index]
        dense = None if self.dense is None else self.dense[index]
        return Examples(self.tag_index[index], features, dense, self.labels[index])

    @property
    def n_positions(self) -> int:
        """Return the number of positions, one an item."""
        return len(self)

    def read(self, start: int, stop: int) -> Examples:
        """Return the examples of these positions."""
        return self if start == 0 and stop >= len(self) else self.take(slice(start, stop))

    def tagged(self) -> Examples:
        """Return the examples with a tag in their index."""
        return self.take(np.flatnonzero(self.tag_index.any(axis=1)))

    @property
    def inputs(self) -> Inputs:
        """Return what the network reads of them."""
        return Inputs(self.tag_index, self.features, self.dense)


def _has_columns(part: Array | None) -> bool:
    return part is not None and part.shape[1] > 0


@dataclass(frozen=True)
class Tagged:
    """The items of a source that have a tag in their index."""

    source: Source
    n_items: int

    @property
    def n_positions(self) -> int:
        """Return the number of positions of the source."""
        return self.source.n_positions

    def __len__(self) -> int:
        return self.n_items

    def read(self, start: int, stop: int) -> Examples:
        """Return those of these positions that have a tag."""
        return self.source.read(start, stop).tagged()


@dataclass(frozen=True)
class Survey:
    """What is told of a source by reading it once."""

    n_items: int
    class_counts: tuple[Array, ...]  # a level: items of each class, int64 (n_classes,)


def chunks(source: Source, size: int) -> Iterator[Examples]:
    """Yield the items in order, those of `size` positions at a time."""
    for start in range(0, source.n_positions, size):
        yield source.read(start, min(start + size, source.n_positions))


def only_tagged(source: Source) -> Tagged:
    """Return the items of a source that have a tag; the source is read once to count them."""
    return Tagged(source, sum(len(part.tagged()) for part in chunks(source, 50_000)))


def survey(source: Source, config: NetworkConfig, *, tagged_only: bool = False, size: int = 50_000) -> Survey:
    """Return what there is in a source, with `tagged_only` of its items that have a tag; reads it once.

    Raises FeatureError or TrainingError where an item does not fit the network.
    """
    n_items = 0
    counts: list[Array] = [np.zeros(n_classes, np.int64) for n_classes in config.n_classes]
    for part in chunks(source, size):
        check_examples(part, config)
        wanted = part.tagged() if tagged_only else part
        n_items += len(wanted)
        more = class_counts(wanted.labels, config.n_classes)
        counts = [count + found for count, found in zip(counts, more, strict=True)]
    return Survey(n_items, tuple(counts))


def joined(parts: Sequence[Examples]) -> Examples:
    """Return examples below each other, tag indexes padded to the widest; at least one part is needed."""
    if len(parts) == 1:
        return parts[0]
    n_tags = max(part.tag_index.shape[1] for part in parts)
    padded = [np.pad(part.tag_index, ((0, 0), (0, n_tags - part.tag_index.shape[1]))) for part in parts]
    features = [part.features for part in parts if part.features is not None]
    dense = [part.dense for part in parts if part.dense is not None]
    return Examples(
        np.concatenate(padded),
        sparse.csr_matrix(sparse.vstack(features, format="csr")) if features else None,
        np.concatenate(dense) if dense else None,
        np.concatenate([part.labels for part in parts]),
    )


def check_examples(examples: Examples, config: NetworkConfig) -> None:
    """Raise FeatureError or TrainingError where the examples do not fit the network: a graph would not say so."""
    check_index(examples.tag_index, n_rows=config.n_vocabulary)
    for name, part, width in (
        ("features", examples.features, config.n_features),
        ("dense", examples.dense, config.n_dense),
    ):
        given = 0 if part is None else part.shape[1]
        if given != width:
            raise FeatureError(f"{name}: {given:,} columns are given, the network has {width:,}")
    if examples.labels.ndim != 2 or examples.labels.shape[1] != len(config.n_classes):
        raise TrainingError(
            f"labels have shape {examples.labels.shape}; the network has {len(config.n_classes)} levels"
        )
    for level, n_classes in enumerate(config.n_classes):
        column = examples.labels[:, level]
        if len(column) and (column.max() >= n_classes or column.min() < -1):
            wrong = column[(column >= n_classes) | (column < -1)][0]
            raise TrainingError(f"label {wrong} of level {level + 1} is not one of its {n_classes:,} classes (or -1)")
