"""Where the time of scoring goes, and how far the forward is from the machine's products: see score.py.

python tests/benchmarks/score_profile.py ITEMS MODEL OUT. The job runs with one worker; each named function counts the
processor's time that it takes without the named ones that it calls. The products are those of the forward's shapes,
float32, on arrays that stay where they are.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from score_job import one_thread_of_arrow

STEPS = {  # module, object, function -> what it is
    "pipeline.score_file::plan": "checks of the whole file, digests",
    "pipeline.score_file::score_raw": "shards to and from disk, rejects, and the rest",
    "pipeline.raw_items:RawItems:read": "clean items: checks",
    "pipeline.raw_items:RawItems:_batches": "clean items: reading Parquet",
    "pipeline.clean_rows:Cleaner:clean": "clean items: columns",
    "pipeline.clean_rows::group_tags": "clean items: tags",
    "pipeline.features:FeatureTransform:transform": "features",
    "pipeline.inference:Plan:bag": "tags and features as one matrix",
    "pipeline.inference:Plan:_sums": "forward: sparse product",
    "pipeline.inference::_hidden": "forward: hidden layer",
    "pipeline.inference::_start": "forward: first state",
    "pipeline.inference::_step": "forward: second and third state",
    "pipeline.inference:Plan:outputs": "forward: projection and path scores",
    "pipeline.passes::decode_scores": "decoding",
    "pipeline.scoring::_scores": "columns of the scores",
    "pipeline.writers:ParquetWriter:_write": "writing Parquet",
    "pipeline.writers:HDF5Writer:_write": "writing HDF5",
}
READER = "pipeline.raw_items:RawItems:_batches"  # gives its rows one by one


class Clock:
    """Seconds by label; a label's own, without those of the labels within."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._within: list[float] = [0.0]

    def wrap(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        """Return the function with its time taken."""

        def run(*values: Any, **named: Any) -> Any:
            started = time.process_time()
            self._within.append(0.0)
            try:
                return function(*values, **named)
            finally:
                whole = time.process_time() - started
                self.seconds[label] += whole - self._within.pop()
                self._within[-1] += whole

        return run

    def wrap_rows(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        """Return the function, which gives rows one by one, with the time of each taken."""
        following = self.wrap(lambda rows: next(rows, None), label)

        def run(*values: Any, **named: Any) -> Iterator[Any]:
            rows = function(*values, **named)
            while (row := following(rows)) is not None:
                yield row

        return run


def main(items: str, model: str, out: str) -> None:
    """Print seconds by step, and those of bare products, as JSON."""
    from pipeline.score_file import score_file

    one_thread_of_arrow(1)
    clock = Clock()
    for place, label in STEPS.items():
        module, kind, name = place.split(":")
        holder = getattr(import_module(module), kind) if kind else import_module(module)
        wrap = clock.wrap_rows if place == READER else clock.wrap
        setattr(holder, name, wrap(getattr(holder, name), label))
    started = time.process_time()
    done = score_file(items, model=Path(model), out=Path(out), settings={"scoring": {"workers": "1"}})
    whole = time.process_time() - started
    steps = {label: clock.seconds[label] for label in STEPS.values()}
    n_items = done["n_items"]
    print(json.dumps({"items": n_items, "seconds": whole, "steps": steps, "products": products(n_items)}))


def products(n_items: int) -> float:
    """Return the seconds that the forward's products alone take for so many items, the best of many rounds."""
    from scipy.linalg.blas import sgemm

    from pipeline.folding import ROWS

    rng = np.random.default_rng(0)
    n, n_paths = 64, 600
    # units out, units in: projection, two steps of gates and candidate, paths from three states.
    shapes = [(3 * n, n + 1), *[(2 * n, n), (n, n)] * 2, (n_paths, 3 * (n + 1))]
    drawn = [[rng.random(shape, np.float32) for shape in ((out, of), (of, ROWS), (out, ROWS))] for out, of in shapes]
    taken = []
    for _ in range(200):
        started = time.perf_counter()
        for weight, x, y in drawn:
            sgemm(1.0, x.T, weight.T, c=y.T, overwrite_c=1)
        taken.append(time.perf_counter() - started)
    return min(taken) * n_items / ROWS


if __name__ == "__main__":
    main(*sys.argv[1:])
