"""What a sparse input is worth, forward and backward: python tests/benchmarks/sparse_input.py [--quick] [--check]

The projection of sparse features (10,000 columns, 99.5% zeros) to 64 hidden units, once with the CSC matrix, which
takes structured_dot in the engines and SciPy's product in NumPy, and once with the same numbers as a dense matrix.
Backward is the gradient to the weights. All is compiled in mode fast_run, in float32, on one thread; the values of
both are compared. Every engine that is installed is measured.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from pipeline.layers import SparseProjection
from pipeline.ops import symbolic

N_FEATURES, N_HIDDEN, DENSITY = 10_000, 64, 0.005
BATCHES = (256, 1_024)

Run = Callable[[Any], Any]


def main() -> int:
    """Run everything, print the table and the bars; with --check, return 1 where a bar is short."""
    parser = argparse.ArgumentParser(description="What a sparse input is worth, forward and backward.")
    parser.add_argument("--quick", action="store_true", help="the smaller batch only, fewer runs")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is short")
    arguments = parser.parse_args()
    n_runs, sizes = (15, BATCHES[:1]) if arguments.quick else (60, BATCHES)
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, SciPy {version('scipy')}, one thread")
    print(f"{N_FEATURES:,} features, {1 - DENSITY:.1%} zeros, {N_HIDDEN} hidden units, float32; {n_runs} runs in turns")
    with threadpool_limits(1):
        met = [compare(name, kinds, size, n_runs) for name, kinds in peers().items() for size in sizes]
    return int(arguments.check and not all(map(all, met)))


def peers() -> dict[str, dict[str, tuple[Run, Run]]]:
    """Return for NumPy and each engine what it can compute: a function of a sparse and one of a dense batch."""
    weight = np.random.default_rng(7).standard_normal((N_FEATURES, N_HIDDEN), np.float32)
    found = {f"NumPy {np.__version__}": {"forward": (SparseProjection(weight), SparseProjection(weight))}}
    for name in ("theano", "pytensor"):
        if find_spec(name) is not None:
            engine = symbolic.engine(name)
            found[f"{name} {engine.version}"] = compiled(engine, weight)
    return found


def compiled(engine: symbolic.Engine, weight: Any) -> dict[str, tuple[Run, Run]]:
    """Return the functions of an engine: the product, and the gradient of the sum of its squares to the weights."""
    shared = engine.shared(weight, "weight")
    inputs = (
        engine.sparse_variable("x", dtype="float32"),
        engine.variable("x", dtype="float32", ndim=2),
    )
    outputs = [SparseProjection(shared)(x) for x in inputs]
    gradients = [engine.grad((output * output).sum(), [shared])[0] for output in outputs]

    def function(x: Any, output: Any) -> Run:
        run = engine.function([x], [output], mode="fast_run")
        return lambda batch: run(batch)[0]

    return {
        "forward": (function(inputs[0], outputs[0]), function(inputs[1], outputs[1])),
        "forward and backward": (function(inputs[0], gradients[0]), function(inputs[1], gradients[1])),
    }


def compare(name: str, kinds: dict[str, tuple[Run, Run]], size: int, n_runs: int) -> list[bool]:
    """Measure one engine at one batch size, sparse and dense in turns; check that both compute the same."""
    batch = sparse.random(size, N_FEATURES, DENSITY, format="csc", dtype=np.float32, random_state=3)
    wide = batch.toarray()
    met = []
    print(f"\n{name}, batch {size:,}")
    for kind, (narrow, dense) in kinds.items():
        first, second = narrow(batch), dense(wide)
        difference = np.abs(first - second).max() / np.abs(second).max()
        assert difference < 1e-5, difference
        taken: list[list[float]] = [[], []]
        for _ in range(n_runs):
            for times, run, x in zip(taken, (narrow, dense), (batch, wide), strict=True):
                started = time.perf_counter()
                run(x)
                times.append(1_000 * (time.perf_counter() - started))
        middle = [statistics.median(times) for times in taken]
        for what, times, median in zip(("sparse", "dense"), taken, middle, strict=True):
            spread = f"{np.quantile(times, 0.1):.2f} to {np.quantile(times, 0.9):.2f}"
            print(f"  {kind:<21} {what:<7} {median:8.2f} ms  ({spread})  {middle[1] / median:6.2f}")
        print(f"  largest difference of a value: {difference:.1e} of the largest")
        place = f"{name.split()[0].lower()}-{kind.split()[-1]}-{size}"
        met.append(bar(f"sparse-vs-dense-{place}", middle[1] / middle[0], 5))
    return met


def bar(name: str, value: float, goal: float) -> bool:
    """Print one line for a bar, and return whether it is met."""
    met = value >= goal
    print(f"bar {name}: {value:.2f} (goal >= {goal:g}) {'met' if met else 'short'}")
    return met


if __name__ == "__main__":
    raise SystemExit(main())
