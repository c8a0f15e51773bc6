"""The transform: fitted on training items only, the same row the same features wherever it stands."""

from itertools import pairwise

import h5py
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_matrix

from pipeline.config import Settings
from pipeline.errors import FeatureError
from pipeline.features import Features, FeatureTransform, check_features, pad

ROWS = [["alien", "space"], [], ["alien", "deep space", "robots"], ["alien", "space", "zombies"]]
EVERYTHING = Settings(
    features={"blocks": "tags, tag_words, tag_chars, text_words, text_bigrams, text_chars", "hash_width": 64},
    catalog={"text": "plot"},
)
TAGS = st.lists(st.text("abcé ", min_size=1, max_size=6), unique=True, max_size=5).map(sorted)


def table(rows: list[list[str]]) -> pa.Table:
    plots = [None if not row else " and ".join(row) for row in rows]
    return pa.table({"tags": pa.array(rows, pa.list_(pa.string())), "text.plot": pa.array(plots, pa.string())})


def fit(rows: list[list[str]], chosen: Settings = EVERYTHING) -> FeatureTransform:
    return FeatureTransform.fit(table(rows), chosen)


def same(one: Features, other: Features) -> bool:
    """Return whether two results are equal to the last bit, but for columns of padding."""
    width = max(one.tag_index.shape[1], other.tag_index.shape[1])
    first, second = (np.pad(x.tag_index, ((0, 0), (0, width - x.tag_index.shape[1]))) for x in (one, other))
    sparse = (one.features.toarray() == other.features.toarray()).all()
    return bool((first == second).all() and sparse and (one.n_unseen_tags == other.n_unseen_tags).all())


def test_ids_descend_by_frequency_and_ascend_within_a_row():
    transform = fit(ROWS)
    assert transform.vocabulary.terms.to_pylist() == ["alien", "space", "deep space", "robots", "zombies"]
    assert transform.n_vocabulary == 6
    assert transform.transform(table(ROWS)).tag_index.tolist() == [[1, 2, 0], [0, 0, 0], [1, 3, 4], [1, 2, 5]]


def test_the_most_frequent_tags_stay_where_there_are_too_many():
    transform = fit(ROWS, Settings(features={"max_tags": 2, "blocks": "tags"}))
    made = transform.transform(table(ROWS))
    assert made.tag_index.tolist() == [[1, 2], [0, 0], [1, 3], [1, 2]]
    assert made.features.toarray()[3, 4] > 0  # the bag keeps them all


def test_the_rarest_tags_stay_by_setting():
    transform = fit(ROWS, Settings(features={"max_tags": 2, "keep_tags": "rare", "blocks": "tags"}))
    assert transform.transform(table(ROWS)).tag_index.tolist() == [[1, 2], [0, 0], [3, 4], [2, 5]]


def test_the_first_tags_stay_by_setting_as_tag_order_has_them():
    transform = fit(ROWS, Settings(features={"max_tags": 2, "keep_tags": "first", "blocks": "tags"}))
    assert transform.transform(table(ROWS)).tag_index.tolist() == [[1, 2], [0, 0], [1, 3], [1, 2]]
    order = pa.array([[0, 1], [], [2, 0, 1], [1, 2, 0]], pa.list_(pa.int32()))
    ordered = table(ROWS).append_column("tag_order", order)
    assert transform.transform(ordered).tag_index.tolist() == [[1, 2], [0, 0], [3, 4], [1, 5]]
    wrong = table(ROWS).append_column("tag_order", pa.array([[0], [], [0], [0]], pa.list_(pa.int32())))
    with pytest.raises(FeatureError, match="tags and tag_order are lists of different length"):
        transform.transform(wrong)


