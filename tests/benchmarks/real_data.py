"""The real data sets as tables, their random splits, and the job run on them by its settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SETTINGS = Path(__file__).parents[1] / "settings"
LEVELS = {"products": ("lvl1", "lvl2", "lvl3")}
THREE_LEVELS = ("level1", "level2", "level3")


def levels_of(name: str) -> tuple[str, ...]:
    """Return the columns of the labels."""
    return LEVELS.get(name, THREE_LEVELS)


def folder_of(name: str) -> Path:
    """Return the folder of a data set."""
    return Path(os.environ["TAGLADDER_DATA"]) / name


def products() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return train.json and validation.json."""
    parts = (folder_of("products") / f"{name}.json" for name in ("train", "validation"))
    train, validation = (pd.DataFrame(map(json.loads, part.open(encoding="utf-8"))) for part in parts)
    return train, validation


def articles() -> pd.DataFrame:
    """Return text and labels; ids are row numbers, from 1, as the job gives them."""
    table = pd.read_csv(folder_of("articles") / "articles.csv", header=None, names=["text", *THREE_LEVELS], dtype=str)
    return table.set_index(np.arange(1, len(table) + 1))


def movies() -> pd.DataFrame:
    """Return tags (lists), labels and all fitting genres of the films that have both, by id."""
    tags = pd.read_csv(folder_of("movies") / "tags.csv", dtype={"tag": str}, keep_default_na=False)
    lists = tags["tag"].str.strip().str.lower().groupby(tags["movieId"]).agg(list).rename("tags")
    labels = pd.read_csv(folder_of("movies") / "labels.csv").set_index("item_id")
    return labels[[*THREE_LEVELS, "all_level3"]].join(lists, how="inner")


def fitting_genres(table: pd.DataFrame) -> pd.DataFrame:
    """Return for each film and level the set of all labels that fit: the genres of all_level3 and those above them."""
    genres = pd.read_csv(folder_of("movies") / "genre_taxonomy.csv").drop_duplicates("level3").set_index("level3")
    above = {level: genres[level].to_dict() for level in THREE_LEVELS[:2]}
    above["level3"] = {name: name for name in genres.index}
    lists = table["all_level3"].str.split("|")
    return pd.DataFrame({k: lists.map(lambda names, k=k: frozenset(above[k][name] for name in names)) for k in above})


def draw_test(table: pd.DataFrame, seed: int) -> NDArray[np.bool_]:
    """Return which fifth of the rows tests, drawn at random."""
    chosen = np.zeros(len(table), bool)
    chosen[np.random.default_rng(seed).permutation(len(table))[: len(table) // 5]] = True
    return chosen


def write_split(name: str, table: pd.DataFrame, test: NDArray[np.bool_], folder: Path) -> list[str]:
    """Write a copy of the items with a column `split`, and return the flags by which the job reads it.

    It says `test` or nothing: the job splits the rest by its own settings.
    """
    path = folder / f"{name}.csv"
    split = pd.Series(np.where(test, "test", ""), index=table.index, name="split")
    flags = ["--catalog-items", str(path), "--catalog-split", "split", "--clean-test-share", "0"]
    if name == "articles":
        table.join(split).to_csv(path, header=False, index=False)
        return [*flags, "--catalog-column-names", ", ".join([*table.columns, "split"])]
    items = pd.read_csv(folder_of(name) / "movies.csv").set_index("movieId").join(split)
    items.fillna({"split": ""}).to_csv(path)
    return flags


@dataclass(frozen=True)
class Run:
    """What the job left behind."""

    scores: pd.DataFrame  # by item_id
    root: Path
    seconds: float  # of the whole command, compiling and scoring included

    def paths(self, ids: Any) -> NDArray[Any]:
        """Return the predicted paths of these items, (n, n_levels)."""
        return np.stack([np.array(path, dtype=str) for path in self.scores.loc[ids, "path"]])


def run_job(name: str, root: Path, flags: Sequence[str], *, workers: int = 3) -> Run:
    """Run the job with the settings of a data set and these flags; several members are trained side by side."""
    luigi = Path(sys.executable).with_name("luigi")
    command = [str(luigi), "--module", "tasks", "ScoreCatalog", "--storage-root", str(root), *flags]
    environment = {**os.environ, "LUIGI_CONFIG_PATH": str(SETTINGS / f"{name}.cfg")}
    started = time.monotonic()
    subprocess.run([*command, "--workers", str(workers)], env=environment, check=True, stdout=sys.stderr)
    seconds = time.monotonic() - started
    scores = pd.read_parquet(sorted((root / "published" / "latest" / "scores.parquet").glob("*.parquet")))
    return Run(scores.set_index("item_id"), root, seconds)
