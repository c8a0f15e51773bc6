"""Training steps a second, beside PyTorch: python tests/benchmarks/train.py [--quick] [--check]

The network of the README (tags, sparse features, 64 hidden units, levels of 20, 120 and 600 classes), AdaGrad on every
side, float32, from the same weights, on the same items: 5 to 15 tags and 25 to 75 features each, drawn by Zipf's law.
All runs in one process on one core with one thread, in turns. Two times are taken of each: whole epochs, that is, an
order drawn, batches made from rows (here with the prefetch thread, on the same core) and steps made; and steps alone,
on batches made in advance. The bars count whole epochs against the best of PyTorch's variants.
The extra `bench` has PyTorch for Python 3.11; without it only our own figures are printed.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

for _name in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{_name}_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402 (after the number of threads is set)
from scipy import sparse  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from pipeline import parameters  # noqa: E402
from pipeline.batches import Batch, Loader  # noqa: E402
from pipeline.config_learning import TrainingSettings  # noqa: E402
from pipeline.examples import Examples  # noqa: E402
from pipeline.fitting import make_loader, run_epoch  # noqa: E402
from pipeline.graph import TrainingStep, compile_step  # noqa: E402
from pipeline.network import FeedbackNetwork, NetworkConfig  # noqa: E402
from pipeline.ops import symbolic  # noqa: E402
from pipeline.prefetch import prefetched  # noqa: E402

N_ITEMS = 16_384
CLASSES = (20, 120, 600)
RATE = 0.01
SIZES = {(20_000, 10_000): {256: 1.3, 1_024: 1.1}, (200_000, 500_000): {256: 1.5, 1_024: 1.2}}  # goals a batch size
PEERS = {  # name -> options of TorchTrainer
    "eager, dense gradients": {"sparse": False, "compiled": ""},
    "eager, sparse gradients": {"sparse": True, "compiled": ""},
    "torch.compile of all, dense": {"sparse": False, "compiled": "whole"},
    "torch.compile after the tables, dense": {"sparse": False, "compiled": "body"},
    "torch.compile after the tables, sparse": {"sparse": True, "compiled": "body"},
}


class Runner(NamedTuple):
    """What one side does in a turn."""

    epoch: Callable[[], Any]  # batches made and steps
    steps: Callable[[], Any]  # steps of ready batches
    first_losses: Callable[[], list[float]]  # of the same three batches, before anything else


def main() -> int:
    """Run everything, print tables and bars; with --check, return 1 where a bar is short."""
    parser = argparse.ArgumentParser(description="Training steps a second, beside PyTorch.")
    parser.add_argument("--quick", action="store_true", help="the smaller tables only, three turns")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is short")
    arguments = parser.parse_args()
    engine = symbolic.engine()
    packages = [f"{engine.name} {engine.version}"]
    packages += [f"torch {version('torch')}"] if find_spec("torch") else ["torch is not installed: no ratios"]
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {', '.join(packages)}, one core, one thread")
    met = [*waiting()]
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    with threadpool_limits(1):
        for n_tags, n_features in list(SIZES)[: 1 if arguments.quick else None]:
            for batch_size, goal in SIZES[n_tags, n_features].items():
                met += compare(n_tags, n_features, batch_size, goal, n_turns=3 if arguments.quick else 5)
        met += grow(10_000, 100_000 if arguments.quick else 1_000_000)
    return int(arguments.check and not all(met))


def compare(n_tags: int, n_features: int, batch_size: int, goal: float, *, n_turns: int) -> list[bool]:
    """Measure against PyTorch, in turns; check that the same batches give the same losses."""
    examples = make_items(N_ITEMS, n_tags, n_features)
    network = make_network(n_tags, n_features)
    runners = {f"tagladder on {symbolic.engine().name}": ours(examples, network, batch_size)}
    if find_spec("torch"):
        for name, options in PEERS.items():
            runners[f"torch, {name}"] = theirs(examples, network, batch_size, **options)
    losses = [runner.first_losses() for runner in runners.values()]
    difference = max(float(np.max(np.abs(np.divide(other, losses[0]) - 1))) for other in losses)
    assert difference < 1e-4, losses
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in runners}
    for turn in range(n_turns):
        for name, runner in runners.items():
            if turn and taken[name][0][0] > 5 * min(times[0][0] for times in taken.values()):
                continue  # A peer five times slower than the best is measured once.
            for measured, seconds in zip((runner.epoch, runner.steps), taken[name], strict=True):
                start = time.perf_counter()
                measured()
                seconds.append(time.perf_counter() - start)
    speeds = {name: [N_ITEMS / statistics.median(part) for part in parts] for name, parts in taken.items()}
    mine, *others = speeds.values()
    print(f"\n{n_tags:,} tags, {n_features:,} features, batch {batch_size:,}; samples a second, {n_turns} turns")
    print(f"{'':<46}{'whole epochs':>14}{'(spread)':>20}{'ours':>7}{'steps alone':>14}{'ours':>7}")
    for name, (whole, alone) in speeds.items():
        spread = f"({N_ITEMS / max(taken[name][0]):,.0f} to {N_ITEMS / min(taken[name][0]):,.0f})"
        print(f"  {name:<44}{whole:>14,.0f}{spread:>20}{mine[0] / whole:>7.2f}{alone:>14,.0f}{mine[1] / alone:>7.2f}")
    print(f"  three steps on the same batches: losses differ by {difference:.1e} at most")
    if not others:
        return []
    best = max(whole for whole, _ in others)
    return [bar(f"train-vs-torch-{n_tags}-{n_features}-{batch_size}", mine[0] / best, ">=", goal)]


def ours(examples: Examples, network: FeedbackNetwork, batch_size: int) -> Runner:
    """Return our side: `run_epoch` of `fit`, and the compiled step alone."""
    settings = make_settings(batch_size)
    step = compile_step(symbolic.engine(settings.engine), network, settings)
    loader = make_loader(examples, network.config, settings)
    ready = list(loader.epoch(1))

    def first_losses() -> list[float]:
        losses = [step(batch, RATE)[0] for batch in fixed_batches(loader, examples, batch_size)]
        for batch in ready[:3]:
            step(batch, RATE)
        return losses

    return Runner(
        epoch=lambda: run_epoch(step, loader, 1, settings),
        steps=lambda: [step(batch, RATE) for batch in ready],
        first_losses=first_losses,
    )


def theirs(examples: Examples, network: FeedbackNetwork, batch_size: int, **options: Any) -> Runner:
    """Return PyTorch's side, of the same weights."""
    import torch
    from torch_network import TorchTrainer

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    trainer = TorchTrainer(examples, parameters.flatten(network), rate=RATE, **options)
    ready = list(trainer.batches(batch_size, 1))
    places = [np.arange(place * batch_size, (place + 1) * batch_size) for place in range(3)]

    def first_losses() -> list[float]:
        losses = [trainer.step(trainer.batch(place)) for place in places]
        for batch in ready[:3]:
            trainer.step(batch)
        return losses

    return Runner(
        epoch=lambda: [trainer.step(batch) for batch in trainer.batches(batch_size, 1)],
        steps=lambda: [trainer.step(batch) for batch in ready],
        first_losses=first_losses,
    )


