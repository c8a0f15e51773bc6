import inspect
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from graphs import ENGINES, every_engine, run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse

from pipeline import ops
from pipeline.errors import FeatureError, TrainingError
from pipeline.ops import compiled, numeric, symbolic

NAMES = [name for name, member in vars(ops.Ops).items() if inspect.isfunction(member) and not name.startswith("_")]
RNG = np.random.default_rng(5)
MATRIX = RNG.standard_normal((4, 3))
WEIGHT = RNG.standard_normal((3, 2))
SPARSE = sparse.csc_matrix(np.array([[0, 2.0, 0], [1, 0, 0], [0, 0, 0], [0, 3, 4]]))
INDEX = np.array([[1, 0, 2], [2, 2, 0], [0, 0, 0], [1, 1, 1]], np.int32)
MASK = np.array([[1.0, 0, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1]])
TARGET = np.array([0, 2, 1, 1], np.int32)

CALLS = {
    "constant": lambda x: x * ops.of(x).constant(0.1, x),
    "cast": lambda x: ops.of(x).cast(x > 0, x),
    "dot": lambda x, weight: ops.of(x, weight).dot(x, weight),
    "sum_rows": lambda table, index, mask: ops.of(table).sum_rows(table, index, mask),
    "sum": lambda x: ops.of(x).sum(x, axis=1, keepdims=True),
    "mean": lambda x: ops.of(x).mean(x, axis=0),
    "sqrt": lambda x: ops.of(x).sqrt(x * x),
    "exp": lambda x: ops.of(x).exp(x),
    "log_sum_exp": lambda x: ops.of(x).log_sum_exp(x, axis=1),
    "keep_topk": lambda x: ops.of(x).keep_topk(x, 2),
    "take_columns": lambda x: ops.of(x).take_columns(x, (2, 0, 2, 2)),
    "maximum": lambda x: ops.of(x).maximum(x, 0.25),
    "sigmoid": lambda x: ops.of(x).sigmoid(x),
    "relu": lambda x: ops.of(x).relu(x),
    "log_softmax": lambda x: ops.of(x).log_softmax(x),
    "pick": lambda x, column: ops.of(x).pick(x, column),
    "take": lambda values, index: ops.of(values, index).take(values, index),
    "negative_log_likelihood": lambda x, target: ops.of(x).negative_log_likelihood(x, target),
}
VALUES = {
    "dot": (MATRIX, WEIGHT),
    "sum_rows": (MATRIX[:3], INDEX, MASK),
    "pick": (MATRIX, TARGET),
    "take": (MATRIX[1], TARGET),
    "negative_log_likelihood": (MATRIX, TARGET),
}


def in_dtype(values, dtype):
    return [value.astype(dtype) if value.dtype.kind == "f" else value for value in values]


def test_arrays_and_scipy_matrices_are_computed_by_numpy():
    assert ops.of(MATRIX) is numeric
    assert ops.of(SPARSE, MATRIX) is numeric


@every_engine
def test_a_variable_of_an_engine_picks_that_engine(engine):
    its = symbolic.engine(engine)
    for variable in (
        its.variable("x", dtype="float32", ndim=2),
        its.sparse_variable("s", dtype="float32"),
        its.shared(MATRIX, "w"),
        its.shared(MATRIX, "w") * 2,
    ):
        assert ops.of(MATRIX, variable) is its


def test_every_operation_is_tried_here():
    assert set(CALLS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_numpy_and_engine_take_the_same_arguments(name):
    ours = list(inspect.signature(getattr(numeric, name)).parameters)
    theirs = list(inspect.signature(getattr(symbolic.Engine, name)).parameters)[1:]
    assert ours == theirs == list(inspect.signature(getattr(ops.Ops, name)).parameters)[1:]


@every_engine
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-12)])
def test_numpy_and_engine_agree_and_keep_the_dtype(engine, name, dtype, tolerance):
    values = in_dtype(VALUES.get(name, (MATRIX,)), dtype)
    expected = CALLS[name](*values)
    found = run(engine, CALLS[name], *values)
    assert found.dtype == expected.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@every_engine
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sparse_input_takes_the_sparse_product(engine, dtype):
    x, weight = SPARSE.astype(dtype), WEIGHT.astype(dtype)
    expected = SPARSE.toarray() @ WEIGHT
    for product in (CALLS["dot"](x, weight), CALLS["dot"](x.tocsr(), weight), run(engine, CALLS["dot"], x, weight)):
        assert isinstance(product, np.ndarray)
        assert product.dtype == dtype
        np.testing.assert_allclose(product, expected, rtol=1e-6)


