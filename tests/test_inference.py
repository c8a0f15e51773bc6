"""Stage 5: the folded network gives what its layers give, however its items are cut."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import random as random_sparse
from small_model import TAXONOMY, make_items, make_model

from pipeline import parameters
from pipeline.config_results import ScoringSettings
from pipeline.ensemble import Ensemble
from pipeline.errors import FeatureError, ModelError
from pipeline.folding import ROWS, folds
from pipeline.inference import Plan
from pipeline.network import FeedbackNetwork, Inputs, NetworkConfig
from pipeline.scoring import score_batch

SIZES = {"n_vocabulary": 30, "n_features": 12, "n_dense": 3, "hidden": 8, "n_classes": (3, 5, 9)}


def make_network(seed=0, **changes):
    """Return a network whose every parameter is drawn, gains and biases too."""
    rng = np.random.default_rng(seed)
    network = FeedbackNetwork.initialise(NetworkConfig(**{**SIZES, **changes}), rng)
    drawn = {
        name: (value + rng.normal(0, 0.5, value.shape) * (value.ndim == 1 or "wide" in name)).astype(np.float32)
        for name, value in parameters.flatten(network).items()
    }
    return FeedbackNetwork.load(network.config, drawn)


def make_inputs(n, network, seed=1):
    rng, config = np.random.default_rng(seed), network.config
    tags = rng.integers(0, config.n_vocabulary, (n, 6)).astype(np.int32)
    tags[::7] = 0
    features = random_sparse(n, config.n_features, 0.3, "csc", np.float32, random_state=3)
    dense = rng.random((n, config.n_dense), np.float32)
    return Inputs(tags, features if config.n_features else None, dense if config.n_dense else None)


def logits_of(network, inputs, size=2048):
    plan = Plan(network)
    parts = [
        [values[: rows.stop - rows.start].copy() for values in found]
        for rows, found in plan.blocks(inputs, plan.level_heads(), size=size)
    ]
    return [np.concatenate(level) for level in zip(*parts, strict=True)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_features": 0, "n_dense": 0},
        {"wide": True, "n_dense": 0},
        {"n_classes": (4,)},
        {"n_classes": (2, 3, 4, 5, 6), "hidden": 5},
        {"hidden": 64, "n_classes": (20, 120, 600)},
    ],
)
def test_logits_are_those_of_the_layers(changes):
    """As near to those in float64 as the layers in float32 are, or a millionth off at most."""
    network = make_network(**changes)
    inputs = make_inputs(ROWS + 37, network)
    exactly = FeedbackNetwork.load(network.config, parameters.flatten(parameters.cast(network, "float64")))
    levels = zip(logits_of(network, inputs), network.logits(inputs), exactly.logits(inputs), strict=True)
    for ours, theirs, exact in levels:
        assert ours.dtype == np.float32
        assert np.abs(ours - exact).max() < max(1e-6, 2 * np.abs(theirs - exact).max())


def test_paths_have_the_sum_of_their_logits_over_the_temperatures():
    network = make_network(wide=True)
    inputs = make_inputs(40, network)
    paths, temperatures = np.array([[0, 1, 2], [2, 4, 8]], np.int32), (2.0, 0.5, 4.0)
    plan = Plan(network)
    ((rows, (scores,)),) = plan.blocks(inputs, [plan.path_head(paths, temperatures)], size=40)
    one, two, three = network.logits(inputs)
    assert rows == slice(0, 40)
    assert scores[:40, 0] == pytest.approx(one[:, 0] / 2 + two[:, 1] * 2 + three[:, 2] / 4, abs=1e-5)
    assert scores[:40, 1] == pytest.approx(one[:, 2] / 2 + two[:, 4] * 2 + three[:, 8] / 4, abs=1e-5)


def test_rows_cut_by_whole_passes_have_the_same_bytes():
    network = make_network(hidden=64)
    size = ROWS + 88
    inputs = make_inputs(4 * size + 100, network)
    whole = logits_of(network, inputs, size=size)
    for start, stop in ((0, size), (size, 3 * size), (3 * size, 4 * size + 1)):
        rows = slice(start, stop)
        part = Inputs(inputs.tag_index[rows], inputs.features.tocsr()[rows].tocsc(), inputs.dense[rows])
        for ours, level in zip(logits_of(network, part, size=size), whole, strict=True):
            assert ours.tobytes() == level[rows].tobytes()


def test_threads_share_a_plan():
    network = make_network(hidden=64)
    plan, heads = Plan(network), Plan(network).level_heads()
    several = [make_inputs(3 * ROWS, network, seed) for seed in range(4)]
    expected = [logits_of(network, inputs)[-1] for inputs in several]
    equal = [False] * len(several)

    def run(number):
        found = [values[-1].copy() for _, values in plan.blocks(several[number], heads, size=2048)]
        equal[number] = (np.concatenate(found) == expected[number]).all()

    threads = [threading.Thread(target=run, args=[number]) for number in range(len(several))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert equal == [True] * 4


@pytest.mark.parametrize(
    "parts",
    [
        {"kind": "single_shot"},
        {"norm": "batch"},
        {"norm": "none"},
        {"label_feedback": True},
        {"parent_mask": True, "parents": ((0, 1, 2, 0, 1), (0, 1, 2, 3, 4, 0, 1, 2, 3))},
        {"experts": 2},
        {"experts": 2, "experts_at": "outputs"},
    ],
)
def test_networks_with_other_parts_are_left_to_their_layers(parts):
    network = FeedbackNetwork.initialise(NetworkConfig(**SIZES, **parts), np.random.default_rng(0))
    assert not folds(network)
    assert folds(make_network())


def test_a_gain_of_zero_cannot_be_folded():
    network = make_network()
    norm = replace(network.cell.norm, gain=np.zeros(8, np.float32))
    assert not folds(replace(network, cell=replace(network.cell, norm=norm)))


def test_an_index_outside_the_table_and_missing_features_are_named():
    network = make_network()
    inputs = make_inputs(5, network)
    with pytest.raises(FeatureError, match="index 30 is outside the table of 30 rows"):
        logits_of(network, replace(inputs, tag_index=np.full((5, 1), 30, np.int32)))
    with pytest.raises(ModelError, match="the inputs hold none"):
        logits_of(network, replace(inputs, features=None))


@pytest.mark.parametrize("decoding", ["legal", "raw"])
@pytest.mark.parametrize("n_members", [1, 3])
def test_scores_are_those_of_the_layers(decoding, n_members):
    model = make_model(wide=True)
    rng = np.random.default_rng(5)
    members = [FeedbackNetwork.initialise(model.network.config, rng) for _ in range(n_members)]
    model = replace(model, network=Ensemble(tuple(members)) if n_members > 1 else members[0])
    items = make_items(700)
    many, few = (
        score_batch(model, items, clean=False, scoring=ScoringSettings(decoding=decoding, batch_size=size)).to_pydict()
        for size in (2048, 64)
    )
    assert model.folded is not None
    assert many["path"] == few["path"]
    for column in ("genre_probability", "theme_probability", "path_probability"):
        assert many[column] == pytest.approx(few[column], abs=1e-6)
    assert set(map(len, many["best_paths"])) == {len(TAXONOMY.paths[:3]) if decoding == "legal" else 1}
