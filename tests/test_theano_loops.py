"""The loops of a compiled step against NumPy; each function here is compiled in mode fast_run."""

from importlib.util import find_spec

import numpy as np
import pytest
from scipy import sparse

from pipeline.ops import symbolic

pytestmark = pytest.mark.skipif(find_spec("theano") is None, reason="these loops are Theano's")

LOOPS = {"AddRows", "CrossEntropy", "Elementwise", "PlainSum", "SparseProduct", "TakeRows"}


def compiled(inputs, outputs, **options):
    """Return the function and the names of our own loops in it."""
    function = symbolic.engine("theano").function(inputs, outputs, mode="fast_run", **options)
    used = {type(node.op).__name__ for node in function.maker.fgraph.apply_nodes}
    return function, used & LOOPS


def variable(name, dtype="float32", ndim=2):
    return symbolic.engine("theano").variable(name, dtype=dtype, ndim=ndim)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_are_added_to_a_table_in_place_and_the_others_stay(dtype):
    its = symbolic.engine("theano")
    table = its.shared(np.arange(12, dtype=dtype).reshape(4, 3), "table")
    index, change = variable("index", "int32", 1), variable("change", dtype)
    changes = {table: its.add_to_rows(its.rows(table, index), change)}
    step, used = compiled([index, change], [], updates=changes)
    step(np.array([2, 0], np.int32), np.array([[1, 2, 3], [10, 20, 30]], dtype))
    assert used == {"AddRows"}
    assert table.get_value().tolist() == [[10, 21, 32], [3, 4, 5], [7, 9, 11], [9, 10, 11]]


def test_a_repeated_row_adds_up_and_columns_may_be_strided():
    its = symbolic.engine("theano")
    table, index, change = variable("table"), variable("index", "int32", 1), variable("change")
    add, used = compiled([table, index, change], [its.add_to_rows(its.rows(table, index), change.T)])
    before = np.zeros((2, 2), np.float32)
    after = add(before, np.array([1, 1, -1], np.int32), np.array([[1, 2, 3], [10, 20, 30]], np.float32))[0]
    assert "AddRows" in used
    assert after.tolist() == [[0, 0], [6, 60]]
    assert not before.any(), "the table of the caller stays as it is"


def test_rows_are_replaced_and_a_row_outside_the_table_is_an_error():
    its = symbolic.engine("theano")
    table, index, change = variable("table"), variable("index", "int32", 1), variable("change")
    replace, used = compiled([table, index, change], [its.set_rows(its.rows(table, index), change)])
    zeros, ones = np.zeros((3, 2), np.float32), np.ones((1, 2), np.float32)
    assert replace(zeros, np.array([1], np.int32), ones)[0].tolist() == [[0, 0], [1, 1], [0, 0]]
    assert used == {"AddRows"}
    with pytest.raises(IndexError, match="row 3 is outside a table of 3"):
        replace(zeros, np.array([3], np.int32), ones)
    with pytest.raises(ValueError, match="rows as many as the index"):
        replace(zeros, np.array([1, 2], np.int32), ones)


