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

from pipeline.examples import Examples, Source, joined
from pipeline.network import Inputs
from pipeline.prefetch import ahead

Array = Any
BLOCK = 50_000  # items that stay together when the order of an epoch is drawn
WINDOW = 200_000  # items that are shuffled together: up to so many are held in memory


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
    """How examples become the batches of an epoch.

    Positions are cut into blocks of BLOCK items, whatever the files they lie in; an epoch draws an order of the
    blocks, takes WINDOW items' worth of them at a time and shuffles all of their items. So at most two windows are
    in memory, and up to WINDOW items are shuffled as a whole. Order and dropout have a generator each,
    so that a window may be read while batches of the one before are made.
    """

    examples: Source
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
        order_rng, noise_rng = (np.random.default_rng([self.seed, number, use]) for use in range(2))
        for window, order in ahead(self.windows(order_rng)):
            for start in range(0, len(order), self.batch_size):
                yield self.batch(window.take(order[start : start + self.batch_size]), noise_rng)

    def windows(self, rng: np.random.Generator) -> Iterator[tuple[Examples, Array]]:
        """Yield the items of each window, and the order in which to take them: whole batches but for the last.

        What is too little for a batch is handed on to the next window, where it comes first.
        """
        rest: list[Examples] = []
        for ranges in windows(self.examples.n_positions, rng):
            n_rest = sum(map(len, rest))
            window = joined([*rest, *(self.examples.read(start, stop) for start, stop in ranges)])
            order = np.concatenate([np.arange(n_rest), n_rest + rng.permutation(len(window) - n_rest)])
            whole = len(order) - len(order) % self.batch_size
            rest = [window.take(order[whole:])] if whole < len(order) else []
            yield window, order[:whole]
        for last in rest:
            yield last, np.arange(len(last))

    def batch(self, examples: Examples, rng: np.random.Generator) -> Batch:
        """Return the examples as a batch, with dropout drawn by rng."""
        tag_index, rows = touched(drop_tags(narrowed(examples.tag_index), self.tag_dropout, rng))
        features, columns = examples.features, None
        if features is not None:
            features, columns = touched_columns(drop_features(features, self.feature_dropout, rng))
        shape = (len(examples), self.n_hidden)
        masks = {"hidden": dropout_mask(shape, self.dropout, rng)} if self.dropout else {}
        return Batch(tag_index, rows, features, columns, examples.dense, examples.labels, masks)


def windows(n_positions: int, rng: np.random.Generator) -> Iterator[list[tuple[int, int]]]:
    """Yield the ranges of positions of each window of an epoch, ascending, those that touch made one.

    >>> list(windows(120_000, np.random.default_rng(0)))
    [[(0, 120000)]]
    >>> list(windows(260_000, np.random.default_rng(0)))
    [[(100000, 260000)], [(0, 100000)]]
    """
    if n_positions <= WINDOW:
        yield [(0, n_positions)]
        return
    blocks = rng.permutation(-(-n_positions // BLOCK))
    for first in range(0, len(blocks), WINDOW // BLOCK):
        ranges: list[tuple[int, int]] = []
        for block in np.sort(blocks[first : first + WINDOW // BLOCK]).tolist():
            start, stop = block * BLOCK, min((block + 1) * BLOCK, n_positions)
            if ranges and ranges[-1][1] == start:
                start = ranges.pop()[0]
            ranges.append((start, stop))
        yield ranges


def narrowed(tag_index: Array) -> Array:
    """Return the index without the columns that hold nothing but padding; one stays.

    How wide the index of a file is depends on what else lies in it, and must not change what is drawn.
    """
    used = np.flatnonzero(tag_index.max(axis=0, initial=0))
    return tag_index[:, used if len(used) else slice(0, 1)]


def touched(tag_index: Array) -> tuple[Array, Array]:
    """Return the index renumbered to the rows that it touches, and these rows; row 0, padding, is always the first.

    Columns that hold nothing but padding are left out (one stays).

    >>> touched(np.array([[7, 0, 3], [7, 0, 0]]))
    (array([[2, 1],
           [2, 0]], dtype=int32), array([0, 3, 7], dtype=int32))
    """
    tag_index = narrowed(tag_index)
    rows, inverse = distinct(np.append(tag_index.ravel(), np.int32(0)), below=int(tag_index.max(initial=0)) + 1)
    return inverse[:-1].reshape(tag_index.shape), rows


def touched_columns(features: Array) -> tuple[Array, Array]:
    """Return CSR features as CSC over the columns that they touch, and these columns; at least one.

    >>> narrow, columns = touched_columns(sparse.csr_matrix(np.array([[0, 0, 5.0], [1, 0, 2]])))
    >>> narrow.toarray(), columns
    (array([[0., 5.],
           [1., 2.]]), array([0, 2], dtype=int32))
    """
    columns, inverse = distinct(features.indices, below=features.shape[1])
    if not len(columns):
        columns = np.zeros(1, np.int32)
    shape = (features.shape[0], len(columns))
    return sparse.csr_matrix((features.data, inverse, features.indptr), shape=shape).tocsc(), columns


def distinct(values: Array, *, below: int) -> tuple[Array, Array]:
    """Return the distinct values, ascending, and the place of each value among them; int32, from 0 and below a bound.

    >>> distinct(np.array([7, 3, 7]), below=8)
    (array([3, 7], dtype=int32), array([1, 0, 1], dtype=int32))
    """
    found = np.unique(values)
    # A table of places, of which only those of the values are written or read: np.unique's own inverse sorts twice.
    place = np.empty(below, np.int32)
    place[found] = np.arange(len(found), dtype=np.int32)
    return found.astype(np.int32, copy=False), place[values]


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
