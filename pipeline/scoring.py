"""Stage 5: a batch of items in, a batch of scores out; and the run over a whole catalog.

`score_batch` is a pure function of a loaded model. Its forward passes have a fixed number of rows, the last one filled
up, so that no score depends on how the catalog is cut into batches: NumPy's last bits change with the shape.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.sparse import csc_matrix

from pipeline.calibration import cool
from pipeline.columns import given_path, label_columns, n_paths, schema
from pipeline.config import ScoringSettings, Settings
from pipeline.decoding import decode, decode_raw
from pipeline.errors import CatalogError
from pipeline.features import Features
from pipeline.model import Model, load_model
from pipeline.network import Inputs
from pipeline.progress import Progress
from pipeline.tagging import select_tags
from pipeline.writers import HDF5Writer, ParquetWriter

N_EXAMPLES = 5


def score_batch(model: Model, batch: pa.RecordBatch, *, clean: bool, scoring: ScoringSettings) -> pa.RecordBatch:
    """Return the scores of items, row by row, with the columns of `schema`.

    The batch has item_id and tags (list<string>), and where there are such: title, the columns of text, and given
    labels under the levels' names. `clean` says that the tags are raw and are to be cleaned as the training items
    were. Raises CatalogError for a missing column, FeatureError for one of the wrong type.
    """
    for column in ("item_id", "tags"):
        if column not in batch.schema.names:
            raise CatalogError(f"column '{column}' is missing; the columns are {', '.join(batch.schema.names)}")
    if clean:
        batch = clean_batch(model, batch)
    elif model.tag_lists.labels:
        batch = _without_labels(model, batch)
    size = scoring.batch_size
    starts = range(0, batch.num_rows, size)
    parts = [_score_pass(model, batch.slice(start, size), scoring) for start in starts]
    table = pa.Table.from_batches(parts, schema=schema(model, batch.schema.field("item_id").type))
    whole = table.combine_chunks().to_batches()
    return whole[0] if whole else _no_rows(table.schema)


def score(
    settings: Settings, export_folder: Path, clean_folder: Path, folder: Path, *, run: str, progress: Progress
) -> None:
    """Score the clean items of a folder with the model of another, and write the results of stage 5.

    Leaves scores.parquet/, scores.h5, rejects.parquet (of the scored catalog) and summary.json. Memory does not
    grow with the catalog.
    """

    scoring = settings.scoring
    model = load_model(export_folder / "model.h5")
    items = pq.ParquetFile(clean_folder / "items.parquet")
    columns = schema(model, items.schema_arrow.field("item_id").type)
    facts = {"model": model.fingerprint, "run": run, "decoding": scoring.decoding}
    n_levels, n_best = len(model.taxonomy.levels), n_paths(model, scoring)
    widths = {
        "path": (n_levels,),
        "best_paths": (n_best, n_levels),
        "best_path_probabilities": (n_best,),
        "given_path": (n_levels,),
    }
    summary = Summary()
    with (
        one_thread(),
        ParquetWriter(folder / "scores.parquet", columns, part_items=scoring.part_items, metadata=facts) as parquet,
        HDF5Writer(folder / "scores.h5", columns, widths=widths, metadata=facts) as hdf5,
    ):
        for batch in rebatch(_read(items, model), n_rows=scoring.batch_size):
            scores = score_batch(model, batch, clean=False, scoring=scoring)
            parquet.write(scores)
            hdf5.write(scores)
            summary.add(scores)
            progress.update(summary.n_items, items.metadata.num_rows)
    rejects = clean_folder / "rejects.parquet"
    shutil.copyfile(rejects, folder / "rejects.parquet")
    scopes = pq.read_table(rejects, columns=["scope"])["scope"]
    text = json.dumps(
        summary.facts(n_rejected=pc.sum(pc.equal(scopes, "item")).as_py() or 0), indent=1, ensure_ascii=False
    )
    (folder / "summary.json").write_text(text + "\n", "utf-8")


def rebatch(batches: Iterable[pa.RecordBatch], *, n_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in batches of `n_rows`, the last one shorter.

    >>> batches = [pa.RecordBatch.from_pydict({"x": part}) for part in ([1], [2, 3, 4])]
    >>> [batch["x"].to_pylist() for batch in rebatch(batches, n_rows=2)]
    [[1, 2], [3, 4]]
    """
    waiting: list[pa.RecordBatch] = []
    n_waiting = 0
    for batch in batches:
        waiting.append(batch)
        n_waiting += batch.num_rows
        while n_waiting >= n_rows:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, n_rows).combine_chunks().to_batches()[0]
            waiting, n_waiting = table.slice(n_rows).to_batches(), n_waiting - n_rows
    if n_waiting:
        yield pa.Table.from_batches(waiting).combine_chunks().to_batches()[0]


