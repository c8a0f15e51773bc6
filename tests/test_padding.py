"""Padding and sparse input in a whole training step: what is not there does not count, and does not learn."""

import dataclasses

import numpy as np
import pytest
from graphs import every_engine
from scipy import sparse
from test_fitting import CONFIG, make_examples, quick
from test_variants import VARIANTS

from pipeline.batches import Batch, Loader
from pipeline.examples import Examples
from pipeline.graph import compile_step
from pipeline.layers import SparseProjection, TagMean
from pipeline.network import FeedbackNetwork
from pipeline.ops import symbolic
from pipeline.optimizer import snapshot


def make_step(engine, *, config=CONFIG, **changes):
    network = FeedbackNetwork.initialise(config, np.random.default_rng(3))
    return compile_step(symbolic.engine(engine), network, quick(dropout=0.0, **changes))


def batches(examples, *, batch_size=30, **changes):
    return Loader(examples, n_hidden=8, batch_size=batch_size, seed=1, **changes).epoch(1)


def after_steps(step, examples, **changes):
    for batch in batches(examples, **changes):
        step(batch, 0.05)
    return snapshot(step.shared)


@every_engine
@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "row_wise"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_the_padding_row_and_its_state_stay_exactly_zero(engine, optimizer, weight_decay):
    step = make_step(engine, optimizer=optimizer, weight_decay=weight_decay, clip_norm=0.1)
    for number in range(3):
        for batch in Loader(make_examples(), n_hidden=8, batch_size=30, seed=number, tag_dropout=0.5).epoch(1):
            assert (batch.tag_index == 0).any()
            step(batch, 0.05)
    assert step.shared["tags.weight"].get_value()[0].tobytes() == bytes(4 * 8)
    # What the optimizer remembers of row 0: no gradient, so momentum never moves it (the count of its steps may grow).
    state = {name: value for name, value in snapshot(step.state).items() if name.startswith("tags.weight.")}
    assert state
    for name, value in state.items():
        assert not value[0].any() or name.endswith("count")
        assert value[1:].any()


@every_engine
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name.startswith("everything")])
def test_the_padding_row_stays_zero_in_every_network(engine, variant):
    parents = ((0, 0, 1, 1, 2, 2),)
    config = dataclasses.replace(CONFIG, **{**VARIANTS[variant], "parents": parents})
    after = after_steps(make_step(engine, config=config, weight_decay=0.5), make_examples(), tag_dropout=0.5)
    assert after["tags.weight"][0].tobytes() == bytes(4 * 8)
    assert after["wide.weight"].any()


@every_engine
def test_where_the_padding_stands_changes_nothing(engine):
    examples, step = make_examples(), make_step(engine)
    rng = np.random.default_rng(6)
    wider = np.pad(examples.tag_index, ((0, 0), (2, 3)))
    moved = dataclasses.replace(examples, tag_index=np.stack([rng.permutation(row) for row in wider]))
    first = after_steps(step, examples)
    second = after_steps(make_step(engine), moved)
    for name, value in first.items():
        np.testing.assert_allclose(second[name], value, rtol=0, atol=1e-4, err_msg=name)


@every_engine
def test_an_item_without_tags_trains_the_rest_and_no_tag(engine):
    examples = make_examples()
    empty = dataclasses.replace(examples, tag_index=np.zeros_like(examples.tag_index))
    step = make_step(engine, weight_decay=0.5)
    before = snapshot(step.shared)
    after = after_steps(step, empty)
    np.testing.assert_array_equal(after["tags.weight"], before["tags.weight"])
    assert (after["features.weight"] != before["features.weight"]).any()


