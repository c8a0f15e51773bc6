"""Stage 5: log-probabilities of the levels become the best legal paths of the taxonomy.

The score of a path is the sum of its levels' log-probabilities; the paths' probabilities are these scores,
exponentiated and renormalised over the taxonomy's paths; a level's probabilities are their marginals, so all three
agree. A constant that is added to a row of a level cancels in the renormalisation: logits do as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError

if TYPE_CHECKING:
    from pipeline.taxonomy import Taxonomy

Floats = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.int32]
Ranges = tuple[Indices, ...]


@dataclass(frozen=True)
class Decoded:
    """The best paths of a batch, most probable first."""

    classes: Indices  # (n, n_best, n_levels); the class at each level of each path
    path_probability: Floats  # (n, n_best)
    level_probability: Floats  # (n, n_levels); of the classes of the best path
    path: Indices | None  # (n, n_best) rows of taxonomy.paths; None for raw heads, whose path may be illegal

    def first(self, n: int) -> Decoded:
        """Return the first n rows."""
        path = None if self.path is None else self.path[:n]
        return Decoded(self.classes[:n], self.path_probability[:n], self.level_probability[:n], path)


def together(parts: Sequence[Decoded]) -> Decoded:
    """Return the rows of several batches, at least one, as one batch."""
    paths = [part.path for part in parts if part.path is not None]
    return Decoded(
        np.concatenate([part.classes for part in parts]),
        np.concatenate([part.path_probability for part in parts]),
        np.concatenate([part.level_probability for part in parts]),
        np.concatenate(paths) if paths else None,
    )


def decode(log_probabilities: Sequence[Floats], taxonomy: Taxonomy, *, n_best: int) -> Decoded:
    """Return the `n_best` most probable legal paths of every row; all paths where there are fewer.

    `log_probabilities` holds one (n, n_classes) array a level (or logits). Ties go to the path that stands first in
    `taxonomy.paths`. Raises ModelError where a level has another number of classes, or a value is not a number.
    """
    scores = path_scores(log_probabilities, taxonomy)
    return decode_scores(scores, taxonomy, n_best=n_best, starts=path_starts(taxonomy))


def decode_scores(scores: Floats, taxonomy: Taxonomy, *, n_best: int, starts: Ranges) -> Decoded:
    """Return what `decode` does, of the scores of all paths, (n, n_paths) in C order, which are changed.

    `starts` are the taxonomy's `path_starts`.
    """
    path, best_scores = _largest(scores, n_best=min(n_best, scores.shape[1]))
    highest = best_scores[:, :1]
    # A zero at the end, so that the range of the last class of the last row has an end to point to.
    flat = np.zeros(scores.size + 1, scores.dtype)
    weights = np.exp(np.subtract(scores, highest, out=scores), out=flat[:-1].reshape(scores.shape))
    total = weights.sum(axis=1, keepdims=True)
    _check_numbers(total)
    return Decoded(
        classes=taxonomy.paths[path],
        path_probability=np.exp(best_scores - highest) / total,
        level_probability=_best_marginals(flat, path[:, 0], taxonomy, starts) / total,
        path=path,
    )


def decode_raw(log_probabilities: Sequence[Floats]) -> Decoded:
    """Return the most probable class of each level by itself, (n, 1, n_levels): the path may be illegal.

    The path's probability is the product of the levels'. Ties go to the lower class.

    >>> decoded = decode_raw([np.log([[0.75, 0.25]]), np.log([[0.2, 0.8]])])
    >>> decoded.classes.tolist(), decoded.path_probability.round(3).tolist()
    ([[[0, 1]]], [[0.6]])
    """
    best = [level.argmax(axis=1).astype(np.int32) for level in log_probabilities]
    # The largest probability of a softmax is 1 / sum(exp(x - max x)).
    totals = [np.exp(level - level.max(axis=1, keepdims=True)).sum(axis=1) for level in log_probabilities]
    level_probability = 1 / np.stack(totals, axis=1)
    _check_numbers(level_probability)
    return Decoded(
        classes=np.stack(best, axis=1)[:, None, :],
        path_probability=level_probability.prod(axis=1, keepdims=True),
        level_probability=level_probability,
        path=None,
    )


def path_scores(log_probabilities: Sequence[Floats], taxonomy: Taxonomy) -> Floats:
    """Return the sum over the levels of every path's log-probabilities, (n, n_paths), walking down the tree.

    Raises ModelError where the levels or their classes are not those of the taxonomy.
    """
    n_classes = tuple(level.shape[1] for level in log_probabilities)
    if n_classes != tuple(taxonomy.n_classes):
        raise ModelError(
            f"the network gives {n_classes} classes a level, the taxonomy has {tuple(taxonomy.n_classes)}; "
            "export the model again"
        )
    scores = log_probabilities[0]
    for level, parents in zip(log_probabilities[1:], taxonomy.parents[1:], strict=True):
        scores = level + scores.take(parents, axis=1)
    # Paths stand in the order of the last level's classes, one each. A copy keeps a single level as it was given.
    return scores.copy() if scores is log_probabilities[0] else scores


def path_probabilities(log_probabilities: Sequence[Floats], taxonomy: Taxonomy) -> Floats:
    """Return the probability of every legal path, (n, n_paths); each row sums to 1."""
    scores = path_scores(log_probabilities, taxonomy)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: Floats = weights / weights.sum(axis=1, keepdims=True)
    return probabilities


def marginals(probabilities: Floats, taxonomy: Taxonomy) -> tuple[Floats, ...]:
    """Return every level's probabilities from the paths' (n, n_paths): one (n, n_classes) array a level.

    A class has the sum of the paths through it, so a parent has the sum of its children.
    """
    return tuple(np.add.reduceat(probabilities, starts, axis=1) for starts in path_starts(taxonomy))


def path_starts(taxonomy: Taxonomy) -> Ranges:
    """Return for each level the first path of each class, (n_classes,): the paths of a class lie side by side.

    Raises ModelError where they do not, or where a class is on no path.
    """
    starts = []
    for level, n_classes in enumerate(taxonomy.n_classes):
        column = taxonomy.paths[:, level]
        first = np.flatnonzero(np.diff(column, prepend=-1))
        if not np.array_equal(column[first], np.arange(n_classes)):
            raise ModelError(
                f"level '{taxonomy.levels[level]}': the taxonomy's paths are not in the order of its classes, "
                "or a class is on none; make the taxonomy again"
            )
        starts.append(first.astype(np.int32))
    return tuple(starts)


def _check_numbers(totals: Floats) -> None:
    """Raise ModelError where a row, (n, n_columns), holds something that is not a finite number."""
    bad = np.flatnonzero(~np.isfinite(totals).all(axis=1))
    if len(bad):
        raise ModelError(f"row {bad[0]} of the batch: the network's output is not a number; train the model again")


def _largest(scores: Floats, *, n_best: int) -> tuple[Indices, Floats]:
    """Return columns and values of the `n_best` largest of each row; `scores` comes back as it was given.

    >>> _largest(np.array([[1.0, 3.0, 3.0]]), n_best=2)
    (array([[1, 2]], dtype=int32), array([[3., 3.]]))
    """
    flat, first = scores.reshape(-1), np.arange(0, scores.size, max(1, scores.shape[1]))
    columns = np.empty((len(scores), n_best), dtype=np.int32)
    values = np.empty((len(scores), n_best), dtype=scores.dtype)
    # A few passes of argmax are several times faster than a partial sort, and take the first of equals.
    for rank in range(n_best):
        columns[:, rank] = scores.argmax(axis=1)
        places = first + columns[:, rank]
        values[:, rank] = flat[places]
        flat[places] = -np.inf
    flat[first[:, None] + columns] = values
    return columns, values


def _best_marginals(flat: Floats, path: Indices, taxonomy: Taxonomy, ranges: Ranges) -> Floats:
    """Return the sum of the weights of all paths that share each class of the given path, (n, n_levels).

    `flat` has the weights, row behind row, and a zero.
    """
    n, n_paths = len(path), len(taxonomy.paths)
    first = np.arange(0, n * n_paths, n_paths)
    sums = np.empty((n, len(taxonomy.levels)), dtype=flat.dtype)
    for level, starts in enumerate(ranges):
        if len(starts) == n_paths:
            sums[:, level] = flat[first + path]
            continue
        ends = np.append(starts[1:], n_paths)
        classes = taxonomy.paths[path, level]
        bounds = np.stack([first + starts[classes], first + ends[classes]], axis=1)
        sums[:, level] = np.add.reduceat(flat, bounds.ravel())[::2] if n else 0
    return sums
