"""One side of the forward's benchmark in a process of its own: python tests/benchmarks/score_forward.py SIDE THREADS

Reads lines of JSON: {"batch": items, "seconds": s} is answered by how many items went by in how many seconds, and
{"outputs": path} by a file of labels and logits. See score.py.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from itertools import cycle
from typing import Any

import numpy as np
from scipy import sparse
from score_peers import SIDES, outputs_of

from pipeline import parameters
from pipeline.network import FeedbackNetwork, NetworkConfig

N_ITEMS, N_TAGS, N_FEATURES, CLASSES = 16_384, 20_000, 10_000, (20, 120, 600)


def make_network() -> FeedbackNetwork:
    """Return the network; gains and biases are drawn too, so that none can be left out."""
    config = NetworkConfig(n_vocabulary=N_TAGS + 1, n_features=N_FEATURES, n_dense=0, hidden=64, n_classes=CLASSES)
    rng = np.random.default_rng(7)
    drawn = parameters.flatten(FeedbackNetwork.initialise(config, rng))
    moved = {
        name: (value + 0.1 * rng.standard_normal(value.shape) * (value.ndim == 1)).astype(np.float32)
        for name, value in drawn.items()
    }
    return FeedbackNetwork.load(config, moved)


def make_items() -> tuple[Any, Any]:
    """Return 10 tags and 20 features an item by Zipf's law: ids (n, 10), CSR; what is drawn twice counts twice."""
    rng = np.random.default_rng(7)
    tags = 1 + zipf(rng, (N_ITEMS, 10), N_TAGS)
    columns, rows = zipf(rng, N_ITEMS * 20, N_FEATURES), np.repeat(np.arange(N_ITEMS), 20)
    features = sparse.csr_matrix((rng.random(len(rows), np.float32), (rows, columns)), (N_ITEMS, N_FEATURES))
    features.sum_duplicates()
    return tags.astype(np.int32), features


def zipf(rng: np.random.Generator, shape: Any, n: int) -> Any:
    """Return numbers below n; k is drawn 1 / (k + 1) as often as 0."""
    upto = np.cumsum(1 / np.arange(1, n + 1))
    return np.searchsorted(upto, rng.random(shape) * upto[-1]).clip(max=n - 1)


def main(side: str, n_threads: int) -> None:
    """Answer until the input ends."""
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    ready, run = SIDES[side](make_network(), n_threads)
    tags, features = make_items()
    batches: dict[int, list[Any]] = {}

    def inputs(size: int) -> list[Any]:
        if size not in batches:
            starts = range(0, N_ITEMS - size + 1, size)
            batches[size] = [ready(tags[at : at + size], features[at : at + size]) for at in starts]
            for one in batches[size]:
                run(one)
        return batches[size]

    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "outputs" in asked:
            labels, logits = outputs_of(run, inputs(2_048))
            np.savez(asked["outputs"], labels=labels, logits=logits[:512])
            print("{}", flush=True)
            continue
        n_items, waiting = 0, cycle(inputs(asked["batch"]))
        started = time.perf_counter()
        while (seconds := time.perf_counter() - started) < asked["seconds"]:
            run(next(waiting))
            n_items += asked["batch"]
        print(json.dumps({"items": n_items, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
