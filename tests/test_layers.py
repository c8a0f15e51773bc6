import dataclasses

import numpy as np
import pytest
from graphs import every_engine, gradient_errors, run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse

from pipeline import parameters
from pipeline.errors import FeatureError
from pipeline.experts import MixtureOfExperts, MixtureOfHeads, TopKGate
from pipeline.layers import BatchNorm, Dense, GRUCell, Hidden, LayerNorm, Softmax, SparseProjection, TagMean
from pipeline.links import LabelFeedback, ParentMask, Sum
from pipeline.ops import symbolic

TABLE = np.array([[0, 0], [1, 10], [2, 20], [4, 40]], np.float32)
TAGS = np.array([[1, 3, 0], [0, 2, 0], [0, 0, 0], [3, 3, 1]], np.int32)
MEANS = [[2.5, 25], [2, 20], [0, 0], [3, 30]]


def rng():
    return np.random.default_rng(11)


def features():
    # With an empty row, an empty column, and the entry (0, 1) given in two parts.
    values, rows, columns = [1.0, 0.5, 2.0, -1.0], [0, 0, 2, 3], [1, 1, 0, 3]
    matrix = sparse.csc_matrix((4, 5), dtype=np.float64)
    matrix.data, matrix.indices = np.array(values)[[2, 0, 1, 3]], np.array(rows, np.int32)[[2, 0, 1, 3]]
    matrix.indptr = np.searchsorted(np.sort(columns), np.arange(6)).astype(np.int32)
    return matrix


@dataclasses.dataclass(frozen=True)
class InTraining:
    """A layer as it is in training."""

    layer: object

    def __call__(self, *inputs):
        return self.layer(*inputs, training=True)


@dataclasses.dataclass(frozen=True)
class Gated:
    """Experts above a layer, with their gate."""

    gate: TopKGate
    experts: object

    def __call__(self, x):
        gate = self.gate if isinstance(self.experts, MixtureOfExperts) else self.gate.log_weights
        return self.experts(x, gate(x))


def layers():
    """Return every layer with inputs for it, in float64, all parameters drawn so that none is 0 or 1."""

    def drawn(layer):
        generator = rng()
        return parameters.map_parameters(layer, lambda _, value: generator.standard_normal(value.shape))

    norm = dataclasses.replace(drawn(BatchNorm.initialise(5, rng=rng())), variance=np.arange(1.0, 6) / 3)
    gate = drawn(TopKGate.initialise(5, 4, top_k=2, rng=rng()))
    x, state = rng().standard_normal((4, 5)), rng().standard_normal((4, 3))
    return {
        "TagMean": (drawn(TagMean.initialise(4, 3, rng=rng())), TAGS),
        "SparseProjection": (drawn(SparseProjection.initialise(5, 3, rng=rng())), features()),
        "SparseProjection dense": (drawn(SparseProjection.initialise(5, 3, rng=rng())), x),
        "Dense": (drawn(Dense.initialise(5, 3, rng=rng())), x),
        "LayerNorm": (drawn(LayerNorm.initialise(5, rng=rng())), x),
        "Hidden": (drawn(Hidden.initialise(5, rng=rng())), x, x**2),
        "GRUCell first": (drawn(GRUCell.initialise(5, 3, rng=rng())), x),
        "GRUCell next": (drawn(GRUCell.initialise(5, 3, rng=rng())), x, state),
        "Softmax": (Softmax(), x),
        "BatchNorm": (norm, x),
        "BatchNorm in training": (InTraining(norm), x),
        "Hidden with BatchNorm": (Hidden(rng().standard_normal(5), norm), x, x**2),
        "Hidden without norm": (Hidden(rng().standard_normal(5), None), x, x**2),
        "TopKGate": (gate, x),
        "MixtureOfExperts": (Gated(gate, drawn(MixtureOfExperts.initialise(5, 3, n_experts=4, rng=rng()))), x),
        "MixtureOfHeads": (Gated(gate, drawn(MixtureOfHeads.initialise(5, 3, n_experts=4, rng=rng()))), x),
        "LabelFeedback": (drawn(LabelFeedback.initialise(3, 5, rng=rng())), x, state),
        "ParentMask": (ParentMask((0, 2, 2, 1, 0)), state),
        "Sum": (Sum(), x, x**2, x**3),
    }


