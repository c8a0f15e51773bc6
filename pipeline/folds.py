"""Stage 3: folds of the training part: each member of an ensemble holds out another one; all items are learned from.

With `[training] cross_fit` there is no validation part. Of n members, member m holds out the items whose position in
the training part is m - 1 modulo n: positions stand in the order of a hash of the ids, so a fold is a random share. The
network is validated on its fold, and stage 4 fits the temperatures to what each member says of the items that it has
not seen. A member alone is less often right than all of them together, so the probabilities err to the careful side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.errors import TrainingError
from pipeline.examples import Examples, Source


@dataclass(frozen=True)
class Fold:
    """One fold of a source that has an item at every position, or all of it but that fold."""

    source: Source
    number: int  # from 1
    n_folds: int
    held_out: bool  # True: the items of the fold; False: all others

    @property
    def n_positions(self) -> int:
        """Return the number of positions of the source."""
        return self.source.n_positions

    def __len__(self) -> int:
        in_fold = len(range(self.number - 1, self.n_positions, self.n_folds))
        return in_fold if self.held_out else self.n_positions - in_fold

    def read(self, start: int, stop: int) -> Examples:
        """Return those of these positions that belong to it.

        >>> items = Examples.of(np.zeros((5, 1)), np.arange(5)[:, None])
        >>> fold, others = (Fold(items, 2, 3, held_out=side).read(0, 5) for side in (True, False))
        >>> fold.labels[:, 0].tolist(), others.labels[:, 0].tolist()
        ([1, 4], [0, 2, 3])
        """
        stop = min(stop, self.n_positions)
        in_fold = np.arange(start, stop) % self.n_folds == self.number - 1
        return self.source.read(start, stop).take(np.flatnonzero(in_fold == self.held_out))


def divided(training: Source, validation: Source, *, member: int, members: int) -> tuple[Fold, Fold]:
    """Return what a member trains on, and the fold that it holds out.

    Raises TrainingError where there are validation items: they would be left out of both.
    """
    if len(validation):
        raise TrainingError(
            f"[training] cross_fit: {len(validation):,} items are for validation, which the folds of the training part "
            "are; let them train: leave out their split, or set cross_fit = false"
        )
    fold, others = (Fold(training, member, members, held_out=side) for side in (True, False))
    return others, fold