def softmax(x):
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@every_engine
def test_all_but_the_k_largest_are_minus_infinity_and_have_exactly_no_weight(engine):
    rows = np.array([[1.0, 3.0, 2.0], [0.5, -1e30, 0.25]], np.float32)
    expected = [[-np.inf, 3, 2], [0.5, -np.inf, 0.25]]
    for kept in (numeric.keep_topk(rows, 2), run(engine, CALLS["keep_topk"], rows)):
        np.testing.assert_array_equal(kept, expected)
        assert softmax(kept)[0, 0] == softmax(kept)[1, 1] == 0.0
    weights = run(engine, lambda x: ops.of(x).exp(ops.of(x).log_softmax(ops.of(x).keep_topk(x, 2))), rows)
    np.testing.assert_allclose(weights[0], [0, np.e / (1 + np.e), 1 / (1 + np.e)], rtol=1e-6)
    assert weights[0, 0] == weights[1, 1] == 0.0


@every_engine
def test_a_vector_is_one_row(engine):
    vector = np.array([4.0, 1.0, 5.0, 2.0])
    for kept in (numeric.keep_topk(vector, 2), run(engine, CALLS["keep_topk"], vector)):
        np.testing.assert_array_equal(kept, [4, -np.inf, 5, -np.inf])
        np.testing.assert_allclose(softmax(kept), [1 / (1 + np.e), 0, np.e / (1 + np.e), 0])


@every_engine
@pytest.mark.parametrize("mode", ["fast_compile", pytest.param("fast_run", marks=pytest.mark.slow)])
def test_ties_go_to_the_lower_index_however_long_the_row(engine, mode):
    # Long enough that a sort which is not stable would show: quicksorts are stable below 16.
    rows = np.random.default_rng(8).integers(0, 3, (5, 60)).astype(np.float32)
    for k in (1, 7, 60):
        expected = [sorted(range(60), key=lambda place, row=row: (-row[place], place))[:k] for row in rows]
        for kept in (
            numeric.keep_topk(rows, k),
            run(engine, lambda x, k=k: ops.of(x).keep_topk(x, k), rows, mode=mode),
        ):
            assert [set(np.flatnonzero(np.isfinite(row))) for row in kept] == [set(row) for row in expected]


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(0, 4), st.integers(1, 9)),
        elements=st.sampled_from([-np.inf, -3.0, -0.0, 0.0, 2.0**-100, 2.0, 2.0**99]),
    ),
    st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_of_any_rows_the_k_largest_stay_and_all_else_goes(rows, k):
    for row, kept in zip(rows, numeric.keep_topk(rows, k), strict=True):
        order = sorted(range(len(row)), key=lambda place: (-row[place], place))
        expected = [row[place] if place in order[:k] else -np.inf for place in range(len(row))]
        np.testing.assert_array_equal(kept, np.array(expected, np.float32))


@every_engine
def test_only_what_is_kept_has_a_gradient(engine):
    its = symbolic.engine(engine)
    x = its.variable("x", dtype="float64", ndim=2)
    weights = its.exp(its.log_softmax(its.keep_topk(x, 2)))
    slope = its.function([x], its.grad((weights * np.arange(4.0)).sum(), [x]), mode="fast_compile")
    (found,) = slope(np.array([[1.0, 1.0, 1.0, 5.0]]))
    first = 1 / (1 + np.exp(4))  # kept are places 0 and 3
    np.testing.assert_allclose(found, [[-3 * first * (1 - first), 0, 0, 3 * first * (1 - first)]], rtol=1e-12)
    assert found[0, 1] == found[0, 2] == 0.0


