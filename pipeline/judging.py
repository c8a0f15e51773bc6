"""What the gate looks at: the predictions of models, new and old, on items of today, compared by full path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import ModelError
from pipeline.model import Model
from pipeline.outputs import probabilities
from pipeline.scoring import as_trained, one_thread
from pipeline.taxonomy import Taxonomy

MAX_ITEMS = 10_000  # enough for an accuracy to half a percent; the first by a hash of their ids
PASS = 2048  # items of a forward pass
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Right:
    """Which labels of some items a model gets right."""

    known: Flags  # (n, n_levels + 1); the last column is the whole path
    right: Flags  # (n, n_levels + 1); False where it is not known

    def accuracy(self, column: int) -> float:
        """Return the share of the known labels of a level, or of the paths, that are right; there must be one."""
        return float(self.right[:, column].sum() / self.known[:, column].sum())


def some_items(clean_folder: Path, *, where: str = "true") -> pa.Table:
    """Return at most MAX_ITEMS clean items for which a condition of SQL holds, the same in any order of the input."""
    import duckdb

    with duckdb.connect() as connection:
        query = f"SELECT * FROM read_parquet($file) WHERE {where} ORDER BY sha256(item_id::VARCHAR) LIMIT {MAX_ITEMS}"
        return connection.sql(query, params={"file": str(clean_folder / "items.parquet")}).to_arrow_table()


def labelled(clean_folder: Path, taxonomy: Taxonomy) -> tuple[str, pa.Table]:
    """Return the labelled items of the validation part, of the test part where it has none, and the part's name."""
    top = '"' + taxonomy.levels[0].replace('"', '""') + '"'
    for part in ("validation", "test"):
        items = some_items(clean_folder, where=f"split = '{part}' AND {top} IS NOT NULL")
        if items.num_rows:
            break
    return part, items


def right(model: Model, items: pa.Table, taxonomy: Taxonomy) -> Right:
    """Return which labels a model gets right, by the taxonomy of today: its classes count by their full paths.

    Raises ModelError where it has other levels, FeatureError where the items lack a column that it reads.
    """
    if model.taxonomy.levels != taxonomy.levels:
        raise ModelError(f"it has the levels {', '.join(model.taxonomy.levels)}")
    labels = taxonomy.encode([items[level] for level in taxonomy.levels])
    predicted = translated(predict(model, items), model.taxonomy, taxonomy)
    known, hit = labels >= 0, (labels >= 0) & (predicted == labels)
    return Right(
        known=np.column_stack([known, known.all(axis=1)]),
        right=np.column_stack([hit, known.all(axis=1) & hit.all(axis=1)]),
    )


def translated(classes: Indices, own: Taxonomy, today: Taxonomy) -> Indices:
    """Return classes of a model, (n, n_levels), as those of today's taxonomy; -2 for a path that is there no more.

    >>> own = Taxonomy.of(("genre",), [("Drama",), ("Horror",)])
    >>> today = Taxonomy.of(("genre",), [("Comedy",), ("Horror",)])
    >>> translated(np.array([[0], [1]], np.int32), own, today).tolist()
    [[-2], [1]]
    """
    columns = []
    for level, (theirs, ours) in enumerate(zip(own.classes, today.classes, strict=True)):
        place = {path: index for index, path in enumerate(ours)}
        columns.append(np.array([place.get(path, -2) for path in theirs], np.int32)[classes[:, level]])
    return np.stack(columns, axis=1)


def predict(model: Model, items: pa.Table) -> Indices:
    """Return the classes of the best legal path of each clean item, (n, n_levels)."""
    with one_thread():
        best = [probabilities(model, batch, PASS)[-1].argmax(axis=1) for batch in batches(model, items)]
    classes: Indices = model.taxonomy.paths[np.concatenate([np.zeros(0, np.int64), *best])]
    return classes


def covered(model: Model, items: pa.Table) -> Flags:
    """Return which clean items have a tag that the model knows, (n,)."""
    found = [np.zeros(0, np.bool_)]
    for batch in batches(model, items):
        ids = model.transform.transform(batch).tag_index
        found.append((ids > 0).any(axis=1))
    return np.concatenate(found)


def batches(model: Model, items: pa.Table) -> Iterator[Any]:
    """Yield clean items, a forward pass at a time, with tags as the model's training items had them."""
    for start in range(0, items.num_rows, PASS):
        batch = items.slice(start, PASS).combine_chunks().to_batches()[0]
        yield as_trained(model, batch, clean=False)
