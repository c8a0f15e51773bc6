"""What each tag of an item contributed to its best path: by how much the path's probability falls without the tag."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pipeline.model import Model


class Contribution(NamedTuple):
    """One tag and what it did."""

    tag: str  # as it was given
    change: float  # probability of the best path with all tags, less the one without this tag; -1 to 1


def contributions(model: Model, tags: Sequence[str]) -> list[Contribution]:
    """Return for each tag, in the order given, what it adds to the probability of the best path of all of them.

    Each is left out alone, so the changes need not add up; two tags that say the same may both seem to do nothing.
    A tag that the model has not learned may still count, by its words and characters.
    """
    without = [[*tags[:place], *tags[place + 1 :]] for place in range(len(tags))]
    # The last level's classes are the legal paths.
    paths = model.predict_proba([list(tags), *without])[-1].astype(np.float64)
    best = paths[0].argmax()
    changes = paths[0, best] - paths[1:, best]
    return [Contribution(tag, float(change)) for tag, change in zip(tags, changes, strict=True)]
