"""Tables in, tables out: DataFrames, Arrow batches and tables, and what scikit-learn's users look for."""

import numpy as np
import pandas
import pyarrow as pa
import pytest
from small_model import TAXONOMY, make_model

from pipeline.config import Settings
from pipeline.config_results import ScoringSettings
from pipeline.ensemble import Ensemble
from pipeline.errors import ModelError
from pipeline.features import FeatureTransform
from pipeline.model import Model
from pipeline.network import FeedbackNetwork, Inputs

MODEL = make_model()
ROWS = [["Zombies", "farmhouse "], [], ["war", "never heard of it"]]
SCORES = ["genre", "genre_probability", "theme", "theme_probability", "path", "path_probability", "best_paths"]


def ensemble():
    others = [FeedbackNetwork.initialise(MODEL.network.config, np.random.default_rng(seed)) for seed in (1, 2)]
    network = Ensemble((MODEL.network, *others))
    return Model(network, MODEL.transform, TAXONOMY, MODEL.calibration, MODEL.clean)


def test_a_frame_gives_a_frame_with_its_own_index():
    frame = pandas.DataFrame({"tags": ROWS, "price": [1, "two", None]}, index=["a", "b", "c"])
    scores = MODEL.predict(frame)
    assert list(scores.index) == ["a", "b", "c"]
    assert list(scores.columns)[:7] == SCORES
    for (_, row), prediction in zip(scores.iterrows(), MODEL.predict(ROWS), strict=True):
        assert tuple(row["path"]) == prediction.path
        assert row["path_probability"] == prediction.path_probability
        assert [tuple(path) for path in row["best_paths"]] == list(prediction.best_paths)
        assert (row["n_tags"], row["n_unseen_tags"]) == (prediction.n_tags, prediction.n_unseen_tags)


def test_ids_titles_and_given_labels_come_back_where_they_were_given():
    frame = pandas.DataFrame({"tags": ROWS, "item_id": ["x", "y", "z"], "genre": ["Drama", None, "Horror"]})
    scores = MODEL.predict(frame)
    assert list(scores["item_id"]) == ["x", "y", "z"]
    assert [None if path is None else list(path) for path in scores["given_path"]] == [["Drama"], None, ["Horror"]]
    assert "title" not in scores
    assert not {"item_id", "title", "given_path"} & set(MODEL.predict(frame[["tags"]]).columns)


def test_missing_lists_of_tags_are_no_tags():
    frame = pandas.DataFrame({"tags": [np.nan, None, [], np.array(["war"])]})
    assert list(MODEL.predict(frame)["n_tags"]) == [0, 0, 0, 1]


def test_nulls_among_tags_are_none():
    assert MODEL.predict(pa.table({"tags": [["war", None, " "]]}))["n_tags"].to_pylist() == [1]


def test_half_a_surrogate_pair_in_a_tag_is_refused():
    with pytest.raises(ModelError, match="is not text"):
        MODEL.predict([["war", "\ud800"]])


@pytest.mark.parametrize("tags", [pa.list_(pa.string()), pa.large_list(pa.large_string())])
def test_arrow_gives_arrow(tags):
    table = pa.table({"tags": pa.array(ROWS, tags), "item_id": [7, 8, 9]})
    scores = MODEL.predict(table, n_best=2)
    assert isinstance(scores, pa.Table)
    assert scores["item_id"].to_pylist() == [7, 8, 9]
    assert [tuple(path) for path in scores["path"].to_pylist()] == [found.path for found in MODEL.predict(ROWS)]
    batch = MODEL.predict(table.to_batches()[0], n_best=2)
    assert isinstance(batch, pa.RecordBatch)
    assert pa.Table.from_batches([batch]).equals(scores)


def test_a_table_in_chunks_and_one_without_rows_are_fine():
    table = pa.table({"tags": pa.array(ROWS)})
    chunked = pa.concat_tables([table, table.slice(1)])
    assert MODEL.predict(chunked)["path"].to_pylist()[3:] == MODEL.predict(table)["path"].to_pylist()[1:]
    assert MODEL.predict(table.slice(0, 0)).num_rows == 0
    assert len(MODEL.predict(pandas.DataFrame({"tags": []}))) == 0


def test_many_rows_go_by_in_larger_passes_with_the_same_paths():
    frame = pandas.DataFrame({"tags": ROWS * 100})
    many, few = MODEL.predict(frame), MODEL.predict(frame[:3])
    assert [list(path) for path in many["path"][-3:]] == [list(path) for path in few["path"]]
    assert many["path_probability"][-3:].to_numpy() == pytest.approx(few["path_probability"].to_numpy(), rel=1e-5)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"tag": ROWS}, r"column 'tags' is missing, which the model reads; the columns are \['tag'\]"),
        ({"tags": ["zombies;war", "war", ""]}, r"column 'tags' is (large_)?string, .* frame\[\"tags\"\].str.split"),
        ({"tags": [["war"], 5, None]}, "the DataFrame cannot be read"),
    ],
)
def test_a_frame_that_does_not_fit_is_told(columns, message):
    with pytest.raises(ModelError, match=message):
        MODEL.predict(pandas.DataFrame(columns))


