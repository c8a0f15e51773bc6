"""Training from shards that are not held in memory: python tests/benchmarks/streaming.py [--quick] [--check]

Folders of drawn items (ten tags, twenty features, both by Zipf's law; shards of 100,000) of one window of the loader
(held in memory), of three and of six (read window by window). A process each trains epochs of batches of 256 and
validates, 64 hidden units, 20, 120 and 600 classes, one thread. Printed are the throughput of its steps, the share of
their time in which the engine waited for a batch, the time of a checkpoint, and the memory of the process at its peak.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

N_TAGS, N_FEATURES, HIDDEN, N_CLASSES = 20_000, 10_000, 64, (20, 120, 600)
SHARD_ITEMS, HELD_OUT = 100_000, 0.05
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}


def main() -> int:
    """Measure, print the table and the bars; with --check, return 1 where one is short."""
    parser = argparse.ArgumentParser(description="Training from shards that are not held in memory.")
    parser.add_argument("--quick", action="store_true", help="windows of 20,000 items instead of 200,000")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is short")
    parser.add_argument("--engine", default="auto", help="theano or pytensor")
    parser.add_argument("--train", nargs=2, metavar=("FOLDER", "WINDOW"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(Path(arguments.train[0]), int(arguments.train[1]), engine=arguments.engine)
        return 0
    window = 20_000 if arguments.quick else 200_000
    print(f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} at the start")
    print("training items   items/s   engine waits   checkpoint   peak memory")
    found = []
    with tempfile.TemporaryDirectory(prefix="tagladder-") as name:
        for n_windows in (1, 3, 6):
            folder = write_folder(Path(name, str(n_windows)), int(n_windows * window / (1 - HELD_OUT)), window // 2)
            found.append(run(folder, window, engine=arguments.engine))
            row = found[-1]
            told = f"{row['n_items']:>14,} {row['items_per_second']:>9,.0f} {row['waiting']:>14.1%}"
            print(f"{told} {row['checkpoint']:>10.2f} s {row['peak']:>10,.0f} MB")
    print(f"load {os.getloadavg()[0]:.1f} at the end")
    met = [
        bar("engine-waits-for-shards", max(one["waiting"] for one in found), at_most=0.05),
        bar("memory-of-6-windows-against-3", found[2]["peak"] / found[1]["peak"], at_most=1.1),
    ]
    return 0 if all(met) or not arguments.check else 1


def run(folder: Path, window: int, *, engine: str) -> dict[str, float]:
    """Return what a process says that trains on a folder."""
    command = [sys.executable, __file__, "--engine", engine, "--train", str(folder), str(window)]
    environment = {**os.environ, **ONE_THREAD}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def train(folder: Path, window: int, *, engine: str) -> None:
    """Train two epochs on a folder, and print what it took as JSON."""
    from pipeline import batches
    from pipeline.checkpoint import Checkpoint
    from pipeline.config_learning import TrainingSettings
    from pipeline.fitting import fit
    from pipeline.network import FeedbackNetwork, NetworkConfig
    from pipeline.parts import open_parts
    from pipeline.training import held

    batches.BLOCK, batches.WINDOW = window // 4, window
    parts = open_parts(folder)
    config = NetworkConfig(n_vocabulary=N_TAGS, n_features=N_FEATURES, n_dense=0, hidden=HIDDEN, n_classes=N_CLASSES)
    network = FeedbackNetwork.initialise(config, np.random.default_rng(1))
    times = []
    save = Checkpoint.save

    def timed(*arguments: object) -> None:
        started = time.monotonic()
        save(*arguments)  # type: ignore[arg-type]  # whatever it is given
        times.append(time.monotonic() - started)

    Checkpoint.save = timed  # type: ignore[assignment, method-assign]  # to see what it takes
    settings = TrainingSettings(engine=engine, batch_size=256, epochs=2)
    result = fit(network, held(parts.train), held(parts.validation), settings, checkpoint=folder / "checkpoint.h5")
    last = result.history[-1]
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    facts = {"items_per_second": last.items_per_second, "waiting": last.waiting, "checkpoint": times[-1]}
    print(json.dumps({"n_items": len(parts.train), **facts, "peak": kilobytes / 1024}))


def write_folder(folder: Path, n_items: int, shard_items: int) -> Path:
    """Write drawn items in shards, the last share of them for validation."""
    import h5py
    from scipy import sparse

    from pipeline.hdf5 import write_array
    from pipeline.shards import write_sparse

    folder.mkdir()
    n_train = int(n_items * (1 - HELD_OUT))
    for number, start in enumerate(range(0, n_items, shard_items)):
        rng, n = np.random.default_rng([1, number]), min(shard_items, n_items - start)
        columns = zipf(rng, (n, 20), N_FEATURES)
        places = (np.repeat(np.arange(n), columns.shape[1]), columns.ravel())
        features = sparse.csc_matrix((np.ones(columns.size, np.float32), places), (n, N_FEATURES))
        features.data = np.minimum(features.data, 1)
        with h5py.File(folder / f"features-{number:05d}.h5", "w") as file:
            sizes = {"n_vocabulary": N_TAGS, "n_features": N_FEATURES, "n_dense": 0, "n_classes": N_CLASSES}
            for name, value in sizes.items():
                file.attrs[name] = np.array(value, np.int64)
            write_array(file, "tag_index", (1 + zipf(rng, (n, 10), N_TAGS - 1)).astype(np.int32))
            write_sparse(file.create_group("features"), features)
            write_array(file, "dense", np.zeros((n, 0), np.float32))
            labels = np.stack([zipf(rng, (n,), n_classes) for n_classes in N_CLASSES], axis=1)
            write_array(file, "labels", labels.astype(np.int32))
            write_array(file, "split", (np.arange(start, start + n) >= n_train).astype(np.uint8))
    return folder


def zipf(rng: np.random.Generator, shape: tuple[int, ...], n: int) -> np.ndarray:
    """Return numbers below n, the k-th with a probability in proportion to 1 / (k + 1)."""
    weights = 1 / np.arange(1, n + 1)
    return np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(shape)).clip(max=n - 1)


def bar(name: str, figure: float, *, at_most: float) -> bool:
    """Print the line of a bar, and return whether it is met."""
    print(f"bar {name}: {figure:.4g} (goal <= {at_most:g}) {'met' if figure <= at_most else 'short'}")
    return figure <= at_most


if __name__ == "__main__":
    sys.exit(main())
