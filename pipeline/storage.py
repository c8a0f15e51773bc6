"""Stage 4: parameters in half the bytes, and what that costs. A float16 has 11 binary digits, float32 24."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pipeline import parameters
from pipeline.calibration import Calibration, calibrated_marginals
from pipeline.errors import ModelError
from pipeline.evaluation import forward

if TYPE_CHECKING:
    from pipeline.ensemble import Ensemble
    from pipeline.examples import Source
    from pipeline.network import FeedbackNetwork
    from pipeline.taxonomy import Taxonomy

Tree = TypeVar("Tree")


def as_stored(network: Tree, storage: str) -> Tree:
    """Return the network that comes back from a file that stores this one as `storage`, in float32.

    Raises ModelError where a parameter is too large for it.
    """
    if storage == "float32":
        return network
    with np.errstate(over="ignore"):
        rounded = parameters.cast(parameters.cast(network, storage), "float32")
    for name, value in parameters.flatten(rounded).items():
        if not np.isfinite(value).all():
            largest = f"{np.abs(parameters.flatten(network)[name]).max():.3g}"
            raise ModelError(
                f"parameter '{name}' goes up to {largest}, float16 to 65,504; set [export] storage = float32"
            )
    return rounded


def cost(
    exact: FeedbackNetwork | Ensemble,
    stored: FeedbackNetwork | Ensemble,
    items: Source,
    taxonomy: Taxonomy,
    calibration: Calibration,
) -> dict[str, Any]:
    """Return what rounding changed on these items: accuracy per level and of the path, and probabilities at most.

    A change of accuracy is that of the stored network less that of the exact one, None where no label is known; both
    have the same temperatures. Probabilities are those of the levels' classes, the paths among them.
    """
    n_levels, largest = len(taxonomy.levels), 0.0
    known, gained = np.zeros(n_levels + 1, np.int64), np.zeros(n_levels + 1, np.int64)
    for (logits, labels), (rounded, _) in zip(forward(exact, items), forward(stored, items), strict=True):
        pair = [calibrated_marginals(values, calibration.legal, taxonomy) for values in (logits, rounded)]
        right = [taxonomy.paths[paths.argmax(axis=1)] == labels for paths, _ in pair]
        whole = (labels >= 0).all(axis=1)
        known += [*(labels >= 0).sum(axis=0), whole.sum()]
        before, after = (np.append(flags.sum(axis=0), flags.all(axis=1).sum()) for flags in right)
        gained += after - before
        levels = zip(*(levels for _, levels in pair), strict=True)
        largest = max(largest, *(float(np.abs(one - other).max(initial=0)) for one, other in levels))
    changes = [float(gain / count) if count else None for gain, count in zip(gained, known, strict=True)]
    return {
        "accuracy_change": {"levels": dict(zip(taxonomy.levels, changes, strict=False)), "path": changes[-1]},
        "largest_probability_change": largest,
    }
