import numpy as np
import pytest
from graphs import every_engine

from pipeline.errors import TrainingError
from pipeline.ops import symbolic
from pipeline.optimizer import AdaGrad, Adam, RowWise, global_norm, minimise, snapshot, touched_rows, whole

RATE = 0.1
START = np.array([[1.0, -2.0], [3.0, 0.5], [0.0, 0.0]])
TARGET = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])


def square_step(engine, *, optimizer, dtype="float64", rows=False, **options):
    """Return a step that makes the sum of (table - target)^2, over rows or all of it, smaller, and its table."""
    its = symbolic.engine(engine)
    table = its.shared(START.astype(dtype), "table")
    index = its.variable("index", dtype="int32", ndim=1)
    parameter = touched_rows(its, "table", table, index) if rows else whole("table", table)
    target = its.constant(0, table) + TARGET.astype(dtype)
    goal = its.shared(target, "target")
    error = parameter.value - (its.rows(goal, index) if rows else goal)
    updates = minimise(its, (error * error).sum(), [parameter], optimizer=optimizer, learning_rate=RATE, **options)
    inputs = [index] if rows else []
    return its.function(inputs, [updates.gradient_norm], updates=updates.changes, mode="fast_compile"), table, updates


def adam_by_hand(table, n_steps, *, rate=RATE):
    table, first, second = table.copy(), np.zeros_like(table), np.zeros_like(table)
    for t in range(1, n_steps + 1):
        gradient = 2 * (table - TARGET[: len(table)])
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        table = table - rate * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    return table


def adagrad_by_hand(table, n_steps):
    table, total = table.copy(), np.zeros_like(table)
    for _ in range(n_steps):
        gradient = 2 * (table - TARGET[: len(table)])
        total += gradient**2
        table = table - RATE * gradient / (np.sqrt(total) + 1e-8)
    return table


@every_engine
@pytest.mark.parametrize("optimizer", [Adam(), AdaGrad()])
def test_the_first_step_is_the_learning_rate_against_the_sign(engine, optimizer):
    step, table, _ = square_step(engine, optimizer=optimizer)
    step()
    np.testing.assert_allclose(table.get_value(), [[0.9, -1.9], [2.9, 0.6], [0, 0]], rtol=1e-7)


@every_engine
@pytest.mark.parametrize(("optimizer", "by_hand"), [(Adam(), adam_by_hand), (AdaGrad(), adagrad_by_hand)])
def test_five_steps_are_those_of_the_formulas(engine, optimizer, by_hand):
    step, table, _ = square_step(engine, optimizer=optimizer)
    for _ in range(5):
        step()
    np.testing.assert_allclose(table.get_value(), by_hand(START, 5), rtol=1e-12, atol=1e-15)


@every_engine
@pytest.mark.parametrize("optimizer", [Adam(), AdaGrad()])
def test_by_rows_and_as_a_whole_are_the_same_where_all_rows_are_touched(engine, optimizer):
    dense, dense_table, _ = square_step(engine, optimizer=optimizer, weight_decay=0.1, clip_norm=1.0)
    sparse, sparse_table, _ = square_step(engine, optimizer=optimizer, rows=True, weight_decay=0.1, clip_norm=1.0)
    for _ in range(3):
        dense()
        sparse(np.array([0, 1, 2], np.int32))
    np.testing.assert_allclose(sparse_table.get_value(), dense_table.get_value(), rtol=1e-12)


@every_engine
@pytest.mark.parametrize("optimizer", [Adam(), AdaGrad(), RowWise()])
def test_rows_that_are_not_touched_keep_value_and_state_bit_for_bit(engine, optimizer):
    step, table, updates = square_step(engine, optimizer=optimizer, rows=True, weight_decay=0.1, dtype="float32")
    for _ in range(2):
        step(np.array([0], np.int32))
    np.testing.assert_array_equal(table.get_value()[1:], START[1:].astype(np.float32))
    for state in snapshot(updates.state).values():
        assert state.dtype == np.float32
        np.testing.assert_array_equal(state[1:], 0)
        assert np.all(state[0] != 0)


@every_engine
def test_row_wise_keeps_the_proportions_of_a_rows_gradient(engine):
    step, table, _ = square_step(engine, optimizer=RowWise(), rows=True)
    step(np.array([0, 1], np.int32))
    # Gradients 2 * (table - target): (2, -4) and (4, -1); root of the mean square: sqrt(10) and sqrt(8.5).
    expected = START[:2] - RATE * np.array([[2, -4] / np.sqrt(10), [4, -1] / np.sqrt(8.5)])
    np.testing.assert_allclose(table.get_value()[:2], expected, rtol=1e-7)


@every_engine
def test_a_row_touched_late_starts_like_a_row_touched_first(engine):
    step, table, _ = square_step(engine, optimizer=Adam(), rows=True)
    for _ in range(4):
        step(np.array([0], np.int32))
    step(np.array([1], np.int32))
    np.testing.assert_allclose(table.get_value()[1], adam_by_hand(START, 1)[1], rtol=1e-12)
    np.testing.assert_allclose(table.get_value()[0], adam_by_hand(START, 4)[0], rtol=1e-12)


