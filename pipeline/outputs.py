"""What a model gives beside scores: the probabilities of all classes, and inner representations by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.sparse import csc_matrix

from pipeline import frames
from pipeline.calibration import cool
from pipeline.decoding import marginals, path_probabilities
from pipeline.errors import ModelError
from pipeline.features import Features
from pipeline.network import Inputs

if TYPE_CHECKING:
    from pipeline.model import Model

Floats = npt.NDArray[np.floating[Any]]


def probabilities(model: Model, items: pa.RecordBatch, batch_size: int) -> list[Floats]:
    """Return the calibrated probabilities of every level's classes, (n, n_classes) float32 each, of clean items.

    They are the marginals of the legal paths, so each row sums to 1 and a parent has the sum of its children; those of
    the last level are the probabilities of the paths.
    """
    found = [np.zeros((items.num_rows, size), np.float32) for size in model.taxonomy.n_classes]
    for rows, logits, _ in _passes(model, items, (), batch_size=batch_size):
        paths = path_probabilities(cool(logits, model.calibration.legal), model.taxonomy)
        for level, values in zip(found, marginals(paths, model.taxonomy), strict=True):
            level[rows] = values[: rows.stop - rows.start]
    return found


def representations(model: Model, items: pa.RecordBatch, batch_size: int, *, layer: str) -> Floats:
    """Return what a layer gives for each of some clean items, (n, width) float32; an ensemble's side by side.

    Raises ModelError for a layer that the network does not have, and for one that gives no row of numbers an item.
    """
    passes = _passes(model, items, (layer,), batch_size=batch_size)
    return np.concatenate([values[: rows.stop - rows.start] for rows, _, (values,) in passes])


def width_of(model: Model, layer: str) -> int:
    """Return how many numbers a layer gives for an item. Raises ModelError as `representations` does."""
    return int(representations(model, frames.read(model, []), 1, layer=layer).shape[1])


def forward(model: Model, inputs: Inputs, layers: Sequence[str]) -> tuple[Sequence[Floats], Sequence[Floats]]:
    """Return the logits of every level, and the outputs of the layers; what they share is computed once."""
    network = model.network
    if not layers:
        return network.logits(inputs), ()
    if unknown := [layer for layer in layers if layer not in network.names]:
        raise ModelError(f"layer '{unknown[0]}' is not one of {', '.join(network.names)}")
    n_levels = len(model.taxonomy.levels)
    found = network.outputs(inputs, [*(f"logits_{level}" for level in range(1, n_levels + 1)), *layers])
    for layer, values in zip(layers, found[n_levels:], strict=True):
        if values.ndim != 2 or len(values) != len(inputs.tag_index):
            raise ModelError(f"layer '{layer}' does not give a row of numbers for each item")
    return found[:n_levels], found[n_levels:]


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


def _passes(
    model: Model, items: pa.RecordBatch, layers: Sequence[str], *, batch_size: int
) -> Iterator[tuple[slice, Sequence[Floats], Sequence[Floats]]]:
    """Yield rows, logits and the outputs of the layers, `batch_size` rows of them, of each forward pass."""
    for start in range(0, max(items.num_rows, 1), batch_size):
        batch = items.slice(start, batch_size)
        inputs = fill_up(model.transform.transform(batch), n_rows=batch_size)
        yield slice(start, start + batch.num_rows), *forward(model, inputs, layers)
