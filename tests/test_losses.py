import numpy as np
import pytest

from pipeline.losses import negative_log_likelihood, squared_hinge

LABEL = np.array([1], np.int32)


def test_the_hinge_is_zero_where_every_class_keeps_its_margin():
    # f = logit - 1: the label at f >= 1, the others at f <= -1
    assert squared_hinge(np.array([[0.0, 2.0, -3.0]]), LABEL, 0.0) == 0


def test_the_hinge_is_the_sum_of_the_squares_of_what_the_margins_lack():
    # f = (-0.5, -1, 1): 0.5 too high, 2 too low, 2 too high
    assert squared_hinge(np.array([[0.5, 0.0, 2.0]]), LABEL, 0.0) == pytest.approx(0.5**2 + 2**2 + 2**2)


def test_the_hinge_is_that_of_one_classifier_a_class():
    rng = np.random.default_rng(1)
    logits, labels = rng.standard_normal((20, 6)) * 2, rng.integers(0, 6, 20).astype(np.int32)
    f, y = logits - 1, np.where(np.arange(6) == labels[:, None], 1.0, -1.0)
    np.testing.assert_allclose(squared_hinge(logits, labels, 0.0), (np.maximum(0, 1 - y * f) ** 2).sum(axis=1))


def test_scikit_learn_means_the_same_by_squared_hinge():
    metrics = pytest.importorskip("sklearn.metrics")  # only the hinge itself; LinearSVC squares it
    f, y = np.array([0.3, -2.0, 1.5]), np.array([1, -1, -1])
    ours = [squared_hinge(np.array([[score + 1]]), np.array([0], np.int32), 0.0)[0] for score in f * y]
    assert sum(np.sqrt(ours)) / 3 == pytest.approx(metrics.hinge_loss(y, f))


@pytest.mark.parametrize("losses", [negative_log_likelihood, squared_hinge])
def test_smoothing_is_the_mean_over_smoothed_labels(losses):
    logits, label, n = np.random.default_rng(2).standard_normal((1, 5)), np.array([3], np.int32), 5
    of_class = [losses(logits, np.array([c], np.int32), 0.0)[0] for c in range(n)]
    expected = 0.8 * of_class[3] + 0.2 * np.mean(of_class)
    assert losses(logits, label, 0.2) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("losses", [negative_log_likelihood, squared_hinge])
def test_one_class_has_a_loss_too(losses):
    assert np.isfinite(losses(np.array([[0.5]]), np.array([0], np.int32), 0.1)).all()
