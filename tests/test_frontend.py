"""A model in one call; the stages themselves are tested elsewhere."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline import Settings, examples_of, fit, load_model, parameters, train_model
from pipeline.errors import CatalogError, ModelError, SettingsError
from pipeline.frontend import settings_of
from pipeline.progress import Progress

ROWS = [["Zombies", "mall"], ["laughs", "new york"], ["trenches", "mud"]] * 12
PATHS = [("Horror", "Zombies"), ("Comedy", "-"), ("Drama",)] * 12
LEVELS = ("genre", "theme")


def quick(**training):
    return Settings(
        features={"hash_width": 64},
        network={"hidden": 8},
        training={"compile_mode": "fast_compile", "epochs": 4, "learning_rate": 0.03, "dropout": 0, **training},
    )


@pytest.fixture(scope="module")
def model():
    return train_model(ROWS, PATHS, levels=LEVELS, settings=quick())


def test_rows_and_paths_become_a_model(model):
    horror, comedy, drama = model.predict([["zombies"], ["LAUGHS"], ["mud"]])
    assert horror.path == ("Horror", "Zombies")
    assert comedy.path == ("Comedy",)
    assert drama.path[0] == "Drama"
    assert model.taxonomy.levels == LEVELS
    assert model.network.config.hidden == 8


def test_a_data_frame_is_the_same_catalog(model):
    frame = pd.DataFrame({"tags": ROWS, "genre": [p[0] for p in PATHS], "theme": [(*p, None)[1] for p in PATHS]})
    settings = Settings(**quick().model_dump(exclude={"catalog"}), catalog={"levels": LEVELS})
    for table in (frame, pa.Table.from_pandas(frame)):
        other = train_model(table, settings=settings)
        for name, value in parameters.flatten(other.network).items():
            np.testing.assert_array_equal(value, parameters.flatten(model.network)[name], err_msg=name)


def test_a_frame_may_have_ids_titles_and_delimited_tags():
    frame = pd.DataFrame(
        {
            "movie": [f"m{number}" for number in range(36)],
            "tags": ["|".join(row) for row in ROWS],
            "genre": [path[0] for path in PATHS],
        }
    )
    catalog = {"levels": ("genre",), "item_id": "movie", "tag_separators": "|"}
    settings = Settings(**quick(epochs=2).model_dump(exclude={"catalog"}), catalog=catalog)
    assert "new york" in train_model(frame, settings=settings).transform.vocabulary.terms.to_pylist()


def test_a_model_is_saved_and_loaded_and_predicts_the_same(model, tmp_path):
    model.save(tmp_path / "model.h5")
    assert load_model(tmp_path / "model.h5").predict([["zombies", "unheard of"]]) == model.predict(
        [["zombies", "unheard of"]]
    )


def test_a_saved_model_trains_on_with_other_tags_and_classes(model, tmp_path):
    model.save(tmp_path / "model.h5")
    rows, paths = [*ROWS, *[["robot", "laughs"]] * 12], [*PATHS, *[("Science fiction",)] * 12]
    earlier = load_model(tmp_path / "model.h5")
    settings = settings_of(earlier).model_copy(update={"training": quick(epochs=20).training})
    on = train_model(rows, paths, settings=settings, start=earlier)
    assert on.predict([["robot"]])[0].path[0] == "Science fiction"
    assert on.predict([["zombies"]])[0].path == ("Horror", "Zombies")
    assert on.network.config.hidden == 8


def test_the_settings_of_a_model_are_those_it_was_made_with(model):
    made = settings_of(model)
    assert (made.catalog.levels, made.network, made.features) == (LEVELS, quick().network, quick().features)


def test_every_layer_is_a_function_of_raw_tags(model):
    inputs = model.inputs([["Zombies!"], ["zombies"], ["unheard of"]])
    hidden = model.network["hidden"](inputs)
    assert hidden.shape == (3, 8)
    np.testing.assert_array_equal(hidden[0], hidden[1])
    assert np.exp(model.network[-1](inputs)).sum(axis=1) == pytest.approx(1)
    with pytest.raises(ModelError, match="'zombies': rows of tags are expected"):
        model.inputs("zombies")


def test_the_network_of_a_model_is_trained_on_by_fit(model):
    examples = examples_of(model, ROWS, PATHS)
    np.testing.assert_array_equal(examples.labels[:3], [[2, 2], [0, 0], [1, -1]])
    result = fit(model.network, examples, settings=quick(label_smoothing=0).training)
    assert result.history[-1].loss < result.history[0].loss
    better = replace(model, network=result.network)
    assert better.predict([["zombies"]])[0].path == ("Horror", "Zombies")
    with pytest.raises(
        CatalogError, match=r"paths\[0\] = \['Western'\]: level-1 label \(genre\) is not in the taxonomy"
    ):
        examples_of(model, [["a"]], [("Western",)])


def test_an_ensemble_is_trained_too(model):
    both = train_model(ROWS, PATHS, levels=LEVELS, settings=quick(members=2))
    assert len(both.network.members) == 2
    np.testing.assert_array_equal(both.network.members[0].cell.weight, model.network.cell.weight)
    assert both.predict([["zombies"]])[0].path == ("Horror", "Zombies")


def test_what_was_not_taken_is_told():
    class Notes(Progress):
        notes = ()

        def note(self, text):
            self.notes += (text,)

    notes = Notes()
    paths = [(None, "Zombies"), *PATHS[1:]]
    settings = quick(epochs=1)
    train_model(ROWS, paths, levels=LEVELS, settings=settings, progress=notes)
    assert "1 rejected, item: level-2 label (theme) without a level-1 label" in notes.notes


def test_a_loss_and_gradients_of_ones_own_reach_the_training(model):
    def level_one(log_probabilities, labels):
        from pipeline import ops

        return -ops.of(labels).mean(ops.of(labels).pick(log_probabilities[0], labels[:, 0]))

    def still(gradients):
        return {name: gradient * 0 for name, gradient in gradients.items() if name.startswith("tags")}

    other = train_model(ROWS, PATHS, levels=LEVELS, settings=quick(epochs=1), loss=level_one, change_gradients=still)
    heads = parameters.flatten(other.network)
    first = parameters.flatten(train_model(ROWS, PATHS, levels=LEVELS, settings=quick(epochs=1)).network)
    assert (heads["heads.1.bias"] == 0).all()  # the loss knows nothing of the second level
    assert (first["heads.1.bias"] != 0).any()


def test_what_cannot_be_a_catalog_is_refused_with_the_place():
    with pytest.raises(CatalogError, match="2 rows of tags and 1 paths: each row needs one, or None"):
        train_model([["a"], ["b"]], [("X",)])
    with pytest.raises(CatalogError, match=r"rows\[1\] is the string 'b'; a list of strings is needed"):
        train_model([["a"], "b"], [("X",), ("Y",)])
    with pytest.raises(CatalogError, match=r"paths\[0\] = \['X', 'Y'\] has 2 labels for 1 levels \(genre\)"):
        train_model([["a"]], [("X", "Y")], levels=("genre",))
    with pytest.raises(CatalogError, match="paths are missing"):
        train_model([["a"]])
    with pytest.raises(SettingsError, match="levels: 'item_id' is a column of the results"):
        train_model([["a"]], [("X",)], levels=("item_id",))


def test_one_class_only_is_an_error():
    with pytest.raises(CatalogError):
        train_model([["a"]] * 9, [("X",)] * 9, levels=("genre",), settings=quick())


def test_scoring_loads_neither_an_engine_nor_duckdb():
    code = (
        "import sys; from pipeline import FeedbackNetwork, Inputs, load_model; "
        "print([name for name in ('theano', 'pytensor', 'duckdb', 'pandas', 'luigi') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
