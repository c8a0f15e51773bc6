"""Stage 4: how a model does on items that it has not seen: every figure of evaluation.json is made here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline import metrics
from pipeline.calibration import Calibration, calibrated_marginals
from pipeline.ensemble import Ensemble
from pipeline.hierarchy import consistency, hierarchical_scores
from pipeline.network import FeedbackNetwork

if TYPE_CHECKING:
    from pipeline.examples import Source
    from pipeline.taxonomy import Taxonomy

Floats = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.int32]
CHUNK = 2048  # items of a forward pass


@dataclass(frozen=True)
class Outcome:
    """What legal-path decoding says about items whose labels are known."""

    labels: Indices  # (n, n_levels); -1 is unknown
    classes: Indices  # (n, n_levels); of the best path
    confidence: Floats  # (n, n_levels); of these classes
    given: Floats  # (n, n_levels); the probability of the labels, NaN where unknown
    path_confidence: Floats  # (n,)
    path_given: Floats  # (n,); NaN where a level is unknown
    squares: Floats  # (n, n_levels); sum of the squares of a level's probabilities
    path_squares: Floats  # (n,); the same of the paths'
    heads: Indices  # (n, n_levels); the most probable class of each level by itself


def forward(
    network: FeedbackNetwork | Ensemble, items: Source, *, n_items: int | None = None
) -> Iterator[tuple[Sequence[Floats], Indices]]:
    """Yield logits and labels of the first `n_items` (all of them by default), CHUNK rows at a time."""
    end = items.n_positions if n_items is None else min(n_items, items.n_positions)
    for start in range(0, end, CHUNK):
        part = items.read(start, min(start + CHUNK, end))
        yield network.logits(part.inputs), part.labels


def outcome(logits: Sequence[Floats], labels: Indices, temperatures: Sequence[float], taxonomy: Taxonomy) -> Outcome:
    """Return what these temperatures say about one chunk."""
    paths, levels = calibrated_marginals(logits, temperatures, taxonomy)
    rows = np.arange(len(labels))
    best = paths.argmax(axis=1)
    classes = taxonomy.paths[best]
    # Paths stand in the order of the last level's classes.
    whole = (labels >= 0).all(axis=1)
    return Outcome(
        labels=labels,
        classes=classes,
        confidence=np.stack([level[rows, classes[:, k]] for k, level in enumerate(levels)], axis=1),
        given=np.stack(
            [np.where(labels[:, k] >= 0, level[rows, labels[:, k]], np.nan) for k, level in enumerate(levels)], axis=1
        ),
        path_confidence=paths[rows, best],
        path_given=np.where(whole, paths[rows, labels[:, -1]], np.nan),
        squares=np.stack([(level * level).sum(axis=1) for level in levels], axis=1),
        path_squares=(paths * paths).sum(axis=1),
        heads=np.stack([level.argmax(axis=1).astype(np.int32) for level in logits], axis=1),
    )


def evaluate(
    network: FeedbackNetwork | Ensemble,
    items: Source,
    taxonomy: Taxonomy,
    *,
    calibration: Calibration,
    class_counts: Sequence[npt.NDArray[np.int64]],
) -> dict[str, Any]:
    """Return the figures of these items: for each level and for the path; None where no label is known.

    Accuracy stands beside that of always giving the most frequent class of the training part, whose items of each
    class are given, (n_classes,) a level; log-loss, Brier score and expected calibration error are given before
    calibration and after. `n_items` counts the known labels. `hierarchy` and `raw_heads` are explained in
    pipeline/hierarchy.py. Memory holds a chunk of the items.
    """
    plain = Calibration.none(len(taxonomy.levels)).legal
    parts = [(_nothing(taxonomy), _nothing(taxonomy))]
    for logits, labels in forward(network, items):
        parts.append((outcome(logits, labels, plain, taxonomy), outcome(logits, labels, calibration.legal, taxonomy)))
    before, after = (joined([pair[side] for pair in parts]) for side in (0, 1))
    return {
        "n_items": len(items),
        "levels": [
            {"level": name, **level_figures(before, after, k, taxonomy, metrics.majority_class(class_counts[k]))}
            for k, name in enumerate(taxonomy.levels)
        ],
        "path": path_figures(before, after),
        "hierarchy": hierarchical_scores(after.classes, after.labels, taxonomy),
        "raw_heads": {"n_items": len(items), "consistency": consistency(after.heads, taxonomy)},
    }


def member_figures(member: FeedbackNetwork, items: Source, taxonomy: Taxonomy) -> dict[str, Any]:
    """Return the accuracy of each level and of the path of one member by itself, without calibration."""
    plain = Calibration.none(len(taxonomy.levels)).legal
    parts = [outcome(logits, labels, plain, taxonomy) for logits, labels in forward(member, items)]
    found = joined([_nothing(taxonomy), *parts])
    return {
        "levels": {
            name: metrics.accuracy(found.classes[:, k], found.labels[:, k]) for k, name in enumerate(taxonomy.levels)
        },
        "path": metrics.path_accuracy(found.classes, found.labels),
    }


def level_figures(
    before: Outcome, after: Outcome, level: int, taxonomy: Taxonomy, majority: int | None
) -> dict[str, Any]:
    """Return the figures of one level, beside those of always giving the class `majority`."""
    given, known = after.labels[:, level], after.labels[:, level] >= 0
    return {
        "n_items": int(known.sum()),
        "n_classes": taxonomy.n_classes[level],
        "accuracy": metrics.accuracy(after.classes[:, level], given),
        "majority_accuracy": None if majority is None else metrics.accuracy(np.full(len(given), majority), given),
        "majority_class": None if majority is None else list(taxonomy.classes[level][majority]),
        **metrics.f1_scores(after.classes[:, level], given),
        "log_loss_before": metrics.log_loss(before.given[known, level]),
        "log_loss": metrics.log_loss(after.given[known, level]),
        "brier_before": metrics.brier_score(before.given[known, level], before.squares[known, level]),
        "brier": metrics.brier_score(after.given[known, level], after.squares[known, level]),
        "calibration_error_before": _level_error(before, level),
        "calibration_error": _level_error(after, level),
    }


def path_figures(before: Outcome, after: Outcome) -> dict[str, Any]:
    """Return the figures of the whole path, over the items whose labels are known at every level."""
    whole = (after.labels >= 0).all(axis=1)
    return {
        "n_items": int(whole.sum()),
        "accuracy": metrics.path_accuracy(after.classes, after.labels),
        "log_loss_before": metrics.log_loss(before.path_given[whole]),
        "log_loss": metrics.log_loss(after.path_given[whole]),
        "brier_before": metrics.brier_score(before.path_given[whole], before.path_squares[whole]),
        "brier": metrics.brier_score(after.path_given[whole], after.path_squares[whole]),
        "calibration_error_before": _path_error(before, whole),
        "calibration_error": _path_error(after, whole),
    }


def _level_error(found: Outcome, level: int) -> float | None:
    known = found.labels[:, level] >= 0
    correct = found.classes[known, level] == found.labels[known, level]
    return metrics.expected_calibration_error(found.confidence[known, level], correct)


def _path_error(found: Outcome, whole: npt.NDArray[np.bool_]) -> float | None:
    correct = (found.classes[whole] == found.labels[whole]).all(axis=1)
    return metrics.expected_calibration_error(found.path_confidence[whole], correct)


def _nothing(taxonomy: Taxonomy) -> Outcome:
    """Return the outcome of no items."""
    empty = [np.zeros((0, size)) for size in taxonomy.n_classes]
    labels = np.zeros((0, len(taxonomy.levels)), np.int32)
    return outcome(empty, labels, Calibration.none(len(taxonomy.levels)).legal, taxonomy)


def joined(parts: Sequence[Outcome]) -> Outcome:
    """Return the outcomes of all chunks below each other."""
    return Outcome(*(np.concatenate([getattr(part, name) for part in parts]) for name in Outcome.__dataclass_fields__))
