import dataclasses

import numpy as np
import pytest
from graphs import as_graph, every_engine, gradient_errors
from scipy import sparse

from pipeline import parameters
from pipeline.errors import ModelError
from pipeline.graph import input_variables, log_probabilities
from pipeline.network import FeedbackNetwork, Inputs, NetworkConfig
from pipeline.ops import symbolic

CONFIG = NetworkConfig(n_vocabulary=6, n_features=5, n_dense=2, hidden=4, n_classes=(2, 3, 4))
TAGS = np.array([[1, 5, 0], [0, 2, 2], [0, 0, 0]], np.int32)


def make_network(config=CONFIG, *, seed=3):
    """Return a network all of whose parameters are drawn, biases and gains too; the padding row is zero."""
    rng = np.random.default_rng(seed)
    network = FeedbackNetwork.initialise(config, rng)
    drawn = parameters.map_parameters(
        network, lambda _, value: value + 0.5 * rng.standard_normal(value.shape, np.float32)
    )
    drawn.tags.weight[0] = 0
    return drawn


def make_inputs(dtype="float32"):
    rng = np.random.default_rng(4)
    features = sparse.random(3, 5, 0.5, format="csc", random_state=1).astype(dtype)
    return Inputs(TAGS, features, rng.standard_normal((3, 2)).astype(dtype))


def test_every_level_gets_probabilities_that_sum_to_one():
    outputs = make_network()(make_inputs())
    assert [output.shape for output in outputs] == [(3, 2), (3, 3), (3, 4)]
    assert {output.dtype for output in outputs} == {np.dtype(np.float32)}
    for output in outputs:
        np.testing.assert_allclose(np.exp(output).sum(axis=1), 1, rtol=1e-6)


def test_the_layers_have_names_in_order():
    assert make_network().names == (
        *("tags", "features", "dense", "hidden", "projected"),
        *("state_1", "logits_1", "level_1"),
        *("state_2", "logits_2", "level_2"),
        *("state_3", "logits_3", "level_3"),
    )


def test_the_output_is_that_of_the_formulas():
    network, inputs = parameters.cast(make_network(), "float64"), make_inputs("float64")

    def norm(x, layer):
        scaled = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
        return np.maximum(scaled * layer.gain + layer.bias, 0)

    tags = np.stack([network.tags.weight[[1, 5]].mean(axis=0), network.tags.weight[2], np.zeros(4)])
    total = tags + inputs.features.toarray() @ network.features.weight
    total += inputs.dense @ network.dense.weight + network.dense.bias + network.hidden.bias
    hidden = norm(total, network.hidden.norm)
    cell, state = network.cell, np.zeros((3, 4))
    for head, found in zip(network.heads, network.logits(inputs), strict=True):
        x = hidden @ cell.weight + cell.bias
        gates = 1 / (1 + np.exp(-(x[:, :8] + state @ cell.recurrent)))
        reset, update = gates[:, :4], gates[:, 4:]
        state = (1 - update) * state + update * norm(x[:, 8:] + (reset * state) @ cell.recurrent_candidate, cell.norm)
        np.testing.assert_allclose(found, state @ head.weight + head.bias, rtol=1e-12)


def test_any_layer_is_had_by_name_and_by_index():
    network, inputs = make_network(), make_inputs()
    np.testing.assert_array_equal(network[-1](inputs), network(inputs)[2])
    np.testing.assert_array_equal(network["level_1"](inputs), network(inputs)[0])
    np.testing.assert_array_equal(network[0](inputs), network.tags(TAGS))
    hidden = network["hidden"](inputs)
    np.testing.assert_array_equal(network[network.names.index("hidden")](inputs), hidden)
    np.testing.assert_array_equal(network["state_1"](inputs), network.cell(hidden))
    np.testing.assert_allclose(network["state_2"](inputs), network.cell(hidden, network.cell(hidden)), rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "message"), [("state_4", "'state_4' is not one of the layers tags, "), (14, "14 lay")]
)
def test_an_absent_layer_is_an_error_that_lists_the_layers(layer, message):
    with pytest.raises(ModelError, match=message):
        make_network()[layer]


def test_each_layer_is_computed_once_and_only_where_it_is_needed():
    calls = []

    @dataclasses.dataclass(frozen=True)
    class Counted:
        layer: object

        def __call__(self, *values):
            calls.append(type(self.layer).__name__)
            return self.layer(*values)

    network = make_network()
    network = dataclasses.replace(network, tags=Counted(network.tags), hidden=Counted(network.hidden))
    network(make_inputs())
    assert calls == ["TagMean", "Hidden"]
    network["tags"](make_inputs())
    assert calls == ["TagMean", "Hidden", "TagMean"]


