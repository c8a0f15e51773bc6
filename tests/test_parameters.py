import numpy as np
import pytest

from pipeline import parameters
from pipeline.errors import ModelError
from pipeline.layers import Dense, GRUCell, Softmax
from pipeline.network import FeedbackNetwork, NetworkConfig

CONFIG = NetworkConfig(n_vocabulary=4, n_features=3, n_dense=0, hidden=2, n_classes=(2, 2))


def network(seed=1):
    return FeedbackNetwork.initialise(CONFIG, np.random.default_rng(seed))


def test_names_follow_the_fields():
    assert list(parameters.flatten(network())) == [
        *("tags.weight", "features.weight"),
        *("hidden.bias", "hidden.norm.gain", "hidden.norm.bias"),
        *("cell.weight", "cell.bias", "cell.recurrent", "cell.recurrent_candidate"),
        *("cell.norm.gain", "cell.norm.bias"),
        *("heads.0.weight", "heads.0.bias", "heads.1.weight", "heads.1.bias"),
    ]


def test_configuration_is_no_parameter():
    cell = GRUCell.initialise(2, 3, rng=np.random.default_rng(0))
    assert parameters.map_parameters(cell, lambda _, value: value * 0).n_state == 3
    assert parameters.flatten(Softmax()) == {}


def test_replacing_changes_the_named_parameter_only():
    before = network()
    after = parameters.replace(before, {"heads.1.bias": np.array([5.0, 6.0])})
    np.testing.assert_array_equal(after.heads[1].bias, [5, 6])
    assert after.heads[1].weight is before.heads[1].weight
    np.testing.assert_array_equal(before.heads[1].bias, [0, 0])


def test_a_name_that_is_not_there_is_an_error():
    with pytest.raises(ModelError, match=r"parameter 'heads.2.bias' is not one of tags.weight, "):
        parameters.replace(network(), {"heads.2.bias": np.zeros(2)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given: given.pop("cell.bias"), "parameter 'cell.bias' is missing"),
        (lambda given: given.update(extra=np.zeros(1)), "parameter 'extra' belongs to another network"),
        (
            lambda given: given.update({"tags.weight": np.zeros((5, 2))}),
            r"parameter 'tags.weight' has shape \(5, 2\), the network needs \(4, 2\)",
        ),
    ],
)
def test_parameters_of_another_network_are_refused(change, message):
    given = parameters.flatten(network())
    change(given)
    with pytest.raises(ModelError, match=message):
        FeedbackNetwork.load(CONFIG, given)


def test_parameters_come_back_from_a_file_bit_for_bit(tmp_path):
    parameters.save(tmp_path / "first.h5", network())
    parameters.save(tmp_path / "second.h5", network())
    loaded = parameters.load(tmp_path / "first.h5")
    for name, value in parameters.flatten(network()).items():
        assert loaded[name].dtype == np.float32
        np.testing.assert_array_equal(loaded[name], value)
    assert (tmp_path / "first.h5").read_bytes() == (tmp_path / "second.h5").read_bytes()


def test_every_value_counts():
    # Tags 4 x 2, features 3 x 2, hidden 3 x 2, cell 2 x 6 + 6 + 2 x 4 + 2 x 2 + 2 x 2, two heads of 2 x 2 + 2.
    assert parameters.count(network()) == 8 + 6 + 6 + 34 + 12


def test_cast_changes_the_dtype_and_keeps_the_values():
    layer = Dense(np.ones((1, 1), np.float32), np.zeros(1, np.float32))
    assert {value.dtype for value in parameters.flatten(parameters.cast(layer, "float64")).values()} == {
        np.dtype(np.float64)
    }
