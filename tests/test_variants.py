"""Every network that [network] can ask for: computed alike by all engines, trained, loaded; refused if impossible."""

import dataclasses
import json

import numpy as np
import pytest
from graphs import every_engine, gradient_errors
from test_fitting import CONFIG as LEARNABLE
from test_fitting import make_examples, quick
from test_network import CONFIG, TAGS, make_inputs, make_network

from pipeline import parameters
from pipeline.config_learning import NetworkSettings
from pipeline.errors import ModelError
from pipeline.fitting import fit
from pipeline.graph import log_probabilities
from pipeline.network import FeedbackNetwork, Inputs, NetworkConfig, expert_shares
from pipeline.ops import symbolic

PARENTS = ((0, 1, 1), (0, 0, 1, 2))  # of the 3 classes of level 2, of the 4 of level 3
MASK = {"parent_mask": True, "parents": PARENTS}
EVERYTHING = {"norm": "batch", "wide": True, "label_feedback": True, "experts": 3, **MASK}
VARIANTS = {
    "batch norm": {"norm": "batch"},
    "no norm": {"norm": "none"},
    "single shot": {"kind": "single_shot"},
    "wide": {"wide": True},
    "label feedback": {"label_feedback": True},
    "parent mask": MASK,
    "experts above hidden": {"experts": 4, "top_k": 2},
    "experts at the outputs": {"experts": 4, "top_k": 2, "experts_at": "outputs"},
    "everything, experts above hidden": EVERYTHING,
    "everything, experts at the outputs": {**EVERYTHING, "experts_at": "outputs"},
    "everything, single shot": {**EVERYTHING, "kind": "single_shot", "label_feedback": False, "top_k": 1},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def variant_network(variant, config=CONFIG):
    """Return the variant with every parameter drawn; running variances are positive."""
    network = make_network(dataclasses.replace(config, **VARIANTS[variant]))
    positive = {
        name: abs(value) + 0.5 for name, value in parameters.flatten(network).items() if name.endswith(".variance")
    }
    return parameters.replace(network, positive)


@dataclasses.dataclass(frozen=True)
class Flat:
    """A network as a function of its arrays, as the gradient check wants it."""

    network: FeedbackNetwork
    training: bool = False

    def __call__(self, tag_index, features, dense):
        return self.network(Inputs(tag_index, features, dense, training=self.training))


@every_engine
@every_variant
def test_numpy_and_engine_agree(engine, variant):
    for dtype, tolerance in (("float64", 1e-12), ("float32", 2e-6)):
        network, inputs = parameters.cast(variant_network(variant), dtype), make_inputs(dtype)
        its = symbolic.engine(engine)
        graph = parameters.map_parameters(network, lambda name, value, its=its: its.shared(value, name))
        variables = Inputs(
            its.variable("tags", dtype="int32", ndim=2),
            its.sparse_variable("features", dtype=dtype),
            its.variable("dense", dtype=dtype, ndim=2),
        )
        given = [variables.tag_index, variables.features, variables.dense]
        function = its.function(given, graph(variables), mode="fast_compile")
        pairs = zip(function(inputs.tag_index, inputs.features, inputs.dense), network(inputs), strict=True)
        for found, expected in pairs:
            assert found.dtype == expected.dtype == dtype
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-5)


@pytest.mark.slow
@every_engine
@every_variant
def test_numpy_and_the_compiled_engine_agree(engine, variant):
    network, inputs = variant_network(variant), make_inputs()
    found = log_probabilities(symbolic.engine(engine), network, inputs, mode="fast_run")
    for ours, theirs in zip(network(inputs), found, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=2e-6, atol=2e-6)


@every_engine
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name.startswith("everything")])
def test_gradients_are_those_of_finite_differences(engine, variant, training):
    inputs = make_inputs("float64")
    network = variant_network(variant)
    errors = gradient_errors(engine, Flat(network, training), TAGS, inputs.features, inputs.dense)
    if training:  # The mean of the batch takes away what a bias adds: its gradient is zero, its differences rounding.
        errors = {name: error for name, error in errors.items() if not name.endswith(("dense.bias", "hidden.bias"))}
    assert max(errors.values()) < 1e-6, errors