def test_unseen_tags_are_counted_and_change_nothing_else():
    transform = fit(ROWS, Settings(features={"blocks": "tags"}))
    made = transform.transform(table([["alien", "nobody", "unheard of"], ["nobody"], ["alien"]]))
    assert made.n_unseen_tags.tolist() == [2, 1, 0]
    assert made.tag_index.tolist() == [[1], [0], [1]]
    assert made.features.toarray()[0].tolist() == made.features.toarray()[2].tolist()


def test_an_item_without_tags_is_all_zeros():
    made = fit(ROWS).transform(table([[]]))
    assert made.tag_index.tolist() == [[0]]
    assert made.features.nnz == 0
    assert made.dense.shape == (1, 0)


def test_types_and_shapes_are_those_of_the_contract():
    transform = fit(ROWS)
    for rows in (ROWS, ROWS[:1], []):
        made = transform.transform(table(rows))
        assert (made.tag_index.dtype, made.n_unseen_tags.dtype) == (np.int32, np.int32)
        assert (made.features.dtype, made.features.indices.dtype, made.features.format) == (np.float32, np.int32, "csc")
        assert made.features.shape == (len(rows), transform.n_features)
        assert made.n_items == len(rows)
        sizes = {"n_vocabulary": transform.n_vocabulary, "n_features": transform.n_features, "n_dense": 0}
        check_features(made, **sizes)


def test_each_block_of_a_row_has_length_one():
    transform = fit(ROWS)
    made = transform.transform(table(ROWS)).features.toarray()
    ends = np.cumsum([0, *(block.n_columns for block in transform.blocks)])
    for start, end in pairwise(ends):
        lengths = np.linalg.norm(made[:, start:end].astype(np.float64), axis=1)
        np.testing.assert_allclose(lengths, [1, 0, 1, 1], atol=1e-6)


def test_no_blocks_give_no_columns():
    made = fit(ROWS, Settings(features={"blocks": ""})).transform(table(ROWS))
    assert made.features.shape == (4, 0)
    assert made.tag_index.shape == (4, 3)


def test_items_without_any_tags_can_be_fitted():
    transform = fit([[], []], Settings())
    assert transform.n_vocabulary == 1
    assert transform.transform(table([["alien"]])).n_unseen_tags.tolist() == [1]


def test_nothing_to_fit_on_is_refused():
    with pytest.raises(FeatureError, match="no training items"):
        fit([])


@settings(max_examples=40, deadline=None)
@given(st.lists(TAGS, min_size=1, max_size=8), st.randoms())
def test_neither_order_nor_batches_change_a_feature(rows, random):
    shuffled = random.sample(rows, len(rows))
    transform = fit(rows)
    again = FeatureTransform.fit([batch for row in shuffled for batch in table([row]).to_batches()], EVERYTHING)
    whole = transform.transform(table(rows))
    for place, row in enumerate(rows):
        one = again.transform(table([row]))
        assert one.features.toarray()[0].tolist() == whole.features.toarray()[place].tolist()
        assert [i for i in one.tag_index[0] if i] == [i for i in whole.tag_index[place] if i]


@settings(max_examples=40, deadline=None)
@given(st.lists(TAGS, max_size=8))
def test_any_tags_give_values_within_zero_and_one(rows):
    transform = fit(ROWS)
    made = transform.transform(table(rows))
    sizes = {"n_vocabulary": transform.n_vocabulary, "n_features": transform.n_features, "n_dense": 0}
    check_features(made, **sizes)
    known = {"alien", "space", "deep space", "robots", "zombies"}
    assert made.n_unseen_tags.tolist() == [len(set(row) - known) for row in rows]


