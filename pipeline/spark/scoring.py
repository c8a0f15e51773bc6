"""Stage 5 on Spark: executors score the shards of a catalog, this process writes the results as it always does.

The shards are those of the local engine, whole forward passes, and so are the files in which their scores wait: what a
failed run has scored, on either engine, is not scored again.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.config import Settings
from pipeline.progress import Progress
from pipeline.score_catalog import Effort, score
from pipeline.scored import SHARD_ITEMS, Job, Scorer, Shard, stored
from pipeline.spark.cluster import ship
from pipeline.spark.executor import ScoreRows
from pipeline.spark.waves import Part, through_executors

# Spark does not send a task of more than 128 MB (spark.rpc.message.maxSize); and three waves are in memory.
SHARD_BYTES = 16 << 20


def score_on_spark(
    session: Any,
    settings: Settings,
    model_file: Path,
    clean_folder: Path,
    folder: Path,
    *,
    run: str,
    progress: Progress,
    shard_items: int = SHARD_ITEMS,
) -> None:
    """Do what `score_catalog.score` does, with the executors of a prepared session; the results have the same bytes.

    The driver reads the items and writes the results; it holds three waves of shards. Raises WorkerError where Spark
    gives up, and leaves then what is scored for the next try.
    """
    fitting = max(1, SHARD_BYTES // bytes_of_an_item(clean_folder / "items.parquet"))
    effort = Effort(shard_items=min(shard_items, fitting), crew=partial(score_shards, session))
    score(settings, model_file, clean_folder, folder, run=run, progress=progress, effort=effort)


def score_shards(session: Any, job: Job, shards: Sequence[Shard]) -> Generator[Shard, None, None]:
    """Have the executors score the shards, and give each when its file is there, in any order."""
    if not shards:
        return
    scorer, by_number = Scorer(job), {shard.number: shard for shard in shards}
    work = ScoreRows(ship(session, Path(job.model)), scorer.settings.scoring)

    def items() -> Iterator[Part]:
        for shard in shards:
            yield shard.number, stored(scorer.items.read(shard.start, shard.stop))

    with closing(through_executors(session, items(), work)) as scored:
        for number, content in scored:
            shard = by_number[number]
            job.write(shard, content)
            yield shard


def bytes_of_an_item(items: Path) -> int:
    """Return how many bytes an item of a Parquet file takes before compression, at least 1."""
    metadata = pq.ParquetFile(items).metadata
    total = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return int(max(1, total // max(1, metadata.num_rows)))
