"""Stage 5: a shard of the catalog, items that follow each other, on its way from items to scores in a file.

The file of a shard is Arrow's stream format behind a header of 512 bytes: what it was made from (the digests of model
and items, settings, the rows) and the SHA-256 of the rest. So a file that was torn, damaged or made from something else
is known as such, and its shard is scored again; any other is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import ScoringSettings, Settings
from pipeline.digests import fingerprint, sha256_of
from pipeline.errors import ArtifactError
from pipeline.identity import STAGE_VERSIONS, significant
from pipeline.model import Model, load_model
from pipeline.scoring import read_columns, score_batch

SHARD_ITEMS = 32_768
HEADER = 512


class Shard(NamedTuple):
    """Items that follow each other."""

    number: int
    start: int
    stop: int  # one behind the last

    @property
    def n_items(self) -> int:
        """Return how many they are."""
        return self.stop - self.start


def cut(n_items: int, *, shard_items: int, batch_size: int) -> list[Shard]:
    """Return the shards of a catalog: whole forward passes, so that a pass is the same however the shards are cut.

    >>> [tuple(shard) for shard in cut(10, shard_items=5, batch_size=2)]
    [(0, 0, 4), (1, 4, 8), (2, 8, 10)]
    """
    size = max(1, shard_items // batch_size) * batch_size
    return [Shard(number, start, min(start + size, n_items)) for number, start in enumerate(range(0, n_items, size))]


@dataclass(frozen=True)
class Job:
    """What is scored, by which model and how, and the folder of the shards' files."""

    model: str
    items: str  # items.parquet of stage 1
    scoring: Mapping[str, Any]
    folder: str
    model_digest: str
    made_from: str  # fingerprint of model, items and settings

    @classmethod
    def of(cls, model: Path, items: Path, settings: Settings, folder: Path) -> Job:
        """Return the job; the files are read once for their digests."""
        digest = sha256_of(model)
        parts = {"model": digest, "items": sha256_of(items), "settings": significant(settings, "score")}
        return cls(
            model=str(model.absolute()),
            items=str(items.absolute()),
            scoring=settings.scoring.model_dump(mode="json"),
            folder=str(folder.absolute()),
            model_digest=digest,
            made_from=fingerprint({**parts, "version": STAGE_VERSIONS["score"]}),
        )

    def to_json(self) -> str:
        """Return the job as one line."""
        return json.dumps(asdict(self))

    def path(self, shard: Shard) -> Path:
        """Return the file of a shard."""
        return Path(self.folder) / f"shard-{shard.number:06}.arrow"

    def key(self, shard: Shard) -> str:
        """Return the fingerprint of all that the scores of a shard are made from."""
        return fingerprint({"job": self.made_from, "rows": [shard.start, shard.stop]})

    def is_done(self, shard: Shard) -> bool:
        """Return whether the scores of a shard stand in its file, whole and unchanged."""
        return _content(self.path(shard), self.key(shard)) is not None

    def read(self, shard: Shard) -> pa.RecordBatch:
        """Return the scores of a shard that is done. Raises ArtifactError where they are not there any more."""
        content = _content(self.path(shard), self.key(shard))
        if content is None:
            raise ArtifactError(f"{self.path(shard)}: has changed since it was written; run the same command again")
        with pa.ipc.open_stream(content) as stream:
            batch: pa.RecordBatch = stream.read_next_batch()
        return batch


@dataclass(frozen=True)
class Scorer:
    """A job in the process that does it: the model is loaded once."""

    job: Job

    @cached_property
    def model(self) -> Model:
        """Return the model. Raises ArtifactError where the file is another one than when the job began."""
        if sha256_of(self.job.model) != self.job.model_digest:
            raise ArtifactError(f"{self.job.model}: has changed since the job began; run the same command again")
        return load_model(self.job.model)

    @cached_property
    def scoring(self) -> ScoringSettings:
        """Return the settings."""
        return ScoringSettings.model_validate(self.job.scoring)

    @cached_property
    def items(self) -> Items:
        """Return the clean items."""
        return Items(pq.ParquetFile(self.job.items), read_columns(self.model))

    def score(self, shard: Shard) -> None:
        """Write the file of a shard."""
        batch = self.items.read(shard.start, shard.stop)
        scores = score_batch(self.model, batch, clean=False, scoring=self.scoring)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, scores.schema) as stream:
            stream.write_batch(scores)
        content = sink.getvalue()
        with self.job.path(shard).open("wb") as file:
            file.write(_header(self.job.key(shard), content))
            file.write(content)


class Items:
    """The rows of items.parquet by their place; the group of rows that was read last is kept."""

    def __init__(self, file: pq.ParquetFile, wanted: set[str]) -> None:
        self._file = file
        self._columns = [name for name in file.schema_arrow.names if name in wanted]
        self._starts = [0]
        for group in range(file.num_row_groups):
            self._starts.append(self._starts[-1] + file.metadata.row_group(group).num_rows)
        self._last: tuple[int, pa.Table | None] = (-1, None)
        self.n_items = self._starts[-1]
        self.schema = file.schema_arrow

    def read(self, start: int, stop: int) -> pa.RecordBatch:
        """Return the rows from start to before stop, at least one."""
        parts = []
        for group, (first, behind) in enumerate(pairwise(self._starts)):
            if first < stop and start < behind:
                parts.append(self._group(group)[max(0, start - first) : stop - first])
        return pa.concat_tables(parts).combine_chunks().to_batches()[0]

    def _group(self, group: int) -> pa.Table:
        if self._last[0] != group or self._last[1] is None:
            self._last = (group, self._file.read_row_group(group, columns=self._columns, use_threads=False))
        return self._last[1]


def _header(key: str, content: pa.Buffer | bytes | memoryview) -> bytes:
    facts = {"key": key, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    return json.dumps(facts).encode().ljust(HEADER)


def _content(path: Path, key: str) -> memoryview | None:
    """Return what stands behind the header of a file; None where it is absent, damaged or of another key."""
    try:
        data = memoryview(path.read_bytes())
    except FileNotFoundError:
        return None
    return data[HEADER:] if data[:HEADER] == _header(key, data[HEADER:]) else None
