"""What a model gives beside scores: the probabilities of all classes, and inner representations by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.calibration import cool
from pipeline.decoding import marginals, path_probabilities
from pipeline.errors import ModelError
from pipeline.scoring import fill_up

if TYPE_CHECKING:
    from pipeline.model import Model

Floats = npt.NDArray[np.floating[Any]]


def probabilities(model: Model, items: pa.RecordBatch, batch_size: int) -> list[Floats]:
    """Return the calibrated probabilities of every level's classes, (n, n_classes) float32 each, of clean items.

    They are the marginals of the legal paths, so each row sums to 1 and a parent has the sum of its children; those of
    the last level are the probabilities of the paths.
    """
    found = [np.zeros((items.num_rows, size), np.float32) for size in model.taxonomy.n_classes]
    names = [f"logits_{level}" for level in range(1, len(found) + 1)]
    for rows, logits in _passes(model, items, names, batch_size=batch_size):
        paths = path_probabilities(cool(logits, model.calibration.legal), model.taxonomy)
        for level, values in zip(found, marginals(paths, model.taxonomy), strict=True):
            level[rows] = values[: rows.stop - rows.start]
    return found


def representations(model: Model, items: pa.RecordBatch, batch_size: int, *, layer: str) -> Floats:
    """Return what a layer gives for each of some clean items, (n, width) float32; an ensemble's side by side.

    Raises ModelError for a layer that the network does not have, and for one that gives no row of numbers an item.
    """
    if layer not in model.network.names:
        raise ModelError(f"layer '{layer}' is not one of {', '.join(model.network.names)}")
    parts = []
    for rows, (values,) in _passes(model, items, [layer], batch_size=batch_size):
        if values.ndim != 2 or len(values) != batch_size:
            raise ModelError(f"layer '{layer}' does not give a row of numbers for each item")
        parts.append(values[: rows.stop - rows.start])
    return np.concatenate(parts)


def _passes(
    model: Model, items: pa.RecordBatch, names: Sequence[str], *, batch_size: int
) -> Iterator[tuple[slice, Sequence[Floats]]]:
    """Yield the rows and the outputs of the named layers, `batch_size` rows of them, of each forward pass."""
    for start in range(0, max(items.num_rows, 1), batch_size):
        batch = items.slice(start, batch_size)
        inputs = fill_up(model.transform.transform(batch), n_rows=batch_size)
        yield slice(start, start + batch.num_rows), model.network.outputs(inputs, names)
