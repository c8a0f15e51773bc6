"""Stage 5: the columns of the scores, as Arrow has them: labels are codes into one dictionary, paths are lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import arrow
from pipeline.config_results import ScoringSettings
from pipeline.decoding import Decoded
from pipeline.errors import SettingsError

if TYPE_CHECKING:
    from pipeline.model import Model

LABEL = pa.dictionary(pa.int32(), pa.string())


def schema(model: Model, item_id: pa.DataType, *, embeddings: Sequence[str] = ()) -> pa.Schema:
    """Return the columns of the scores; labels are dictionary-encoded, list columns run from the best path down.

    Each of the layers `embeddings` has a column of its own. Raises SettingsError where a level is called like another
    column.
    """
    fields: list[tuple[str, pa.DataType]] = [("item_id", item_id), ("title", pa.string())]
    for level in model.taxonomy.levels:
        fields += [(level, LABEL), (f"{level}_probability", pa.float32())]
    fields += [
        ("path", pa.list_(LABEL)),
        ("path_probability", pa.float32()),
        ("best_paths", pa.list_(pa.list_(LABEL))),
        ("best_path_probabilities", pa.list_(pa.float32())),
        ("given_path", pa.list_(pa.string())),
        ("n_tags", pa.int32()),
        ("n_unseen_tags", pa.int32()),
        ("no_known_tags", pa.bool_()),
        *((embedding_column(layer), pa.list_(pa.float32())) for layer in embeddings),
        ("model", LABEL),
    ]
    names = [name for name, _ in fields] + ["names"]  # scores.h5 has a dataset of that name
    for level in model.taxonomy.levels:
        if names.count(level) > 1 or names.count(f"{level}_probability") > 1:
            raise SettingsError(f"[catalog] levels: '{level}' is the name of another column of the scores; rename it")
    return pa.schema(fields)


def embedding_column(layer: str) -> str:
    """Return what the column of a layer's output is called.

    >>> embedding_column("hidden")
    'embedding_hidden'
    """
    return f"embedding_{layer}"


def n_paths(model: Model, scoring: ScoringSettings) -> int:
    """Return how many paths an item gets: raw heads give one, and no more than there are."""
    return min(scoring.n_best, len(model.taxonomy.paths)) if scoring.decoding == "legal" else 1


def label_columns(
    model: Model, decoded: Decoded, *, n_rows: int, thresholds: Sequence[float] = ()
) -> tuple[list[pa.Array], list[pa.Array]]:
    """Return the columns of the levels, and those of the paths, of the first `n_rows`.

    Labels and `path` end above the first level whose probability is below its threshold (one for all, or one a
    level); probabilities and best paths stay. Raises SettingsError where there are thresholds for other levels.
    """
    classes, n_levels = decoded.classes[:n_rows], decoded.classes.shape[2]
    codes = np.stack([model.label_codes[k][classes[:, :, k]] for k in range(n_levels)], axis=2)
    best = np.where(_certain(decoded.level_probability[:n_rows], thresholds), codes[:, 0], -1)
    levels = []
    for k in range(n_levels):
        levels += [_encoded(model, best[:, k]), _float32(decoded.level_probability[:n_rows, k])]
    probability = decoded.path_probability[:n_rows]
    lengths = np.full(n_rows, codes.shape[1])
    return levels, [
        _paths(model, best),
        _float32(probability[:, 0]),
        arrow.lists(lengths, _paths(model, codes.reshape(-1, n_levels))),
        arrow.lists(lengths, _float32(probability.ravel())),
    ]


def list_column(values: npt.NDArray[np.float32]) -> pa.ListArray:
    """Return the rows of a matrix, (n, width), as lists."""
    return arrow.lists(np.full(len(values), values.shape[1]), _float32(values.ravel()))


def _certain(probability: npt.NDArray[np.floating[Any]], thresholds: Sequence[float]) -> npt.NDArray[np.bool_]:
    """Return for each level, (n, n_levels), whether its probability and all above it reach their thresholds.

    >>> _certain(np.array([[0.9, 0.4, 0.8]]), (0.5,)).tolist()
    [[True, False, False]]
    """
    if len(thresholds) not in (0, 1, probability.shape[1]):
        raise SettingsError(
            f"[scoring] thresholds: {len(thresholds)} values for the {probability.shape[1]} levels of the model"
        )
    return np.logical_and.accumulate(probability >= np.array(thresholds or (0.0,)), axis=1)


def _paths(model: Model, codes: npt.NDArray[np.int32]) -> pa.ListArray:
    """Return the labels of each row, (n, n_levels), as far as the first stop."""
    kept = np.logical_and.accumulate(codes >= 0, axis=1)
    return arrow.lists(kept.sum(axis=1), _encoded(model, codes[kept]))


def _encoded(model: Model, codes: npt.NDArray[np.int32]) -> pa.DictionaryArray:
    """Return labels by their code; null for a stop."""
    return pa.DictionaryArray.from_arrays(
        arrow.numbers(codes.astype(np.int32, copy=False), mask=codes < 0), model.label_names
    )


def _float32(values: npt.NDArray[np.floating[Any]]) -> pa.Array:
    return arrow.numbers(values.astype(np.float32, copy=False))


def given_path(model: Model, batch: pa.RecordBatch) -> pa.Array:
    """Return the labels that came with each item, as far as they are known and before a stop; null for none."""
    levels = model.taxonomy.levels
    n = batch.num_rows
    if levels[0] not in batch.schema.names:
        return pa.nulls(n, pa.list_(pa.string()))
    absent = pa.nulls(n, pa.string())
    labels = [batch.column(level).cast(pa.string()) if level in batch.schema.names else absent for level in levels]
    named = [pc.fill_null(pc.not_equal(label, model.taxonomy.stop_label), False) for label in labels]
    kept = np.logical_and.accumulate(
        np.stack([flags.to_numpy(zero_copy_only=False) for flags in named], axis=1), axis=1
    )
    rows, columns = np.nonzero(kept)
    values = pa.concat_arrays(labels).take(arrow.numbers(columns * n + rows))
    unlabelled = labels[0].is_null()
    return arrow.lists(kept.sum(axis=1), values, mask=unlabelled)
