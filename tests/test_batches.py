import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse

from pipeline import batches
from pipeline.batches import Loader, drop_features, drop_tags, dropout_mask, narrowed, touched, windows
from pipeline.errors import FeatureError, TrainingError
from pipeline.examples import Examples, check_examples, joined
from pipeline.network import NetworkConfig

CONFIG = NetworkConfig(n_vocabulary=9, n_features=6, n_dense=1, hidden=3, n_classes=(2, 4))


def make_examples(n=10):
    rng = np.random.default_rng(1)
    features = sparse.random(n, 6, 0.3, format="csc", random_state=2)
    labels = np.stack([rng.integers(0, 2, n), rng.integers(-1, 4, n)], axis=1)
    return Examples.of(rng.integers(0, 9, (n, 5)), labels, features=features, dense=rng.standard_normal((n, 1)))


def loader(**changes):
    return Loader(make_examples(), n_hidden=3, batch_size=4, seed=7, **changes)


def test_examples_have_the_dtypes_of_the_network():
    examples = make_examples()
    assert (examples.tag_index.dtype, examples.labels.dtype) == (np.int32, np.int32)
    assert (examples.features.dtype, examples.dense.dtype) == (np.float32, np.float32)
    assert examples.features.format == "csr"


def test_columns_that_are_none_are_left_out():
    examples = Examples.of(np.ones((2, 1)), np.zeros((2, 1)), features=sparse.csc_matrix((2, 0)), dense=np.ones((2, 0)))
    assert examples.features is None
    assert examples.dense is None


def test_arrays_of_different_length_are_an_error():
    with pytest.raises(FeatureError, match=r"differ in length: \{'tag_index': 2, 'labels': 3\}"):
        Examples.of(np.ones((2, 1)), np.zeros((3, 1)))


def test_a_batch_points_to_the_rows_that_it_touches():
    examples = make_examples()
    batch = loader().batch(examples.take([3, 0, 8]), np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(batch.rows[batch.tag_index]), np.sort(examples.tag_index[[3, 0, 8]]))
    assert batch.rows[0] == 0
    wide = np.zeros((3, 6), np.float32)
    wide[:, batch.columns] = batch.features.toarray()
    np.testing.assert_array_equal(wide, examples.features.toarray()[[3, 0, 8]])
    assert batch.features.format == "csc"
    np.testing.assert_array_equal(batch.labels, examples.labels[[3, 0, 8]])
    assert {batch.tag_index.dtype, batch.rows.dtype, batch.columns.dtype, batch.features.indices.dtype} == {
        np.dtype(np.int32)
    }


@given(arrays.arrays(np.int32, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.integers(0, 50)))
@settings(max_examples=100, deadline=None)
def test_renumbering_loses_no_tag_and_keeps_the_rows_distinct(tag_index):
    narrow, rows = touched(tag_index)
    assert rows[0] == 0
    assert (np.diff(rows) > 0).all()
    assert narrow.shape[1] <= tag_index.shape[1]
    for before, after in zip(tag_index, rows[narrow], strict=True):
        assert before[before > 0].tolist() == after[after > 0].tolist()


def test_a_batch_without_tags_and_features_still_has_a_row_and_a_column():
    empty = Examples.of(np.zeros((2, 3)), np.zeros((2, 2)), features=sparse.csr_matrix((2, 6)))
    batch = Loader(empty, n_hidden=3, batch_size=2, seed=0).batch(empty, np.random.default_rng(0))
    assert (batch.tag_index.shape, batch.rows.tolist()) == ((2, 1), [0])
    assert (batch.features.shape, batch.columns.tolist()) == ((2, 1), [0])


def test_an_epoch_takes_every_example_once_and_the_next_another_order():
    epochs = [np.concatenate([batch.dense for batch in loader().epoch(number)]).ravel() for number in (1, 2)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.sort(make_examples().dense.ravel()))
    assert (epochs[0] != epochs[1]).any()
    assert [len(batch.labels) for batch in loader().epoch(1)] == [4, 4, 2]
    assert len(loader()) == 3


