import dataclasses

import numpy as np
import pytest
from graphs import as_graph, every_engine, run
from test_fitting import CONFIG, make_examples, quick

from pipeline.experts import MixtureOfExperts, MixtureOfHeads, TopKGate, imbalance
from pipeline.fitting import fit
from pipeline.network import FeedbackNetwork, expert_shares
from pipeline.ops import symbolic

LOGITS = np.array([[0.0, 1, 2, 1], [3, 3, 3, 3]])
E = np.e


def gate(top_k):
    """Return a gate whose logits are its inputs."""
    return TopKGate(np.eye(4), top_k)


@every_engine
def test_the_weights_are_a_softmax_over_the_k_largest_and_exactly_zero_outside(engine):
    for weights in (gate(2)(LOGITS), run(engine, gate(2), LOGITS)):
        np.testing.assert_allclose(weights, [[0, 1 / (1 + E), E / (1 + E), 0], [0.5, 0.5, 0, 0]], rtol=1e-12)
        assert (weights[[0, 0, 1, 1], [0, 3, 2, 3]] == 0.0).all()


@every_engine
@pytest.mark.parametrize("scale", [1, 1e30])
def test_nothing_leaks_however_small_the_logits_are(engine, scale):
    logits = np.float32(scale) * np.array([[-1, -2, -3, -4]], np.float32)
    layer = TopKGate(np.eye(4, dtype=np.float32), 2)
    for weights in (layer(logits), run(engine, layer, logits)):
        assert weights.dtype == np.float32
        assert (weights[0, 2:] == 0.0).all()
        assert weights.sum() == pytest.approx(1)


def test_all_experts_may_decide_or_one():
    np.testing.assert_allclose(gate(4)(LOGITS)[1], [0.25] * 4)
    np.testing.assert_array_equal(gate(1)(LOGITS), [[0, 0, 1, 0], [1, 0, 0, 0]])


@every_engine
def test_only_the_kept_experts_learn(engine):
    its = symbolic.engine(engine)
    layer = MixtureOfExperts(np.ones((4, 4 * 3)), np.ones(12), 4)
    network = as_graph(its, (gate(2), layer))
    x = its.variable("x", dtype="float64", ndim=2)
    cost = (network[1](x, network[0](x)) * np.arange(3.0)).sum()
    gradients = its.grad(cost, [network[0].weight, network[1].weight, network[1].bias])
    of_gate, of_weight, of_bias = its.function([x], gradients, mode="fast_compile")(LOGITS[:1])
    kept = [False, True, True, False]
    assert (of_weight.reshape(4, 4, 3).any(axis=(0, 2)) == kept).all()
    assert (of_bias.reshape(4, 3).any(axis=1) == kept).all()
    assert not of_gate[:, [0, 3]].any()


def test_a_mixture_is_the_weighted_sum_of_its_hidden_layers():
    layer = MixtureOfExperts(np.array([[1.0, 2, 10, 20]]), np.array([0.0, 0, 0, -100]), n_experts=2)
    # Expert 0 of x = 3 gives 3 and 6; expert 1 gives 30, and 60 - 100 cut off at 0.
    np.testing.assert_allclose(layer(np.array([[3.0]]), np.array([[0.75, 0.25]])), [[2.25 + 7.5, 4.5]])


def test_heads_are_blended_by_their_probabilities():
    layer = MixtureOfHeads(np.zeros((1, 4)), np.log([0.9, 0.1, 0.2, 0.8]), n_experts=2)
    blended = np.exp(layer(np.zeros((1, 1)), np.log([[0.75, 0.25]])))
    np.testing.assert_allclose(blended, [[0.75 * 0.9 + 0.25 * 0.2, 0.75 * 0.1 + 0.25 * 0.8]])


def test_the_mixtures_are_a_loop_over_items_and_experts():
    rng = np.random.default_rng(2)
    x, weights = rng.standard_normal((5, 3)), TopKGate(rng.standard_normal((3, 4)), 2)
    weight, bias = rng.standard_normal((3, 4 * 2)), rng.standard_normal(8)
    hidden, heads = np.zeros((5, 2)), np.zeros((5, 2))
    for row in range(5):
        logits = [sum(x[row, k] * weights.weight[k, e] for k in range(3)) for e in range(4)]
        kept = sorted(range(4), key=lambda e, logits=logits: -logits[e])[:2]
        total = sum(np.exp(logits[e]) for e in kept)
        for e in kept:
            share = np.exp(logits[e]) / total
            out = [sum(x[row, k] * weight[k, 2 * e + c] for k in range(3)) + bias[2 * e + c] for c in range(2)]
            hidden[row] += [share * max(0.0, value) for value in out]
            heads[row] += [share * np.exp(value) / sum(np.exp(out)) for value in out]
    found = MixtureOfExperts(weight, bias, 4)(x, weights(x))
    np.testing.assert_allclose(found, hidden, rtol=1e-12)
    found = MixtureOfHeads(weight, bias, 4)(x, weights.log_weights(x))
    np.testing.assert_allclose(np.exp(found), heads, rtol=1e-12)


@every_engine
def test_a_head_that_is_left_out_has_no_say_however_sure_it_is(engine):
    # The expert left out is sure of class 0; the kept one gives it a probability that float32 cannot hold.
    layer = MixtureOfHeads(np.zeros((1, 4), np.float32), np.array([500, 0, 0, 500], np.float32), n_experts=2)
    x, log_gate = np.zeros((1, 1), np.float32), np.array([[-np.inf, 0]], np.float32)
    for blended in (layer(x, log_gate), run(engine, layer, x, log_gate)):
        np.testing.assert_array_equal(blended, [[-500, 0]])


@every_engine
@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([[0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]], 0.0),
        ([[1.0, 0, 0], [1, 0, 0]], 2.0),  # one of three has everything
        ([[0.5, 0.5], [0, 1]], 0.25),  # importance 0.5 and 1.5: (0.5 / 1)^2
    ],
)
def test_imbalance_is_the_squared_variation_of_importance(engine, weights, expected):
    weights = np.array(weights)
    assert imbalance(weights) == pytest.approx(expected, abs=1e-15)
    assert run(engine, imbalance, weights) == pytest.approx(expected, abs=1e-15)


def test_the_penalty_of_a_network_is_the_imbalance_of_its_gate():
    network = FeedbackNetwork.initialise(dataclasses.replace(CONFIG, experts=4), np.random.default_rng(3))
    inputs = make_examples().inputs
    (penalty,) = network.penalties(inputs)
    assert penalty == imbalance(network["gate"](inputs))
    assert FeedbackNetwork.initialise(CONFIG, None).penalties(inputs) == []


def test_the_weight_of_a_single_chosen_expert_is_1_so_its_gate_stays_as_drawn():
    config = dataclasses.replace(CONFIG, experts=6, top_k=1)
    network = FeedbackNetwork.initialise(config, np.random.default_rng(5))
    after = fit(network, make_examples(), None, quick(epochs=2, expert_balance=1.0)).network
    np.testing.assert_array_equal(after.gate.weight, network.gate.weight)


def test_with_more_balance_the_experts_are_equally_busy():
    def busiest(balance):
        config = dataclasses.replace(CONFIG, experts=6)
        network = FeedbackNetwork.initialise(config, np.random.default_rng(5))
        result = fit(network, make_examples(), None, quick(epochs=15, expert_balance=balance, dropout=0.0))
        return expert_shares(result.network, make_examples().inputs).max()

    assert busiest(10.0) < busiest(0.0)
