"""Stage 5: a shard of the catalog, items that follow each other, on its way from items to scores in a file.

The file of a shard is Arrow's stream format behind a header of 512 bytes: what it was made from (the digests of model
and items, settings, the rows) and the SHA-256 of the rest. So a file that was torn, damaged or made from something else
is known as such, and its shard is scored again; any other is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.clean_items import Items
from pipeline.config import Settings
from pipeline.digests import fingerprint, sha256_of
from pipeline.errors import ArtifactError
from pipeline.identity import STAGE_VERSIONS, significant
from pipeline.model import Model, load_model
from pipeline.scoring import read_columns, score_batch

if TYPE_CHECKING:  # what reads raw items is loaded where there are some
    from pipeline.raw_items import Cleaned, Plan, RawItems

SHARD_ITEMS = 32_768
HEADER = 512
N_TAGS = b"n_tags"


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


class Scored(NamedTuple):
    """The scores of a shard, and what was rejected of it where its items were raw."""

    scores: pa.RecordBatch
    rejects: pa.Table | None = None
    n_tags: int = 0  # raw ones


@dataclass(frozen=True)
class Job:
    """What is scored, by which model and how, and the folder of the shards' files."""

    model: str
    items: str  # items.parquet of stage 1; empty where the items are raw
    settings: Mapping[str, Any]
    folder: str
    model_digest: str
    made_from: str  # fingerprint of model, items and settings
    plan: Mapping[str, Any] | None = None  # of raw items

    @classmethod
    def of(cls, model: Path, items: Path, settings: Settings, folder: Path) -> Job:
        """Return the job of clean items; the files are read once for their digests."""
        return cls._of(model, settings, folder, {"items": sha256_of(items)}, items=str(items.absolute()))

    @classmethod
    def of_raw(cls, model: Path, plan: Plan, digests: Sequence[str], settings: Settings, folder: Path) -> Job:
        """Return the job of raw items in files of these digests."""
        parts = {"raw": list(digests), "plan": list(plan.n_rows), "clean": significant(settings, "clean")}
        return cls._of(model, settings, folder, parts, plan=plan.to_json())

    @classmethod
    def _of(cls, model: Path, settings: Settings, folder: Path, parts: Mapping[str, Any], **more: Any) -> Job:
        digest = sha256_of(model)
        made_from = {"model": digest, "settings": significant(settings, "score"), "version": STAGE_VERSIONS["score"]}
        return cls(
            model=str(model.absolute()),
            settings=settings.model_dump(mode="json"),
            folder=str(folder.absolute()),
            model_digest=digest,
            made_from=fingerprint({**made_from, **parts}),
            **{"items": "", **more},
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

    def write(self, shard: Shard, content: pa.Buffer | bytes) -> None:
        """Write the file of a shard; `content` are its scores as `stored` has them."""
        with self.path(shard).open("wb") as file:
            file.write(_header(self.key(shard), content))
            file.write(content)

    def read(self, shard: Shard) -> Scored:
        """Return the scores of a shard that is done. Raises ArtifactError where they are not there any more."""
        content = _content(self.path(shard), self.key(shard))
        if content is None:
            raise ArtifactError(f"{self.path(shard)}: has changed since it was written; run the same command again")
        stored = pa.BufferReader(content)
        with pa.ipc.open_stream(stored) as stream:
            (scores,) = stream  # to its end, behind which the next stream begins
        if self.plan is None:
            return Scored(scores)
        with pa.ipc.open_stream(stored) as stream:
            rejects = stream.read_all()
        return Scored(scores, rejects.replace_schema_metadata(), int(rejects.schema.metadata[N_TAGS]))


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
    def settings(self) -> Settings:
        """Return the settings."""
        return Settings.model_validate(self.job.settings)

    @cached_property
    def items(self) -> Items | RawItems:
        """Return the items."""
        if self.job.plan is None:
            return Items(pq.ParquetFile(self.job.items), read_columns(self.model))
        from pipeline.raw_items import Plan, RawItems

        return RawItems(self.settings, Path(self.job.model), Plan.of_json(self.job.plan))

    def score(self, shard: Shard) -> None:
        """Write the file of a shard."""
        found = self.items.read(shard.start, shard.stop)
        if isinstance(found, pa.RecordBatch):
            scores = score_batch(self.model, found, clean=False, scoring=self.settings.scoring)
            self.job.write(shard, stored(scores))
        else:
            rejects = found.rejects.replace_schema_metadata({N_TAGS: str(found.n_tags)})
            self.job.write(shard, stored(self._score_kept(found, shard), rejects))

    def _score_kept(self, found: Cleaned, shard: Shard) -> pa.RecordBatch:
        """Return the scores of raw items that are kept: a pass has those of as many rows of the input."""
        scoring = self.settings.scoring
        batch = _one_batch(found.items)
        if batch.num_rows == shard.n_items:
            return score_batch(self.model, batch, clean=False, scoring=scoring)
        edges = np.searchsorted(found.places, [*range(shard.start, shard.stop, scoring.batch_size), shard.stop])
        parts = [batch.slice(first, behind - first) for first, behind in pairwise(edges.tolist())]
        scores = [score_batch(self.model, part, clean=False, scoring=scoring) for part in parts]
        return _one_batch(pa.Table.from_batches(scores))


def stored(*parts: pa.RecordBatch | pa.Table) -> pa.Buffer:
    """Return what stands in the file of a shard: a stream of Arrow for each part, one behind the other."""
    sink = pa.BufferOutputStream()
    for rows in parts:
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write(rows)
    return sink.getvalue()


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    """Return a table as one batch, also where it has no rows."""
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


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
