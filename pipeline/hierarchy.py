"""Stage 4: figures that know the tree: hierarchical precision, recall and F1, distance, consistency of raw heads.

A label is a class of the taxonomy, keyed by its full path: the same name under two parents is two labels. A stop says
that a path has ended and is no label. Where an item's labels are known down to some level only, its predicted path
is cut there too. Every figure is None where there is nothing that it could be taken of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pipeline.taxonomy import Taxonomy

Indices = npt.NDArray[np.integer[Any]]


def hierarchical_scores(predicted: Indices, given: Indices, taxonomy: Taxonomy) -> dict[str, float | int | None]:
    """Return `n_items`, `precision`, `recall`, `f1` and `lca_distance` of paths; both (n, n_levels), -1 is unknown.

    With P the labels on an item's predicted path (a label and all above it, the root left out) and G those on the
    given one, summed over the items: precision = |P and G| / |P|, recall = |P and G| / |G|, F1 their harmonic mean.
    Source: Kiritchenko et al. 2005, "Functional annotation of genes using hierarchical text categorization".

    The distance is the mean number of steps from the lowest predicted label up to the lowest common ancestor, the
    root at the latest, and down to the lowest given label: |P| + |G| - 2 |P and G|. Source: Dekel et al. 2004,
    "Large margin hierarchical classification" (tree-induced error). `n_items` counts items with a known label.

    >>> from pipeline.taxonomy import Taxonomy
    >>> ladder = Taxonomy.of(("genre", "theme"), [("Drama", "War"), ("Drama", "Love")])
    >>> hierarchical_scores(np.array([[0, 0]]), np.array([[0, 1]]), ladder)
    {'n_items': 1, 'precision': 0.5, 'recall': 0.5, 'f1': 0.5, 'lca_distance': 2.0}
    """
    known = given >= 0
    label = [np.array([path[-1] != taxonomy.stop_label for path in level]) for level in taxonomy.classes]
    on_given = known & np.stack([flags[given[:, k]] for k, flags in enumerate(label)], axis=1)
    on_predicted = known & np.stack([flags[predicted[:, k]] for k, flags in enumerate(label)], axis=1)
    # Classes are full paths: where two are equal, so is all above them.
    common = int((on_given & (predicted == given)).sum())
    n_given, n_predicted, n_items = int(on_given.sum()), int(on_predicted.sum()), int(known.any(axis=1).sum())
    return {
        "n_items": n_items,
        "precision": common / n_predicted if n_predicted else None,
        "recall": common / n_given if n_given else None,
        "f1": 2 * common / (n_given + n_predicted) if n_given + n_predicted else None,
        "lca_distance": (n_given + n_predicted - 2 * common) / n_items if n_items else None,
    }


def consistency(heads: Indices, taxonomy: Taxonomy) -> float | None:
    """Return the share of items whose levels, decided each by itself, (n, n_levels), form a legal path.

    >>> from pipeline.taxonomy import Taxonomy
    >>> ladder = Taxonomy.of(("genre", "theme"), [("Drama", "War"), ("Horror", "Zombies")])
    >>> consistency(np.array([[0, 0], [0, 1]]), ladder)
    0.5
    """
    if not len(heads):
        return None
    legal = np.ones(len(heads), dtype=bool)
    for k, parents in enumerate(taxonomy.parents[1:], start=1):
        legal &= parents[heads[:, k]] == heads[:, k - 1]
    return float(legal.mean())
