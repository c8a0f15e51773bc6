"""Members of an ensemble trained at once, one a physical core: python tests/benchmarks/members.py [--quick] [--check]

1, 2, 4 ... processes train the same network on items of their own, tags drawn by Zipf's law (20,000 tags, 10,000
features, 64 hidden units, 20, 120 and 600 classes, batches of 256, prefetch as in the job). Each is a process as the
job has it: its own compile directory, one BLAS thread, pinned to one physical core of `lscpu`. They compile, train an
epoch, wait for each other, and train for the same seconds; runs are taken in turns. The throughput of n members is the
sum of theirs. Beside it stands the throughput per second of processor time: where others use the machine, the first
falls and the second tells what the members take from each other (memory, caches).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np

N_TAGS, N_FEATURES, HIDDEN, N_CLASSES = 20_000, 10_000, 64, (20, 120, 600)
N_ITEMS = 25_600  # 100 steps an epoch
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}


@dataclass(frozen=True)
class Throughput:
    """What members that trained at the same time did together."""

    items_per_second: float
    items_per_cpu_second: float  # mean of the members


def main() -> int:
    """Measure, print the table and the bar; with --check, return 1 where it is short."""
    parser = argparse.ArgumentParser(description="Members of an ensemble trained at once.")
    parser.add_argument("--quick", action="store_true", help="one short run of 1 and 2 members")
    parser.add_argument("--check", action="store_true", help="exit 1 where the bar is short")
    parser.add_argument("--engine", default="auto", help="theano or pytensor")
    parser.add_argument("--member", type=int, nargs=2, metavar=("SEED", "SECONDS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.member:
        train_member(*arguments.member, engine=arguments.engine)
        return 0
    cores = physical_cores()
    n_runs, seconds = (1, 3) if arguments.quick else (3, 12)
    sizes = [size for size in (1, 2, 4, 8, 16) if size <= (min(2, len(cores)) if arguments.quick else len(cores))]
    print(
        f"Python {platform.python_version()}, {len(cores)} physical cores, load {os.getloadavg()[0]:.1f} at the start"
    )
    found: dict[int, list[Throughput]] = {size: [] for size in sizes}
    for _ in range(n_runs):
        for size in sizes:
            found[size].append(run(cores[:size], seconds, engine=arguments.engine))
    met = report(found)
    print(f"load {os.getloadavg()[0]:.1f} at the end")
    return int(arguments.check and not met)


def physical_cores() -> list[int]:
    """Return one processor of each physical core that this process may use: hyper-threads are no cores."""
    told = subprocess.run(["lscpu", "--parse=CPU,CORE,SOCKET"], capture_output=True, text=True, check=True).stdout
    first: dict[tuple[str, str], int] = {}
    for line in told.splitlines():
        if not line.startswith("#"):
            cpu, core, socket = line.split(",")
            if int(cpu) in os.sched_getaffinity(0):
                first.setdefault((core, socket), int(cpu))
    return sorted(first.values())


def run(cores: list[int], seconds: int, *, engine: str) -> Throughput:
    """Train a member on each of the cores at the same time."""
    command = [sys.executable, __file__, "--engine", engine, "--member"]
    members = [
        subprocess.Popen(
            ["taskset", "--cpu-list", str(core), *command, str(seed), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ONE_THREAD},
        )
        for seed, core in enumerate(cores)
    ]
    for member in members:
        assert member.stdout is not None
        assert member.stdout.readline() == "ready\n", "a member did not get as far as training"
    for member in members:
        assert member.stdin is not None
        member.stdin.write("go\n")
        member.stdin.flush()
    results = [json.loads(member.communicate()[0]) for member in members]
    return Throughput(
        sum(result["items"] / result["seconds"] for result in results),
        statistics.mean(result["items"] / result["cpu_seconds"] for result in results),
    )


def train_member(seed: int, seconds: int, *, engine: str) -> None:
    """Compile, train an epoch, wait for `go`, train for some seconds, and print what was done as JSON."""
    from threadpoolctl import threadpool_limits

    from pipeline.config_learning import TrainingSettings
    from pipeline.fitting import make_loader, run_epoch
    from pipeline.graph import compile_step
    from pipeline.network import FeedbackNetwork, NetworkConfig
    from pipeline.ops import symbolic

    settings = TrainingSettings(batch_size=256, epochs=1000, seed=seed)
    config = NetworkConfig(n_vocabulary=N_TAGS, n_features=N_FEATURES, n_dense=0, hidden=HIDDEN, n_classes=N_CLASSES)
    network = FeedbackNetwork.initialise(config, np.random.default_rng(seed))
    loader = make_loader(make_examples(seed), config, settings)
    step = compile_step(symbolic.engine(engine), network, settings)
    with threadpool_limits(1):
        run_epoch(step, loader, 1, settings)
        print("ready", flush=True)
        sys.stdin.readline()
        started, cpu_started, number = time.monotonic(), time.process_time(), 1
        while time.monotonic() - started < seconds:
            number += 1
            run_epoch(step, loader, number, settings)
    facts = {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu_started}
    print(json.dumps({"items": (number - 1) * N_ITEMS, **facts}))


def make_examples(seed: int):  # type: ignore[no-untyped-def]  # its module is imported in the members only
    """Return items with ten tags and twenty features each, both by Zipf's law."""
    from scipy import sparse

    from pipeline.examples import Examples

    rng = np.random.default_rng(seed)
    tags = 1 + zipf(rng, (N_ITEMS, 10), N_TAGS - 1)
    columns = zipf(rng, (N_ITEMS, 20), N_FEATURES)
    rows = np.repeat(np.arange(N_ITEMS), columns.shape[1])
    features = sparse.csr_matrix((np.ones(columns.size, np.float32), (rows, columns.ravel())), (N_ITEMS, N_FEATURES))
    labels = np.stack([zipf(rng, (N_ITEMS,), n_classes) for n_classes in N_CLASSES], axis=1)
    return Examples.of(tags, labels, features=features)