def one_thread() -> AbstractContextManager[object]:
    """Return a context in which BLAS has one thread: on batches of this size more are slower, and bytes repeat.

    Without threadpoolctl, which scoring alone does not need, BLAS keeps the threads of its environment variables.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    limits: AbstractContextManager[object] = threadpool_limits(limits=1)
    return limits


class Summary:
    """Counts of a run, and a few items to look at."""

    def __init__(self) -> None:
        self.n_items = 0
        self.n_without_tags = 0
        self._examples: list[tuple[tuple[bool, bool, int], dict[str, Any]]] = []

    def add(self, scores: pa.RecordBatch) -> None:
        """Count a batch; keep the first items without labels, those with tags before those without."""
        untagged = np.asarray(scores["n_tags"]) == 0
        labelled = scores["given_path"].is_valid().to_numpy(zero_copy_only=False)
        order = np.lexsort((np.arange(len(untagged)), untagged, labelled))[:N_EXAMPLES]
        shown = scores.select(["item_id", "title", "path", "path_probability", "n_tags"]).take(pa.array(order))
        ranks = [(bool(labelled[row]), bool(untagged[row]), self.n_items + int(row)) for row in order]
        self._examples += zip(ranks, shown.to_pylist(), strict=True)
        self._examples = sorted(self._examples, key=lambda example: example[0])[:N_EXAMPLES]
        self.n_items += scores.num_rows
        self.n_without_tags += int(untagged.sum())

    def facts(self, *, n_rejected: int) -> dict[str, Any]:
        """Return what summary.json holds; no times, so that its bytes repeat."""
        return {
            "n_items": self.n_items,
            "n_without_tags": self.n_without_tags,
            "n_rejected": n_rejected,
            "examples": [example for _, example in self._examples],
        }


def _read(items: pq.ParquetFile, model: Model) -> Iterator[pa.RecordBatch]:
    """Yield the columns of the clean items that scoring reads."""
    wanted = {"item_id", "title", "tags", "tag_counts", "tag_order", *model.taxonomy.levels}
    wanted |= set(model.transform.columns.names)
    columns = [name for name in items.schema_arrow.names if name in wanted]
    yield from items.iter_batches(batch_size=65_536, columns=columns)


def clean_batch(model: Model, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with clean tags, and with how often each stood among the raw ones, as stage 1 counts them."""
    from pipeline.cleaning import clean_tags

    grouped = clean_tags(batch.column("tags"), model.clean, model.tag_lists)
    columns = {name: batch.column(name) for name in batch.schema.names}
    return pa.RecordBatch.from_pydict(
        {**columns, "tags": grouped.tags, "tag_counts": grouped.counts, "tag_order": grouped.order}
    )


def _without_labels(model: Model, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return clean items without the tags that training dropped because they are names of labels.

    Another catalog was cleaned before anybody knew the labels that the model was trained on.
    """
    labels = pa.array(sorted(model.tag_lists.labels), pa.string())
    keep = ~pc.is_in(pc.list_flatten(batch.column("tags")), labels).to_numpy(zero_copy_only=False)
    if keep.all():
        return batch
    columns = {name: batch.column(name) for name in batch.schema.names}
    parallel = {"tags", "tag_counts", "tag_order"} & columns.keys()
    changed = {name: select_tags(columns[name], keep) for name in sorted(parallel)}
    return pa.RecordBatch.from_pydict(columns | changed)


def _score_pass(model: Model, batch: pa.RecordBatch, scoring: ScoringSettings) -> pa.RecordBatch:
    """Return the scores of at most `batch_size` items, by one forward pass of that size."""
    n = batch.num_rows
    features = model.transform.transform(batch)
    logits = model.network.logits(fill_up(features, n_rows=scoring.batch_size))
    if scoring.decoding == "legal":
        temperatures = model.calibration.legal
        decoded = decode(cool(logits, temperatures), model.taxonomy, n_best=scoring.n_best)
    else:
        decoded = decode_raw(cool(logits, model.calibration.raw))
    titles = batch.column("title") if "title" in batch.schema.names else pa.nulls(n)
    levels, paths = label_columns(model, decoded, n_rows=n)
    columns = [batch.column("item_id"), titles.cast(pa.string()), *levels, *paths]
    columns += [
        given_path(model, batch),
        pc.fill_null(pc.list_value_length(batch.column("tags")), 0).cast(pa.int32()),
        pa.array(features.n_unseen_tags, pa.int32()),
        pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([model.fingerprint])),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema(model, batch.schema.field("item_id").type))


def fill_up(features: Features, *, n_rows: int) -> Inputs:
    """Return the network's inputs with rows of nothing below, n_rows in all."""
    missing = n_rows - features.n_items
    sparse = features.features
    inner = (sparse.data, sparse.indices, sparse.indptr)
    return Inputs(
        tag_index=np.pad(features.tag_index, ((0, missing), (0, 0))),
        features=csc_matrix(inner, shape=(n_rows, sparse.shape[1])) if sparse.shape[1] else None,
        dense=np.pad(features.dense, ((0, missing), (0, 0))) if features.dense.shape[1] else None,
    )


def _no_rows(columns: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in columns], schema=columns)
