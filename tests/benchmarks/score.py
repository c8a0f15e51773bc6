"""Scoring, beside PyTorch, ONNX Runtime, fastText: python tests/benchmarks/score.py [--only PART] [--quick] [--check]

forward: the network of the README (20,000 tags, 10,000 features, 64 hidden units, 20, 120 and 600 classes) to the top
label of every level, from the same weights on the same items (10 tags and 20 features each, by Zipf's law), each side
in a process of its own on its own best batch size, with one core and with all: processes here, threads there (and
processes too, told but not counted). job: 1,000,000 items of ten raw tags from Parquet to scored Parquet and HDF5 with
legal paths, by the function behind `python -m pipeline score`; fastText's predict gets the tags as strings in memory.
memory: ten times the items. profile: where the time goes. In turns, medians; the extra `bench` has the peers, for
Python 3.11. OpenBLAS chooses its kernels by the processor; what it does with the OPENBLAS_CORETYPE of the environment
is told where that is set.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from members import physical_cores

HERE = Path(__file__).parent
ALIKE = ", a process a core"  # peers as we do it
# Batch sizes: with one thread, with several.
BATCHES = {
    "tagladder": ((512, 1_024, 2_048), ()),
    "tagladder, layer by layer": ((2_048,), ()),
    "torch, eager": ((512, 1_024, 2_048), (1_024, 4_096, 16_384)),
    "torch.compile of all": ((1_024, 4_096), (4_096, 16_384)),
    "torch.compile after the tables": ((1_024, 4_096), (4_096, 16_384)),
    "onnxruntime": ((256, 512, 1_024), (512, 1_024, 4_096)),
}


class Side:
    """A side of the forward, in processes of its own, bound to these cores."""

    def __init__(self, name: str, cores: Sequence[int], *, n_threads: int = 1, kernels: str = "") -> None:
        self.name = name
        self.processes = []
        for some in [list(cores)] if n_threads > 1 else [[core] for core in cores]:
            command = [sys.executable, str(HERE / "score_forward.py"), name, str(n_threads)]
            bound = ["taskset", "--cpu-list", ",".join(map(str, some)), *command]
            environment = environment_of(n_threads, kernels)
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
            self.processes.append(subprocess.Popen(bound, **pipes))  # type: ignore[call-overload]
        assert all(process.stdout.readline() == "ready\n" for process in self.processes), name

    def ask(self, **question: Any) -> list[dict[str, Any]]:
        """Ask all processes at the same time."""
        for process in self.processes:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
        return [json.loads(process.stdout.readline()) for process in self.processes]

    def rate(self, batch: int, seconds: float) -> float:
        """Return the items a second that all processes do together."""
        return sum(told["items"] / told["seconds"] for told in self.ask(batch=batch, seconds=seconds))

    def end(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.stdin.close()
            process.wait()


def main() -> int:
    """Run the parts, print tables and bars; with --check, return 1 where a bar is short."""
    parser = argparse.ArgumentParser(description="Scoring, beside PyTorch, ONNX Runtime and fastText.")
    parser.add_argument("--only", choices=("forward", "job", "memory", "profile"), help="one part")
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes, in a minute")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is short")
    arguments = parser.parse_args()
    installed = [f"{name} {version(name)}" for name in ("torch", "onnxruntime", "fasttext") if find_spec(name)]
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {', '.join(installed) or 'no peers installed'}")
    print(f"load {os.getloadavg()[0]:.1f} at the start, {len(physical_cores())} physical cores")
    met: list[bool] = []
    with tempfile.TemporaryDirectory() as name:
        for part, measure in {"forward": forward, "job": job, "memory": memory, "profile": profile}.items():
            if arguments.only in (None, part):
                met += measure(Path(name), quick=arguments.quick)
    print(f"load {os.getloadavg()[0]:.1f} at the end")
    return int(arguments.check and not all(met))


def forward(folder: Path, *, quick: bool) -> list[bool]:
    """Measure the forward with one core and with all."""
    cores = physical_cores()
    names = [name for name in BATCHES if name.startswith("tagladder") or find_spec(name.split(",")[0].split(".")[0])]
    one = [Side(name, cores[-1:]) for name in names]
    difference = compare(one, folder)
    as_set = os.environ.get("OPENBLAS_CORETYPE")
    if as_set:
        one.append(Side("tagladder", cores[-1:], kernels=as_set))
        one[-1].name = f"tagladder, kernels {as_set} as set here"
    met = table(one, "one core", quick=quick, threads=False)
    several = [Side("tagladder", cores)]
    several += [Side(name, cores, n_threads=len(cores)) for name in names if not name.startswith("tagladder")]
    for name in sorted({"torch, eager", "onnxruntime"} & set(names)):  # Told, not counted.
        several.append(Side(name, cores))
        several[-1].name = f"{name}{ALIKE}"
    met += table(several, f"all {len(cores)} cores", quick=quick, threads=True)
    print(f"logits differ by {difference:.1e} at most; the labels are the same")
    return met


def table(sides: list[Side], title: str, *, quick: bool, threads: bool) -> list[bool]:
    """Print what each side does at each of its batch sizes, in turns, and the bar of the best; the sides end."""
    n_turns, seconds = (2, 0.2) if quick else (7, 0.6)
    plans = [(side, size) for side in sides for size in sizes_of(side, threads=threads, quick=quick)]
    taken: dict[tuple[str, int], list[float]] = {(side.name, size): [] for side, size in plans}
    for _ in range(n_turns):
        for side, size in plans:
            taken[side.name, size].append(side.rate(size, seconds))
    for side in sides:
        side.end()
    best: dict[str, float] = {}
    print(f"\nforward to the top labels, {title}; items a second, medians of {n_turns} turns")
    mine = max(statistics.median(rates) for (name, _), rates in taken.items() if name == "tagladder")
    for (name, size), rates in taken.items():
        rate = statistics.median(rates)
        best[name] = max(best.get(name, 0), rate)
        how = f"batch {size:>6,}  {rate:>11,.0f}  ({min(rates):,.0f} to {max(rates):,.0f})"
        print(f"  {name:<44}{how:<52}{mine / rate:>6.2f}")
    others = [rate for name, rate in best.items() if not name.startswith("tagladder") and not name.endswith(ALIKE)]
    return [bar(f"score-forward-{title.replace(' ', '-')}", mine / max(others), ">=", 1.3)] if others else []


def sizes_of(side: Side, *, threads: bool, quick: bool) -> Sequence[int]:
    """Return the batch sizes that are tried."""
    name = side.name if side.name in BATCHES else "tagladder"
    sizes = BATCHES[name][threads] or BATCHES[name][0]
    return sizes[1:2] if quick and len(sizes) > 1 else sizes


def compare(sides: list[Side], folder: Path) -> float:
    """Return the largest difference of a logit; labels must be equal but where two logits are, to rounding."""
    found = []
    for side in sides:
        side.ask(outputs=str(folder / "outputs.npz"))
        with np.load(folder / "outputs.npz") as file:
            found.append((file["labels"], file["logits"]))
    labels, logits = found[0]
    different = max(float(np.abs(theirs - logits).max()) for _, theirs in found)
    assert different < 1e-4, different
    for side, (theirs, _) in zip(sides, found, strict=True):
        assert (theirs != labels).mean() < 1e-4, side.name
    return different


def job(folder: Path, *, quick: bool) -> list[bool]:
    """Measure the whole job with one core and with all, and fastText."""
    n_items, n_runs, cores = (100_000 if quick else 1_000_000), (1 if quick else 3), physical_cores()
    items, model = prepare(folder, n_items)
    if find_spec("fasttext"):
        from score_job import train_fasttext

        train_fasttext(folder / "sample.parquet", folder / "fasttext.bin")
    runs: dict[str, list[dict[str, Any]]] = {"one core": [], "stages": [], "all cores": [], "fasttext": []}
    for _ in range(n_runs):
        runs["one core"].append(run("job", items, model, folder, cores[-1:]))
        runs["stages"].append(run("stages", items, model, folder, cores[-1:]))
        runs["all cores"].append(run("job", items, model, folder, cores))
        if find_spec("fasttext"):
            runs["fasttext"].append(run("fasttext", items, folder / "fasttext.bin", folder, cores[-1:]))
    print(f"\n{n_items:,} items of {10} raw tags, legal paths; items a second, medians of {n_runs} runs in turns")
    rates = {}
    for name, figure, key in (
        ("whole job, one core", "one core", "seconds"),
        ("stage 1 of the nightly job alone, one core", "stages", "clean_seconds"),
        ("stage 5 of the nightly job alone, one core", "stages", "seconds"),
        (f"whole job, {len(cores)} cores", "all cores", "seconds"),
        ("fastText, from Parquet to Parquet, one core", "fasttext", "seconds"),
        ("fastText, predict alone", "fasttext", "predict_seconds"),
    ):
        if runs[figure]:
            taken = [n_items / told[key] for told in runs[figure]]
            rates[name.strip()] = rate = statistics.median(taken)
            print(f"  {name:<46}{rate:>11,.0f}  ({min(taken):,.0f} to {max(taken):,.0f})")
    worker = max(told["worker_peak"] for told in runs["all cores"])
    print(f"  the process that alone does it all takes {max(told['peak'] for told in runs['one core']) / 1e6:,.0f} MB")
    whole, together = rates["whole job, one core"], rates[f"whole job, {len(cores)} cores"]
    met = [
        bar("score-job-items-per-core", whole, ">=", 50_000),
        bar(f"score-job-items-per-core-of-{len(cores)}", together / len(cores), ">=", 50_000),
        bar("score-job-worker-mb", worker / 1e6, "<=", 600),
    ]
    if runs["fasttext"]:
        theirs = rates["fastText, predict alone"]
        met.append(bar("score-job-vs-fasttext-predict-one-core", whole / theirs, ">=", 2))
        met.append(bar(f"score-job-vs-fasttext-predict-{len(cores)}-cores", together / theirs, ">=", 2))
    return met


def memory(folder: Path, *, quick: bool) -> list[bool]:
    """Measure ten times the items on all cores: the same rate, the same memory of a worker."""
    n_items, cores = (100_000 if quick else 1_000_000), physical_cores()
    found = []
    for factor in (1, 10):
        items, model = prepare(folder, factor * n_items)
        found.append(run("job", items, model, folder, cores))
        rate, peak = found[-1]["items"] / found[-1]["seconds"], found[-1]["worker_peak"] / 1e6
        print(f"{factor * n_items:>11,} items on {len(cores)} cores: {rate:,.0f} items/s, a worker {peak:,.0f} MB")
    rates = [told["items"] / told["seconds"] for told in found]
    return [
        bar("score-growth-rate", rates[1] / rates[0], ">=", 0.9),
        bar("score-growth-memory", found[1]["worker_peak"] / found[0]["worker_peak"], "<=", 1.1),
    ]


def profile(folder: Path, *, quick: bool) -> list[bool]:
    """Print where the time of the whole job goes on one core, and what the forward's bare products would take."""
    items, model = prepare(folder, 100_000 if quick else 500_000)
    told = run("", items, model, folder, physical_cores()[-1:], script="score_profile.py")
    n_items, steps = told["items"], told["steps"]
    print(f"\n{n_items:,} items, one core: microseconds of processor time an item, share")
    for label, seconds in {**steps, "model, publication, and the rest": told["seconds"] - sum(steps.values())}.items():
        print(f"  {label:<50}{1e6 * seconds / n_items:>8.2f}{seconds / told['seconds']:>7.0%}")
    network = sum(seconds for label, seconds in steps.items() if label.startswith("forward: "))
    share = told["products"] / network
    print(f"  {'forward in all':<50}{1e6 * network / n_items:>8.2f}{network / told['seconds']:>7.0%}")
    print(
        f"  {'its products alone, same shapes':<50}{1e6 * told['products'] / n_items:>8.2f}  {share:.0%} of the forward"
    )
    return []