@pytest.mark.parametrize("data", ["zombies", ["zombies", "war"], 5, None, {"tags": ROWS}])
def test_what_is_neither_rows_nor_a_table_is_refused(data):
    with pytest.raises(ModelError, match="rows of tags are expected"):
        MODEL.predict(data)


def test_a_column_that_the_model_reads_is_taken_by_its_name_in_the_catalog():
    settings = Settings(
        catalog={"text": ["plot"], "categories": ["country"], "numbers": ["year"], "vectors": ["place"]},
        features={"hash_width": 64, "blocks": ("tags", "text_words", "categories")},
    )
    rows = pa.table(
        {
            "tags": pa.array([["war"], ["ghost"]]),
            "text.plot": ["a long war", "a ghost walks"],
            "category.country": ["it", "fr"],
            "dense.year": [1950.0, 2020.0],
            "dense.place": pa.array([[0.5, 1.0], [0.0, 0.25]], pa.list_(pa.float32())),
        }
    )
    model = with_transform(FeatureTransform.fit(rows, settings))
    columns = {"tags": [["war"]], "plot": ["a ghost walks"], "country": ["it"], "year": [1985], "place": [[0.5, 0.25]]}
    given = {"text.plot": ["a ghost walks"], "category.country": ["it"], "dense.year": [1985.0]}
    given |= {"dense.place": pa.array([[0.5, 0.25]], pa.list_(pa.float32()))}
    items = pa.RecordBatch.from_pydict({"item_id": [0], "tags": [["war"]], **given})
    expected = model.score_batch(items, clean=True, scoring=ScoringSettings(batch_size=64))
    for year in ([1985], [1985.0], [" 1985"]):
        scores = model.predict(pandas.DataFrame(columns | {"year": year}))
        assert list(scores["path_probability"]) == expected["path_probability"].to_pylist()
    with pytest.raises(ModelError, match="column 'year' is missing"):
        model.predict(pandas.DataFrame(columns).drop(columns="year"))


def with_transform(transform):
    small = MODEL.network.config
    sizes = {"n_vocabulary": transform.n_vocabulary, "n_features": transform.n_features, "n_dense": transform.n_dense}
    config = type(small)(**sizes, hidden=8, n_classes=small.n_classes)
    network = FeedbackNetwork.initialise(config, np.random.default_rng(0))
    return Model(network, transform, TAXONOMY, MODEL.calibration, MODEL.clean)


# --- probabilities of all classes, and inner representations


@pytest.mark.parametrize("model", [MODEL, ensemble()], ids=["one network", "ensemble"])
def test_probabilities_of_all_classes_agree_with_each_other_and_with_predict(model):
    genre, theme = model.predict_proba(ROWS)
    assert (genre.shape, theme.shape, genre.dtype) == ((3, 3), (3, 6), np.float32)
    assert genre.sum(axis=1) == pytest.approx(1)
    for parent in range(3):
        children = TAXONOMY.parents[1] == parent
        assert theme[:, children].sum(axis=1) == pytest.approx(genre[:, parent], abs=1e-6)
    for row, prediction in enumerate(model.predict(ROWS)):
        best = model.classes_[1][theme[row].argmax()]
        assert tuple(name for name in best if name != "-") == prediction.path
        assert theme[row].max() == pytest.approx(prediction.path_probability)


def test_classes_are_full_paths_in_the_order_of_the_probabilities():
    genre, theme = MODEL.classes_
    assert list(genre) == [("Comedy",), ("Drama",), ("Horror",)]
    assert list(theme[[0, 1, 3]]) == [("Comedy", "-"), ("Drama", "-"), ("Drama", "Zombies")]


def test_a_layer_by_name_is_what_the_network_computes():
    clean = pa.RecordBatch.from_pydict({"tags": [["farmhouse", "zombies"]], "tag_counts": [[1, 1]]})
    found = MODEL.transform.transform(clean)
    expected = MODEL.network["hidden"](Inputs(found.tag_index, found.features))
    hidden = MODEL.embed(pandas.DataFrame({"tags": ROWS}))
    assert hidden.shape == (3, 8)
    assert hidden[0] == pytest.approx(expected[0], abs=1e-6)
    assert MODEL.embed(ROWS, layer="state_2").shape == (3, 8)
    assert ensemble().embed(ROWS, layer="state_2").shape == (3, 24)
    assert MODEL.embed([]).shape == (0, 8)


def test_a_layer_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(ModelError, match=r"layer 'hiden' is not one of tags, features, hidden"):
        MODEL.embed(ROWS, layer="hiden")
