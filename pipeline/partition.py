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
BATCH_ROWS = 65_536


@dataclass(frozen=True, eq=False)
class Order:
    """Which rows of items.parquet are used, and where each stands at last."""

    labels: NDArray[np.int32]  # (n_rows, n_levels); -1 is unknown
    split: NDArray[np.uint8]  # (n_rows,): index into SPLITS
    position: NDArray[np.int64]  # (n_rows,): place among the labelled items; -1 for a row that is not labelled

    @property
    def n_labelled(self) -> int:
        """Return the number of rows whose top label is known."""
        return int((self.position >= 0).sum())

    @property
    def training(self) -> NDArray[np.bool_]:
        """Return which rows are labelled training items, (n_rows,)."""
        training: NDArray[np.bool_] = (self.position >= 0) & (self.split == 0)
        return training


def read_order(items: Path, taxonomy: Taxonomy) -> Order:
    """Return the order of the labelled rows. Raises CatalogError for a split that is none."""
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
    return place(np.concatenate(labels), np.concatenate(splits), np.concatenate(hashes))


def place(labels: NDArray[np.int32], split: NDArray[np.uint8], hashes: NDArray[np.uint64]) -> Order:
    """Return the order by split, then by hash; rows without a top label are left out.

    >>> labels, split = np.array([[0], [0], [-1], [1]], np.int32), np.array([1, 0, 0, 0], np.uint8)
    >>> place(labels, split, np.array([1, 9, 2, 5], np.uint64)).position.tolist()
    [2, 1, -1, 0]
    """
    labelled = np.flatnonzero(labels[:, 0] >= 0)
    ordered = labelled[np.lexsort((hashes[labelled], split[labelled]))]
    position = np.full(len(labels), -1, np.int64)
    position[ordered] = np.arange(len(ordered))
    return Order(labels, split, position)


def training_batches(items: Path, order: Order, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the labelled training items, batch by batch, in the order of the file."""
    wanted, start = order.training, 0
    for batch in read_batches(items, columns):
        yield batch.filter(pa.array(wanted[start : start + batch.num_rows]))
        start += batch.num_rows


@dataclass(frozen=True, eq=False)
class Piece:
    """The items of one shard, in their final order."""

    items: pa.Table
    labels: NDArray[np.int32]  # (n_items, n_levels)
    split: NDArray[np.uint8]  # (n_items,)


def pieces(items: Path, order: Order, columns: list[str], *, shard_items: int, scratch: Path) -> Iterator[Piece]:
    """Yield the labelled items in order, `shard_items` at a time; scratch files lie below `scratch` meanwhile."""
    n_shards = -(-order.n_labelled // shard_items)
    ordered = np.flatnonzero(order.position >= 0)
    ordered = ordered[np.argsort(order.position[ordered])]
    with TemporaryDirectory(dir=scratch, prefix="rows-") as folder:
        _deal_out(items, order, columns, shard_items=shard_items, folder=Path(folder), n_shards=n_shards)
        for shard in range(n_shards):
            with pa.OSFile(str(Path(folder, str(shard)))) as stream:
                table = pa.ipc.open_stream(stream).read_all()
            rows = ordered[shard * shard_items : (shard + 1) * shard_items]
            # The rows were dealt out in the order of the file: ranks of row numbers are places in the table.
            in_order = table.take(pa.array(np.argsort(np.argsort(rows))))
            yield Piece(in_order, order.labels[rows], order.split[rows])


def _deal_out(items: Path, order: Order, columns: list[str], *, shard_items: int, folder: Path, n_shards: int) -> None:
    """Write each labelled row to the file of its shard."""
    schema = pa.schema([pq.read_schema(items).field(name) for name in columns])
    start = 0
    with ExitStack() as stack:
        files = [stack.enter_context(pa.OSFile(str(folder / str(shard)), "wb")) for shard in range(n_shards)]
        writers: list[Any] = [stack.enter_context(pa.ipc.new_stream(file, schema)) for file in files]
        for batch in read_batches(items, columns):
            position = order.position[start : start + batch.num_rows]
            shards = np.where(position < 0, -1, position // shard_items)
            for shard in np.unique(shards[shards >= 0]):
                writers[shard].write_batch(batch.filter(pa.array(shards == shard)))
            start += batch.num_rows


def read_batches(items: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield columns of items.parquet batch by batch. Raises CatalogError where one is missing."""
    with pq.ParquetFile(items) as file:
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise CatalogError(f"{items}: column '{missing[0]}' is missing; run stage 1 again")
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            yield batch.select(columns)