def grow(small: int, large: int) -> list[bool]:
    """Measure a step with small and with large tables: the same items, whose ids are spread over the larger tables."""
    examples = make_items(N_ITEMS, small, small)
    spread = np.random.default_rng(1).permutation(large)[:small].astype(np.int32)
    index = np.where(examples.tag_index > 0, spread[examples.tag_index - 1] + 1, 0)
    csr = examples.features
    wide = sparse.csr_matrix((csr.data, spread[csr.indices], csr.indptr), shape=(len(examples), large))
    turns, settings = [], make_settings(256)
    for data, size in ((examples, small), (Examples.of(index, examples.labels, features=wide), large)):
        before = resident()
        step, loader = prepared(data, size, settings)
        turns.append((step, loader, before))
    seconds: list[list[float]] = [[], []]
    for turn in range(4):
        for place, (step, loader, _) in enumerate(turns):
            start = time.perf_counter()
            run_epoch(step, loader, 1 + turn, settings)
            seconds[place].append(time.perf_counter() - start)
    costs = [1_000 * statistics.median(taken[1:]) * 256 / N_ITEMS for taken in seconds]
    print(f"\na step of 256 with {small:,} tags and features {costs[0]:.2f} ms, with {large:,} {costs[1]:.2f} ms")
    return [bar("train-growth", costs[1] / costs[0], "<=", 1.2), memory(*turns[1], large, settings)]


