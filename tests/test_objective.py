from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from graphs import every_engine, gradient_errors, run, variable_like

from pipeline import ops
from pipeline.class_weights import class_counts
from pipeline.config_learning import TrainingSettings
from pipeline.errors import TrainingError
from pipeline.objective import Objective, OwnObjective, make_objective
from pipeline.ops import symbolic
from pipeline.taxonomy import Taxonomy

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
    """The objective as a function of arrays, as the gradient check wants it; its class weights are no parameters."""

    objective: Callable

    def __call__(self, first, second, labels):
        return self.objective([first, second], labels)


def loss_of(objective):
    return Loss(lambda logits, labels: objective(logits, labels))


WEIGHTS = (np.array([0.5, 1.0, 2.0]), np.array([1.0, 3.0, 0.5, 0.25, 1.5]))
OBJECTIVES = [
    Objective(),
    Objective(level_weights=(0.5, 2.0), label_smoothing=0.1),
    Objective(loss="hinge"),
    Objective(loss="hinge", label_smoothing=0.1, class_weights=WEIGHTS),
    Objective(class_weights=WEIGHTS),
]
every_objective = pytest.mark.parametrize(
    "objective", OBJECTIVES, ids=["nll", "smooth", "hinge", "weighted-hinge", "weighted"]
)


def example(dtype):
    rng = np.random.default_rng(2)
    labels = np.array([[0, 4], [2, -1], [1, 0], [-1, -1]], np.int32)
    return rng.standard_normal((4, 3)).astype(dtype), rng.standard_normal((4, 5)).astype(dtype), labels


@every_engine
@every_objective
def test_numpy_and_engine_agree(engine, objective):
    for dtype, tolerance in (("float32", 1e-6), ("float64", 1e-12)):
        found, expected = run(engine, loss_of(objective), *example(dtype)), loss_of(objective)(*example(dtype))
        assert found.dtype == expected.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=tolerance)


@every_engine
@every_objective
def test_gradients_are_those_of_finite_differences(engine, objective):
    errors = gradient_errors(engine, loss_of(objective), *example("float64"))
    assert set(errors) == {"x0", "x1"}
    assert max(errors.values()) < 1e-6


@every_engine
@every_objective
def test_an_unknown_label_gives_no_gradient(engine, objective):
    its = symbolic.engine(engine)
    values = example("float32")
    first, second, labels = (variable_like(its, value, name) for value, name in zip(values, "xyz", strict=True))
    gradients = its.grad(objective([first, second], labels), [first, second])
    slopes = its.function([first, second, labels], gradients, mode="fast_compile")(*values)
    assert [slope.dtype for slope in slopes] == ["float32", "float32"]
    np.testing.assert_array_equal(slopes[0][3], 0)
    np.testing.assert_array_equal(slopes[1][[1, 3]], 0)
    assert (slopes[1][[0, 2]] != 0).any(axis=1).all()


def test_an_item_counts_as_much_as_its_class():
    weighted = Objective(class_weights=(np.array([0.5, 3.0]),))([LOGITS], LABELS)
    assert weighted == pytest.approx((-3 * np.log(3 / 4) - np.log(1 / 2) / 2) / 2, rel=1e-12)


def test_the_settings_make_the_objective_of_the_training_labels():
    labels = np.array([[0, -1], [1, 0], [1, 1], [1, 1]], np.int32)
    settings = TrainingSettings(loss="hinge", label_smoothing=0.1, level_weights=(1, 2), class_weights="balanced")
    made = make_objective(settings, class_counts(labels, (2, 3)))
    assert (made.loss, made.label_smoothing, made.level_weights) == ("hinge", 0.1, (1, 2))
    np.testing.assert_allclose(made.class_weights[0], [2, 2 / 3])
    np.testing.assert_allclose(made.class_weights[1], [3 / 2, 3 / 4, 1])  # a class without an item weighs 1
    halves = make_objective(
        TrainingSettings(class_weights="effective", class_weights_beta=0.5), class_counts(labels, (2, 3))
    )
    np.testing.assert_allclose(halves.class_weights[1], [9 / 7, 6 / 7, 1])  # effective numbers 1 and 3 / 2
    assert make_objective(TrainingSettings()).class_weights == ()
    with pytest.raises(TrainingError, match="class_weights = balanced needs the number of items"):
        make_objective(settings)


def test_a_path_that_stops_or_is_not_known_further_down_is_learned_as_far_as_it_is_known():
    ladder = Taxonomy.of(("genre", "theme"), [("Horror", "Zombies"), ("Horror",), ("Drama", "-")])
    labels = ladder.encode([pa.array(["Horror", "Drama", "Horror"]), pa.array(["Zombies", "-", None])])
    # Classes of themes: the stop of Drama, the theme of Horror; a theme that is not given is unknown, not a stop.
    assert ladder.classes[1] == (("Drama", "-"), ("Horror", "Zombies"))
    np.testing.assert_array_equal(labels, [[1, 1], [0, 0], [1, -1]])
    logits = [np.zeros((3, 2)), np.zeros((3, 2))]
    assert Objective()(logits, labels) == pytest.approx(2 * np.log(2))
    logits[1][1] = [5.0, -5.0]  # the stop is predicted where it is the label
    assert Objective()(logits, labels) < 2 * np.log(2)


def own(log_probabilities, labels):
    """Return the negative log-likelihood of the first level, written anew."""
    return -ops.of(*log_probabilities, labels).pick(log_probabilities[0], labels[:, 0]).mean()


def test_a_loss_of_ones_own_gets_log_probabilities_and_labels():
    assert make_objective(TrainingSettings(), loss=own)([LOGITS + 7], LABELS) == pytest.approx(
        Objective()([LOGITS], LABELS)
    )


def test_a_loss_of_ones_own_is_averaged_over_parts_by_their_items():
    goal = OwnObjective(own)
    first, second = (goal.totals([LOGITS[part]], LABELS[part]) for part in (slice(0, 1), slice(1, 2)))
    both = [(first[0][0] + second[0][0], first[0][1] + second[0][1])]
    assert goal.combine(both) == pytest.approx(goal([LOGITS], LABELS))


@every_engine
def test_a_loss_of_ones_own_is_the_same_on_engine_and_arrays(engine):
    values = (*example("float32")[:2], np.array([[0, 4], [2, 1], [1, 0], [1, 1]], np.int32))
    loss = loss_of(OwnObjective(own))
    found, expected = run(engine, loss, *values), loss(*values)
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_loss_of_ones_own_that_is_no_number_is_an_error():
    with pytest.raises(TrainingError, match="one number, and yours has 2 dimensions; take its mean or sum"):
        OwnObjective(lambda log_probabilities, labels: log_probabilities[0])([LOGITS], LABELS)
