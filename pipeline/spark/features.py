"""Stage 2 on Spark: executors count the training items, and make the shards of features by the transform of all counts.

Counts are whole numbers, and a vocabulary is ordered by count and text: so it does not depend on who counted what, and
vocabulary, transform and shards have the bytes of the local engine. The driver reads the items once, puts the labelled
ones into their final order through scratch files, and holds the distinct terms.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog import columns_of, read_labelled, write_transform
from pipeline.config import Settings
from pipeline.features import Fitter
from pipeline.partition import Dealer, Order, read_batches
from pipeline.progress import Progress
from pipeline.spark.cluster import ship
from pipeline.spark.executor import CountRows, WriteShards, packed, stream_of
from pipeline.spark.waves import Part, through_executors

PART_ITEMS = 32_768


def build_on_spark(
    session: Any,
    settings: Settings,
    clean_folder: Path,
    folder: Path,
    *,
    progress: Progress,
    part_items: int = PART_ITEMS,
) -> None:
    """Do what `features.build` does, with the executors of a prepared session; the results have the same bytes.

    Raises CatalogError where no training item is labelled, WorkerError where Spark gives up.
    """
    taxonomy, order = read_labelled(settings, clean_folder)
    fitter, n_counted = Fitter(settings), int(order.training.sum())
    batches = read_batches(clean_folder / "items.parquet", columns_of(settings))
    with Dealer(order, shard_items=settings.features.shard_items, scratch=folder) as dealer:
        parts = _parts(batches, order, dealer, fitter.text_lengths, part_items)
        with closing(through_executors(session, parts, CountRows(settings))) as counted:
            for _, content in counted:
                fitter.merge(pickle.loads(content))
                progress.update(fitter.n_items, n_counted)
        transform = fitter.transform()
        write_transform(transform, folder)
        pieces = ((number, packed(piece)) for number, piece in enumerate(dealer.pieces()))
        work = WriteShards(ship(session, folder / "transform.h5"), tuple(taxonomy.n_classes))
        with closing(through_executors(session, pieces, work)) as shards:
            for number, content in shards:
                with (folder / f"features-{number:05}.h5").open("wb") as file:
                    file.write(content)


def _parts(
    batches: Iterator[pa.RecordBatch], order: Order, dealer: Dealer, lengths: dict[str, int], part_items: int
) -> Iterator[Part]:
    """Give the training items, and deal all labelled ones out to their shards on the way."""
    training, n_rows, n_parts = order.training, 0, 0
    for whole in batches:
        batch = _shortened(whole, lengths)
        dealer.add(batch)
        chosen = batch.filter(pa.array(training[n_rows : n_rows + batch.num_rows]))
        n_rows += batch.num_rows
        for start in range(0, chosen.num_rows, part_items):
            yield n_parts, stream_of(chosen.slice(start, part_items))
            n_parts += 1


def _shortened(batch: pa.RecordBatch, lengths: dict[str, int]) -> pa.RecordBatch:
    """Return the batch with as much of its texts as the features read.

    >>> _shortened(pa.record_batch({"text.plot": ["abcdef", None]}), {"plot": 3}).to_pydict()
    {'text.plot': ['abc', None]}
    """
    columns = {name: batch.column(name) for name in batch.schema.names}
    for name, length in lengths.items():
        text = columns[f"text.{name}"].cast(pa.large_string())
        columns[f"text.{name}"] = pc.utf8_slice_codeunits(text, 0, length).cast(pa.string())
    return pa.RecordBatch.from_pydict(columns)
