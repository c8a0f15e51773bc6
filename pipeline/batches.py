"""Stage 3: examples become batches that know which rows of the big tables they touch.

All randomness of training after the first weights (order, dropped tags, dropped units) is drawn here,
by NumPy, from the seed and the epoch alone: every engine trains on the same numbers, and
a batch made ahead of time is the same batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from pipeline.errors import FeatureError, TrainingError
from pipeline.network import Inputs, NetworkConfig
from pipeline.ops.numeric import check_index

Array = Any


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
class Batch:
    """Examples renumbered to the rows that they touch, with their dropout."""

    tag_index: Array  # int32 (n, n_tags) into `rows`
    rows: Array  # int32, distinct, ascending rows of the tag table; rows[0] = 0 is the padding
    features: Array | None  # CSC float32 (n, len(columns))
    columns: Array | None  # int32, distinct, ascending rows of the sparse projection
    dense: Array | None
    labels: Array
    masks: Mapping[str, Array] = field(default_factory=dict)  # layer -> float32 factors, 0 or 1 / (1 - dropout)

    @property
    def inputs(self) -> Inputs:
        """Return what the network reads of them."""
        return Inputs(self.tag_index, self.features, self.dense, self.masks)


@dataclass(frozen=True)
class Loader:
    """How examples become the batches of an epoch."""

    examples: Examples
    n_hidden: int
    batch_size: int
    seed: int
    dropout: float = 0.0  # share of the hidden units dropped
    tag_dropout: float = 0.0  # share of an item's tags dropped
    feature_dropout: float = 0.0  # share of an item's sparse features dropped

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch: each example once, in an order drawn from seed and number."""
        rng = np.random.default_rng([self.seed, number])
        order = rng.permutation(len(self.examples))
        for start in range(0, len(order), self.batch_size):
            yield self.batch(order[start : start + self.batch_size], rng)

    def batch(self, index: Array, rng: np.random.Generator) -> Batch:
        """Return the examples of this index as a batch, with dropout drawn by rng."""
        examples = self.examples.take(index)
        tag_index, rows = touched(drop_tags(examples.tag_index, self.tag_dropout, rng))
        features, columns = examples.features, None
        if features is not None:
            features, columns = touched_columns(drop_features(features, self.feature_dropout, rng))
        masks = {"hidden": dropout_mask((len(index), self.n_hidden), self.dropout, rng)} if self.dropout else {}
        return Batch(tag_index, rows, features, columns, examples.dense, examples.labels, masks)


def touched(tag_index: Array) -> tuple[Array, Array]:
    """Return the index renumbered to the rows that it touches, and these rows; row 0, padding, is always the first.

    Columns that hold nothing but padding are left out (one stays).

    >>> touched(np.array([[7, 0, 3], [7, 0, 0]]))
    (array([[2, 1],
           [2, 0]], dtype=int32), array([0, 3, 7], dtype=int32))
    """
    used = np.flatnonzero(tag_index.any(axis=0))
    tag_index = tag_index[:, used if len(used) else slice(0, 1)]
    rows, inverse = np.unique(np.append(tag_index.ravel(), 0), return_inverse=True)
    return inverse.ravel()[:-1].reshape(tag_index.shape).astype(np.int32), rows.astype(np.int32)


def touched_columns(features: Array) -> tuple[Array, Array]:
    """Return CSR features as CSC over the columns that they touch, and these columns; at least one.

    >>> narrow, columns = touched_columns(sparse.csr_matrix(np.array([[0, 0, 5.0], [1, 0, 2]])))
    >>> narrow.toarray(), columns
    (array([[0., 5.],
           [1., 2.]]), array([0, 2], dtype=int32))
    """
    columns, inverse = np.unique(features.indices, return_inverse=True)
    if not len(columns):
        columns = np.zeros(1, np.int32)
    shape = (features.shape[0], len(columns))
    narrow = sparse.csr_matrix((features.data, inverse.ravel().astype(np.int32), features.indptr), shape=shape)
    return narrow.tocsc(), columns.astype(np.int32)


def drop_tags(tag_index: Array, share: float, rng: np.random.Generator) -> Array:
    """Return the index with a share of its entries turned into padding."""
    return np.where(rng.random(tag_index.shape, np.float32) < share, 0, tag_index) if share else tag_index


def drop_features(features: Array, share: float, rng: np.random.Generator) -> Array:
    """Return CSR features without a share of their entries; the others grow by 1 / (1 - share): the mean stays."""
    if not share:
        return features
    kept = rng.random(features.nnz, np.float32) >= share
    indptr = np.concatenate([[0], np.cumsum(kept)])[features.indptr].astype(features.indptr.dtype)
    data = features.data[kept] * np.float32(1 / (1 - share))
    return sparse.csr_matrix((data, features.indices[kept], indptr), shape=features.shape)


def dropout_mask(shape: tuple[int, int], share: float, rng: np.random.Generator) -> Array:
    """Return float32 factors: 0 for a share of them, 1 / (1 - share) for the others, so that the mean stays."""
    return (rng.random(shape, np.float32) >= share).astype(np.float32) * np.float32(1 / (1 - share))


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
