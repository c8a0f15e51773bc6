"""Blocks of sparse features: hand-computed weights, and agreement with a plain loop."""

import math

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csc_matrix

from pipeline.blocks import beside, columns_of, weigh
from pipeline.config import Settings
from pipeline.config_features import FeatureSettings
from pipeline.errors import SettingsError
from pipeline.features import FeatureTransform
from pipeline.sources import FeatureColumns, sources


def fitted(rows: list[list[str]], *, texts: list[str] | None = None, **features) -> tuple[FeatureTransform, np.ndarray]:
    columns = {"tags": pa.array(rows, pa.list_(pa.string()))}
    if texts is not None:
        columns["text.plot"] = pa.array(texts, pa.string())
    settings = Settings(features=features, catalog={"text": ("plot",) if texts is not None else ()})
    transform = FeatureTransform.fit(pa.table(columns), settings)
    return transform, transform.transform(pa.table(columns)).features.toarray()


def names(transform: FeatureTransform) -> list[str]:
    return transform.feature_names(range(transform.n_features))


def test_binary_rows_have_length_one():
    transform, values = fitted([["a", "b"], ["b"], []], blocks=("tags",), weighting="binary")
    assert names(transform) == ["tag:b", "tag:a"]
    np.testing.assert_allclose(values, [[0.5**0.5, 0.5**0.5], [1, 0], [0, 0]], rtol=1e-6)


def test_tfidf_is_that_of_the_docstring():
    _, values = fitted([["a", "b"], ["b"], []], blocks=("tags",))
    idf_a, idf_b = math.log(4 / 2) + 1, math.log(4 / 3) + 1
    length = math.hypot(idf_a, idf_b)
    np.testing.assert_allclose(values, [[idf_b / length, idf_a / length], [1, 0], [0, 0]], rtol=1e-6)


def test_tfidf_takes_the_logarithm_of_counts():
    counts = csc_matrix(np.array([[3, 1]], np.float32))
    values = weigh(counts, weighting="tfidf", idf=np.array([1, 2], np.float32), weight=1.0).toarray()
    first, second = 1 + math.log(3), 2.0
    np.testing.assert_allclose(values, np.array([[first, second]]) / math.hypot(first, second), rtol=1e-6)


def test_words_of_tags_are_features_by_frequency():
    transform, values = fitted([["deep space", "space"], ["opera"]], blocks=("tag_words",), weighting="counts")
    assert names(transform) == ["word:deep", "word:opera", "word:space"]
    np.testing.assert_allclose(values, [[0.2**0.5, 0, 0.8**0.5], [0, 1, 0]], rtol=1e-6)


def test_characters_of_an_unseen_tag_meet_those_of_a_known_one():
    transform, _ = fitted([["zombies"], ["space"]], blocks=("tag_chars",), hash_width=2**16)
    other = transform.transform(pa.table({"tags": [["zombie"], ["spacey"]]})).features
    known = transform.transform(pa.table({"tags": [["zombies"], ["space"]]})).features
    likeness = (other @ known.T).toarray()
    assert likeness[0, 0] > 0.5 and likeness[1, 1] > 0.5
    assert likeness[0, 1] == likeness[1, 0] == 0


def test_a_hash_bucket_is_called_by_its_ngram():
    transform, values = fitted([["zom"]], blocks=("tag_chars",), chars_min=3, chars_max=4, hash_width=2**20)
    found = transform.feature_names(np.flatnonzero(values[0]))
    assert sorted(found) == ["chars: zo", "chars: zom", "chars:om ", "chars:zom", "chars:zom "]


def test_a_bucket_without_an_ngram_is_called_by_its_number():
    transform, values = fitted([["zom"]], blocks=("tag_chars",), hash_width=2**20)
    empty = int(np.flatnonzero(values[0] == 0)[0])
    assert transform.feature_names([empty]) == [f"chars:#{empty}"]


def test_text_blocks_stand_once_for_each_text_column():
    found = sources(
        FeatureSettings(blocks=("text_words", "tags"), block_weights=(0.5, 1)), FeatureColumns(text=("name", "plot"))
    )
    wanted = [("text_words", "name", 0.5), ("text_words", "plot", 0.5), ("tags", "", 1)]
    assert [(source.kind, source.column, source.weight) for source in found] == wanted


