"""Both engines on the same catalog: python tests/benchmarks/spark.py [--quick] [--check] [--price DOLLARS]

1,000,000 items (100,000 with --quick) of ten raw tags and drawn labels; they are cleaned, features are built and the
catalog is scored by this machine with one process, two and, where there are four cores, four, and by Spark with
local[1], local[2] and local[4], each in a process of its own; products too where TAGLADDER_DATA is set. The model is
drawn, not trained: speed does not depend on its weights. All files must be the same. A rate is told in items a second,
and in microseconds of processor time an item, which other work on the machine hardly moves: of the driver's Python, of
Java, of the executors' Python. From these comes what a billion items cost, and how long these runs should have taken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from members import physical_cores
from score_job import CLASSES, write_items

HERE = Path(__file__).parent
ONE = HERE / "spark_run.py"
PRODUCTS = HERE.parent / "settings" / "products.cfg"
BILLION = 1_000_000_000
PARTS = ("driver", "java", "others")
WIDTHS = (10, 19, 9, 8, 8, 8, 9, 8, 10)
GOAL = 0.5  # of the local engine's rate with as many processes; Java takes its share of the same cores
PREDICTED = 0.5  # of what a run took, at most, the model may be off


# --- what is scored


def synthetic(folder: Path, n_items: int) -> tuple[Path, dict[str, Any]]:
    """Write a catalog of drawn tags with drawn labels for a tenth of the items; return the file and its settings."""
    raw, labelled = folder / "raw.parquet", folder / "items.parquet"
    write_items(raw, n_items)
    table = pq.read_table(raw)
    kind = np.random.default_rng(3).integers(0, CLASSES[-1], n_items)
    known = np.arange(n_items) % 10 == 0
    for level, per in (("genre", 30), ("subgenre", 5), ("theme", 1)):
        names = pa.array([f"{level} {place // per}" for place in range(CLASSES[-1])])
        table = table.append_column(level, names.take(pa.array(kind, mask=~known)))
    pq.write_table(table, labelled)
    raw.unlink()
    limits = {"max_words": 10_000, "max_vocabulary": 20_000, "blocks": "tag_words"}
    return labelled, {"catalog": {"items": str(labelled)}, "features": limits}


def products() -> tuple[Path, dict[str, Any]]:
    """Return the file of products and its settings."""
    import configparser

    parser = configparser.ConfigParser(interpolation=None)
    parser.read(PRODUCTS)
    sections = {name: dict(parser[name]) for name in ("catalog", "clean", "features")}
    file = Path(os.environ["TAGLADDER_DATA"], "products", "train.json")
    sections["catalog"]["items"] = str(file)
    return file, sections


def prepare(file: Path, sections: dict[str, Any], folder: Path) -> None:
    """Clean the catalog and write a model of it."""
    from pipeline.calibration import Calibration
    from pipeline.cleaning import clean
    from pipeline.config import make_settings
    from pipeline.digests import sha256_of
    from pipeline.features import build, load_transform
    from pipeline.model import Model
    from pipeline.network import FeedbackNetwork, NetworkConfig
    from pipeline.taxonomy import Taxonomy

    settings = make_settings(sections)
    (folder / "clean").mkdir()
    (folder / "features").mkdir()
    clean(settings, folder / "clean", expected={str(file): sha256_of(file)}, role="training")
    build(settings, folder / "clean", folder / "features")
    transform = load_transform(folder / "features" / "transform.h5")
    taxonomy = Taxonomy.from_json((folder / "clean" / "taxonomy.json").read_text("utf-8"))
    sizes = {"n_vocabulary": transform.n_vocabulary, "n_features": transform.n_features, "n_dense": transform.n_dense}
    config = NetworkConfig(**sizes, hidden=64, n_classes=taxonomy.n_classes)
    ones = (1.0,) * len(taxonomy.levels)
    Model(
        network=FeedbackNetwork.initialise(config, np.random.default_rng(1)),
        transform=transform,
        taxonomy=taxonomy,
        calibration=Calibration(legal=ones, raw=ones),
        clean=settings.clean,
        provenance={"fingerprint": "bench"},
    ).save(folder / "model.h5")


# --- all of them


def main() -> int:
    """Run the engines in turns, print tables and bars; with --check, return 1 where a bar is short."""
    parser = argparse.ArgumentParser(description="Both engines on the same catalog.")
    parser.add_argument("--quick", action="store_true", help="100,000 items, one turn")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is short")
    parser.add_argument("--price", type=float, default=0.05, help="dollars of a core-hour")
    parser.add_argument("--turns", type=int, default=0, help="0: one with --quick, else three")
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, pyspark {version('pyspark')}")
    print(f"load {os.getloadavg()[0]:.1f} at the start, {len(physical_cores())} physical cores")
    turns, met = arguments.turns or (1 if arguments.quick else 3), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "synthetic")
        folder.mkdir()
        file, sections = synthetic(folder, 100_000 if arguments.quick else 1_000_000)
        met += catalog("synthetic", file, sections, folder, turns=turns, price=arguments.price)
        if os.environ.get("TAGLADDER_DATA"):
            folder = Path(name, "products")
            folder.mkdir()
            met += catalog("products", *products(), folder, turns=1, price=None)
        else:
            print("products: TAGLADDER_DATA is not set")
    print(f"load {os.getloadavg()[0]:.1f} at the end")
    return int(arguments.check and not all(met))


def catalog(
    name: str, file: Path, sections: dict[str, Any], folder: Path, *, turns: int, price: float | None
) -> list[bool]:
    """Measure both stages on a catalog; return whether the bars are met."""
    prepare(file, sections, folder)
    n_items = pq.ParquetFile(folder / "clean" / "items.parquet").metadata.num_rows
    cores = (1, 2, 4)[: 3 if len(physical_cores()) >= 4 else 2]
    engines = [*(f"local {n}" for n in cores), *(f"local[{n}]" for n in (1, 2, 4))]
    met = []
    for stage in ("score", "features", "clean"):
        chosen = engines if stage == "score" else ["local 1", "local[2]"]
        told: dict[str, list[dict[str, Any]]] = {engine: [] for engine in chosen}
        for turn in range(turns):
            for engine in chosen:
                out = folder / f"{stage}-{turn}-{engine.replace(' ', '-')}" / "build"
                arguments = (stage, engine, json.dumps(sections), str(folder), str(out))
                done = subprocess.run(
                    [sys.executable, str(ONE), *arguments], check=True, stdout=subprocess.PIPE, text=True
                )
                told[engine].append(json.loads(done.stdout.splitlines()[-1]))
        table(f"{name}, {stage}", told, n_items)
        digests = [run["digests"] for runs in told.values() for run in runs]
        met.append(bar(f"{name}-{stage}-same-files", float(all(each == digests[0] for each in digests)), 1))
        if price is not None and stage == "score":
            met.append(
                bar("score-spark-of-local", rate(told["local[2]"], n_items) / rate(told["local 2"], n_items), GOAL)
            )
            met.append(cost(told, n_items, price))
    return met


def rate(runs: list[dict[str, Any]], n_items: int) -> float:
    """Return the median items a second."""
    return statistics.median(n_items / run["seconds"] for run in runs)


def table(title: str, told: dict[str, list[dict[str, Any]]], n_items: int) -> None:
    """Print the rates of the engines."""
    print(f"\n{title}: {n_items:,} items; processor time in us an item")
    heads = ("items/s", "spread", "start", *PARTS, "peak MB", "sent", "returned")
    print(f"{'engine':<10}" + "".join(f"{head:>{width}}" for head, width in zip(heads, WIDTHS, strict=True)))
    for engine, runs in told.items():
        rates = sorted(n_items / run["seconds"] for run in runs)
        us = microseconds(runs, n_items)
        cells = [
            f"{rate(runs, n_items):,.0f}",
            f"{rates[0]:,.0f}-{rates[-1]:,.0f}",
            f"{statistics.median(run['start'] for run in runs):.1f} s",
            *(f"{us[part]:.2f}" for part in PARTS),
            f"{max(run['peak'] for run in runs) / 1e6:.0f}",
            *(f"{runs[0][name] / n_items:.0f} B" if name in runs[0] else "" for name in ("sent", "returned")),
        ]
        print(f"{engine:<10}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True)))


def microseconds(runs: list[dict[str, Any]], n_items: int) -> dict[str, float]:
    """Return the processor time an item of each part, medians."""
    return {part: statistics.median(run[part] for run in runs) / n_items * 1e6 for part in PARTS}


def cost(told: dict[str, list[dict[str, Any]]], n_items: int, price: float) -> bool:
    """Print what a billion items cost, by processor times of local[2]; hold the model against the runs."""
    us, run = microseconds(told["local[2]"], n_items), told["local[2]"][0]
    carried = (run["sent"] + run["returned"]) / n_items
    print(f"\na billion items, at ${price:g} a core-hour; {carried:.0f} bytes an item by network")
    heads = ("hours", "core-hours", "dollars", "MB/s")
    print(f"{'cores':<10}" + "".join(f"{head:>12}" for head in heads))
    for cores in (1, 2, 4, 8, 16, 32):
        # The driver has two cores of its own: it reads, sends and writes while the executors score.
        seconds = BILLION / 1e6 * max(us["driver"], (us["java"] + us["others"]) / cores)
        paid = seconds / 3600 * (cores + 2)
        cells = (
            f"{seconds / 3600:.2f}",
            f"{paid:.1f}",
            f"{paid * price:.2f}",
            f"{BILLION * carried / seconds / 1e6:.0f}",
        )
        print(f"{cores:<10}" + "".join(f"{cell:>12}" for cell in cells))
    off, here = [], len(physical_cores())
    for engine in [name for name in told if name.startswith("local[")]:
        us = microseconds(told[engine], n_items)
        # All of it on one machine: no faster than its cores allow, nor than the executors, nor than the driver.
        each = max(sum(us.values()) / here, us["others"] / int(engine[6:-1]), us["driver"])
        seconds = statistics.median(run["seconds"] for run in told[engine])
        off.append(abs(each * n_items / 1e6 / seconds - 1))
        print(f"{engine}: the model says {each * n_items / 1e6:.1f} s, it took {seconds:.1f} s")
    return bar("cost-model-off", max(off), PREDICTED, at_most=True)


def bar(name: str, value: float, goal: float, *, at_most: bool = False) -> bool:
    """Print a line a bar, and return whether it is met."""
    met = value <= goal if at_most else value >= goal
    print(f"bar {name}: {value:.2f} (goal {'<=' if at_most else '>='} {goal:g}) {'met' if met else 'short'}")
    return met


if __name__ == "__main__":
    sys.exit(main())
