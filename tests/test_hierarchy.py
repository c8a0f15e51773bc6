"""Hierarchical figures by hand: what counts as a label, what partial labels and stops do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.hierarchy import consistency, hierarchical_scores
from pipeline.taxonomy import Taxonomy

# Classes by level: Drama 0, Horror 1; Drama>- 0, Drama>War 1, Horror>Haunted 2, Horror>War 3;
# Drama>->- 0, Drama>War>Love 1, Drama>War>Trenches 2, Horror>Haunted>House 3, Horror>War>Zombies 4.
LADDER = Taxonomy.of(
    ("genre", "subgenre", "theme"),
    [
        ("Drama", "-"),
        ("Drama", "War", "Love"),
        ("Drama", "War", "Trenches"),
        ("Horror", "Haunted", "House"),
        ("Horror", "War", "Zombies"),
    ],
)
DRAMA, LOVE, TRENCHES, HOUSE, ZOMBIES = (row.tolist() for row in LADDER.paths)


def scores(predicted, given):
    return hierarchical_scores(np.array(predicted), np.array(given), LADDER)


def test_the_same_name_under_another_parent_is_no_hit():
    assert scores([LOVE], [ZOMBIES]) == {"n_items": 1, "precision": 0, "recall": 0, "f1": 0, "lca_distance": 6}


def test_sums_are_taken_over_all_items_before_they_are_divided():
    # Right at 3 of 3; at 2 of 3 (Trenches for Love: one up, one down); at 0 of 3 (three up, three down).
    found = scores([LOVE, LOVE, LOVE], [LOVE, TRENCHES, HOUSE])
    assert found == {"n_items": 3, "precision": 5 / 9, "recall": 5 / 9, "f1": 5 / 9, "lca_distance": 8 / 3}


def test_a_stop_is_no_label():
    # One label is predicted and it is right; three are given: precision 1, recall 1/3, F1 2 * 1 / (1 + 3), two steps.
    assert scores([DRAMA], [LOVE]) == {
        "n_items": 1,
        "precision": 1,
        "recall": pytest.approx(1 / 3),
        "f1": 0.5,
        "lca_distance": 2,
    }
    assert scores([LOVE], [DRAMA])["precision"] == pytest.approx(1 / 3)
    assert scores([DRAMA], [DRAMA])["f1"] == 1


def test_below_an_unknown_label_nothing_is_asked():
    # Of the first item Drama > War is known, and predicted; the second has no label at all.
    found = scores([LOVE, ZOMBIES], [[*TRENCHES[:2], -1], [-1, -1, -1]])
    assert found == {"n_items": 1, "precision": 1, "recall": 1, "f1": 1, "lca_distance": 0}


def test_without_a_known_label_there_are_no_figures():
    nothing = {"n_items": 0, "precision": None, "recall": None, "f1": None, "lca_distance": None}
    assert scores([LOVE], [[-1, -1, -1]]) == nothing
    assert scores(np.zeros((0, 3), int), np.zeros((0, 3), int)) == nothing


def test_one_level_makes_all_of_them_accuracy():
    flat = Taxonomy.of(("genre",), [("Drama",), ("Horror",)])
    found = hierarchical_scores(np.array([[0], [1], [1]]), np.array([[0], [1], [0]]), flat)
    assert (found["precision"], found["recall"], found["f1"]) == (2 / 3, 2 / 3, 2 / 3)
    assert found["lca_distance"] == pytest.approx(2 / 3)  # a wrong one goes up to the root and down


def test_heads_are_consistent_where_each_level_stands_below_the_one_above():
    illegal_theme, illegal_subgenre = [0, 1, 4], [1, 1, 1]
    heads = np.array([DRAMA, LOVE, ZOMBIES, illegal_theme, illegal_subgenre])
    assert consistency(heads, LADDER) == 3 / 5
    assert consistency(heads[:0], LADDER) is None


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=12))
def test_the_figures_are_those_of_sets_of_labels(rows):
    """Each item: predicted path, given path, and how many levels of the given one are known."""
    predicted = LADDER.paths[[row for row, _, _ in rows]]
    given_paths = LADDER.paths[[row for _, row, _ in rows]].copy()
    common = n_predicted = n_given = 0
    for item, (one, other, n_known) in enumerate(rows):
        given_paths[item, n_known:] = -1
        labels = []
        for path in (one, other):
            names = LADDER.classes[-1][path][:n_known]
            labels.append({names[: depth + 1] for depth in range(n_known) if names[depth] != "-"})
        common += len(labels[0] & labels[1])
        n_predicted, n_given = n_predicted + len(labels[0]), n_given + len(labels[1])
    n_items = sum(n_known > 0 for _, _, n_known in rows)
    found = hierarchical_scores(predicted, given_paths, LADDER)
    assert found == {
        "n_items": n_items,
        "precision": common / n_predicted if n_predicted else None,
        "recall": common / n_given if n_given else None,
        "f1": 2 * common / (n_predicted + n_given) if n_predicted + n_given else None,
        "lca_distance": (n_predicted + n_given - 2 * common) / n_items if n_items else None,
    }