@every_engine
def test_the_sum_of_exponentials_neither_overflows_nor_minds_minus_infinity(engine):
    rows = np.array([[1000.0, 1000.0], [-np.inf, -1000.0]])
    for found in (numeric.log_sum_exp(rows, axis=1), run(engine, CALLS["log_sum_exp"], rows)):
        np.testing.assert_allclose(found, [1000 + np.log(2), -1000], rtol=1e-15)


def test_the_likelihood_of_equal_logits_is_that_of_chance():
    np.testing.assert_allclose(
        numeric.negative_log_likelihood(np.zeros((1, 4)), np.array([3])), [np.log(4)], rtol=1e-15
    )


def test_huge_logits_and_gates_stay_finite():
    np.testing.assert_allclose(numeric.log_softmax(np.array([[1e4, 0.0]])), [[0, -1e4]])
    np.testing.assert_allclose(numeric.sigmoid(np.array([-1000, 0, 1000], np.float32)), [0, 0.5, 1])


@every_engine
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-6)])
def test_gates_saturate_alike_though_theanos_are_cut_off(engine, dtype, tolerance):
    x = np.array([-200, -89, -20, -15.5, -14.5, 14.5, 15.5, 20, 200], dtype)
    found, expected = run(engine, CALLS["sigmoid"], x), numeric.sigmoid(x)
    assert found.dtype == expected.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@every_engine
def test_floats_times_a_mask_of_whole_numbers_stay_float32(engine):
    tags, x = INDEX, np.ones((4, 3), np.float32)
    for found in (
        count_of_tags(tags, x),
        run(engine, count_of_tags, tags, x),
    ):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, [2, 2, 0, 3])


def count_of_tags(tags, x):
    o = ops.of(tags, x)
    return o.sum(x * o.cast(tags > 0, x), axis=1)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_an_index_outside_the_table_is_an_error(wrong):
    with pytest.raises(FeatureError, match=rf"index {wrong} is outside the table of 3 rows \(0 to 2\)"):
        numeric.sum_rows(np.zeros((3, 2)), np.array([[0, wrong]]), np.ones((1, 2)))


@every_engine
def test_only_the_given_rows_change(engine):
    its = symbolic.engine(engine)
    table = its.shared(np.ones((4, 2), np.float32), "table")
    state = its.shared(np.zeros(4, np.float32), "state")
    index = its.variable("index", dtype="int32", ndim=1)
    updates = {
        table: its.add_to_rows(its.rows(table, index), its.rows(table, index) * its.constant(2, table)),
        state: its.set_rows(its.rows(state, index), its.rows(state, index) + its.constant(5, state)),
    }
    its.function([index], [], updates=updates, mode="fast_compile")(np.array([3, 1], np.int32))
    np.testing.assert_array_equal(table.get_value(), [[1, 1], [3, 3], [1, 1], [3, 3]])
    np.testing.assert_array_equal(state.get_value(), [0, 5, 0, 5])


def test_auto_is_theano_where_it_is_installed_else_pytensor():
    assert symbolic.engine("auto").name == ENGINES[0]
    assert symbolic.engine() is symbolic.engine("auto")


def test_an_unknown_engine_is_an_error():
    with pytest.raises(TrainingError, match=r"engine 'torch' is unknown; .* auto, theano or pytensor"):
        symbolic.engine("torch")


def test_no_engine_at_all_says_what_to_install(monkeypatch):
    monkeypatch.setattr(symbolic, "find_spec", lambda name: None)
    symbolic._load.cache_clear()
    try:
        with pytest.raises(TrainingError, match=r"training needs Theano .* pip install pytensor; scoring .* neither"):
            symbolic.engine("auto")
    finally:
        monkeypatch.undo()
        symbolic._load.cache_clear()
        for name in ENGINES:
            symbolic.engine(name)