def memory(step: TrainingStep, loader: Loader, before: float, size: int, settings: TrainingSettings) -> bool:
    """Tell what training holds beside the tables and their row state, and whether it grows with the epochs."""
    tables = 2 * 2 * size * 64 * 4 / 1e9  # two tables, weights and sums of squares, float32
    held = resident()
    for number in range(10, 13):
        run_epoch(step, loader, number, settings)
    print(f"tables and row state {tables:.3f} GB; the process holds {held - before:.3f} GB more than before them")
    return bar("train-memory-grows-mb", 1_000 * (resident() - held), "<=", 20)


def waiting() -> list[bool]:
    """Measure the share of an epoch in which the engine waits for a batch; on all cores, as in the nightly job."""
    settings = make_settings(256)
    step, loader = prepared(make_items(N_ITEMS, 20_000, 10_000), (20_000, 10_000), settings)
    shares = []
    with threadpool_limits(1):
        for number in range(1, 6):
            start, waited = time.perf_counter(), 0.0
            with prefetched(loader.epoch(number), settings.prefetch) as batches:
                while True:
                    asked = time.perf_counter()
                    batch = next(batches, None)
                    waited += time.perf_counter() - asked
                    if batch is None:
                        break
                    step(batch, RATE)
            shares.append(100 * waited / (time.perf_counter() - start))
    shown = ", ".join(f"{share:.1f}%" for share in shares)
    print(f"\nthe engine waits for batches in {shown} of an epoch")
    return [bar("train-waiting-percent", statistics.median(shares), "<=", 5)]


def prepared(examples: Examples, size: Any, settings: TrainingSettings) -> tuple[TrainingStep, Loader]:
    """Return the compiled step of a network of these tables, and the loader of the examples."""
    n_tags, n_features = size if isinstance(size, tuple) else (size, size)
    network = make_network(n_tags, n_features)
    step = compile_step(symbolic.engine(settings.engine), network, settings)
    return step, make_loader(examples, network.config, settings)


def make_settings(batch_size: int) -> TrainingSettings:
    """Return AdaGrad without dropout, smoothing and clipping, which PyTorch's side does not have either."""
    plain = {"clip_norm": 0, "dropout": 0, "tag_dropout": 0, "label_smoothing": 0}
    return TrainingSettings(batch_size=batch_size, optimizer="adagrad", learning_rate=RATE, **plain)


def make_network(n_tags: int, n_features: int) -> FeedbackNetwork:
    """Return the network, drawn."""
    config = NetworkConfig(n_vocabulary=n_tags + 1, n_features=n_features, n_dense=0, hidden=64, n_classes=CLASSES)
    return FeedbackNetwork.initialise(config, np.random.default_rng(7))


def make_items(n_items: int, n_tags: int, n_features: int) -> Examples:
    """Return items with 5 to 15 tags and 25 to 75 features, by Zipf's law, and drawn labels."""
    rng = np.random.default_rng(7)
    tag_counts, feature_counts = rng.integers(5, 16, n_items), rng.integers(25, 76, n_items)
    tag_index = np.zeros((n_items, 15), np.int32)
    tag_index[np.arange(15) < tag_counts[:, None]] = zipf(tag_counts.sum(), n_tags, rng) + 1
    indptr = np.concatenate([[0], np.cumsum(feature_counts)])
    columns = zipf(indptr[-1], n_features, rng)
    values = rng.random(len(columns), np.float32)
    features = sparse.csr_matrix((values, columns, indptr), shape=(n_items, n_features))
    features.sum_duplicates()
    labels = np.stack([rng.integers(0, n, n_items) for n in CLASSES], axis=1)
    return Examples.of(tag_index, labels, features=features)


def zipf(n: int, n_distinct: int, rng: np.random.Generator) -> Any:
    """Return n ids below n_distinct; id k is drawn 1 / (k + 1) as often as id 0."""
    upto = np.cumsum(1 / np.arange(1, n_distinct + 1))
    return np.searchsorted(upto, rng.random(n) * upto[-1])


def fixed_batches(loader: Loader, examples: Examples, batch_size: int) -> list[Batch]:
    """Return the first three batches in the order of the items."""
    rng = np.random.default_rng(0)
    return [loader.batch(examples.take(slice(n * batch_size, (n + 1) * batch_size)), rng) for n in range(3)]


def resident() -> float:
    """Return the resident memory of this process in GB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9


def bar(name: str, figure: float, relation: str, goal: float) -> bool:
    """Print the line of a bar, and return whether it is met."""
    met = figure >= goal if relation == ">=" else figure <= goal
    print(f"bar {name}: {figure:.4g} (goal {relation} {goal:g}) {'met' if met else 'short'}", flush=True)
    return met


if __name__ == "__main__":
    sys.exit(main())