def prepare(folder: Path, n_items: int) -> tuple[Path, Path]:
    """Return a catalog of so many items and the model."""
    from score_job import write_items, write_model

    items, model, sample = (folder / name for name in (f"items-{n_items}.parquet", "model.h5", "sample.parquet"))
    if not model.exists():
        write_items(sample, 200_000, seed=8)
        write_model(model, sample)
    if not items.exists():
        write_items(items, n_items)
    return items, model


def run(
    what: str, items: Path, model: Path, folder: Path, cores: Sequence[int], *, script: str = "score_job.py"
) -> dict[str, Any]:
    """Run one measurement in a process that is bound to these cores, with a worker for each."""
    out = folder / "out"
    files = [str(items), str(model), str(out)]
    command = [sys.executable, str(HERE / script), *([what, *files, str(len(cores))] if what else files)]
    bound = ["taskset", "--cpu-list", ",".join(map(str, cores)), *command]
    done = subprocess.run(bound, env=environment_of(), check=True, stdout=subprocess.PIPE, text=True)
    if out.is_dir():
        shutil.rmtree(out)
    out.unlink(missing_ok=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def environment_of(n_threads: int = 1, kernels: str = "") -> dict[str, str]:
    """Return the environment of a process with so many threads; OpenBLAS chooses its kernels where none are named.

    Modules are compiled once, as everywhere: some containers have that switched off.
    """
    without = {"OPENBLAS_CORETYPE", "PYTHONDONTWRITEBYTECODE"}
    chosen = {name: value for name, value in os.environ.items() if name not in without}
    chosen |= {f"{name}_NUM_THREADS": str(n_threads) for name in ("OMP", "OPENBLAS", "MKL")}
    chosen["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    return chosen | ({"OPENBLAS_CORETYPE": kernels} if kernels else {})


def bar(name: str, figure: float, relation: str, goal: float) -> bool:
    """Print the line of a bar, and return whether it is met."""
    met = figure >= goal if relation == ">=" else figure <= goal
    print(f"bar {name}: {figure:.4g} (goal {relation} {goal:g}) {'met' if met else 'short'}", flush=True)
    return met


if __name__ == "__main__":
    sys.exit(main())