@pytest.mark.parametrize("version", ["1.24.0", "2.4.6"])
def test_theano_beside_a_numpy_that_it_cannot_use_is_an_error(monkeypatch, version):
    monkeypatch.setattr(symbolic, "find_spec", lambda name: object())
    monkeypatch.setattr(symbolic.np, "__version__", version)
    with pytest.raises(TrainingError, match=rf"needs NumPy below 1.24, and {version} is installed .* pip install"):
        symbolic._load.__wrapped__("theano")


def test_an_engine_that_cannot_be_imported_is_an_error_that_shows_its_flags(monkeypatch):
    def broken(name):
        raise ImportError("no NumPy")

    monkeypatch.setattr(symbolic, "Engine", broken)
    monkeypatch.setenv("THEANO_FLAGS", "base_compiledir=/nowhere")
    monkeypatch.setattr(symbolic, "find_spec", lambda name: object())
    monkeypatch.setattr(symbolic.np, "__version__", "1.23.5")
    with pytest.raises(TrainingError, match=r"theano .* cannot be imported: ImportError: no NumPy; .*/nowhere"):
        symbolic._load.__wrapped__("theano")


@pytest.mark.skipif("theano" not in ENGINES, reason="Theano is not installed")
def test_theano_without_a_compiler_warns(monkeypatch):
    monkeypatch.setattr(symbolic.Engine, "compiler", "")
    with pytest.warns(RuntimeWarning, match=r"no C\+\+ compiler: .* install g\+\+ and Python's headers"):
        symbolic._load.__wrapped__("theano")


def test_flags_of_the_user_stay():
    flags = symbolic.complete_flags("floatX=float64, blas__ldflags=-lblas,compiledir=/x", engine="pytensor")
    assert flags == "floatX=float64,blas__ldflags=-lblas,compiledir=/x,numba__fastmath=False"


def test_the_compile_directory_is_private(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    open_to_all = tmp_path / "tagladder" / "theano"
    open_to_all.mkdir(parents=True)
    open_to_all.chmod(0o777)
    folder = compiled.private_folder("theano")
    assert folder == open_to_all / "0"
    assert stat.S_IMODE(open_to_all.stat().st_mode) == stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert f"base_compiledir={folder}" in symbolic.complete_flags("", engine="theano").split(",")


def test_two_processes_compile_into_directories_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = (
        "import sys; from pipeline.ops import compiled; print(compiled.private_folder('theano'), flush=True); input()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdin is not None and other.stdout is not None
    assert other.stdout.readline().strip() == str(tmp_path / "tagladder" / "theano" / "0")
    assert compiled.private_folder("theano").name == "1"
    assert compiled.private_folder("theano").name == "1"  # this process keeps what it has
    other.communicate("\n")


def test_a_new_directory_begins_as_a_copy_of_the_first_without_its_locks(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "take", lambda path: None if path.name == "0.lock" else 1)  # another process has it
    monkeypatch.setattr(compiled, "_directories", {})
    first = tmp_path / "tagladder" / "theano" / "0"
    for name in ("compiledir/tmpab/key.pkl", "compiledir/lock_dir/lock", "numba/reshape.nbi", ".lock"):
        (first / name).parent.mkdir(parents=True, exist_ok=True)
        (first / name).write_text(name)
    second = compiled.private_folder("theano")
    assert second.name == "1"
    files = {path.relative_to(second).as_posix() for path in second.rglob("*") if path.is_file()}
    assert files == {"compiledir/tmpab/key.pkl", "numba/reshape.nbi"}
    assert stat.S_IMODE(second.stat().st_mode) == 0o700


def test_a_cache_that_cannot_be_used_gives_a_private_temporary_directory(monkeypatch, tmp_path):
    (tmp_path / "tagladder").write_text("a file in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled.tempfile, "tempdir", str(tmp_path))
    folder = compiled.private_folder("theano")
    assert folder.name.startswith("tagladder-theano-")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_network_alone_imports_no_engine():
    code = "import sys, pipeline.network; print(sorted({'theano', 'pytensor', 'luigi', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"
