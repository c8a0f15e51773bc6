import numpy as np
import pytest

from pipeline.class_weights import balanced, class_counts, effective

COUNTS = np.array([90, 9, 1, 0])


def test_balanced_classes_count_the_same_and_the_mean_over_items_is_one():
    weights = balanced(COUNTS)
    np.testing.assert_allclose((weights * COUNTS)[:3], 100 / 3)
    assert weights[3] == 1  # no item of training has it


def test_the_effective_number_is_that_of_the_formula():
    weights = effective(COUNTS, 0.9)
    by_hand = np.array([0.1 / (1 - 0.9**90), 0.1 / (1 - 0.9**9), 1.0])
    np.testing.assert_allclose(weights[:3] / weights[2], by_hand)
    assert (weights * COUNTS).sum() / 100 == pytest.approx(1)


def test_beta_goes_from_no_weights_to_balanced():
    np.testing.assert_allclose(effective(COUNTS, 1e-9), 1)
    np.testing.assert_allclose(effective(COUNTS, 1 - 1e-9), balanced(COUNTS), rtol=1e-6)


def test_a_level_without_known_labels_weighs_one():
    (counts,) = class_counts(np.full((3, 1), -1), (2,))
    np.testing.assert_array_equal(balanced(counts), [1, 1])
    np.testing.assert_array_equal(effective(counts, 0.9), [1, 1])


def test_one_class_weighs_one():
    assert balanced(np.array([7])) == pytest.approx(1)
    assert effective(np.array([7]), 0.99) == pytest.approx(1)
