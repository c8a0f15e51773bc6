"""Stage 4: one temperature a level (or one for all), fitted on held-out items, makes probabilities honest.

Logits of level k are multiplied by the sharpness 1 / temperature. Legal paths and raw heads are fitted apart: a legal
path multiplies the evidence of all levels, which are not independent, so it needs other temperatures than a head alone.
Source: Guo et al. 2017, arXiv 1706.04599 (one head); for paths it is a log-linear model with one weight a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.decoding import marginals, path_probabilities, path_scores
from pipeline.errors import ModelError

if TYPE_CHECKING:
    from pipeline.taxonomy import Taxonomy

Floats = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.int32]

LOWEST, HIGHEST = 0.05, 20.0  # of a temperature: beyond it a handful of items has the word, not the evidence
CHUNK = 1_000_000  # cells, items times paths, that are held in memory at once


@dataclass(frozen=True)
class Calibration:
    """The temperatures of the levels; 1 leaves the network's probabilities as they are."""

    legal: tuple[float, ...]
    raw: tuple[float, ...]

    @classmethod
    def none(cls, n_levels: int) -> Calibration:
        """Return temperatures of 1."""
        return cls(legal=(1.0,) * n_levels, raw=(1.0,) * n_levels)

    @classmethod
    def from_json(cls, data: Any, *, n_levels: int) -> Calibration:
        """Return the calibration that `to_json` gave. Raises ModelError for anything else."""
        try:
            found = cls(legal=tuple(map(float, data["legal"])), raw=tuple(map(float, data["raw"])))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ModelError(f"calibration: {data!r} does not hold temperatures; export the model again") from error
        temperatures = found.legal + found.raw
        if len(found.legal) != n_levels or len(found.raw) != n_levels:
            raise ModelError(f"calibration: {data!r} does not fit {n_levels} levels; export the model again")
        if not all(LOWEST <= value <= HIGHEST for value in temperatures):
            raise ModelError(f"calibration: {data!r} leaves {LOWEST} to {HIGHEST}; export the model again")
        return found

    def to_json(self) -> dict[str, list[float]]:
        """Return the temperatures as JSON holds them."""
        return {name: list(values) for name, values in asdict(self).items()}


def cool(log_probabilities: Sequence[Floats], temperatures: Sequence[float]) -> tuple[Floats, ...]:
    """Return every level divided by its temperature, in its own dtype; logits of the calibrated network.

    >>> cool([np.array([[2.0, 4.0]])], [2.0])
    (array([[1., 2.]]),)
    """
    return tuple(
        level if temperature == 1 else level * level.dtype.type(1 / temperature)
        for level, temperature in zip(log_probabilities, temperatures, strict=True)
    )


def fit(
    log_probabilities: Sequence[Floats], labels: Indices, taxonomy: Taxonomy, *, common: bool = False
) -> Calibration:
    """Return the temperatures with the least negative log-likelihood of the known labels, (n, n_levels), -1 unknown.

    With `common` the legal paths have one temperature for all levels: the most probable path stays what it is, and few
    items cannot have one level drown the others. Heads keep one each, which changes no label either. A level without a
    known label keeps 1 as a head; without any labelled item all are 1.
    """
    raw = [
        float(1 / _descend(_HeadLoss(level, labels[:, k]), 1)[0]) if (labels[:, k] >= 0).any() else 1.0
        for k, level in enumerate(log_probabilities)
    ]
    if not (labels[:, 0] >= 0).any():
        return Calibration.none(len(raw))
    paths = _PathLoss(log_probabilities, labels, taxonomy)
    legal = 1 / (np.repeat(_descend(_Shared(paths), 1), len(raw)) if common else _descend(paths, len(raw)))
    return Calibration(legal=tuple(map(float, legal)), raw=tuple(raw))


@dataclass(frozen=True)
class _Loss:
    """Mean negative log-likelihood at some sharpness, and its gradient."""

    value: float
    gradient: Floats  # (n_levels,)


@dataclass(frozen=True)
class _HeadLoss:
    """The loss of one level by itself: a softmax with one sharpness, convex in it."""

    logits: Floats  # (n, n_classes)
    labels: Indices  # (n,)

    def __call__(self, sharpness: Floats) -> _Loss:
        known = self.labels >= 0
        logits, labels = self.logits[known].astype(np.float64), self.labels[known]
        given = logits[np.arange(len(labels)), labels]
        scaled = logits * sharpness[0]
        highest = scaled.max(axis=1)
        weights = np.exp(scaled - highest[:, None])
        total = weights.sum(axis=1)
        weights /= total[:, None]
        mean = (weights * logits).sum(axis=1)
        value = np.mean(np.log(total) + highest - sharpness[0] * given)
        return _Loss(float(value), np.array([np.mean(mean - given)]))