@every_engine
@pytest.mark.parametrize("optimizer", [Adam(), AdaGrad(), RowWise()])
def test_a_row_of_zeros_without_gradient_stays_exactly_zero(engine, optimizer):
    step, table, _ = square_step(
        engine, optimizer=optimizer, rows=True, weight_decay=0.5, clip_norm=0.5, dtype="float32"
    )
    for _ in range(5):
        step(np.array([2, 0], np.int32))
    assert table.get_value()[2].tobytes() == np.zeros(2, np.float32).tobytes()


@every_engine
def test_gradients_are_scaled_down_to_the_norm_together(engine):
    seen = []

    class Plain:
        def change(self, memory, gradient, learning_rate):
            seen.append(memory.parameter.name)
            return -gradient

    for clip_norm, expected in ((0.0, [-3.0, -4.0]), (1.0, [-0.6, -0.8]), (10.0, [-3.0, -4.0])):
        its = symbolic.engine(engine)
        first, second = its.shared(np.array([0.0]), "first"), its.shared(np.array([0.0]), "second")
        cost = (first * 3.0).sum() + (second * 4.0).sum()
        wanted = [whole("first", first), whole("second", second)]
        updates = minimise(its, cost, wanted, optimizer=Plain(), learning_rate=1.0, clip_norm=clip_norm)
        norm = its.function([], [updates.gradient_norm], updates=updates.changes, mode="fast_compile")()[0]
        assert norm == pytest.approx(5)
        np.testing.assert_allclose([first.get_value()[0], second.get_value()[0]], expected)
    assert seen == ["first", "second"] * 3


@every_engine
def test_weight_decay_takes_its_share_of_matrices_and_leaves_vectors(engine):
    its = symbolic.engine(engine)
    matrix, vector = its.shared(np.full((1, 2), 10.0), "matrix"), its.shared(np.full(2, 10.0), "vector")
    cost = (matrix * 0.0).sum() + (vector * 0.0).sum()
    wanted = [whole("matrix", matrix), whole("vector", vector)]
    updates = minimise(its, cost, wanted, optimizer=AdaGrad(), learning_rate=0.5, weight_decay=0.1)
    its.function([], [], updates=updates.changes, mode="fast_compile")()
    np.testing.assert_allclose(matrix.get_value(), [[9.5, 9.5]])
    np.testing.assert_array_equal(vector.get_value(), [10, 10])


@every_engine
def test_any_expression_of_any_parameters_is_minimised_without_a_network(engine):
    its = symbolic.engine(engine)
    x = its.shared(np.array([5.0]), "x")
    cost = ((x - 2.0) ** 2).sum()
    updates = minimise(its, cost, [whole("x", x)], optimizer=Adam(), learning_rate=0.3)
    step = its.function([], [cost], updates=updates.changes, mode="fast_compile")
    for _ in range(200):
        step()
    assert x.get_value()[0] == pytest.approx(2, abs=1e-3)


@every_engine
def test_a_function_may_change_the_gradients(engine):
    still, _, _ = result = square_step(
        engine,
        optimizer=AdaGrad(),
        change_gradients=lambda gradients: {name: gradient * 0.0 for name, gradient in gradients.items()},
    )
    assert still()[0] == 0
    np.testing.assert_array_equal(result[1].get_value(), START)


@every_engine
def test_gradients_that_are_not_returned_stay_and_others_are_refused(engine):
    step, table, _ = square_step(engine, optimizer=AdaGrad(), change_gradients=lambda gradients: {})
    step()
    assert (table.get_value()[0] != START[0]).all()
    with pytest.raises(TrainingError, match="returns 'tabel', which is not one of table"):
        square_step(engine, optimizer=Adam(), change_gradients=lambda gradients: {"tabel": gradients["table"]})
    with pytest.raises(TrainingError, match="makes table float64 of 1 dimensions; its gradient is float32 of 2"):
        square_step(
            engine,
            optimizer=Adam(),
            dtype="float32",
            change_gradients=lambda gradients: {"table": gradients["table"].sum(axis=0) * np.float64(1.0)},
        )


@every_engine
@pytest.mark.parametrize("optimizer", [Adam(), AdaGrad()])
def test_noise_on_the_gradients_does_not_move_the_padding_row(engine, optimizer):
    its = symbolic.engine(engine)
    table, index = its.shared(np.array([[0.0], [1.0]]), "table"), its.variable("index", dtype="int32", ndim=1)
    wanted = [touched_rows(its, "table", table, index, padded=True)]
    updates = minimise(
        its,
        its.sum(wanted[0].value * wanted[0].value),
        wanted,
        optimizer=optimizer,
        learning_rate=0.1,
        weight_decay=0.1,
        change_gradients=lambda gradients: {"table": gradients["table"] + 1.0},
    )
    step = its.function([index], [], updates=updates.changes, mode="fast_compile")
    for _ in range(3):
        step(np.array([0, 1], np.int32))
    assert table.get_value()[0] == 0 != table.get_value()[1] - 1


@every_engine
def test_the_norm_is_over_all_gradients(engine):
    its = symbolic.engine(engine)
    parts = [its.shared(np.array([3.0], np.float32), "a"), its.shared(np.array([[4.0]], np.float32), "b")]
    assert its.function([], [global_norm(its, parts)], mode="fast_compile")()[0] == 5