def test_a_block_may_read_one_column_of_several_and_each_has_its_length():
    columns = {"tags": pa.array([["a"]]), "text.name": ["abc def"], "text.plot": ["abc def"]}
    features = {
        "blocks": "text_words, text_words:name, text_bigrams:plot",
        "text_length": "3, 7",
        "block_weights": "1,0.5,1",
    }
    with pytest.raises(ValueError, match="names a block twice"):
        Settings(catalog={"text": "name, plot"}, features=features | {"blocks": "tags, tags", "block_weights": ""})
    transform = FeatureTransform.fit(pa.table(columns), Settings(catalog={"text": "name, plot"}, features=features))
    assert names(transform) == [
        *("name.word:abc", "plot.word:abc", "plot.word:def"),
        *("name.word:abc", "plot.bigram:abc def"),
    ]
    made = transform.transform(pa.table(columns)).features.toarray()[0]
    np.testing.assert_allclose(made, [1, 0.5**0.5, 0.5**0.5, 0.5, 1], rtol=1e-6)


def test_a_category_is_one_feature_whatever_its_case_and_blanks():
    columns = {
        "tags": pa.array([[], [], []], pa.list_(pa.string())),
        "category.brand": [" New  Line", "new line", None],
    }
    chosen = Settings(catalog={"categories": "brand"}, features={"blocks": "categories"})
    transform = FeatureTransform.fit(pa.table(columns), chosen)
    assert names(transform) == ["brand.category:new line"]
    assert transform.transform(pa.table(columns)).features.toarray().tolist() == [[1], [1], [0]]


@pytest.mark.parametrize(
    ("catalog", "features", "message"),
    [
        ({}, {"blocks": "tags:plot"}, "tags reads the tags"),
        ({"text": "plot"}, {"blocks": "text_words:name"}, r"text_words:name reads none of \[catalog\] text"),
        ({}, {"blocks": "categories"}, r"categories needs a column of categories; name one in \[catalog\] categories"),
        ({"text": "plot"}, {"text_length": "1, 2"}, r"2 lengths for 1 columns of \[catalog\] text"),
        ({}, {"text_length": ""}, "text_length: is empty"),
        ({"numbers": "year", "vectors": "year"}, {}, "'year' is among the numbers too"),
    ],
)
def test_blocks_and_columns_that_do_not_fit_are_refused(catalog, features, message):
    with pytest.raises(ValueError, match=message):
        Settings(catalog=catalog, features=features)


def test_words_and_bigrams_of_texts_are_named_by_their_column():
    transform, values = fitted([[], []], texts=["the end", "the"], blocks=("text_words", "text_bigrams"))
    assert names(transform) == ["plot.word:the", "plot.word:end", "plot.bigram:the end"]
    assert values[1].tolist() == [1, 0, 0]
    assert values[0, 2] == 1


def test_rare_words_and_words_beyond_the_largest_number_are_no_features():
    rows = [["a b"], ["a c"], ["a b"]]
    assert names(fitted(rows, blocks=("tag_words",), min_document_count=2)[0]) == ["word:a", "word:b"]
    assert names(fitted(rows, blocks=("tag_words",), max_words=1)[0]) == ["word:a"]


def test_a_weight_scales_its_block_alone():
    _, values = fitted([["a"]], blocks=("tags", "tag_words"), block_weights=(1, 0.25))
    assert values.tolist() == [[1, 0.25]]


def test_a_block_of_texts_without_a_text_column_is_refused():
    with pytest.raises(SettingsError, match="text_chars needs a text column"):
        sources(FeatureSettings(blocks=("text_chars",)), FeatureColumns())
    with pytest.raises(ValueError, match=r"text_chars needs a text column; name one in \[catalog\] text"):
        Settings(features={"blocks": "text_chars"})


@pytest.mark.parametrize("weights", ["0", "1.5"])
def test_a_weight_outside_its_range_is_refused(weights):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        FeatureSettings(blocks=("tags",), block_weights=weights)


def test_one_item_has_the_columns_that_it_has_among_many():
    one = csc_matrix(([1.0, 1, 1], ([0, 0, 0], [3, 70, 99])), shape=(1, 100))
    assert columns_of(one).tolist() == [3, 70, 99]
    assert columns_of(csc_matrix((1, 100))).tolist() == []


def test_matrices_beside_each_other_equal_one_dense_matrix():
    left = csc_matrix(np.array([[0, 2], [1, 0]], np.float32))
    right = csc_matrix(np.array([[3], [0]], np.float32))
    joined = beside([left, right], n_items=2)
    assert joined.toarray().tolist() == [[0, 2, 3], [1, 0, 0]]
    assert joined.indices.dtype == joined.indptr.dtype == np.int32
    assert beside([], n_items=2).shape == (2, 0)