def in_float32(layer, *values):
    return parameters.cast(layer, "float32"), *[v.astype("float32") if v.dtype.kind == "f" else v for v in values]


@every_engine
@pytest.mark.parametrize("name", layers())
def test_gradients_are_those_of_finite_differences(engine, name):
    assert max(gradient_errors(engine, *layers()[name]).values()) < 1e-6


@every_engine
@pytest.mark.parametrize("name", layers())
def test_numpy_and_engine_agree(engine, name):
    layer, *values = layers()[name]
    exact, found = layer(*values), run(engine, layer, *values)
    assert found.dtype == exact.dtype == np.float64
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-12)
    layer, *values = in_float32(layer, *values)
    expected, found = layer(*values), run(engine, layer, *values)
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@every_engine
@pytest.mark.parametrize("name", layers())
def test_numpy_and_the_compiled_engine_agree(engine, name):
    layer, *values = layers()[name]
    np.testing.assert_allclose(run(engine, layer, *values, mode="fast_run"), layer(*values), rtol=0, atol=1e-12)
    layer, *values = in_float32(layer, *values)
    found = run(engine, layer, *values, mode="fast_run")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, layer(*values), rtol=1e-6, atol=1e-6)


def test_the_mean_of_tags_leaves_padding_out_and_counts_repeats():
    np.testing.assert_array_equal(TagMean(TABLE)(TAGS), MEANS)


@every_engine
def test_the_engine_gives_the_same_mean(engine):
    np.testing.assert_array_equal(run(engine, TagMean(TABLE), TAGS), MEANS)