def test_the_same_seed_and_epoch_give_the_same_batches():
    first, second = (list(loader(dropout=0.5, tag_dropout=0.3).epoch(3)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.rows[one.tag_index], other.rows[other.tag_index])
        np.testing.assert_array_equal(one.masks["hidden"], other.masks["hidden"])


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    mask = dropout_mask((400, 100), 0.25, np.random.default_rng(0))
    assert mask.dtype == np.float32
    np.testing.assert_allclose(np.unique(mask), [0, 4 / 3], rtol=1e-6)
    assert (mask == 0).mean() == pytest.approx(0.25, abs=0.01)
    assert mask.mean() == pytest.approx(1, abs=0.01)


def test_dropped_tags_become_padding_and_the_examples_stay():
    tags = np.arange(1, 40_001, dtype=np.int32).reshape(400, 100)
    dropped = drop_tags(tags, 0.25, np.random.default_rng(0))
    assert (dropped == 0).mean() == pytest.approx(0.25, abs=0.01)
    np.testing.assert_array_equal(dropped[dropped > 0], tags[dropped > 0])
    assert drop_tags(tags, 0.0, np.random.default_rng(0)) is tags
    assert tags.min() == 1


def test_dropped_features_are_gone_and_the_others_make_up_for_them():
    features = sparse.csr_matrix(np.full((400, 100), 3, np.float32))
    dropped = drop_features(features, 0.25, np.random.default_rng(0))
    assert (dropped.dtype, dropped.indptr.dtype, dropped.shape) == (np.float32, features.indptr.dtype, (400, 100))
    np.testing.assert_allclose(np.unique(dropped.data), [4])
    assert dropped.nnz / features.nnz == pytest.approx(0.75, abs=0.01)
    assert dropped.sum() == pytest.approx(features.sum(), rel=0.01)
    assert features.nnz == 40_000
    assert drop_features(features, 0.0, np.random.default_rng(0)) is features


def test_an_item_can_lose_all_its_features():
    features = sparse.csr_matrix(np.array([[1, 0], [0, 0], [0, 2]], np.float32))
    dropped = drop_features(features, 0.999, np.random.default_rng(0))
    assert (dropped.nnz, dropped.indptr.tolist()) == (0, [0, 0, 0, 0])


def test_examples_with_a_tag_in_any_place_are_tagged():
    examples = Examples.of(np.array([[0, 0], [0, 3], [2, 0]]), np.array([[5], [6], [7]]))
    assert examples.tagged().labels.tolist() == [[6], [7]]


def test_the_windows_of_an_epoch_take_every_position_once_in_another_order_each_epoch(monkeypatch):
    monkeypatch.setattr(batches, "BLOCK", 10)
    monkeypatch.setattr(batches, "WINDOW", 30)
    first, second = ([list(part) for part in windows(97, np.random.default_rng(seed))] for seed in (1, 2))
    for epoch in (first, second):
        positions = [position for ranges in epoch for start, stop in ranges for position in range(start, stop)]
        assert sorted(positions) == list(range(97))
        sizes = [sum(stop - start for start, stop in ranges) for ranges in epoch]
        assert max(sizes) == 30
        assert len(sizes) == 4
    assert first != second
    assert list(windows(30, np.random.default_rng(1))) == [[(0, 30)]]


def test_batches_run_on_over_the_ends_of_windows(monkeypatch):
    monkeypatch.setattr(batches, "BLOCK", 3)
    monkeypatch.setattr(batches, "WINDOW", 6)
    examples = dataclasses.replace(make_examples(20), dense=np.arange(20, dtype=np.float32)[:, None])
    epochs = [list(Loader(examples, n_hidden=3, batch_size=4, seed=7).epoch(number)) for number in (1, 2)]
    for epoch in epochs:
        assert [len(batch.labels) for batch in epoch] == [4, 4, 4, 4, 4]
        items = np.concatenate([batch.dense.ravel() for batch in epoch]).astype(int)
        assert sorted(items) == list(range(20))
        for batch, place in zip(epoch, range(0, 20, 4), strict=True):
            np.testing.assert_array_equal(batch.labels, examples.labels[items[place : place + 4]])


def test_how_wide_the_index_is_stored_changes_no_batch():
    wide = dataclasses.replace(make_examples(), tag_index=np.pad(make_examples().tag_index, ((0, 0), (0, 3))))
    pair = [
        list(Loader(examples, n_hidden=3, batch_size=4, seed=7, tag_dropout=0.4).epoch(1))
        for examples in (make_examples(), wide)
    ]
    for one, other in zip(*pair, strict=True):
        np.testing.assert_array_equal(one.tag_index, other.tag_index)
    np.testing.assert_array_equal(narrowed(np.array([[0, 4, 0], [0, 0, 0]])), [[4], [0]])


def test_examples_are_joined_with_the_widest_index():
    first = Examples.of(np.array([[1]]), np.array([[0]]), features=np.array([[0.0, 2.0]]), dense=np.array([[5.0]]))
    second = Examples.of(np.array([[2, 3]]), np.array([[1]]), features=np.array([[1.0, 0.0]]), dense=np.array([[6.0]]))
    both = joined([first, second])
    assert both.tag_index.tolist() == [[1, 0], [2, 3]]
    assert both.features.toarray().tolist() == [[0, 2], [1, 0]]
    assert (both.dense.tolist(), both.labels.tolist()) == ([[5], [6]], [[0], [1]])
    assert joined([first]) is first


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n_vocabulary": 3}, FeatureError, "index [3-8] is outside the table of 3 rows"),
        ({"n_features": 7}, FeatureError, "features: 6 columns are given, the network has 7"),
        ({"n_dense": 0}, FeatureError, "dense: 1 columns are given, the network has 0"),
        ({"n_classes": (2,)}, TrainingError, r"labels have shape \(10, 2\); the network has 1 levels"),
        ({"n_classes": (2, 3)}, TrainingError, r"label 3 of level 2 is not one of its 3 classes \(or -1\)"),
    ],
)
def test_examples_that_do_not_fit_the_network_are_refused(change, error, message):
    check_examples(make_examples(), CONFIG)
    with pytest.raises(error, match=message):
        check_examples(make_examples(), NetworkConfig(**{**CONFIG.to_json(), **change}))