@every_variant
def test_every_layer_is_had_by_index_and_by_name(variant):
    network, inputs = variant_network(variant), make_inputs()
    assert len(set(network.names)) == len(network.names)
    for place, name in enumerate(network.names):
        np.testing.assert_array_equal(network[place](inputs), network[name](inputs))
        assert len(network[name](inputs)) == 3
    np.testing.assert_array_equal(network[-1](inputs), network(inputs)[2])


@every_variant
def test_a_network_comes_back_from_its_parameters_and_its_json(variant):
    network = variant_network(variant)
    config = NetworkConfig.from_json(json.loads(json.dumps(network.config.to_json())))
    assert config == network.config
    loaded = FeedbackNetwork.load(config, parameters.flatten(network))
    np.testing.assert_array_equal(loaded[-1](make_inputs()), network[-1](make_inputs()))


@every_variant
def test_a_blank_network_takes_no_memory(variant):
    config = dataclasses.replace(CONFIG, **VARIANTS[variant], n_vocabulary=10**9, n_features=10**9, hidden=60_000)
    for value in parameters.flatten(FeedbackNetwork.initialise(config, None)).values():
        assert set(value.strides) == {0}


@every_engine
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name.startswith("everything")])
def test_what_has_every_part_learns_and_the_engine_agrees_afterwards(engine, variant):
    changes = {**VARIANTS[variant], "parents": ((0, 0, 1, 1, 2, 2),) if "parents" in VARIANTS[variant] else ()}
    network = FeedbackNetwork.initialise(dataclasses.replace(LEARNABLE, **changes), np.random.default_rng(3))
    result = fit(network, make_examples(), make_examples(seed=2), quick(engine=engine, epochs=20, weight_decay=0.01))
    assert result.history[-1].validation.path_accuracy > 0.8  # chance is 0.17
    assert result.network.tags.weight[0].tobytes() == bytes(32)
    inputs = make_examples(seed=5).inputs
    found = log_probabilities(symbolic.engine(engine), result.network, inputs, mode="fast_compile")
    for ours, theirs in zip(result.network(inputs), found, strict=True):
        np.testing.assert_allclose(np.exp(ours), np.exp(theirs), rtol=0, atol=1e-5)


def test_without_settings_the_network_is_the_plain_one():
    config = NetworkConfig.of(NetworkSettings(hidden=4), CONFIG, [[], *PARENTS])
    assert config == CONFIG
    names = list(parameters.flatten(FeedbackNetwork.initialise(config, np.random.default_rng(1))))
    assert {name.partition(".")[0] for name in names} == {"tags", "features", "dense", "hidden", "cell", "heads"}


def test_settings_reach_the_configuration():
    settings = NetworkSettings(
        hidden=9,
        kind="feedback",
        norm="batch",
        wide=True,
        label_feedback=True,
        parent_mask=True,
        experts=5,
        top_k=3,
        experts_at="outputs",
    )
    config = NetworkConfig.of(settings, CONFIG, [np.array([]), *map(np.array, PARENTS)])
    assert {name: getattr(config, name) for name in type(settings).model_fields} == settings.model_dump()
    assert (config.n_vocabulary, config.n_classes, config.parents) == (6, (2, 3, 4), PARENTS)


def test_the_parent_mask_adds_the_log_probability_of_the_parent():
    network, inputs = variant_network("parent mask"), make_inputs()
    first, second = network["level_1"](inputs), network["head_2"](inputs)
    np.testing.assert_array_equal(network["logits_2"](inputs), second + first[:, [0, 1, 1]])


def test_the_wide_path_goes_straight_to_the_logits():
    network, inputs = variant_network("wide"), make_inputs()
    straight = inputs.features.toarray() @ network.wide.weight
    for level, (start, stop) in enumerate([(0, 2), (2, 5), (5, 9)], start=1):
        total = network[f"head_{level}"](inputs) + straight[:, start:stop]
        np.testing.assert_allclose(network[f"logits_{level}"](inputs), total, rtol=1e-5, atol=1e-6)
    assert network.tables == {"tags.weight": "rows", "features.weight": "columns", "wide.weight": "columns"}


