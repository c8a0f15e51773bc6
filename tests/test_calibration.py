"""Calibration: temperatures that are known are found again, and honest probabilities come out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.calibration import HIGHEST, LOWEST, Calibration, _HeadLoss, _PathLoss, cool, fit
from pipeline.decoding import path_probabilities
from pipeline.errors import ModelError
from pipeline.metrics import expected_calibration_error
from pipeline.ops import numeric
from pipeline.taxonomy import Taxonomy

LADDER = Taxonomy.of(("genre", "theme"), [("Drama", "War"), ("Drama", "Love"), ("Horror", "Zombies"), ("Horror", "-")])
ONE = Taxonomy.of(("genre",), [("Drama",), ("Horror",)])


def draw_paths(logits, temperatures, rng):
    """Return labels drawn from the legal paths at these temperatures, (n, n_levels)."""
    probabilities = path_probabilities(cool(logits, temperatures), LADDER)
    chosen = [rng.choice(len(row), p=row) for row in probabilities]
    return LADDER.paths[chosen]


def logits_of(rng, n=6000):
    return [rng.normal(size=(n, size)) * 3 for size in LADDER.n_classes]


def test_the_temperatures_that_made_the_labels_are_found_again():
    rng = np.random.default_rng(1)
    logits = logits_of(rng)
    found = fit(logits, draw_paths(logits, (2.0, 0.5), rng), LADDER)
    assert found.legal == pytest.approx((2.0, 0.5), rel=0.1)


def test_scores_of_a_hinge_find_their_low_temperature():
    # Scores between 0 and 2 that are surer than they look: log-probabilities of the network at temperature 1.
    rng = np.random.default_rng(4)
    scores = [np.clip(rng.normal(size=(6000, size)), 0, 2) for size in LADDER.n_classes]
    log_probabilities = [numeric.log_softmax(level.astype(np.float32)) for level in scores]
    found = fit(log_probabilities, draw_paths(scores, (0.2, 0.15), rng), LADDER)
    assert found.legal == pytest.approx((0.2, 0.15), rel=0.1)
    assert all(LOWEST < temperature < 1 for temperature in found.raw)


def test_a_head_alone_by_hand():
    # Logit 1 against 0, right in 3 of 4 items: the best sharpness s has sigmoid(s) = 3/4, s = log 3.
    logits = [np.array([[1.0, 0.0]] * 4)]
    labels = np.array([[0], [0], [0], [1]], dtype=np.int32)
    found = fit(logits, labels, ONE)
    assert found.raw == pytest.approx((1 / np.log(3),), abs=1e-4)
    assert found.legal == pytest.approx(found.raw, abs=1e-4)


def test_a_head_that_is_always_right_stops_at_the_lowest_temperature():
    logits = [np.array([[1.0, 0.0]] * 4)]
    assert fit(logits, np.zeros((4, 1), dtype=np.int32), ONE).raw == (0.05,)


def test_without_labels_nothing_changes():
    assert fit([np.zeros((0, 2)), np.zeros((0, 4))], np.zeros((0, 2), dtype=np.int32), LADDER) == Calibration.none(2)
    unknown = np.full((3, 2), -1, dtype=np.int32)
    assert fit([np.ones((3, 2)), np.ones((3, 4))], unknown, LADDER) == Calibration.none(2)


def test_a_common_temperature_by_hand():
    # Both levels say "path 0" with logit 1 each, and it is right in 3 of 4 items: with s for both, sigmoid(2 s) = 3/4.
    two = Taxonomy.of(("genre", "theme"), [("Drama", "War"), ("Horror", "Ghosts")])
    labels = np.array([[0, 0]] * 3 + [[1, 1]], dtype=np.int32)
    found = fit([np.array([[1.0, 0.0]] * 4)] * 2, labels, two, common=True)
    assert found.legal == pytest.approx((2 / np.log(3),) * 2, abs=1e-4)


def test_a_common_temperature_leaves_the_best_path_as_it_is():
    rng = np.random.default_rng(5)
    logits = logits_of(rng, 300)
    labels = draw_paths(logits, (4.0, 0.5), rng)
    before = path_probabilities(logits, LADDER).argmax(axis=1)
    common, levels = fit(logits, labels, LADDER, common=True), fit(logits, labels, LADDER)
    assert len(set(common.legal)) == 1
    assert common.raw == levels.raw
    assert (path_probabilities(cool(logits, common.legal), LADDER).argmax(axis=1) == before).all()
    assert (path_probabilities(cool(logits, levels.legal), LADDER).argmax(axis=1) != before).any()


def test_a_level_without_labels_keeps_its_head():
    labels = np.array([[0, -1], [1, -1], [0, -1]], dtype=np.int32)
    logits = [np.array([[1.0, 0.0]] * 3), np.zeros((3, 4))]
    assert fit(logits, labels, LADDER).raw[1] == 1.0


def test_calibrated_paths_are_honest():
    rng = np.random.default_rng(2)
    logits = logits_of(rng)
    labels = draw_paths(logits, (3.0, 3.0), rng)
    gaps = []
    for temperatures in ((1.0, 1.0), fit(logits, labels, LADDER).legal):
        probabilities = path_probabilities(cool(logits, temperatures), LADDER)
        best = probabilities.argmax(axis=1)
        correct = (LADDER.paths[best] == labels).all(axis=1)
        gaps.append(expected_calibration_error(probabilities.max(axis=1), correct))
    assert gaps[0] > 0.15
    assert gaps[1] < 0.02


@pytest.mark.parametrize("missing", [False, True])
def test_the_gradient_is_that_of_finite_differences(missing):
    rng = np.random.default_rng(3)
    logits = logits_of(rng, n=40)
    labels = draw_paths(logits, (1.0, 1.0), rng)
    if missing:
        labels[::2, 1] = -1
    losses = [(_PathLoss(logits, labels, LADDER), 2), (_HeadLoss(logits[1], labels[:, 1]), 1)]
    for loss, size in losses:
        at, step = np.full(size, 0.7), 1e-5
        here = loss(at)
        for k in range(size):
            move = step * np.eye(size)[k]
            ahead, behind = loss(at + move), loss(at - move)
            assert here.gradient[k] == pytest.approx((ahead.value - behind.value) / (2 * step), abs=1e-6)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 5.0, 100.0]), st.integers(1, 30))
def test_calibration_never_makes_the_loss_worse(seed, scale, n):
    rng = np.random.default_rng(seed)
    logits = [rng.normal(size=(n, size)) * scale for size in LADDER.n_classes]
    labels = LADDER.paths[rng.integers(len(LADDER.paths), size=n)].copy()
    labels[rng.random(n) < 0.3, 1] = -1
    loss = _PathLoss(logits, labels, LADDER)
    sharpness = 1 / np.array(fit(logits, labels, LADDER).legal)
    assert loss(sharpness).value <= loss(np.ones(2)).value


@pytest.mark.parametrize("seed", range(60))
def test_no_temperature_can_be_bettered_alone_also_where_another_stands_at_its_bound(seed):
    rng = np.random.default_rng(seed)
    logits = [rng.normal(size=(6, size)) * 3 for size in LADDER.n_classes]
    labels = LADDER.paths[rng.integers(len(LADDER.paths), size=6)]
    sharpness = 1 / np.array(fit(logits, labels, LADDER).legal)
    gradient = _PathLoss(logits, labels, LADDER)(sharpness).gradient
    inward = np.where(sharpness <= 1 / HIGHEST + 1e-9, np.minimum(gradient, 0), gradient)
    inward = np.where(sharpness >= 1 / LOWEST - 1e-6, np.maximum(inward, 0), inward)
    assert np.abs(inward).max() < 1e-4


def test_temperatures_survive_json():
    calibration = Calibration(legal=(1.5, 2.0), raw=(1.0, 0.5))
    assert Calibration.from_json(calibration.to_json(), n_levels=2) == calibration


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"legal": [1.0], "raw": [1.0]},
        {"legal": [0.0, 1.0], "raw": [1.0, 1.0]},
        {"legal": ["x", 1], "raw": [1, 1]},
        {"legal": [float("nan"), 1], "raw": [1, 1]},
    ],
)
def test_what_is_no_calibration_is_refused(data):
    with pytest.raises(ModelError, match="export the model again"):
        Calibration.from_json(data, n_levels=2)


def test_cooling_keeps_the_dtype():
    cooled = cool([np.ones((1, 2), dtype=np.float32)], (2.0,))
    assert cooled[0].dtype == np.float32
    assert cooled[0].tolist() == [[0.5, 0.5]]