def zipf(rng: np.random.Generator, shape: tuple[int, ...], n: int) -> np.ndarray:
    """Return numbers below n, the k-th with a probability in proportion to 1 / (k + 1)."""
    weights = 1 / np.arange(1, n + 1)
    return np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(shape)).clip(max=n - 1)


def report(found: dict[int, list[Throughput]]) -> bool:
    """Print a row for each number of members, and the bar of the largest; return whether it is met."""
    wall = {size: statistics.median(one.items_per_second for one in runs) for size, runs in found.items()}
    # What n members would do together if each had its core to itself.
    free = {size: size * statistics.median(one.items_per_cpu_second for one in runs) for size, runs in found.items()}
    print("members   items/s  (lowest to highest)   per core added   by processor time   per core added")
    for size, runs in found.items():
        rates = [one.items_per_second for one in runs]
        spread = f"({min(rates):,.0f} to {max(rates):,.0f})"
        shares = [f"{per_core(rate, size):.2f}" if size > 1 else "" for rate in (wall, free)]
        print(f"{size:>7} {wall[size]:>9,.0f}  {spread:<22} {shares[0]:>13} {free[size]:>19,.0f} {shares[1]:>16}")
    largest = max(wall)
    if largest == 1:
        print("one physical core: there is nothing to add")
        return True
    return bar("members-per-core", per_core(wall, largest), goal=0.75)


def per_core(rates: dict[int, float], size: int) -> float:
    """Return what each core added gave, as a share of what one member does alone.

    >>> per_core({1: 100.0, 4: 370.0}, 4)
    0.9
    """
    return (rates[size] - rates[1]) / rates[1] / (size - 1)


def bar(name: str, figure: float, *, goal: float) -> bool:
    """Print the line of a bar, and return whether it is met."""
    print(f"bar {name}: {figure:.4g} (goal >= {goal:g}) {'met' if figure >= goal else 'short'}")
    return figure >= goal


if __name__ == "__main__":
    sys.exit(main())
