"""What an executor does with the rows that a task is given; imports what scoring needs, and what Spark brings along.

A row has the number of a shard and its items, as one stream of Arrow; the same comes back with the scores. So Spark
carries bytes and converts no value: types, dictionaries and nulls are those of the local engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from pipeline.config import ScoringSettings
from pipeline.digests import sha256_of
from pipeline.errors import ArtifactError
from pipeline.model import Model, load_model
from pipeline.scored import stored
from pipeline.scoring import one_thread, score_batch

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
