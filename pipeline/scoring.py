"""Stage 5: a batch of items in, a batch of scores out.

`score_batch` is a pure function of a loaded model. Its forward passes (passes.py) have a fixed number of rows, the last
one filled up, so that no score depends on how the catalog is cut into batches: NumPy's last bits change with the shape.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import arrow
from pipeline.columns import given_path, label_columns, list_column, schema
from pipeline.config_results import ScoringSettings
from pipeline.errors import CatalogError
from pipeline.model import Model
from pipeline.passes import Pass, passes
from pipeline.tagging import select_tags


def score_batch(model: Model, batch: pa.RecordBatch, *, clean: bool, scoring: ScoringSettings) -> pa.RecordBatch:
    """Return the scores of items, row by row, with the columns of `schema`.

    The batch has item_id and tags (list<string>), and where there are such: title, the columns of text, and given
    labels under the levels' names. `clean` says that the tags are raw and are to be cleaned as the training items
    were. Raises CatalogError for a missing column, FeatureError for one of the wrong type.
    """
    for column in ("item_id", "tags"):
        if column not in batch.schema.names:
            raise CatalogError(f"column '{column}' is missing; the columns are {', '.join(batch.schema.names)}")
    batch = as_trained(model, batch, clean=clean)
    parts = [_scores(model, done, scoring) for done in passes(model, batch, scoring)]
    table = pa.Table.from_batches(parts, schema=_schema(model, batch, scoring))
    whole = table.combine_chunks().to_batches()
    return whole[0] if whole else _no_rows(table.schema)


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


def read_columns(model: Model) -> set[str]:
    """Return the columns of clean items that scoring reads, where they are there."""
    wanted = {"item_id", "title", "tags", "tag_counts", "tag_order", *model.taxonomy.levels}
    return wanted | set(model.transform.columns.names)


def as_trained(model: Model, batch: pa.RecordBatch, *, clean: bool) -> pa.RecordBatch:
    """Return the batch with tags as the training items had them: raw ones cleaned where `clean` says that they are."""
    if clean:
        return _clean(model, batch)
    return _without_labels(model, batch) if model.tag_lists.labels else batch


def _clean(model: Model, batch: pa.RecordBatch) -> pa.RecordBatch:
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


def _scores(model: Model, done: Pass, scoring: ScoringSettings) -> pa.RecordBatch:
    """Return the scores of some items whose forward passes are done."""
    batch, n = done.items, done.items.num_rows
    titles = batch.column("title") if "title" in batch.schema.names else pa.nulls(n)
    levels, paths = label_columns(model, done.decoded, n_rows=n, thresholds=scoring.thresholds)
    n_tags = arrow.values(pc.list_value_length(batch.column("tags")), null=0).astype(np.int32)
    columns = [batch.column("item_id"), titles.cast(pa.string()), *levels, *paths]
    columns += [
        given_path(model, batch),
        arrow.numbers(n_tags),
        arrow.numbers(done.features.n_unseen_tags),
        arrow.flags(n_tags == done.features.n_unseen_tags),
        *(list_column(values) for values in done.layers),
        pa.DictionaryArray.from_arrays(arrow.numbers(np.zeros(n, np.int32)), arrow.strings([model.fingerprint])),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_schema(model, batch, scoring))


def _schema(model: Model, batch: pa.RecordBatch, scoring: ScoringSettings) -> pa.Schema:
    return schema(model, batch.schema.field("item_id").type, embeddings=scoring.embeddings)


def _no_rows(columns: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in columns], schema=columns)
