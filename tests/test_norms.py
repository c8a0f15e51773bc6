import dataclasses

import numpy as np
import pytest
from graphs import every_engine, run
from test_fitting import CONFIG, make_examples, quick
from test_network import make_inputs
from test_variants import variant_network

from pipeline import parameters
from pipeline.batches import Loader
from pipeline.fitting import fit
from pipeline.graph import compile_step
from pipeline.layers import BatchNorm, Hidden
from pipeline.network import FeedbackNetwork
from pipeline.ops import symbolic

ROWS = np.array([[1.0, 10], [3, 10]])  # columns of mean 2 and 10, of variance 1 and 0


def norm(*, mean=(0.0, 0), variance=(1.0, 1), **changes):
    layer = BatchNorm(np.array([1.0, 2]), np.array([0.0, 5]), np.array(mean), np.array(variance), epsilon=0.0)
    return dataclasses.replace(layer, **changes)


def test_in_training_a_column_is_brought_to_mean_0_and_variance_1():
    np.testing.assert_allclose(norm(epsilon=1e-12)(ROWS, training=True), [[-1, 5], [1, 5]])


def test_afterwards_the_running_statistics_take_the_place_of_the_batchs():
    layer = norm(mean=(1.0, 4), variance=(4.0, 9))
    np.testing.assert_allclose(layer(ROWS), [[0, 9], [1, 9]])  # (3 - 1) / 2 = 1; 2 (10 - 4) / 3 + 5 = 9


def test_a_row_is_scored_alike_in_any_company():
    layer = norm(mean=(1.0, 4), variance=(4.0, 9))
    np.testing.assert_array_equal(layer(ROWS)[:1], layer(ROWS[:1]))


def test_the_running_statistics_go_a_tenth_of_the_way_to_the_batchs_and_less_for_few_rows():
    layer = norm(mean=(1.0, 0), variance=(3.0, 5))
    found = layer.statistics(np.repeat(ROWS, 500, axis=0))  # 1,000 rows: 0.0999 of the way
    np.testing.assert_allclose(found["mean"], [1 + 0.0999 * (2 - 1), 0.0999 * 10])
    np.testing.assert_allclose(found["variance"], [3 - 0.0999 * 2, 5 - 0.0999 * 5])
    np.testing.assert_allclose(layer.statistics(ROWS)["mean"], [1.05, 0.5])  # 2 rows: half a tenth


def test_a_single_row_leaves_the_running_statistics_alone():
    found = norm(mean=(1.0, 0), variance=(3.0, 5)).statistics(ROWS[:1])
    np.testing.assert_array_equal(found["mean"], [1, 0])
    np.testing.assert_array_equal(found["variance"], [3, 5])


def test_a_column_of_equal_values_and_a_single_row_give_the_bias():
    layer = norm(epsilon=1e-5)
    np.testing.assert_array_equal(layer(np.full((3, 2), 7.0), training=True), [[0, 5]] * 3)
    np.testing.assert_array_equal(layer(ROWS[:1], training=True), [[0, 5]])


@every_engine
def test_batch_norm_is_its_formula_value_by_value(engine):
    rng = np.random.default_rng(4)
    x, layer = rng.standard_normal((6, 3)), BatchNorm(*abs(rng.standard_normal((4, 3))))
    expected = np.zeros((6, 3))
    for unit in range(3):
        mean = sum(x[row, unit] for row in range(6)) / 6
        variance = sum((x[row, unit] - mean) ** 2 for row in range(6)) / 6
        for row in range(6):
            expected[row, unit] = (x[row, unit] - mean) / (variance + 1e-5) ** 0.5 * layer.gain[unit] + layer.bias[unit]
    np.testing.assert_allclose(layer(x, training=True), expected, rtol=1e-12)
    statistics = run(engine, Statistics(layer), x)
    moved = 0.1 * 5 / 6  # 6 rows
    np.testing.assert_allclose(statistics[0], layer.mean + moved * (x.mean(axis=0) - layer.mean), rtol=1e-12)
    np.testing.assert_allclose(statistics[1], layer.variance + moved * (x.var(axis=0) - layer.variance), rtol=1e-12)


@dataclasses.dataclass(frozen=True)
class Statistics:
    layer: BatchNorm

    def __call__(self, x):
        return tuple(self.layer.statistics(x).values())


@every_engine
@pytest.mark.parametrize("mode", ["fast_compile", pytest.param("fast_run", marks=pytest.mark.slow)])
def test_a_training_step_moves_the_running_statistics_in_float32(engine, mode):
    config = dataclasses.replace(CONFIG, norm="batch")
    network = FeedbackNetwork.initialise(config, np.random.default_rng(3))
    settings = quick(engine=engine, compile_mode=mode, dropout=0.0, weight_decay=0.9)
    step = compile_step(symbolic.engine(engine), network, settings)
    examples = make_examples().take(slice(0, 32))
    (batch,) = Loader(examples, n_hidden=8, batch_size=32, seed=1).epoch(1)
    total = network.tags(batch.rows[batch.tag_index]) + batch.features @ network.features.weight[batch.columns]
    step(batch, 0.01)
    after = step.network().hidden.norm
    moved = 0.1 * 31 / 32  # 32 rows
    np.testing.assert_allclose(after.mean, moved * total.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.variance, 1 + moved * (total.var(axis=0) - 1), rtol=1e-5)
    assert after.mean.dtype == after.variance.dtype == np.float32
    assert not any("mean" in name or "variance" in name for name in step.state)


def test_biases_that_the_mean_of_the_batch_takes_away_do_not_walk():
    network = FeedbackNetwork.initialise(dataclasses.replace(CONFIG, norm="batch"), np.random.default_rng(3))
    result = fit(network, make_examples(), None, quick(epochs=2))
    np.testing.assert_array_equal(result.network.hidden.bias, network.hidden.bias)


def test_running_statistics_are_exported_like_every_parameter():
    network = fit(
        FeedbackNetwork.initialise(dataclasses.replace(CONFIG, norm="batch"), np.random.default_rng(3)),
        make_examples(),
        None,
        quick(),
    ).network
    found = parameters.flatten(network)
    assert (found["hidden.norm.variance"] != 1).all()
    loaded = FeedbackNetwork.load(network.config, found)
    np.testing.assert_array_equal(loaded(make_examples().inputs)[1], network(make_examples().inputs)[1])


def test_only_batch_norm_has_statistics():
    for kind, names in (("layer", []), ("none", []), ("batch", ["norm.mean", "norm.variance"])):
        layer = Hidden.initialise(2, norm=kind, rng=np.random.default_rng(1))
        assert list(layer.statistics(np.ones((2, 2), np.float32))) == names


def test_without_norm_the_hidden_layer_is_a_relu():
    layer = Hidden(np.array([1.0, -3]), None)
    np.testing.assert_array_equal(layer(np.array([[2.0, 1]]), np.array([[3.0, 1]])), [[6, 0]])


def test_a_network_in_training_reads_the_batchs_statistics():
    network = variant_network("batch norm")
    inputs = make_inputs()
    total = network.hidden.total(*network.outputs(inputs, ["tags", "features", "dense"]))
    expected = np.maximum(network.hidden.norm(total, training=True), 0)
    training = dataclasses.replace(inputs, training=True)
    np.testing.assert_array_equal(network["hidden"](training), expected)
    assert (network["hidden"](inputs) != expected).any()
    assert {"hidden.norm.mean", "hidden.norm.variance"} <= network.statistics(training).keys()