@dataclass(frozen=True)
class _PathLoss:
    """The loss of the known part of each legal path: minus the log of the share of all paths that agree with it."""

    logits: Sequence[Floats]  # (n, n_classes) a level
    labels: Indices  # (n, n_levels)
    taxonomy: Taxonomy

    def __call__(self, sharpness: Floats) -> _Loss:
        known = np.flatnonzero(self.labels[:, 0] >= 0)
        step = max(1, CHUNK // len(self.taxonomy.paths))
        parts = [self._sums(known[start : start + step], sharpness) for start in range(0, len(known), step)]
        return _Loss(
            sum(part.value for part in parts) / len(known),
            np.sum([part.gradient for part in parts], axis=0) / len(known),
        )

    def _sums(self, rows: npt.NDArray[np.integer[Any]], sharpness: Floats) -> _Loss:
        logits = [level[rows].astype(np.float64) for level in self.logits]
        # A constant on a row cancels; the largest logit at 0 keeps the exponentials in range.
        logits = [level - level.max(axis=1, keepdims=True) for level in logits]
        scaled = [level * factor for level, factor in zip(logits, sharpness, strict=True)]
        labels = self.labels[rows]
        agrees = np.ones((len(rows), len(self.taxonomy.paths)), dtype=bool)
        for k in range(len(logits)):
            agrees &= (labels[:, k, None] < 0) | (labels[:, k, None] == self.taxonomy.paths[:, k])
        scores = path_scores(scaled, self.taxonomy)
        everywhere, all_paths = _softmax(scores)
        # Levels by paths: how the score of a path moves with each sharpness, (n_levels, n, n_paths).
        slopes = np.stack([level[:, self.taxonomy.paths[:, k]] for k, level in enumerate(logits)])
        within, agreeing = _softmax(np.where(agrees, scores, -np.inf))
        mean = np.einsum("knp,np->kn", slopes, all_paths)
        mean_given = np.einsum("knp,np->kn", slopes, agreeing)
        return _Loss(float(np.sum(everywhere - within)), (mean - mean_given).sum(axis=1))


@dataclass(frozen=True)
class _Shared:
    """The loss of paths with one sharpness for all levels."""

    loss: _PathLoss

    def __call__(self, sharpness: Floats) -> _Loss:
        found = self.loss(np.repeat(sharpness, len(self.loss.logits)))
        return _Loss(found.value, found.gradient.sum(keepdims=True))


def _softmax(scores: Floats) -> tuple[Floats, Floats]:
    """Return the log of the sum of exponentials of each row, (n,), and the softmax, (n, n_columns)."""
    highest = scores.max(axis=1, keepdims=True)
    weights = np.exp(scores - highest)
    total = weights.sum(axis=1, keepdims=True)
    return (highest + np.log(total))[:, 0], weights / total


def _descend(loss: _HeadLoss | _PathLoss | _Shared, n_levels: int) -> Floats:
    """Return the sharpness, (n_levels,), of the least loss within the bounds, by L-BFGS-B from 1."""
    from scipy.optimize import minimize

    def value_and_gradient(sharpness: Floats) -> tuple[float, Floats]:
        here = loss(sharpness)
        return here.value, here.gradient

    bounds = [(1 / HIGHEST, 1 / LOWEST)] * n_levels
    options = {"ftol": 1e-15, "gtol": 1e-10}
    found: Floats = minimize(value_and_gradient, np.ones(n_levels), jac=True, bounds=bounds, options=options).x
    return found


def calibrated_marginals(
    log_probabilities: Sequence[Floats], temperatures: Sequence[float], taxonomy: Taxonomy
) -> tuple[Floats, tuple[Floats, ...]]:
    """Return the paths' probabilities, (n, n_paths), and the levels', at these temperatures, in float64."""
    cooled = [level.astype(np.float64) for level in cool(log_probabilities, temperatures)]
    paths = path_probabilities(cooled, taxonomy)
    return paths, marginals(paths, taxonomy)