def log_softmax(logits):
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-12)])
def test_the_loss_of_a_level_and_its_gradient_are_those_of_the_formula(dtype, tolerance):
    its = symbolic.engine("theano")
    logits, target = variable("logits", dtype), variable("target", "int32", 1)
    losses = its.negative_log_likelihood(logits, target)
    function, used = compiled([logits, target], [losses, *its.grad(its.sum(losses), [logits])])
    rng = np.random.default_rng(1)
    for n_classes in (1, 3, 16, 600):
        values = (8 * rng.standard_normal((5, n_classes))).astype(dtype)
        values[0] += 1000
        labels = rng.integers(0, n_classes, 5).astype(np.int32)
        expected = -log_softmax(values)[np.arange(5), labels]
        slope = np.exp(log_softmax(values))
        slope[np.arange(5), labels] -= 1
        found = function(values, labels)
        assert [part.dtype for part in found] == [dtype, dtype]
        np.testing.assert_allclose(found[0], expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(found[1], slope, rtol=tolerance, atol=tolerance)
    assert "CrossEntropy" in used


def test_what_is_not_finite_shows_in_the_loss_and_a_target_outside_is_an_error():
    logits, target = variable("logits"), variable("target", "int32", 1)
    function, _ = compiled([logits, target], [symbolic.engine("theano").negative_log_likelihood(logits, target)])
    for value in (np.nan, np.inf):
        for place in range(40):
            row = np.zeros((1, 40), np.float32)
            row[0, place] = value
            assert not np.isfinite(function(row, np.array([3], np.int32))[0]).any()
    with pytest.raises(ValueError, match="out of bounds"):
        function(np.zeros((1, 2), np.float32), np.array([2], np.int32))


def test_expressions_over_rows_columns_and_numbers_are_those_of_numpy():
    its = symbolic.engine("theano")
    matrix, row, column, number = (
        variable("matrix"),
        variable("row", ndim=1),
        variable("column", ndim=1),
        variable("n", ndim=0),
    )
    wide = its.sqrt(matrix * matrix + its.column(column)) / row + number
    both = its.column(column) * row
    function, used = compiled([matrix, row, column, number], [wide, both, its.sigmoid(matrix)])
    rng = np.random.default_rng(2)
    for shape in ((1, 1), (7, 1), (1, 7), (33, 70)):
        values = 4 * rng.standard_normal(shape, np.float32)
        across, down = rng.random(shape[1], np.float32) + 1, rng.random(shape[0], np.float32)
        for given in (values, np.asfortranarray(values), np.repeat(values, 2, axis=1)[:, ::2]):
            found = function(given, across, down, np.float32(0.5))
            expected = np.sqrt(values**2 + down[:, None]) / across + np.float32(0.5)
            np.testing.assert_allclose(found[0], expected, rtol=1e-6)
            np.testing.assert_allclose(found[1], down[:, None] * across, rtol=1e-6)
            np.testing.assert_allclose(found[2], 1 / (1 + np.exp(-values.astype(float))), rtol=1e-6)
    assert used == {"Elementwise"}


def test_the_exponential_is_right_over_all_of_float32():
    x = variable("x")
    function, used = compiled([x], [symbolic.engine("theano").tensor.exp(x)])
    values = np.linspace(-86, 88, 200_000, dtype=np.float32)[None]
    assert used == {"Elementwise"}
    np.testing.assert_allclose(function(values)[0], np.exp(values.astype(np.float64)), rtol=2e-7)
    edges = function(np.array([[-1e30, -90, 0, 89, 1e30, np.inf, -np.inf, np.nan]], np.float32))[0][0]
    np.testing.assert_array_equal(edges, [0, 0, 1, np.inf, np.inf, np.inf, 0, np.nan])


def test_rows_are_taken_and_an_index_outside_is_an_error():
    its = symbolic.engine("theano")
    table, index = variable("table"), variable("index", "int32", 1)
    take, used = compiled([table, index], [its.rows(table, index)])
    assert used == {"TakeRows"}
    for values in (
        np.arange(300, dtype=np.float32).reshape(100, 3),
        np.arange(300, dtype=np.float32).reshape(3, 100).T,
    ):
        places = np.append(np.arange(99, -1, -1), -1).astype(np.int32)
        np.testing.assert_array_equal(take(values, places)[0], values[places])
        np.testing.assert_array_equal(take(values, places[::2])[0], values[places[::2]])
    assert take(values, places[:0])[0].shape == (0, 3)
    for wrong in (100, -101):
        with pytest.raises(IndexError, match="leaves a table of 100 rows"):
            take(values, np.array([0, wrong], np.int32))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sparse_product_and_its_gradient_are_those_of_the_dense_matrix(dtype):
    its = symbolic.engine("theano")
    x, weight = its.sparse_variable("x", dtype=dtype), variable("weight", dtype)
    product = its.dot(x, weight)
    slope = its.grad(its.sum(product * product), [weight])[0]
    function, used = compiled([x, weight], [product, slope])
    # Row 1 and column 2 are empty; the entry at (0, 1) stands twice, as 2 + 3.
    rows, columns, values = [0, 0, 2, 0], [1, 0, 3, 1], np.array([2, 1, 4, 3], dtype)
    matrix = sparse.csc_matrix((values, np.array(rows, np.int32), np.array([0, 1, 3, 3, 4], np.int32)), shape=(3, 4))
    matrix.indices = np.array([0, 0, 0, 2], np.int32)
    matrix.data = np.array([1, 2, 3, 4], dtype)
    dense = np.array([[1, 5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 4]], dtype)
    assert columns.count(1) == 2
    for factor in (np.arange(8, dtype=dtype).reshape(4, 2), np.asfortranarray(np.ones((4, 70), dtype))):
        found, found_slope = function(matrix, factor)
        np.testing.assert_allclose(found, dense @ factor, rtol=1e-6)
        np.testing.assert_allclose(found_slope, dense.T @ (2 * dense @ factor), rtol=1e-6)
    assert "SparseProduct" in used


def test_a_sparse_matrix_that_does_not_fit_is_an_error():
    its = symbolic.engine("theano")
    x, weight = its.sparse_variable("x", dtype="float32"), variable("weight")
    function, used = compiled([x, weight], [its.dot(x, weight)])
    assert used == {"SparseProduct"}
    matrix = sparse.csc_matrix(np.eye(3, dtype=np.float32))
    with pytest.raises(IndexError, match="do not fit each other"):
        function(matrix, np.ones((2, 2), np.float32))
    matrix.indices = np.array([0, 1, 3], np.int32)
    with pytest.raises(IndexError, match="do not fit each other"):
        function(matrix, np.ones((3, 2), np.float32))


def test_bags_of_rows_are_summed_without_padding():
    its = symbolic.engine("theano")
    table, index, mask = variable("table"), variable("index", "int32"), variable("mask")
    bags = its.sum_rows(table, index, mask)
    function, used = compiled([table, index, mask], [bags, its.grad(its.sum(bags), [table])[0]])
    values = np.array([[9, 9], [1, 2], [10, 20]], np.float32)
    places = np.array([[1, 0, 2, 2], [0, 0, 0, 0]], np.int32)
    found, slope = function(values, places, (places > 0).astype(np.float32))
    assert found.tolist() == [[21, 42], [0, 0]]
    assert slope.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert "SparseProduct" in used
    assert function(values, places[:0], np.zeros((0, 4), np.float32))[0].shape == (0, 2)


def test_sums_over_rows_columns_and_all_are_those_of_numpy():
    its = symbolic.engine("theano")
    x = variable("x")
    plain = its.tensor.sum
    outputs = [plain(x, axis=0), plain(x, axis=1), plain(x), its.sum(x), its.sum(x, axis=0), its.sum(x, axis=1)]
    function, used = compiled([x], outputs)
    assert used == {"PlainSum"}
    for shape in ((1, 1), (5, 3), (40, 70), (0, 3), (3, 0)):
        values = np.random.default_rng(3).random(shape, np.float32)
        for given in (values, np.asfortranarray(values), np.repeat(values, 2, axis=1)[:, ::2]):
            found = function(given)
            expected = [values.sum(axis=axis, dtype=np.float64) for axis in (0, 1, None, None, 0, 1)]
            for one, other in zip(found, expected, strict=True):
                assert one.dtype == np.float32
                np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("scatters", [False, True])
def test_without_a_compiler_a_sparse_product_is_the_same(scatters):
    its = symbolic.engine("theano")
    from pipeline.ops.theano_rows import SparseProduct

    lines = [variable(name, "int32", 1) for name in ("indices", "indptr")]
    dense = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    node = SparseProduct(scatters=scatters).make_node(
        variable("data", ndim=1), *lines, variable("n_rows", "int32", 0), its.shared(dense, "dense")
    )
    # Line 0 holds 10 at place 2, line 1 nothing, line 2 holds 100 at place 0.
    values = [np.array([10, 100], np.float32), np.array([2, 0], np.int32), np.array([0, 1, 1, 2], np.int32)]
    outputs = [[None]]
    node.op.perform(node, [*values, np.int32(3), dense], outputs)
    expected = [[500, 600], [0, 0], [10, 20]] if scatters else [[50, 60], [0, 0], [100, 200]]
    assert outputs[0][0].tolist() == expected
    compiled_one, _ = compiled(node.inputs[:4], [node.outputs[0]])
    assert compiled_one(*values, np.int32(3))[0].tolist() == expected


def test_the_bytes_of_a_sum_do_not_hang_on_the_address():
    x = variable("x")
    function, used = compiled([x], [symbolic.engine("theano").sum(x), symbolic.engine("theano").sum(x, axis=1)])
    assert used == {"PlainSum"}
    values = np.random.default_rng(4).random(1000, np.float32)
    found = set()
    for offset in range(16):
        memory = np.zeros(1016, np.float32)
        memory[offset : offset + 1000] = values
        found.add(b"".join(part.tobytes() for part in function(memory[offset : offset + 1000].reshape(10, 100))))
    assert len(found) == 1