def test_a_mask_multiplies_the_layer_of_its_name():
    network, inputs = make_network(), make_inputs()
    mask = np.array([[0, 2, 0, 2]] * 3, np.float32)
    masked = dataclasses.replace(inputs, masks={"hidden": mask})
    np.testing.assert_array_equal(network["hidden"](masked), network["hidden"](inputs) * mask)
    np.testing.assert_array_equal(network["state_1"](masked), network.cell(network["hidden"](inputs) * mask))


def test_one_level_and_tags_alone_are_enough():
    network = make_network(NetworkConfig(n_vocabulary=6, n_features=0, n_dense=0, hidden=4, n_classes=(1,)))
    assert network.names == ("tags", "hidden", "projected", "state_1", "logits_1", "level_1")
    np.testing.assert_array_equal(network(Inputs(TAGS))[0], np.zeros((3, 1)))
    np.testing.assert_array_equal(network[-1](TAGS), np.zeros((3, 1)))
    np.testing.assert_array_equal(network["hidden"](TAGS), network["hidden"](Inputs(TAGS)))


def test_inputs_without_what_the_network_reads_are_an_error():
    with pytest.raises(ModelError, match="the network reads features input, and the inputs hold none"):
        make_network()(Inputs(TAGS))


def test_items_without_anything_are_scored():
    empty = Inputs(
        np.zeros((2, 1), np.int32), sparse.csc_matrix((2, 5), dtype=np.float32), np.zeros((2, 2), np.float32)
    )
    assert np.isfinite(make_network()(empty)[2]).all()


def test_the_configuration_goes_through_json():
    assert NetworkConfig.from_json(CONFIG.to_json()) == CONFIG


@pytest.mark.parametrize("change", [{"n_classes": ()}, {"n_classes": (2, 0)}, {"hidden": 0}, {"n_dense": -1}])
def test_an_impossible_configuration_is_an_error(change):
    with pytest.raises(ModelError, match="needs a vocabulary, a hidden layer and a class at every level"):
        dataclasses.replace(CONFIG, **change)


def test_the_same_seed_draws_the_same_network():
    first, second = (parameters.flatten(FeedbackNetwork.initialise(CONFIG, np.random.default_rng(7))) for _ in range(2))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])


def test_a_network_comes_back_from_its_parameters():
    network = make_network()
    loaded = FeedbackNetwork.load(CONFIG, parameters.flatten(network))
    np.testing.assert_array_equal(loaded[-1](make_inputs()), network[-1](make_inputs()))


@every_engine
@pytest.mark.parametrize(
    ("mode", "tolerance"), [("fast_compile", 1e-6), pytest.param("fast_run", 1e-6, marks=pytest.mark.slow)]
)
def test_numpy_and_engine_agree_in_float32(engine, mode, tolerance):
    network, inputs = make_network(), make_inputs()
    for found, expected in zip(
        log_probabilities(symbolic.engine(engine), network, inputs, mode=mode), network(inputs), strict=True
    ):
        assert found.dtype == expected.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@dataclasses.dataclass(frozen=True)
class Flat:
    """The network as a function of its arrays, as the gradient check wants it."""

    network: FeedbackNetwork

    def __call__(self, tag_index, features, dense, mask):
        return self.network(Inputs(tag_index, features, dense, {"hidden": mask}))


@every_engine
def test_gradients_of_the_whole_network_are_those_of_finite_differences(engine):
    inputs = make_inputs("float64")
    mask = np.array([[0, 2, 1, 2], [2, 1, 2, 0], [2, 2, 2, 2]], np.float64)
    errors = gradient_errors(engine, Flat(make_network()), TAGS, inputs.features, inputs.dense, mask)
    assert len(errors) == len(parameters.flatten(make_network())) + 2
    assert max(errors.values()) < 1e-6, errors


@every_engine
def test_a_network_of_rows_is_the_network_of_the_table(engine):
    its = symbolic.engine(engine)
    network, inputs = make_network(), make_inputs()
    graph = as_graph(its, network)
    rows = its.variable("rows", dtype="int32", ndim=1)
    narrow = parameters.replace(graph, {"tags.weight": its.rows(graph.tags.weight, rows)})
    variables = input_variables(its, CONFIG)
    function = its.function(
        [variables.tag_index, variables.features, variables.dense, rows], narrow(variables), mode="fast_compile"
    )
    renumbered = np.array([[1, 3, 0], [0, 2, 2], [0, 0, 0]], np.int32)
    found = function(renumbered, inputs.features, inputs.dense, np.array([0, 1, 2, 5], np.int32))
    np.testing.assert_allclose(found[2], network[-1](inputs), rtol=1e-6, atol=1e-6)