@every_engine
@pytest.mark.parametrize("mode", ["fast_compile", pytest.param("fast_run", marks=pytest.mark.slow)])
def test_a_repeated_tag_gathers_its_gradient(engine, mode):
    its = symbolic.engine(engine)
    table = its.shared(np.ones((4, 2)), "table")
    tags = its.variable("tags", dtype="int32", ndim=2)
    (slope,) = its.grad(TagMean(table)(tags).sum(), [table])
    found = its.function([tags], [slope], mode=mode)(np.array([[3, 3, 0, 1], [0, 3, 0, 0]], np.int32))[0]
    # Of item 0 two thirds are tag 3 and a third is tag 1; item 1 is tag 3 alone.
    np.testing.assert_allclose(found, [[0, 0], [1 / 3] * 2, [0, 0], [2 / 3 + 1] * 2], rtol=1e-12)


def duplicated(matrix):
    """Return the CSR matrix with every entry given in two parts."""
    parts = np.stack([matrix.data * np.float32(0.25), matrix.data * np.float32(0.75)], axis=1).ravel()
    twice = sparse.csr_matrix(matrix.shape, dtype=np.float32)
    twice.data, twice.indices, twice.indptr = parts, np.repeat(matrix.indices, 2), matrix.indptr * 2
    return twice


@every_engine
def test_an_entry_given_in_parts_counts_as_their_sum(engine):
    examples = make_examples()
    twice = dataclasses.replace(examples, features=duplicated(examples.features))
    assert twice.features.nnz == 2 * examples.features.nnz
    first, second = (after_steps(make_step(engine), given) for given in (examples, twice))
    for name, value in first.items():
        np.testing.assert_allclose(second[name], value, rtol=0, atol=1e-4, err_msg=name)


def product_and_gradient(engine, x, weight, *, mode):
    """Return x @ weight, and the gradient of the sum of its squares to the weight."""
    its = symbolic.engine(engine)
    variable = (
        its.sparse_variable("x", dtype=str(x.dtype))
        if sparse.issparse(x)
        else its.variable("x", dtype=str(x.dtype), ndim=2)
    )
    shared = its.shared(weight, "weight")
    output = SparseProjection(shared)(variable)
    gradient = its.grad((output * output).sum(), [shared])
    return its.function([variable], [output, *gradient], mode=mode)(x)


@every_engine
@pytest.mark.parametrize("mode", ["fast_compile", "fast_run"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
def test_sparse_and_dense_have_the_same_values_and_gradients(engine, mode, dtype, tolerance):
    # Duplicate entries at (0, 1), an empty row 1, empty columns 2 and 4.
    x = sparse.csc_matrix((4, 5), dtype=dtype)
    x.data = np.array([2.0, 1.0, 0.5, -1.0], dtype)
    x.indices, x.indptr = np.array([2, 0, 0, 3], np.int32), np.array([0, 1, 3, 3, 4, 4], np.int32)
    weight = np.random.default_rng(9).standard_normal((5, 3)).astype(dtype)
    values, slope = product_and_gradient(engine, x, weight, mode=mode)
    dense_values, dense_slope = product_and_gradient(engine, x.toarray(), weight, mode=mode)
    by_hand = np.zeros((5, 3))
    for row, column, value in [(2, 0, 2.0), (0, 1, 1.5), (3, 3, -1.0)]:
        by_hand[column] += 2 * value * (x.toarray()[row] @ weight)
    np.testing.assert_allclose(values, x.toarray() @ weight, rtol=tolerance)
    np.testing.assert_allclose(slope, by_hand, rtol=tolerance)
    np.testing.assert_allclose(values, dense_values, rtol=tolerance)
    np.testing.assert_allclose(slope, dense_slope, rtol=tolerance)
    assert values.dtype == slope.dtype == dense_slope.dtype == dtype
    assert (values[1] == 0).all()
    assert (slope[[2, 4]] == 0).all()


@every_engine
def test_items_without_any_feature_make_a_step(engine):
    examples = make_examples().take(slice(0, 4))
    bare = Examples.of(examples.tag_index, examples.labels, features=np.zeros((4, 12)))
    step = make_step(engine)
    before = snapshot(step.shared)["features.weight"]
    (batch,) = batches(bare, batch_size=4)
    assert isinstance(batch, Batch)
    assert np.isfinite(step(batch, 0.05)).all()
    np.testing.assert_array_equal(snapshot(step.shared)["features.weight"], before)