def test_the_expected_embedding_of_a_label_is_added_to_the_next_input():
    network, inputs = variant_network("label feedback"), make_inputs()
    probabilities = np.exp(network["level_2"](inputs))
    expected = [
        network["hidden"](inputs)[row]
        + sum(probabilities[row, label] * network.labels[1].weight[label] for label in range(3))
        for row in range(3)
    ]
    np.testing.assert_allclose(network["input_3"](inputs), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(
        network["state_3"](inputs), network.cell(network["input_3"](inputs), network["state_2"](inputs))
    )


def test_a_single_shot_network_reads_every_level_from_the_hidden_layer():
    network, inputs = variant_network("single shot"), make_inputs()
    assert not any("cell" in name for name in parameters.flatten(network))
    for level, head in enumerate(network.heads, start=1):
        np.testing.assert_array_equal(network[f"logits_{level}"](inputs), head(network["hidden"](inputs)))


def test_each_experts_share_of_the_items_is_told():
    network, inputs = variant_network("experts above hidden"), make_inputs()
    shares = expert_shares(network, inputs)
    assert shares.shape == (4,)
    assert shares.sum() == pytest.approx(2)  # two experts have a say on each item
    np.testing.assert_array_equal(shares, (network["gate"](inputs) > 0).mean(axis=0))
    with pytest.raises(ModelError, match=r"no gate; set \[network\] experts"):
        expert_shares(make_network(), inputs)


IMPOSSIBLE = {
    "a vocabulary of words": ({"n_vocabulary": "many"}, "whole numbers"),
    "true as a size": ({"hidden": True}, "whole numbers"),
    "half a unit": ({"hidden": 8.5}, "whole numbers"),
    "a class that is a word": ({"n_classes": [2, "3", 4]}, "whole numbers"),
    "classes that are a number": ({"n_classes": 3}, "not the configuration"),
    "more hidden units than allowed": ({"hidden": 65_537}, "larger than"),
    "more features than int32 can tell": ({"n_features": 2**31}, "larger than"),
    "an unknown kind": ({"kind": "transformer"}, "kind = 'transformer'"),
    "a kind that is a list": ({"kind": ["feedback"]}, "kind = "),
    "an unknown norm": ({"norm": "group"}, "norm = 'group'"),
    "a switch of words": ({"wide": "yes"}, "wide = 'yes'"),
    "one expert": ({"experts": 1, "top_k": 1}, "top_k = 1 of 1 experts"),
    "more chosen than there are": ({"experts": 3, "top_k": 4}, "top_k = 4 of 3 experts"),
    "nobody chosen": ({"experts": 3, "top_k": 0}, "top_k = 0 of 3 experts"),
    "too many experts": ({"experts": 5_000}, "larger than"),
    "a wide path of nothing": ({"wide": True, "n_features": 0}, "wide path reads sparse features"),
    "feedback without steps": ({"kind": "single_shot", "label_feedback": True}, "label_feedback feeds the next step"),
    "a mask without parents": ({"parent_mask": True}, "parent of each of its classes"),
    "a parent too few": ({"parent_mask": True, "parents": [[0, 1], [0, 0, 1, 2]]}, "parent of each of its classes"),
    "a parent that is not there": (
        {"parent_mask": True, "parents": [[0, 1, 2], [0, 0, 1, 2]]},
        "parent of each of its classes",
    ),
    "a parent of words": ({"parent_mask": True, "parents": [[0, 1, "a"], [0, 0, 1, 2]]}, "parent of each"),
    "parents that are no lists": ({"parent_mask": True, "parents": [5, 6]}, "not the configuration"),
    "a field of tomorrow": ({"attention": 8}, "this file has others"),
}


@pytest.mark.parametrize(("change", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_configuration_that_cannot_be_is_refused_before_anything_is_built(change, message):
    with pytest.raises(ModelError, match=message):
        NetworkConfig.from_json({**CONFIG.to_json(), **change})


@pytest.mark.parametrize("data", [None, [], "network", 5, {}])
def test_what_is_no_configuration_at_all_is_refused(data):
    with pytest.raises(ModelError, match="this file has others"):
        NetworkConfig.from_json(data)