def test_a_saved_transform_makes_the_same_features_and_the_same_bytes(tmp_path):
    transform = fit(ROWS)
    for name in ("one.h5", "two.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            transform.save(file.create_group("transform"))
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()
    with h5py.File(tmp_path / "one.h5") as file:
        loaded = FeatureTransform.load(file["transform"])
    rows = [*ROWS, ["unseen"]]
    assert same(loaded.transform(table(rows)), transform.transform(table(rows)))
    assert loaded.feature_names(range(9)) == transform.feature_names(range(9))


def damage_format(group):
    group.attrs["facts"] = '{"format": 99}'


def damage_settings(group):
    group.attrs["facts"] = '{"format": 2, "settings": {"max_tags": 0}, "columns": {}, "n_items": 1}'


def damage_vocabulary(group):
    del group["vocabulary/document_frequency"]


def damage_hashed_block(group):
    del group["blocks/002/document_frequency"]
    group["blocks/002"].create_dataset("document_frequency", shape=(2**40,), dtype=np.int64)


def damage_block(group):
    group["blocks/000"].attrs["facts"] = '{"kind": "tag_words", "column": "", "weight": 1.0}'


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_format, "not a feature transform of format 2"),
        (damage_settings, "settings that do not fit"),
        (damage_vocabulary, "is not an array of this file"),
        (damage_hashed_block, r"not int64 \(64\)"),
        (damage_block, "holds {'kind': 'tag_words'"),
    ],
)
def test_a_damaged_transform_is_refused(tmp_path, damage, message):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        fit(ROWS).save(file.create_group("transform"))
        damage(file["transform"])
        with pytest.raises(FeatureError, match=message):
            FeatureTransform.load(file["transform"])


def test_a_missing_text_column_is_named():
    with pytest.raises(FeatureError, match=r"column 'text.plot' is missing"):
        fit(ROWS).transform(table(ROWS).select(["tags"]))


def test_a_feature_that_does_not_exist_has_no_name():
    transform = fit(ROWS, Settings(features={"blocks": "tags"}))
    assert transform.feature_names([0, 4]) == ["tag:alien", "tag:zombies"]
    for index in (5, -1):
        with pytest.raises(FeatureError, match=f"feature {index} does not exist; there are 5"):
            transform.feature_names([index])


def features(**changes) -> Features:
    parts = {
        "tag_index": np.array([[1, 0]], np.int32),
        "features": csc_matrix(np.array([[0, 0.5]], np.float32)),
        "dense": np.zeros((1, 0), np.float32),
        "n_unseen_tags": np.zeros(1, np.int32),
    }
    return Features(**(parts | changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tag_index": np.array([[1, 0]])}, "tag_index is int64"),
        ({"features": csc_matrix(np.zeros((1, 2)))}, "features is float64"),
        ({"dense": np.zeros((2, 0), np.float32)}, r"dense is float32 \(2, 0\), not float32 with 2 dimension"),
        ({"n_unseen_tags": np.zeros((1, 1), np.int32)}, r"n_unseen_tags is int32 \(1, 1\)"),
    ],
)
def test_features_of_another_type_or_shape_are_refused(change, message):
    with pytest.raises(FeatureError, match=message):
        features(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tag_index": np.array([[-1, 0]], np.int32)}, "tag_index runs from -1 to 0; ids are 0 to 1"),
        ({"tag_index": np.array([[2, 0]], np.int32)}, "tag_index runs from 0 to 2; ids are 0 to 1"),
        ({"features": csc_matrix(np.zeros((1, 3), np.float32))}, "3 sparse and 0 dense columns; 2 and 0 were"),
        ({"features": csc_matrix(np.array([[0, 1.5]], np.float32))}, r"features/data run from 1.5 to 1.5"),
        ({"features": csc_matrix(np.array([[0, np.nan]], np.float32))}, r"features/data run from nan"),
    ],
)
def test_indices_and_values_out_of_range_are_refused(change, message):
    with pytest.raises(FeatureError, match=message):
        check_features(features(**change), n_vocabulary=2, n_features=2, n_dense=0)


def test_pad_of_nothing_is_one_column_of_padding():
    assert pad(np.array([0, 0, 0]), np.array([], np.int32), max_tags=5).tolist() == [[0], [0]]
    assert pad(np.array([0]), np.array([], np.int32), max_tags=5).shape == (0, 1)
