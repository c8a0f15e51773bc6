from dataclasses import dataclass

import numpy as np
import pytest
from graphs import every_engine, gradient_errors, run, variable_like

from pipeline.objective import Objective
from pipeline.ops import symbolic

LOGITS = np.log([[1.0, 3.0], [1.0, 1.0]])  # probabilities (1/4, 3/4) and (1/2, 1/2)
LABELS = np.array([[1], [0]], np.int32)


def test_the_loss_is_the_mean_negative_log_likelihood():
    assert Objective()([LOGITS], LABELS) == pytest.approx((-np.log(3 / 4) - np.log(1 / 2)) / 2, rel=1e-12)


def test_an_unknown_label_counts_for_nothing():
    labels = np.array([[1], [-1]], np.int32)
    assert Objective()([LOGITS], labels) == pytest.approx(-np.log(3 / 4), rel=1e-12)


def test_a_level_without_a_known_label_adds_nothing():
    labels = np.array([[1, -1], [0, -1]], np.int32)
    assert Objective()([LOGITS, LOGITS], labels) == Objective()([LOGITS], LABELS)
    assert Objective(label_smoothing=0.1)([LOGITS], np.array([[-1], [-1]], np.int32)) == 0


def test_levels_are_summed_with_their_weights():
    labels = np.array([[1, 0], [0, 0]], np.int32)
    first, second = Objective()([LOGITS], labels[:, :1]), Objective()([LOGITS], labels[:, 1:])
    assert Objective()([LOGITS, LOGITS], labels) == pytest.approx(first + second)
    weighted = Objective(level_weights=(1.0, 0.25))([LOGITS, LOGITS], labels)
    assert weighted == pytest.approx(first + second / 4)


def test_smoothing_is_the_cross_entropy_against_the_smoothed_label():
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((5, 4))
    labels = rng.integers(0, 4, (5, 1)).astype(np.int32)
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = np.full((5, 4), 0.2 / 4)
    target[np.arange(5), labels[:, 0]] += 0.8
    expected = -(target * np.log(probability)).sum(axis=1).mean()
    assert Objective(label_smoothing=0.2)([logits], labels) == pytest.approx(expected, rel=1e-12)


@dataclass(frozen=True)
class Loss:
    """The objective as a function of arrays, as the gradient check wants it."""

    objective: Objective

    def __call__(self, first, second, labels):
        return self.objective([first, second], labels)


def example(dtype):
    rng = np.random.default_rng(2)
    labels = np.array([[0, 4], [2, -1], [1, 0], [-1, -1]], np.int32)
    return rng.standard_normal((4, 3)).astype(dtype), rng.standard_normal((4, 5)).astype(dtype), labels


@every_engine
@pytest.mark.parametrize("objective", [Objective(), Objective(level_weights=(0.5, 2.0), label_smoothing=0.1)])
def test_numpy_and_engine_agree(engine, objective):
    for dtype, tolerance in (("float32", 1e-6), ("float64", 1e-12)):
        found, expected = run(engine, Loss(objective), *example(dtype)), Loss(objective)(*example(dtype))
        assert found.dtype == expected.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=tolerance)


@every_engine
@pytest.mark.parametrize("objective", [Objective(), Objective(level_weights=(0.5, 2.0), label_smoothing=0.1)])
def test_gradients_are_those_of_finite_differences(engine, objective):
    errors = gradient_errors(engine, Loss(objective), *example("float64"))
    assert set(errors) == {"x0", "x1"}
    assert max(errors.values()) < 1e-6


@every_engine
def test_an_unknown_label_gives_no_gradient(engine):
    its = symbolic.engine(engine)
    values = example("float32")
    first, second, labels = (variable_like(its, value, name) for value, name in zip(values, "xyz", strict=True))
    gradients = its.grad(Objective(label_smoothing=0.1)([first, second], labels), [first, second])
    slopes = its.function([first, second, labels], gradients, mode="fast_compile")(*values)
    assert [slope.dtype for slope in slopes] == ["float32", "float32"]
    np.testing.assert_array_equal(slopes[0][3], 0)
    np.testing.assert_array_equal(slopes[1][[1, 3]], 0)
    assert (slopes[1][[0, 2]] != 0).all()
