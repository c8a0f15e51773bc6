"""Raw tags to features, beside scikit-learn: python tests/benchmarks/features.py [--quick] [--check]

A synthetic catalog, ten tags an item drawn by Zipf's law from 100,000 (--quick: 10,000), is written to Parquet once.
Every measurement is a process of its own, held to one core; the clock starts at raw strings in Parquet and stops at
index matrix and CSC on disk (scikit-learn: at its matrix, by save_npz), after the imports. The values are compared.
Tagladder's path is `pipeline.catalog.write_catalog`, which stage 2 of the nightly job is, here with the rules of stage
1 before it. The products need TAGLADDER_DATA.
"""

from __future__ import annotations

import argparse
import configparser
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

N_TAGS = 10
SHAPES = ("Zombies {}", "space opera {}", "New_York {}", "Sci-Fi {}", "heist {}", "ROBOTS {}", "slow burn {}", "GO {}")
SETTINGS = Path(__file__).parents[1] / "settings" / "products.cfg"
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
BASELINE = 0.8943  # data/README.md: scikit-learn's own features and LinearSVC


def main() -> int:
    """Run everything, print tables and bars; with --check, return 1 where a bar is short."""
    parser = argparse.ArgumentParser(description="Raw tags to features, beside scikit-learn.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes, one run each")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is short")
    parser.add_argument("--measure", nargs=4, metavar=("WHAT", "PARQUET", "FOLDER", "RESULT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return 0
    n_items, n_runs = (100_000, 1) if arguments.quick else (1_000_000, 3)
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, pyarrow {pa.__version__}, one core each")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        met = [*compare(folder, n_items, n_runs), *grow(folder, 10 * n_items, n_runs), *one_item()]
        met += products(folder)
    return int(arguments.check and not all(met))


def compare(folder: Path, n_items: int, n_runs: int) -> list[bool]:
    """Measure against scikit-learn, in turns; check that the values are the same."""
    path = folder / "items.parquet"
    write_items(path, n_items, n_distinct=n_items // 10)
    peers = {
        f"scikit-learn {version('scikit-learn')}": "sklearn",
        f"scikit-learn {version('scikit-learn')}, save_npz uncompressed": "sklearn-plain",
        "tagladder": "tagladder",
        "tagladder, stages 1 and 2 of the job": "stages",
    }
    times: dict[str, list[float]] = {peer: [] for peer in peers}
    for _ in range(n_runs):
        for peer, what in peers.items():
            times[peer].append(run(what, path, folder)["seconds"])
    base, plain, ours, _ = (statistics.median(taken) for taken in times.values())
    print(f"\n{n_items:,} items, {N_TAGS} tags each, block `tags`, tfidf; {n_runs} run(s) in turns")
    for peer, taken in times.items():
        middle = statistics.median(taken)
        spread = f"{min(taken):6.2f} to {max(taken):6.2f}"
        print(f"  {peer:<46}{middle:7.2f} s  ({spread})  {n_items / middle:>11,.0f} items/s  {base / middle:5.2f}")
    difference = largest_difference(folder)
    print(f"  largest difference of a value: {difference:.1e}; index matrix and CSC agree with each other")
    assert difference < 1e-6, difference
    print(f"  against scikit-learn with an uncompressed save_npz: {plain / ours:.2f}")
    return [bar("features-vs-sklearn", base / ours, ">=", 5)]


def grow(folder: Path, n_items: int, n_runs: int) -> list[bool]:
    """Measure ten times the items: memory, and time beside ten times the time of a tenth."""
    large = folder / "large.parquet"
    write_items(large, n_items, n_distinct=n_items // 100)
    small = [run("tagladder", folder / "items.parquet", folder)["seconds"] for _ in range(n_runs)]
    found = [run("tagladder", large, folder) for _ in range(n_runs)]
    seconds = statistics.median(result["seconds"] for result in found)
    peak = max(result["peak"] for result in found)
    print(f"\n{n_items:,} items: {seconds:.1f} s, peak resident memory {peak / 1e9:.2f} GB; {n_runs} run(s)")
    return [
        bar("features-memory-gb", peak / 1e9, "<=", 1.5),
        bar("features-growth", seconds / statistics.median(small) / 10, "<=", 1.25),
    ]


def one_item() -> list[bool]:
    """Measure raw tags of one item to its features, in process."""
    from pipeline.cleaning import clean_tags
    from pipeline.config import Settings
    from pipeline.features import FeatureTransform

    rng = np.random.default_rng(7)
    rows = [[SHAPES[place % 8].format(place) for place in rng.integers(0, 2_000, N_TAGS)] for _ in range(2_000)]
    print("\none item, from raw tags to features, 1,000 items one by one")
    met = []
    for name, blocks in (("tags", "tags"), ("default", "tags, tag_words, tag_chars")):
        settings = Settings(features={"blocks": blocks})
        kind = pa.list_(pa.string())
        transform = FeatureTransform.fit(
            pa.table({"tags": clean_tags(pa.array(rows, kind), settings.clean).tags}), settings
        )
        taken = []
        for row in rows[:1_000]:
            start = time.perf_counter()
            tags = clean_tags(pa.array([row], kind), settings.clean).tags
            transform.transform(pa.RecordBatch.from_pydict({"tags": tags}))
            taken.append(1_000 * (time.perf_counter() - start))
        slow = np.quantile(taken, 0.95)
        print(f"  blocks {blocks:<28} median {statistics.median(taken):.2f} ms, 95% within {slow:.2f} ms")
        met.append(bar(f"features-one-item-ms-{name}", statistics.median(taken), "<=", 1))
    return met


def products(folder: Path) -> list[bool]:
    """Train LinearSVC on the features that products.cfg gets from settings alone."""
    if "TAGLADDER_DATA" not in os.environ:
        print("\nproducts: TAGLADDER_DATA is not set; not measured")
        return []
    from sklearn.metrics import f1_score
    from sklearn.svm import LinearSVC

    from pipeline.cleaning import clean
    from pipeline.config import make_settings
    from pipeline.digests import sha256_of
    from pipeline.features import FeatureTransform

    read = configparser.ConfigParser()
    read.read_string(SETTINGS.read_text("utf-8").replace("${TAGLADDER_DATA}", os.environ["TAGLADDER_DATA"]))
    sections = {name: dict(read[name]) for name in read.sections()}
    sections["clean"] |= {"validation_share": "0", "test_share": "0"}  # validation.json is what is held out
    settings = make_settings(sections)
    items = []
    for role, path in (("training", settings.catalog.items), ("scoring", settings.scoring.items)):
        (folder / role).mkdir()
        clean(settings, folder / role, expected={path: sha256_of(Path(path))}, role=role)
        items.append(pq.read_table(folder / role / "items.parquet"))
    transform = FeatureTransform.fit(items[0], settings)
    train, held_out = (transform.transform(table).features.tocsr() for table in items)
    scores = []
    for level in settings.catalog.levels:
        model = LinearSVC().fit(train, items[0][level].to_pylist())
        scores.append(f1_score(items[1][level].to_pylist(), model.predict(held_out), average="weighted"))
    shown = " / ".join(f"{score:.4f}" for score in scores)
    print(f"\nproducts, {train.shape[1]:,} features, LinearSVC, weighted F1 by level: {shown}")
    return [bar("features-products-f1", float(np.mean(scores)), ">=", BASELINE - 0.003)]


def bar(name: str, figure: float, relation: str, goal: float) -> bool:
    """Print the line of a bar, and return whether it is met."""
    met = figure >= goal if relation == ">=" else figure <= goal
    print(f"bar {name}: {figure:.4g} (goal {relation} {goal:g}) {'met' if met else 'short'}")
    return met


def write_items(path: Path, n_items: int, *, n_distinct: int) -> None:
    """Write the synthetic catalog: item_id, and tags as raw strings."""
    rng = np.random.default_rng(7)
    names = pa.array([SHAPES[place % len(SHAPES)].format(f"{place:x}") for place in range(n_distinct)])
    upto = np.cumsum(1 / np.arange(1, n_distinct + 1))
    schema = pa.schema([("item_id", pa.int64()), ("tags", pa.list_(pa.string()))])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, n_items, 100_000):
            n = min(100_000, n_items - start)
            drawn = np.searchsorted(upto, rng.random(n * N_TAGS) * upto[-1])
            offsets = pa.array(np.arange(0, n * N_TAGS + 1, N_TAGS), pa.int32())
            tags = pa.ListArray.from_arrays(offsets, names.take(pa.array(drawn)))
            writer.write_table(pa.table({"item_id": np.arange(start, start + n), "tags": tags}, schema=schema))


def run(what: str, path: Path, folder: Path) -> dict[str, Any]:
    """Run one measurement in a process of its own on one core; return its seconds and peak memory in bytes."""
    result = folder / "result.json"
    command = [sys.executable, __file__, "--measure", what, str(path), str(folder), str(result)]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": root}
    core = max(os.sched_getaffinity(0))
    subprocess.run(command, env=environment, check=True, preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    return dict(json.loads(result.read_text()))


def measure(what: str, parquet: str, folder: str, result: str) -> None:
    """Run one measurement in this process."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    measured = {"tagladder": by_tagladder, "stages": by_stages}.get(what, by_sklearn)
    seconds = measured(Path(parquet), Path(folder), what)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    Path(result).write_text(json.dumps({"seconds": seconds, "peak": peak}))


def by_tagladder(path: Path, folder: Path, _: str) -> float:
    """Return the seconds of raw strings to shards, by the function that is stage 2."""
    from pipeline.catalog import write_catalog
    from pipeline.config import Settings
    from pipeline.partition import Order, read_batches
    from pipeline.tagging import TagRules

    with tempfile.TemporaryDirectory(dir=folder) as name:
        start = time.perf_counter()
        settings = Settings(features={"blocks": "tags"})
        order = Order.as_given(pq.read_metadata(path).num_rows)
        batches, rules = read_batches(path, ["item_id", "tags"]), TagRules(settings.clean)
        write_catalog(batches, settings, Path(name), order=order, n_classes=(1,), rules=rules)
        seconds = time.perf_counter() - start
        keep(Path(name), folder / "shards")
    return seconds


def by_stages(path: Path, folder: Path, _: str) -> float:
    """Return the seconds of stages 1 and 2 with all that they do: duplicates, labels, rejects, statistics, order."""
    from pipeline.cleaning import clean
    from pipeline.config import Settings
    from pipeline.digests import sha256_of
    from pipeline.features import build

    labelled = folder / "labelled.parquet"
    if not labelled.exists():
        items = pq.read_table(path)
        label = pa.array(np.where(np.arange(len(items)) % 2, "odd", "even"))
        pq.write_table(items.append_column("genre", label), labelled)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        catalog = {"items": str(labelled), "title": "", "levels": "genre"}
        split = {"validation_share": 0, "test_share": 0}
        settings = Settings(catalog=catalog, clean=split, features={"blocks": "tags"})
        (cleaned, built) = (Path(name, part) for part in ("clean", "features"))
        cleaned.mkdir()
        built.mkdir()
        start = time.perf_counter()
        clean(settings, cleaned, expected={str(labelled): sha256_of(labelled)}, role="training")
        build(settings, cleaned, built)
        return time.perf_counter() - start


def by_sklearn(path: Path, folder: Path, what: str) -> float:
    """Return the seconds of raw strings to a saved matrix by scikit-learn."""
    from scipy.sparse import save_npz
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

    start = time.perf_counter()
    rows = pq.read_table(path, columns=["tags"], use_threads=False)["tags"].to_pylist()
    counter = CountVectorizer(analyzer=as_it_is)
    matrix = TfidfTransformer(sublinear_tf=True).fit_transform(counter.fit_transform(rows))
    save_npz(folder / "sklearn.npz", matrix, compressed=what == "sklearn")
    seconds = time.perf_counter() - start
    (folder / "sklearn.json").write_text(json.dumps(counter.get_feature_names_out().tolist()))
    return seconds


def as_it_is(tags: list[str]) -> list[str]:
    """Return the list that an item has."""
    return tags


def keep(source: Path, target: Path) -> None:
    """Move the results where the next run replaces them."""
    target.mkdir(exist_ok=True)
    for old in target.iterdir():
        old.unlink()
    for path in source.iterdir():
        path.rename(target / path.name)


def largest_difference(folder: Path) -> float:
    """Return the largest difference of a value to scikit-learn's, column by column of the same tag."""
    from scipy.sparse import load_npz, vstack

    from pipeline.config_catalog import CleanSettings
    from pipeline.shards import read_shard
    from pipeline.spelling import normalise

    theirs = load_npz(folder / "sklearn.npz").tocsc()
    names = json.loads((folder / "sklearn.json").read_text())
    place = {normalise(tag, CleanSettings()): at for at, tag in enumerate(names)}
    tags = pq.read_table(folder / "shards" / "vocabulary.parquet")["tag"].to_pylist()
    parts = [read_shard(path)[0] for path in sorted((folder / "shards").glob("features-*.h5"))]
    ours = vstack([part.features for part in parts], format="csr")
    for part in parts:
        filled = part.tag_index[part.tag_index > 0] - 1
        assert (filled == part.features.indices).all(), "tag_index and features disagree"
    assert len(place) == len(tags) == ours.shape[1]
    return float(abs(ours - theirs[:, [place[tag] for tag in tags]]).max())


if __name__ == "__main__":
    sys.exit(main())
