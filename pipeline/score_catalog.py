"""Stage 5: a whole catalog in files: scored by shards, perhaps by several processes, and written by this one in order.

Shards that were done before a failure are not scored again: their files are left in the folder `shards` beside the
results, which the publication of these removes. The bytes of the results depend on neither shards nor processes.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import arrow
from pipeline.columns import embedding_column, n_paths, schema
from pipeline.config import Settings
from pipeline.config_results import ScoringSettings
from pipeline.cores import n_workers
from pipeline.crew import score_shards
from pipeline.model import Model
from pipeline.outputs import width_of
from pipeline.progress import Progress
from pipeline.scored import SHARD_ITEMS, Job, Scored, Scorer, Shard, cut
from pipeline.scoring import one_thread
from pipeline.writers import HDF5Writer, ParquetWriter

Crew = Callable[[Job, Sequence[Shard]], Generator[Shard, None, None]]  # gives each shard when its file is there

N_EXAMPLES = 5
FEW_ITEMS = 65_536  # which are scored sooner than processes start


@dataclass(frozen=True)
class Effort:
    """How the work is cut and shared; nothing of it changes the results."""

    sharing: int = 1  # jobs that may run at once on this machine
    shard_items: int = SHARD_ITEMS
    few_items: int = FEW_ITEMS
    crew: Crew | None = None  # who scores the shards; None: this process, or processes of this machine


def score(
    settings: Settings,
    model_file: Path,
    clean_folder: Path,
    folder: Path,
    *,
    run: str,
    progress: Progress,
    effort: Effort = Effort(),
) -> None:
    """Score the clean items of a folder with the model of a file, and write the results of stage 5.

    Leaves scores.parquet/, scores.h5, rejects.parquet (of the scored catalog) and summary.json. Memory does not
    grow with the catalog. Raises WorkerError where a process ends before its work.
    """
    job = Job.of(model_file, clean_folder / "items.parquet", settings, shards_beside(folder))
    summary = write_scores(job, folder, run=run, progress=progress, effort=effort)
    rejects = clean_folder / "rejects.parquet"
    shutil.copyfile(rejects, folder / "rejects.parquet")
    summary.write(folder)


def shards_beside(folder: Path) -> Path:
    """Return the folder of the shards' files of results that are being built; it is there then."""
    shards = folder.with_name("shards")
    shards.mkdir(exist_ok=True)
    return shards


def write_scores(
    job: Job,
    folder: Path,
    *,
    run: str,
    progress: Progress,
    effort: Effort,
    rejected: Callable[[Scored], None] = lambda _: None,
) -> Summary:
    """Write scores.parquet/ and scores.h5; give each shard to `rejected`, and return what there is to tell."""
    scorer = Scorer(job)
    scoring, n_items = scorer.settings.scoring, scorer.items.n_items
    shards = cut(n_items, shard_items=effort.shard_items, batch_size=scoring.batch_size)
    workers = n_workers(scoring.workers, sharing=effort.sharing) if n_items > effort.few_items else 1
    crew = effort.crew or (partial(score_shards, n_workers=workers) if workers > 1 else partial(_score_here, scorer))
    parquet, hdf5 = _writers(scorer, scoring, folder, run=run)
    summary = Summary()
    with one_thread(), parquet, hdf5, closing(_in_order(scorer, shards, progress, crew)) as parts:
        for part in parts:
            parquet.write(part.scores)
            hdf5.write(part.scores)
            summary.add(part.scores)
            rejected(part)
    return summary


def _writers(scorer: Scorer, scoring: ScoringSettings, folder: Path, *, run: str) -> tuple[ParquetWriter, HDF5Writer]:
    """Return the writers of the results."""
    model = scorer.model
    columns = schema(model, scorer.items.schema.field("item_id").type, embeddings=scoring.embeddings)
    widths = _widths(model, scoring)
    facts = {"model": model.fingerprint, "run": run, "decoding": scoring.decoding}
    parquet = ParquetWriter(folder / "scores.parquet", columns, part_items=scoring.part_items, metadata=facts)
    return parquet, HDF5Writer(folder / "scores.h5", columns, widths=widths, metadata=facts)


def _widths(model: Model, scoring: ScoringSettings) -> dict[str, tuple[int, ...]]:
    """Return how many values each list column has at most."""
    n_levels, n_best = len(model.taxonomy.levels), n_paths(model, scoring)
    return {
        "path": (n_levels,),
        "best_paths": (n_best, n_levels),
        "best_path_probabilities": (n_best,),
        "given_path": (n_levels,),
        **{embedding_column(layer): (width_of(model, layer),) for layer in scoring.embeddings},
    }


def _in_order(scorer: Scorer, shards: Sequence[Shard], progress: Progress, crew: Crew) -> Generator[Scored, None, None]:
    """Give the scores of the shards one after the other, and tell how fast they come."""
    job = scorer.job
    ready = {shard for shard in shards if job.is_done(shard)}
    todo = [shard for shard in shards if shard not in ready]
    n_items, started = scorer.items.n_items, time.monotonic()
    n_before = n_done = sum(shard.n_items for shard in ready)
    with closing(crew(job, todo)) as scored:
        for shard in shards:
            while shard not in ready:
                new = next(scored)
                ready.add(new)
                n_done += new.n_items
                pace = (n_done - n_before) / max(1e-3, time.monotonic() - started)
                progress.update(n_done, n_items, items_per_second=pace)
            yield job.read(shard)


def _score_here(scorer: Scorer, _: Job, shards: Sequence[Shard]) -> Generator[Shard, None, None]:
    """Score the shards in this process; give each when it is done."""
    for shard in shards:
        scorer.score(shard)
        yield shard


class Summary:
    """Counts of a run, and a few items to look at."""

    def __init__(self) -> None:
        self.n_items = 0
        self.n_without_tags = 0
        self._examples: list[tuple[tuple[bool, bool, int], dict[str, Any]]] = []

    def add(self, scores: pa.RecordBatch) -> None:
        """Count a batch; keep the first items without labels, those with tags before those without."""
        untagged = arrow.values(scores["n_tags"]) == 0
        labelled = arrow.values(scores["given_path"].is_valid())
        order = np.lexsort((np.arange(len(untagged)), untagged, labelled))[:N_EXAMPLES]
        shown = scores.select(["item_id", "title", "path", "path_probability", "n_tags"]).take(arrow.numbers(order))
        ranks = [(bool(labelled[row]), bool(untagged[row]), self.n_items + int(row)) for row in order]
        self._examples += zip(ranks, shown.to_pylist(), strict=True)
        self._examples = sorted(self._examples, key=lambda example: example[0])[:N_EXAMPLES]
        self.n_items += scores.num_rows
        self.n_without_tags += int(untagged.sum())

    def write(self, folder: Path) -> None:
        """Write summary.json beside the results, rejects.parquet among them; no times, so that its bytes repeat."""
        scopes = pq.ParquetFile(folder / "rejects.parquet").read(columns=["scope"])["scope"]
        counts = {found["values"]: found["counts"] for found in pc.value_counts(scopes).to_pylist()}
        facts = {
            "n_items": self.n_items,
            "n_without_tags": self.n_without_tags,
            "n_rejected": counts.get("item", 0),
            "examples": [example for _, example in self._examples],
        }
        (folder / "summary.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")