@given(
    arrays.arrays(np.int32, st.tuples(st.integers(0, 4), st.integers(1, 5)), elements=st.integers(0, 3)),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
@settings(max_examples=50, deadline=None)
def test_padding_in_any_position_does_not_change_the_mean(tag_index, n_padding, random):
    wider = [random.sample(row + [0] * n_padding, len(row) + n_padding) for row in tag_index.tolist()]
    wider = np.array(wider, np.int32).reshape(len(tag_index), tag_index.shape[1] + n_padding)
    expected = np.zeros((len(tag_index), 2))
    for i, row in enumerate(tag_index):
        tags = [TABLE[tag] for tag in row if tag != 0]
        if tags:
            expected[i] = np.sum(tags, axis=0) / len(tags)
    np.testing.assert_allclose(TagMean(TABLE)(wider), expected, rtol=1e-6)


@every_engine
def test_a_padding_row_that_is_not_zero_would_not_contribute_and_does_not_learn(engine):
    its = symbolic.engine(engine)
    weight = its.shared(np.full((4, 2), 7, np.float32), "weight")
    output = TagMean(weight)(tag_index := its.variable("tags", dtype="int32", ndim=2))
    gradient = its.grad((output * output).sum(), [weight])
    values, slope = its.function([tag_index], [output, *gradient], mode="fast_compile")(TAGS)
    np.testing.assert_array_equal(values, [[7, 7], [7, 7], [0, 0], [7, 7]])
    np.testing.assert_array_equal(slope[0], [0, 0])
    # Row 3 is half of item 0 and two thirds of item 3: 2 * 7 * (1/2 + 2/3).
    np.testing.assert_allclose(slope[3], [49 / 3, 49 / 3], rtol=1e-6)


def test_a_tag_outside_the_table_is_an_error():
    with pytest.raises(FeatureError, match="index 4 is outside the table of 4 rows"):
        TagMean(TABLE)(np.array([[1, 4]], np.int32))


def test_no_items_give_no_rows():
    assert TagMean(TABLE)(np.zeros((0, 3), np.int32)).shape == (0, 2)


def test_sparse_and_dense_features_have_the_same_projection():
    layer = SparseProjection(np.arange(10.0).reshape(5, 2))
    expected = [[3.0, 4.5], [0, 0], [0, 2], [-6, -7]]
    for x in (features(), features().tocsr(), features().toarray()):
        np.testing.assert_array_equal(layer(x), expected)


def test_a_dense_layer_is_a_product_and_a_bias():
    layer = Dense(np.array([[1.0, 2], [3, 4]]), np.array([10.0, 20]))
    np.testing.assert_array_equal(layer(np.array([[1.0, 1]])), [[14, 26]])


def test_layer_norm_brings_a_row_to_mean_0_and_variance_1():
    layer = LayerNorm(gain=np.array([1.0, 2]), bias=np.array([0.0, 5]), epsilon=0.0)
    np.testing.assert_allclose(layer(np.array([[1.0, 3], [-7, -3]])), [[-1, 7], [-1, 7]])


def test_layer_norm_of_equal_values_is_the_bias():
    layer = LayerNorm(gain=np.ones(3), bias=np.array([1.0, 2, 3]))
    np.testing.assert_array_equal(layer(np.full((1, 3), 8.0)), [[1, 2, 3]])


def test_hidden_adds_its_inputs_before_the_norm():
    layer = Hidden(np.array([1.0, 0]), LayerNorm(np.ones(2), np.zeros(2), epsilon=0.0))
    # 1 + 2 + 3 = 6 against 0 + 1 + 1 = 2: normalised 1 and -1, and -1 is cut off.
    np.testing.assert_allclose(layer(np.array([[2.0, 1]]), np.array([[3.0, 1]])), [[1, 0]])


def test_softmax_of_log_odds_gives_the_odds():
    np.testing.assert_allclose(np.exp(Softmax()(np.log([[1.0, 3.0]]))), [[0.25, 0.75]])


def gru_by_hand(cell, x, state):
    """Step every unit of every row by itself, from the formulas of the docstring."""
    n_rows, n = state.shape
    out = np.zeros((n_rows, n))
    for i in range(n_rows):

        def part(gate, unit, state_row, recurrent, i=i):
            total = cell.bias[gate * n + unit]
            total += sum(x[i, k] * cell.weight[k, gate * n + unit] for k in range(x.shape[1]))
            return total + sum(state_row[k] * recurrent[k, unit] for k in range(n))

        reset = [1 / (1 + np.exp(-part(0, unit, state[i], cell.recurrent[:, :n]))) for unit in range(n)]
        update = [1 / (1 + np.exp(-part(1, unit, state[i], cell.recurrent[:, n:]))) for unit in range(n)]
        kept = [reset[unit] * state[i, unit] for unit in range(n)]
        raw = np.array([part(2, unit, kept, cell.recurrent_candidate) for unit in range(n)])
        norm = (raw - raw.mean()) / np.sqrt(raw.var() + cell.norm.epsilon) * cell.norm.gain + cell.norm.bias
        for unit in range(n):
            out[i, unit] = (1 - update[unit]) * state[i, unit] + update[unit] * max(0.0, norm[unit])
    return out


def test_the_gru_is_its_formulas_unit_by_unit():
    cell, x, state = layers()["GRUCell next"]
    np.testing.assert_allclose(cell(x, state), gru_by_hand(cell, x, state), rtol=1e-12)


def test_the_first_step_is_the_step_from_a_zero_state():
    cell, x = layers()["GRUCell first"]
    np.testing.assert_allclose(cell(x), gru_by_hand(cell, x, np.zeros((4, 3))), rtol=1e-12)
    np.testing.assert_allclose(cell(x), cell(x, np.zeros((4, 3))), rtol=1e-12)


def test_initial_parameters_are_float32_and_the_padding_row_is_zero():
    table = TagMean.initialise(5, 3, rng=rng()).weight
    np.testing.assert_array_equal(table[0], 0)
    assert (table[1:] != 0).all()
    for layer in (
        Dense.initialise(2, 3, rng=rng()),
        GRUCell.initialise(2, 3, rng=rng()),
        Hidden.initialise(3, rng=rng()),
    ):
        assert {value.dtype for value in parameters.flatten(layer).values()} == {np.dtype(np.float32)}


def test_a_layer_without_rng_is_blank():
    blank = TagMean.initialise(10**9, 64, rng=None).weight
    assert blank.shape == (10**9, 64)
    assert blank.strides == (0, 0)
