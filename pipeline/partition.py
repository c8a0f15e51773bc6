"""Stage 2: the labelled items in their final order, cut into shards, in memory that a shard bounds.

Train comes first, then validation, then test; within each, items stand by a hash of their id. So neither the
order of the input nor the size of a shard changes what training reads. Sorting is done through scratch files:
one pass deals the rows out to their shards, then each shard is sorted by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import CatalogError
from pipeline.hashing import hash_strings
from pipeline.taxonomy import Taxonomy

SPLITS = ("train", "validation", "test")
BATCH_ROWS = 131_072


@dataclass(frozen=True, eq=False)
class Order:
    """Which rows of items.parquet are used, and where each stands at last."""

    labels: NDArray[np.int32]  # (n_rows, n_levels); -1 is unknown
    split: NDArray[np.uint8]  # (n_rows,): index into SPLITS
    position: NDArray[np.int64]  # (n_rows,): place among the labelled items that are used; -1 for any other row

    @classmethod
    def as_given(cls, n_items: int) -> Order:
        """Return the order of items without labels that all count as training items of one class, as they stand."""
        return cls(np.zeros((n_items, 1), np.int32), np.zeros(n_items, np.uint8), np.arange(n_items))

    @property
    def n_labelled(self) -> int:
        """Return the number of rows that are used: their top label is known, and they are not left out."""
        return int((self.position >= 0).sum())

    @property
    def training(self) -> NDArray[np.bool_]:
        """Return which rows are labelled training items, (n_rows,)."""
        training: NDArray[np.bool_] = (self.position >= 0) & (self.split == 0)
        return training


def read_order(items: Path, taxonomy: Taxonomy, *, max_items: int = 0) -> Order:
    """Return the order of the labelled rows, as `place` does. Raises CatalogError for a split that is none."""
    labels, splits, hashes = [], [], []
    for batch in read_batches(items, ["item_id", "split", *taxonomy.levels]):
        labels.append(taxonomy.encode([batch.column(level) for level in taxonomy.levels]))
        found = pc.index_in(batch.column("split"), value_set=pa.array(SPLITS))
        if found.null_count:
            value = batch.column("split").filter(pc.is_null(found))[0]
            raise CatalogError(f"{items}: split '{value}' is not one of {', '.join(SPLITS)}; run stage 1 again")
        splits.append(np.asarray(found).astype(np.uint8))
        hashes.append(hash_strings(batch.column("item_id").cast(pa.string())))
    if not labels:
        return Order(np.zeros((0, len(taxonomy.levels)), np.int32), np.zeros(0, np.uint8), np.zeros(0, np.int64))
    return place(np.concatenate(labels), np.concatenate(splits), np.concatenate(hashes), max_items=max_items)


def place(
    labels: NDArray[np.int32], split: NDArray[np.uint8], hashes: NDArray[np.uint64], *, max_items: int = 0
) -> Order:
    """Return the order by split, then by hash; rows without a top label are left out.

    Where more than `max_items` are to train (0: no limit), those with the lowest hashes do, and of the other parts stay
    the rows with a hash as low: the same share of each. An item stays in as long as not too many lower ones come.

    >>> labels, split = np.array([[0], [0], [-1], [1]], np.int32), np.array([1, 0, 0, 0], np.uint8)
    >>> place(labels, split, np.array([1, 9, 2, 5], np.uint64)).position.tolist()
    [2, 1, -1, 0]
    >>> place(labels, split, np.array([1, 9, 2, 5], np.uint64), max_items=1).position.tolist()
    [1, -1, -1, 0]
    """
    labelled = np.flatnonzero(labels[:, 0] >= 0)
    to_train = np.sort(hashes[labelled[split[labelled] == 0]])
    if 0 < max_items < len(to_train):
        labelled = labelled[hashes[labelled] < to_train[max_items]]
    ordered = labelled[np.lexsort((hashes[labelled], split[labelled]))]
    position = np.full(len(labels), -1, np.int64)
    position[ordered] = np.arange(len(ordered))
    return Order(labels, split, position)


@dataclass(frozen=True, eq=False)
class Piece:
    """The items of one shard, in their final order."""

    items: pa.Table
    labels: NDArray[np.int32]  # (n_items, n_levels)
    split: NDArray[np.uint8]  # (n_items,)


class Dealer:
    """Deals rows out to a scratch file for each shard; sorting is done shard by shard when they are read back.

    Used as a context, which the scratch files end with.
    """

    def __init__(self, order: Order, *, shard_items: int, scratch: Path) -> None:
        self._order, self._shard_items = order, shard_items
        self._n_shards = -(-order.n_labelled // shard_items)
        self._writers: dict[int, Any] = {}
        self._n_rows = 0  # dealt out so far
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(TemporaryDirectory(dir=scratch, prefix="rows-")))
        self._files = self._stack.enter_context(ExitStack())

    def __enter__(self) -> Dealer:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def add(self, batch: pa.RecordBatch) -> None:
        """Write each labelled row of the next batch of items.parquet to the file of its shard."""
        position = self._order.position[self._n_rows : self._n_rows + batch.num_rows]
        self._n_rows += batch.num_rows
        shards = np.where(position < 0, -1, position // self._shard_items)
        for shard in np.unique(shards[shards >= 0]):
            self._writer(int(shard), batch.schema).write_batch(batch.filter(pa.array(shards == shard)))

    def pieces(self) -> Iterator[Piece]:
        """Yield the labelled items in order, once all rows are dealt out."""
        self._files.close()
        ordered = np.flatnonzero(self._order.position >= 0)
        ordered = ordered[np.argsort(self._order.position[ordered])]
        for shard in range(self._n_shards):
            with pa.OSFile(str(self._folder / str(shard))) as stream:
                table = pa.ipc.open_stream(stream).read_all()
            rows = ordered[shard * self._shard_items : (shard + 1) * self._shard_items]
            # The rows were dealt out in the order of the file: ranks of row numbers are places in the table.
            places = np.argsort(np.argsort(rows))
            moved = (places != np.arange(len(places))).any()
            in_order = table.take(pa.array(places)) if moved else table
            yield Piece(in_order, self._order.labels[rows], self._order.split[rows])

    def _writer(self, shard: int, schema: pa.Schema) -> Any:
        if shard not in self._writers:
            file = self._files.enter_context(pa.OSFile(str(self._folder / str(shard)), "wb"))
            self._writers[shard] = self._files.enter_context(pa.ipc.new_stream(file, schema))
        return self._writers[shard]


def read_batches(items: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield columns of items.parquet batch by batch. Raises CatalogError where one is missing."""
    with pq.ParquetFile(items) as file:
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise CatalogError(f"{items}: column '{missing[0]}' is missing; run stage 1 again")
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            yield batch.select(columns)
