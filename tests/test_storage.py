"""float16 in the model file: half the bytes, the same predictions up to rounding, its cost told."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from scipy import sparse
from small_model import TAXONOMY, make_model
from test_export import SETTINGS, make_stages, run_export

from pipeline import parameters
from pipeline.calibration import Calibration
from pipeline.config import make_settings
from pipeline.ensemble import Ensemble
from pipeline.errors import ModelError
from pipeline.examples import Examples
from pipeline.model import load_model
from pipeline.storage import as_stored, cost

HALF = make_settings({**SETTINGS.model_dump(), "export": {"storage": "float16"}})
ROWS = [["zombies", "ghost"], [], ["war"], ["satire", "laughs"]]


def test_what_comes_back_is_the_nearest_float16():
    rounded = parameters.flatten(as_stored(make_model().network, "float16"))
    for name, value in parameters.flatten(make_model().network).items():
        assert rounded[name].dtype == np.float32
        # 11 binary digits: an error of half of 2**-10 of the value at most; below 2**-14 the steps are equal.
        assert (np.abs(rounded[name] - value) <= np.maximum(np.abs(value) * 2**-11, 2**-25)).all()


def test_float32_is_left_alone():
    network = make_model().network
    assert as_stored(network, "float32") is network


def test_every_member_of_an_ensemble_is_rounded():
    members = (make_model().network, make_model(seed=8).network)
    rounded = as_stored(Ensemble(members), "float16").members
    for one, member in zip(rounded, members, strict=True):
        expected = parameters.flatten(as_stored(member, "float16"))
        assert all(np.array_equal(value, expected[name]) for name, value in parameters.flatten(one).items())


def test_a_weight_that_float16_cannot_hold_is_refused():
    network = make_model().network
    large = parameters.replace(network, {"hidden.bias": np.full(8, 1e5, np.float32)})
    with pytest.raises(ModelError, match=r"'hidden\.bias' goes up to 1e\+05, float16 to 65,504; set \[export\]"):
        as_stored(large, "float16")


def test_a_file_in_float16_predicts_what_the_rounded_network_does_and_is_smaller(tmp_path):
    model = make_model()
    half = replace(model, network=as_stored(model.network, "float16"), storage="float16")
    half.save(tmp_path / "half.h5")
    model.save(tmp_path / "whole.h5")
    loaded = load_model(tmp_path / "half.h5")
    assert loaded.storage == "float16"
    assert loaded.predict(ROWS) == half.predict(ROWS)
    for one, other in zip(loaded.predict(ROWS), model.predict(ROWS), strict=True):
        assert one.path_probability == pytest.approx(other.path_probability, abs=2e-3)
    with h5py.File(tmp_path / "half.h5") as file, h5py.File(tmp_path / "whole.h5") as other:
        sizes = [sum(array.id.get_storage_size() for array in f["parameters"].values()) for f in (file, other)]
    assert 2 * sizes[0] == sizes[1]


def test_saving_what_was_loaded_gives_the_same_bytes(tmp_path):
    model = make_model()
    replace(model, network=as_stored(model.network, "float16"), storage="float16").save(tmp_path / "one.h5")
    load_model(tmp_path / "one.h5").save(tmp_path / "two.h5")
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_export_stores_float16_on_request_and_says_what_it_costs(tmp_path):
    make_stages(tmp_path)
    whole, half = run_export(tmp_path, "whole"), run_export(tmp_path, "half", HALF)
    assert load_model(half / "model.h5").storage == "float16"
    told = json.loads((half / "evaluation.json").read_text())["storage"]
    assert told["type"] == "float16"
    assert 0 < told["largest_probability_change"] < 0.01
    assert set(told["accuracy_change"]["levels"]) == {"genre", "theme"}
    assert "storage" not in json.loads((whole / "evaluation.json").read_text())


class Heads:
    """A network that gives the logits of the item whose number is its tag."""

    def __init__(self, *levels):
        self.levels = [np.log(np.array(level)) for level in levels]

    def logits(self, inputs):
        return [level[inputs.tag_index[:, 0]] for level in self.levels]


def test_the_cost_by_hand():
    taxonomy = type(TAXONOMY).of(("genre", "theme"), [("Drama", "War"), ("Drama", "Love"), ("Horror", "Zombies")])
    # Themes: Love, War, Zombies. Each row is a distribution over legal paths, as the genre says nothing.
    even = [[0.5, 0.5]] * 3
    exact = Heads(even, [[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.2, 0.2, 0.6]])
    stored = Heads(even, [[0.6, 0.3, 0.1], [0.4, 0.5, 0.1], [0.45, 0.1, 0.45]])
    tags = np.arange(3, dtype=np.int32)[:, None]
    # Item 0: Love, right before and after. Item 1: War, right only after. Item 2: Horror, its theme unknown; after
    # rounding Love comes first of equals, and its genre is wrong.
    labels = np.array([[0, 0], [0, 1], [1, -1]], np.int32)
    items = Examples.of(tags, labels, features=sparse.csr_matrix((3, 0), dtype=np.float32), dense=np.zeros((3, 0)))
    found = cost(exact, stored, items, taxonomy, Calibration.none(2))
    assert found["accuracy_change"] == {
        "levels": {"genre": pytest.approx(-1 / 3), "theme": pytest.approx(1 / 2)},
        "path": pytest.approx(1 / 2),
    }
    # The largest change is that of Love of item 2, from .2 to .45.
    assert found["largest_probability_change"] == pytest.approx(0.25)


def test_without_items_nothing_is_known():
    nothing = Examples.of(
        np.zeros((0, 1), np.int32),
        np.zeros((0, 2), np.int32),
        features=sparse.csr_matrix((0, 0), dtype=np.float32),
        dense=np.zeros((0, 0)),
    )
    network = make_model().network
    found = cost(network, network, nothing, TAXONOMY, Calibration.none(2))
    assert found == {
        "accuracy_change": {"levels": {"genre": None, "theme": None}, "path": None},
        "largest_probability_change": 0,
    }
