"""Stage 5: the forward passes of clean items: features, then the best paths.

Many items go through a folded network (inference.py) where there is one; a few, or any whose inner representations are
asked for, through the layers. Either has a fixed number of rows in a pass: no result depends on how a catalog is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.calibration import cool
from pipeline.config_results import ScoringSettings
from pipeline.decoding import Decoded, decode, decode_raw, decode_scores, path_starts, together
from pipeline.ensemble import members_of
from pipeline.features import Features
from pipeline.network import FeedbackNetwork, Inputs
from pipeline.outputs import fill_up, forward

if TYPE_CHECKING:
    from pipeline.folding import Heads
    from pipeline.inference import Plan
    from pipeline.model import Model

Floats = npt.NDArray[np.floating[Any]]
FEW = 256  # rows of a pass up to which folding a network does not pay
CHUNK = 32_768  # items whose features are made at once: what is done for each distinct tag is then done rarely


class Pass(NamedTuple):
    """Some items, one behind the other, and what the network says of them."""

    items: pa.RecordBatch
    features: Features
    decoded: Decoded
    layers: Sequence[Floats]  # of [scoring] embeddings, (n, width) each


@dataclass(frozen=True, eq=False)
class Folded:
    """The networks of a model, folded; of an ensemble the outputs are averaged."""

    plans: tuple[Plan, ...]
    legal: tuple[Heads, ...]  # of each plan: the paths' scores
    raw: tuple[Heads, ...]  # the levels' logits

    def blocks(self, inputs: Inputs, heads: Sequence[Heads], *, size: int) -> Iterator[list[npt.NDArray[np.float32]]]:
        """Yield what the heads give for the next rows, (n_rows, width) each, until the next are asked for."""
        runs = [plan.blocks(inputs, own, size=size) for plan, own in zip(self.plans, heads, strict=True)]
        for (rows, first), *others in zip(*runs, strict=True):
            for place, values in enumerate(first):
                for _, found in others:
                    values += found[place]
                if others:
                    values /= np.float32(len(runs))
            yield [values[: rows.stop - rows.start] for values in first]


def fold(model: Model) -> Folded | None:
    """Return the folded networks of a model; None where one has parts that cannot be folded."""
    # Not above: a prediction of a few items does without SciPy's linear algebra.
    from pipeline.folding import folds
    from pipeline.inference import Plan

    networks: Sequence[FeedbackNetwork] = members_of(model.network)
    if not all(map(folds, networks)):
        return None
    plans = tuple(map(Plan, networks))
    paths = model.taxonomy.paths
    return Folded(
        plans,
        legal=tuple([plan.path_head(paths, model.calibration.legal)] for plan in plans),
        raw=tuple(plan.level_heads() for plan in plans),
    )


def passes(model: Model, items: pa.RecordBatch, scoring: ScoringSettings) -> Iterator[Pass]:
    """Yield the items, which are clean, in parts, with what the network says of them."""
    folded = None if scoring.embeddings or scoring.batch_size <= FEW else model.folded
    size = scoring.batch_size * (1 if folded is None else max(1, CHUNK // scoring.batch_size))
    for start in range(0, items.num_rows, size):
        part = items.slice(start, size)
        features = model.transform.transform(part)
        if folded is None:
            yield Pass(part, features, *_by_layers(model, features, scoring))
        else:
            yield Pass(part, features, _by_folded(model, folded, features, scoring), ())


def _by_layers(model: Model, features: Features, scoring: ScoringSettings) -> tuple[Decoded, Sequence[Floats]]:
    n = features.n_items
    logits, layers = forward(model, fill_up(features, n_rows=scoring.batch_size), scoring.embeddings)
    if scoring.decoding == "legal":
        decoded = decode(cool(logits, model.calibration.legal), model.taxonomy, n_best=scoring.n_best)
    else:
        decoded = decode_raw(cool(logits, model.calibration.raw))
    return decoded.first(n), [values[:n] for values in layers]


def _by_folded(model: Model, folded: Folded, features: Features, scoring: ScoringSettings) -> Decoded:
    inputs = fill_up(features, n_rows=features.n_items)
    if scoring.decoding == "legal":
        scores = folded.blocks(inputs, folded.legal, size=scoring.batch_size)
        starts, n_best = path_starts(model.taxonomy), scoring.n_best
        return together([decode_scores(found, model.taxonomy, n_best=n_best, starts=starts) for (found,) in scores])
    levels = folded.blocks(inputs, folded.raw, size=scoring.batch_size)
    return together([decode_raw(cool(found, model.calibration.raw)) for found in levels])
