"""What an executor does with the rows that a task is given; imports what scoring needs, and what Spark brings along.

A row has the number of a part of the items and its content, as one stream of Arrow; a row comes back for each. So Spark
carries bytes and converts no value: types, dictionaries and nulls are those of the local engine.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import arrow
from pipeline.clean_rows import Cleaner
from pipeline.config import Settings
from pipeline.config_results import ScoringSettings
from pipeline.counting import Counts
from pipeline.digests import sha256_of
from pipeline.errors import ArtifactError
from pipeline.features import FeatureTransform, Fitter, load_transform
from pipeline.layout import Layout
from pipeline.model import Model, load_model
from pipeline.partition import Piece
from pipeline.rejects import Gathered
from pipeline.scored import stored
from pipeline.scoring import one_thread, score_batch
from pipeline.shards import write_shard
from pipeline.tag_lists import TagLists
from pipeline.tagging import Judgement, TagRules
from pipeline.windows import own_applications

ROW = pa.schema([("number", pa.int64()), ("content", pa.binary())])
ROW_OF_SPARK = "number bigint, content binary"


@dataclass(frozen=True)
class Shipped:
    """A file that Spark brings to every executor, by its name there, and its digest."""

    name: str
    digest: str

    @property
    def path(self) -> str:
        """Return where the file is. Raises ArtifactError where it is another one."""
        from pyspark import SparkFiles

        path: str = SparkFiles.get(self.name)
        if sha256_of(path) != self.digest:
            raise ArtifactError(f"{path}: is not the file that was sent to the executors; run the same command again")
        return path


@lru_cache(maxsize=1)
def model_of(file: Shipped) -> Model:
    """Return the model; a process of an executor, which does one task after the other, loads it once."""
    return load_model(file.path)


@dataclass(frozen=True)
class ScoreRows:
    """Scores the shards of a task's rows."""

    model: Shipped
    scoring: ScoringSettings

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Give a row for each row: the number of the shard, and what stands in its file."""
        model = model_of(self.model)
        with one_thread():
            for number, content in rows_of(batches):
                items = pa.ipc.open_stream(content).read_next_batch()
                yield row(number, stored(score_batch(model, items, clean=False, scoring=self.scoring)))


@dataclass(frozen=True)
class CleanRows:
    """Cleans the windows in a task's rows."""

    settings: Settings
    layout: Layout
    lists: TagLists
    labels: frozenset[str]
    schema: pa.Schema

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Give a row for each row: the number of the window, and its Cleaned, pickled."""
        for number, content in rows_of(batches):
            rows, places = pickle.loads(content)
            rules, rejects = TagRules(self.settings.clean, self.lists), Gathered()
            counts = Counts(self.settings.catalog.levels)
            cleaner = Cleaner(self.settings, self.layout, rules, counts, rejects, self.labels)
            items = cleaner.clean(rows, self.schema, own_applications(rows, places), places)
            yield row(number, pa.py_buffer(pickle.dumps(Cleaned(items, counts, rejects.table, rules.known))))


class Cleaned(NamedTuple):
    """What a window gives."""

    items: pa.Table  # rows of items.parquet
    counts: Counts
    rejects: pa.Table
    known: dict[str, Judgement]  # the distinct raw tags of the window


@dataclass(frozen=True)
class CountRows:
    """Counts the training items of a task's rows: terms, document frequencies, quantities."""

    settings: Settings

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Give a row for each row: the number of the part, and the Fitter that has counted it, pickled."""
        for number, content in rows_of(batches):
            fitter = Fitter(self.settings)
            for batch in pa.ipc.open_stream(content):
                fitter.add_items(batch)
            yield row(number, pa.py_buffer(pickle.dumps(fitter)))


@dataclass(frozen=True)
class WriteShards:
    """Makes the features of the pieces in a task's rows."""

    transform: Shipped
    n_classes: tuple[int, ...]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Give a row for each row: the number of the shard, and its file."""
        transform = transform_of(self.transform)
        for number, content in rows_of(batches):
            piece = unpacked(content)
            with TemporaryDirectory() as folder:
                path = Path(folder) / "shard.h5"
                write_shard(path, piece, transform.transform(piece.items), transform, n_classes=self.n_classes)
                yield row(number, pa.py_buffer(path.read_bytes()))


@lru_cache(maxsize=1)
def transform_of(file: Shipped) -> FeatureTransform:
    """Return the transform; a process of an executor loads it once."""
    return load_transform(Path(file.path))


def packed(piece: Piece) -> pa.Buffer:
    """Return a piece as one stream of Arrow; `unpacked` gives it back."""
    labels = pa.FixedSizeListArray.from_arrays(pa.array(piece.labels.reshape(-1)), piece.labels.shape[1])
    return stream_of(
        piece.items.append_column("labels", labels).append_column("split of labels", pa.array(piece.split))
    )


def unpacked(content: pa.Buffer) -> Piece:
    """Return the piece that `packed` made a stream of."""
    items = pa.ipc.open_stream(content).read_all().combine_chunks()
    *columns, labels, split = items.column_names
    flat = pc.list_flatten(items[labels].combine_chunks())
    return Piece(
        items.select(columns),
        arrow.values(flat).reshape(len(items), -1).astype(np.int32),
        arrow.values(items[split]).astype(np.uint8),
    )


def stream_of(items: pa.RecordBatch | pa.Table) -> pa.Buffer:
    """Return items as a compressed stream: they are texts, and Spark compresses no task."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, items.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        stream.write(items)
    return sink.getvalue()


def rows_of(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.Buffer]]:
    """Give number and content of each row."""
    for batch in batches:
        for number, content in zip(batch.column(0).to_pylist(), batch.column(1), strict=True):
            yield number, content.as_buffer()


def row(number: int, content: pa.Buffer) -> pa.RecordBatch:
    """Return one row.

    >>> row(7, pa.py_buffer(b"scores")).to_pylist()
    [{'number': 7, 'content': b'scores'}]
    """
    ends = pa.array([0, len(content)], pa.int32()).buffers()[1]
    values = pa.Array.from_buffers(pa.binary(), 1, [None, ends, content])  # not copied
    return pa.RecordBatch.from_arrays([pa.array([number], pa.int64()), values], schema=ROW)
