"""Metrics by hand: every expected value can be worked out on paper."""

import math

import numpy as np
import pytest

from pipeline import metrics

NOTHING = np.array([], dtype=np.int32)


def test_accuracy_leaves_unknown_labels_out():
    assert metrics.accuracy(np.array([3, 1, 0, 0]), np.array([3, 1, 2, -1])) == pytest.approx(2 / 3)


def test_accuracy_without_a_known_label_is_nothing():
    assert metrics.accuracy(np.array([1]), np.array([-1])) is None


def test_a_path_is_right_only_at_every_level_and_counts_only_where_all_are_known():
    predicted = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 1], [1, 2, 3]])
    given = np.array([[0, 0, 0], [0, 0, 2], [0, 0, -1], [1, 2, 3]])
    assert metrics.path_accuracy(predicted, given) == pytest.approx(2 / 3)
    assert metrics.path_accuracy(predicted[2:3], given[2:3]) is None


def test_the_majority_class_is_the_lower_of_equals():
    assert metrics.majority_class(np.array([0, 2, 1, 2])) == 1
    assert metrics.majority_class(np.array([0, 0])) is None


def test_log_loss_is_the_mean_of_minus_the_logarithm():
    assert metrics.log_loss(np.array([1.0, 0.5, 0.25])) == pytest.approx(3 * math.log(2) / 3)
    assert metrics.log_loss(NOTHING) is None


def test_a_probability_of_zero_gives_a_finite_loss():
    assert metrics.log_loss(np.array([0.0])) == pytest.approx(708.396, abs=1e-3)


def test_calibration_error_weighs_each_bin_by_its_items():
    # Bin (9/15, 10/15]: three items of confidence .65, one right: gap |1/3 - .65|; bin (14/15, 1]: one item, right.
    confidence = np.array([0.65, 0.65, 0.65, 1.0])
    correct = np.array([True, False, False, True])
    assert metrics.expected_calibration_error(confidence, correct) == pytest.approx(0.75 * (0.65 - 1 / 3))


def test_confidences_of_zero_and_one_fall_in_the_outer_bins():
    confidence = np.array([0.0, 1.0], dtype=np.float32)
    assert metrics.expected_calibration_error(confidence, np.array([False, True])) == 0
    assert metrics.expected_calibration_error(confidence, np.array([True, False])) == 1
    assert metrics.expected_calibration_error(np.array([]), np.array([], dtype=bool)) is None


def test_gaps_of_opposite_sign_cancel_within_a_bin_and_not_between_bins():
    same = metrics.expected_calibration_error(np.array([0.5, 0.5]), np.array([True, False]))
    apart = metrics.expected_calibration_error(np.array([0.5, 0.6]), np.array([True, False]))
    assert same == 0
    assert apart == pytest.approx((0.5 + 0.6) / 2)


def test_there_are_fifteen_bins_closed_above():
    def error(*confidence):
        return metrics.expected_calibration_error(np.array(confidence), np.array([True, False]))

    # .2 is the upper edge of (2/15, 3/15], where .19 is too; .61 and .69 lie in (9/15, 10/15] and (10/15, 11/15].
    assert error(0.2, 0.19) == pytest.approx((0.8 - 0.19) / 2)
    assert error(0.2, 0.21) == pytest.approx((0.8 + 0.21) / 2)
    assert error(0.61, 0.69) == pytest.approx((0.39 + 0.69) / 2)


def test_f1_leaves_unknown_labels_out():
    scores = metrics.f1_scores(np.array([0, 0, 1, 1, 5]), np.array([0, 1, 1, -1, -1]))
    assert scores == metrics.f1_scores(np.array([0, 0, 1]), np.array([0, 1, 1]))


def test_f1_by_hand():
    # class 0: TP 1, FP 1, FN 1 -> .5; class 1: TP 1, FP 0, FN 1 -> 2/3; class 2: TP 0, FP 1, FN 0 -> 0.
    scores = metrics.f1_scores(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]))
    assert scores["macro_f1"] == pytest.approx((0.5 + 2 / 3 + 0) / 3)
    assert scores["weighted_f1"] == pytest.approx((2 * 0.5 + 2 * 2 / 3) / 4)


def test_f1_of_unknown_labels_only_is_nothing():
    assert metrics.f1_scores(np.array([0]), np.array([-1])) == {"macro_f1": None, "weighted_f1": None}
