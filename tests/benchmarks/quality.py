"""Quality on the real data sets, through the pipeline and its settings alone: python tests/benchmarks/quality.py

Needs TAGLADDER_DATA. Each data set is run by the luigi command with its file of tests/settings, and the published
scores are compared with the labels of items that training has not seen: the test part of movies and articles,
validation.json of products. Beside each accuracy stands that of the majority class of the training part.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pandas as pd

SETTINGS = Path(__file__).parents[1] / "settings"
DATA_SETS = ("movies", "products", "articles")


def main() -> int:
    """Run what is asked for and print one table a data set."""
    parser = argparse.ArgumentParser(description="Quality on the real data sets.")
    parser.add_argument("data_sets", nargs="*", default=DATA_SETS, help=", ".join(DATA_SETS))
    parser.add_argument("--quick", action="store_true", help="two epochs: only to see that it runs")
    arguments = parser.parse_args()
    if "TAGLADDER_DATA" not in os.environ:
        print("TAGLADDER_DATA is not set: there is nothing to measure", file=sys.stderr)
        return 1
    for name in arguments.data_sets:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            run(name, root, flags=["--training-epochs", "2"] if arguments.quick else [])
            report(name, held_out(name, root), training_part(root))
    return 0


def run(name: str, root: Path, *, flags: Sequence[str]) -> None:
    """Run the job with the settings of a data set."""
    luigi = Path(sys.executable).with_name("luigi")
    command = [str(luigi), "--module", "tasks", "ScoreCatalog", "--storage-root", str(root), *flags]
    environment = {**os.environ, "LUIGI_CONFIG_PATH": str(SETTINGS / f"{name}.cfg")}
    subprocess.run(command, env=environment, check=True, stdout=sys.stderr)


def held_out(name: str, root: Path) -> pd.DataFrame:
    """Return given and predicted paths of the labelled items that training has not seen."""
    scores = root / "published" / "latest" / "scores.parquet" / "*.parquet"
    clean = root / "clean" / "*" / "items.parquet"
    seen = "" if name == "products" else "AND s.item_id IN (SELECT item_id FROM items WHERE split = 'test')"
    duckdb.sql(f"CREATE OR REPLACE VIEW items AS SELECT * FROM read_parquet('{clean}', union_by_name = true)")
    columns = "item_id, path, given_path, n_tags"
    return duckdb.sql(f"SELECT {columns} FROM '{scores}' s WHERE given_path IS NOT NULL {seen}").df()


def training_part(root: Path) -> pd.DataFrame:
    """Return the labels of the training part, a column a level."""
    (labelled,) = (folder.parent for folder in (root / "clean").glob("*/taxonomy.json"))
    return duckdb.sql(f"SELECT * FROM '{labelled}/items.parquet' WHERE split = 'train'").df()


def report(name: str, items: pd.DataFrame, training: pd.DataFrame) -> None:
    """Print the accuracy of every level, of the whole path, and for movies the hits."""
    parts = {"all": items}
    if (items["n_tags"] == 0).any():
        parts["with tags"] = items[items["n_tags"] > 0]
    levels = list(training.columns[list(training.columns).index("n_raw_tags") + 1 : -1])
    for part, rows in parts.items():
        print(f"\n{name}, {part}: {len(rows):,} held-out items")
        for depth in range(1, len(levels) + 1):
            majority = training[levels[:depth]].dropna().value_counts().index[0]
            given = rows["given_path"].map(lambda path, depth=depth: tuple(path)[:depth])
            known = given[given.map(len) == depth]
            found = rows["path"].map(lambda path, depth=depth: tuple(path)[:depth])[known.index]
            share = (known == tuple(majority)).mean()
            print(f"  {levels[depth - 1]:<8} accuracy {(found == known).mean():.3f}   majority class {share:.3f}")
        whole = rows["given_path"].map(tuple) == rows["path"].map(tuple)
        print(f"  {'path':<8} accuracy {whole.mean():.3f}")
        if name == "movies":
            print(f"  {'hits':<8} {hits(rows):.3f}   of predicted level-3 genres are among all_level3")


def hits(items: pd.DataFrame) -> float:
    """Return the share of films whose predicted level-3 genre is one of all that fit."""
    labels = pd.read_csv(Path(os.environ["TAGLADDER_DATA"]) / "movies" / "labels.csv").set_index("item_id")
    fitting = labels["all_level3"].fillna("").str.split("|")
    return float(
        sum(row.path[-1] in fitting[row.item_id] for row in items.itertuples() if len(row.path) == 3) / len(items)
    )


if __name__ == "__main__":
    sys.exit(main())
