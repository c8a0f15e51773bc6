"""Several steps of each optimizer, on a table by rows, a matrix and a vector, against a loop over arrays."""

import numpy as np
import pytest
from by_hand import ByHand
from graphs import every_engine

from pipeline.ops import symbolic
from pipeline.optimizer import OPTIMIZERS, minimise, touched_rows, whole

every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)
BATCHES = [[0, 2, 3], [0, 3], [0, 1, 4], [0, 2], [0, 1, 2, 3, 4], [0]]  # rows that each step touches; row 5 never
UNTOUCHED = 5
RATE, CLIP, DECAY = 0.05, 2.0, 0.1


def start(dtype):
    rng = np.random.default_rng(4)
    values = {"table": rng.standard_normal((6, 3)), "matrix": rng.standard_normal((3, 2)), "bias": np.zeros(2)}
    values["table"][0] = 0  # padding
    return {name: value.astype(dtype) for name, value in values.items()}


def weights(rows):
    """Return what each touched row weighs in the cost: the padding nothing."""
    return np.where(np.array(rows) == 0, 0.0, 1.0 + np.arange(len(rows)))


def engine_steps(engine, mode, dtype, optimizer, **options):
    """Return the parameters after all batches, and the norms of the gradients."""
    its = symbolic.engine(engine)
    shared = {name: its.shared(value, name) for name, value in start(dtype).items()}
    index, weight = its.variable("index", dtype="int32", ndim=1), its.variable("weight", dtype=dtype, ndim=1)
    wanted = [touched_rows(its, "table", shared["table"], index, padded=True)]
    wanted += [whole(name, shared[name]) for name in ("matrix", "bias")]
    out = its.dot(wanted[0].value * its.column(weight), shared["matrix"]) + shared["bias"]
    updates = minimise(
        its, its.sum(out * out), wanted, optimizer=OPTIMIZERS[optimizer](), learning_rate=RATE, **options
    )
    step = its.function([index, weight], [updates.gradient_norm], updates=updates.changes, mode=mode)
    norms = [float(step(np.array(rows, np.int32), weights(rows).astype(dtype))[0]) for rows in BATCHES]
    return {name: variable.get_value() for name, variable in shared.items()}, norms


def steps_by_hand(optimizer, **options):
    values, norms, loop = start("float64"), [], ByHand(optimizer, RATE, **options)
    for rows in BATCHES:
        x = values["table"][rows] * weights(rows)[:, None]
        out = x @ values["matrix"] + values["bias"]
        table = np.zeros_like(values["table"])
        table[rows] = 2 * out @ values["matrix"].T * weights(rows)[:, None]
        gradients = {"table": table, "matrix": 2 * x.T @ out, "bias": 2 * out.sum(axis=0)}
        norms.append(loop.step(values, gradients, {"table": rows}))
    return values, norms


FULL_COMPILE = [pytest.param("fast_run", "float64", optimizer, marks=pytest.mark.slow) for optimizer in OPTIMIZERS]


@every_engine
@pytest.mark.parametrize(
    ("mode", "dtype", "optimizer"),
    [*(("fast_compile", dtype, name) for dtype in ("float32", "float64") for name in OPTIMIZERS), *FULL_COMPILE],
)
def test_six_steps_are_those_of_a_loop_over_arrays(engine, optimizer, mode, dtype):
    options = {"clip_norm": CLIP, "weight_decay": DECAY}
    found, norms = engine_steps(engine, mode, dtype, optimizer, **options)
    expected, norms_by_hand = steps_by_hand(optimizer, **options)
    assert max(norms_by_hand) > CLIP > min(norms_by_hand)  # clipped, and not clipped
    tolerance = {"float32": 1e-5, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(norms, norms_by_hand, rtol=10 * tolerance)
    for name, value in expected.items():
        assert found[name].dtype == dtype
        np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance, err_msg=name)
    assert_untouched(found["table"])


@every_engine
@every_optimizer
def test_weight_decay_moves_neither_the_padding_nor_a_row_that_no_batch_touches(engine, optimizer):
    found, _ = engine_steps(engine, "fast_compile", "float32", optimizer, weight_decay=5.0)
    assert_untouched(found["table"])


def assert_untouched(table):
    first = start(table.dtype)["table"]
    assert table[0].tobytes() == np.zeros_like(first[0]).tobytes()
    assert table[UNTOUCHED].tobytes() == first[UNTOUCHED].tobytes()
