"""An ensemble: the mean by hand, the layers of its members, and its model file, whole and crafted."""

import dataclasses

import numpy as np
import pytest
from small_model import TAXONOMY, make_items, make_model
from test_model import craft, with_json

from pipeline import parameters
from pipeline.ensemble import Ensemble, members_of, together
from pipeline.errors import ModelError
from pipeline.model import load_model
from pipeline.network import FeedbackNetwork, Inputs


def make_ensemble(n_members=3):
    """Return a model of networks of one configuration, with weights of their own."""
    model = make_model()
    networks = [FeedbackNetwork.initialise(model.network.config, np.random.default_rng(k)) for k in range(n_members)]
    return dataclasses.replace(model, network=together(networks))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("ensemble") / "model.h5"
    make_ensemble().save(path)
    return path


@pytest.fixture(scope="module")
def inputs():
    features = make_model().transform.transform(make_items(9))
    return Inputs(features.tag_index, features.features)


@dataclasses.dataclass(frozen=True)
class Fixed:
    """A network that gives the same logits to every item."""

    values: tuple[float, ...]
    config: str = "the same"

    def logits(self, inputs):
        return (np.array([self.values]),)


def test_logits_are_averaged_which_is_the_geometric_mean_of_probabilities():
    # sqrt(.9 * .5) = .6708 and sqrt(.1 * .5) = .2236: three to one.
    sure, unsure = Fixed((np.log(0.9), np.log(0.1))), Fixed((np.log(0.5), np.log(0.5)))
    np.testing.assert_allclose(np.exp(Ensemble((sure, unsure))(None)[0]), [[0.75, 0.25]])


def test_every_level_is_the_mean_of_the_members(inputs):
    ensemble = make_ensemble().network
    for level, found in enumerate(ensemble(inputs)):
        logits = np.mean([member.logits(inputs)[level] for member in ensemble.members], axis=0)
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(np.diff(found), np.diff(logits), atol=1e-5)
        assert np.array_equal(ensemble[f"level_{level + 1}"](inputs), found)
        assert np.array_equal(ensemble[f"logits_{level + 1}"](inputs), logits)
    assert np.array_equal(ensemble[-1](inputs), ensemble(inputs)[-1])


def test_an_inner_layer_has_the_members_side_by_side(inputs):
    ensemble = make_ensemble().network
    hidden = ensemble["hidden"](inputs)
    assert hidden.shape == (9, 3 * 8)
    assert np.array_equal(hidden[:, 8:16], ensemble.members[1]["hidden"](inputs))
    with pytest.raises(ModelError, match="'cellar' is not one of the layers tags"):
        ensemble["cellar"]
    with pytest.raises(ModelError, match="layer 99 is outside"):
        ensemble[99]


def test_one_network_is_no_ensemble():
    network = make_model().network
    assert together([network]) is network
    assert members_of(network) == (network,)


def test_members_of_different_sizes_are_refused():
    network = make_model().network
    other = FeedbackNetwork.initialise(dataclasses.replace(network.config, hidden=9), None)
    with pytest.raises(ModelError, match=r"member 2 of the ensemble is NetworkConfig\(.*hidden=9"):
        Ensemble((network, other))
    with pytest.raises(ModelError, match="needs a member"):
        Ensemble(())


def test_what_is_saved_comes_back_and_scores_the_same(saved):
    model, loaded = make_ensemble(), load_model(saved)
    assert len(loaded.network.members) == 3
    for ours, theirs in zip(members_of(loaded.network), members_of(model.network), strict=True):
        expected = parameters.flatten(theirs)
        assert all(np.array_equal(value, expected[name]) for name, value in parameters.flatten(ours).items())
    items = make_items(20)
    assert loaded.score_batch(items, clean=False).equals(model.score_batch(items, clean=False))
    assert loaded.predict([["zombies"]])[0].path[0] in {path[0] for path in TAXONOMY.classes[0]}


@pytest.mark.parametrize("members", [0, -1, 10**12, 3.0, True, "3", None, [3]])
def test_a_file_that_says_an_impossible_number_of_members_is_refused(saved, tmp_path, members):
    path = craft(saved, tmp_path / "model.h5", with_json("members", lambda _: members))
    with pytest.raises(ModelError, match=r"'members' is .* no number of networks"):
        load_model(path)


def test_a_file_with_fewer_members_than_it_says_is_refused(saved, tmp_path):
    path = craft(saved, tmp_path / "model.h5", with_json("members", lambda _: 4))
    with pytest.raises(ModelError, match="parameters_4 is not a group"):
        load_model(path)


def test_a_member_of_another_shape_is_refused(saved, tmp_path):
    def shrink(file):
        del file["parameters_2/tags.weight"]
        file["parameters_2"].create_dataset("tags.weight", data=np.zeros((2, 8), np.float32))

    with pytest.raises(ModelError, match=r"parameters_2/tags\.weight is float32 \(2, 8\)"):
        load_model(craft(saved, tmp_path / "model.h5", shrink))
