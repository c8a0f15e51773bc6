"""Quality on the real data, beside linear models: python tests/benchmarks/quality.py [names] [--quick] [--check]

Needs TAGLADDER_DATA and scikit-learn (extra `bench`). Each data set is run by the luigi command with its file of
tests/settings, three seeds (movies: ten splits); the baselines of `linear` are measured on the same items in the same
run. Products: settings were chosen inside train.json, and validation.json is scored once. Articles and movies: random
80/20, settings chosen on other splits than these. `--ablation` prints what each part is worth instead (ablation.py).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ablation
import linear
import numpy as np
import pandas as pd
import real_data
import transfer
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import f1_score

QUICK = ("--training-epochs", "2", "--training-members", "1", "--training-cross-fit", "false")
QUICK += ("--gate-enabled", "false")
Labels = NDArray[Any]  # (n, n_levels) names of labels


def main() -> int:
    """Run what is asked for, print tables and bars; with --check, return 1 where a bar is short."""
    parser = argparse.ArgumentParser(description="Quality on the real data sets, beside linear models.")
    parser.add_argument("data_sets", nargs="*", help=f"{', '.join(MEASURES)}; all of them by default")
    parser.add_argument("--quick", action="store_true", help="two epochs, one seed: only to see that it runs")
    parser.add_argument("--ablation", action="store_true", help="what each part is worth, on articles and products")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is short")
    arguments = parser.parse_args()
    if "TAGLADDER_DATA" not in os.environ:
        print("TAGLADDER_DATA is not set: there is nothing to measure", file=sys.stderr)
        return 1
    if arguments.ablation:
        for name in arguments.data_sets or ("articles", "products"):
            ablation.ablate(name, seeds=seeds(arguments.quick), quick=arguments.quick)
        return 0
    met: list[bool] = []
    for name in arguments.data_sets or MEASURES:
        with tempfile.TemporaryDirectory() as folder:
            met += MEASURES[name](Path(folder), quick=arguments.quick)
    return int(arguments.check and not all(met))


def measure_products(folder: Path, *, quick: bool) -> list[bool]:
    """Train on train.json with three seeds and score validation.json; weighted F1 as MWPD2020 has it."""
    levels = real_data.levels_of("products")
    training, test = real_data.products()
    given = test[list(levels)].to_numpy(dtype=str)
    print(f"\nproducts: {len(test):,} items of validation.json, weighted F1; trained on {len(training):,}")
    runs, found = [], []
    for seed in seeds(quick):
        flags = ["--training-seed", str(seed), *(QUICK if quick else ())]
        runs.append(real_data.run_job("products", folder / str(seed), flags))
        found.append(runs[-1].paths(test["ID"].astype(runs[-1].scores.index.dtype)))
        tell(f"Tagladder, seed {seed}, {runs[-1].seconds:.0f} s", given, found[-1:], weighted_f1)
    for min_df in (2, 1):
        blocks = linear.products_blocks(min_df=min_df)
        found_linear = linear.predict(training, test, levels, blocks)
        best = tell(f"LinearSVC, terms on {min_df}+ items", given, [found_linear], weighted_f1)
    flat = tell(
        "LinearSVC, flat over paths", given, [linear.predict_paths(training, test, levels, blocks)], weighted_f1
    )
    ours = tell("Tagladder", given, found, weighted_f1)
    return [
        bar("products-f1", ours["mean"], above=0.8943),
        bar("products-f1-same-run", ours["mean"], above=best["mean"]),
        bar("products-path", ours["path"], above=0.851),
        bar("products-path-same-run", ours["path"], above=best["path"]),
        bar("products-path-flat", ours["path"], above=flat["path"]),
        bar("products-legal", legal(training, levels, found), above=1.0, or_equal=True),
        bar("products-seconds", max(run.seconds for run in runs), below=300),
    ]


def measure_articles(folder: Path, *, quick: bool) -> list[bool]:
    """Train on 80% of the articles and score the rest, three seeds with a split each."""
    levels = real_data.levels_of("articles")
    table = real_data.articles()
    given, found = [], []
    flat: dict[str, list[Labels]] = {"LinearSVC, words, flat": [], "LinearSVC, words and pairs, flat": []}
    for seed in seeds(quick):
        chosen = real_data.draw_test(table, seed)
        training, test = table[~chosen], table[chosen]
        for pairs, known in enumerate(flat.values()):
            known.append(linear.predict_paths(training, test, levels, linear.articles_blocks(pairs=bool(pairs))))
        root = folder / str(seed)
        root.mkdir()
        flags = [*real_data.write_split("articles", table, chosen, root), "--training-seed", str(seed)]
        run = real_data.run_job("articles", root, [*flags, *(QUICK if quick else ())])
        given.append(test[list(levels)].to_numpy(dtype=str))
        found.append(run.paths(test.index))
        tell(f"Tagladder, split {seed}", given[-1], found[-1:], accuracy)
    print(f"\narticles: {len(given[0]):,} test items of {len(table):,}, {len(given)} splits, accuracy")
    words, pairs_too = (tell(name, given, labels, accuracy) for name, labels in flat.items())
    ours = tell("Tagladder", given, found, accuracy)
    return [
        bar("articles-path", ours["path"], above=0.849),
        bar("articles-path-same-run", ours["path"], above=words["path"]),
        bar("articles-path-pairs", ours["path"], above=pairs_too["path"]),
        bar("articles-legal", legal(table, levels, found), above=1.0, or_equal=True),
    ]


def measure_movies(folder: Path, *, quick: bool) -> list[bool]:
    """Train on 80% of the tagged films and score the rest, ten splits; both are judged by their hits."""
    levels = real_data.levels_of("movies")
    table = real_data.movies()
    fitting = real_data.fitting_genres(table)
    given, found = [], []
    svc: dict[str, list[Labels]] = {"LinearSVC, tags": [], "LinearSVC, words of tags": []}
    for seed in range(2 if quick else 10):
        chosen = real_data.draw_test(table, seed)
        training, test = table[~chosen], table[chosen]
        for words, known in enumerate(svc.values()):
            known.append(linear.predict(training, test, levels, linear.movies_blocks(words=bool(words))))
        root = folder / str(seed)
        root.mkdir()
        flags = [*real_data.write_split("movies", table, chosen, root), "--training-seed", str(seed)]
        run = real_data.run_job("movies", root, [*flags, *(QUICK if quick else ())])
        given.append(fitting.loc[test.index].to_numpy())
        found.append(run.paths(test.index))
        tell(f"Tagladder, split {seed}", given[-1], found[-1:], hit_share)
    print(f"\nmovies: {len(given[0])} test films of {len(table):,} tagged, {len(given)} splits, hits")
    baselines = [tell(name, given, labels, hit_share) for name, labels in svc.items()]
    ours = tell("Tagladder", given, found, hit_share)
    met = [
        bar(f"movies-{name}", paired(name, ours["each"] - theirs["each"]), above=0)
        for name, theirs in zip(("hits-over-tags", "hits-over-words"), baselines, strict=True)
    ]
    return [*met, bar("movies-legal", legal(table, levels, found), above=1.0, or_equal=True)]


def measure_transfer(folder: Path, *, quick: bool) -> list[bool]:
    """Print what `hidden` is worth to a linear model; there is no goal, the figure is told either way."""
    figures = transfer.measure(folder, seeds=seeds(quick), quick=quick)
    print("figure products-learned-features:", ", ".join(f"{name} {f1:.4g}" for name, f1 in figures.items()))
    return []


MEASURES: dict[str, Callable[..., list[bool]]] = {
    "movies": measure_movies,
    "products": measure_products,
    "articles": measure_articles,
    "transfer": measure_transfer,
}


def seeds(quick: bool) -> range:
    """Return the seeds of the runs."""
    return range(1 if quick else 3)


def weighted_f1(given: Labels, found: Labels) -> list[float]:
    """Return the weighted F1 of each level, by the labels' names."""
    return [f1_score(*pair, average="weighted", zero_division=0) for pair in zip(given.T, found.T, strict=True)]


def accuracy(given: Labels, found: Labels) -> list[float]:
    """Return the accuracy of each level."""
    return [float(share) for share in (given == found).mean(axis=0)]


def hit_share(given: Labels, found: Labels) -> list[float]:
    """Return for each level the share of films whose label is among those that fit; `given` holds sets."""
    fits = np.vectorize(lambda allowed, label: label in allowed, otypes=[bool])
    return [float(share) for share in fits(given, found).mean(axis=0)]


def tell(
    name: str,
    given: Labels | Sequence[Labels],
    runs: Sequence[Labels],
    figures: Callable[[Labels, Labels], list[float]],
) -> dict[str, Any]:
    """Print the mean over the runs and their spread (standard deviation); return mean, path, and each run's mean."""
    pairs = list(zip(given if isinstance(given, list) else [given] * len(runs), runs, strict=True))
    table = np.array([figures(*pair) for pair in pairs])
    paths = [hit_or_right(*pair) for pair in pairs]
    each = table.mean(axis=1)
    spread = f" ± {each.std(ddof=1):.4f}" if len(runs) > 1 else ""
    path_spread = f" ± {np.std(paths, ddof=1):.4f}" if len(runs) > 1 else ""
    levels = " ".join(f"{figure:.4f}" for figure in table.mean(axis=0))
    print(
        f"  {name:<34} {levels}   mean {each.mean():.4f}{spread}   path {np.mean(paths):.4f}{path_spread}", flush=True
    )
    return {"mean": float(each.mean()), "path": float(np.mean(paths)), "each": each}


def hit_or_right(given: Labels, found: Labels) -> float:
    """Return the share of items that are right at every level."""
    if given.dtype == object and len(given) and isinstance(given[0, 0], frozenset):
        fits = np.vectorize(lambda allowed, label: label in allowed, otypes=[bool])
        return float(fits(given, found).all(axis=1).mean())
    return float((given == found).all(axis=1).mean())


def paired(name: str, differences: NDArray[np.floating[Any]]) -> float:
    """Print mean and 95% interval of the differences over the splits; return the interval's lower end."""
    mean = differences.mean()
    half = stats.t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / len(differences) ** 0.5
    print(f"  paired difference, {name}: {mean:+.4f}, 95% interval {mean - half:+.4f} to {mean + half:+.4f}")
    return float(mean - half)


def legal(table: pd.DataFrame, levels: Sequence[str], runs: Sequence[Labels]) -> float:
    """Return the share of predicted paths that stand in the table."""
    known = set(map(tuple, table[list(levels)].astype(str).to_numpy()))
    return float(np.mean([tuple(path) in known for run in runs for path in run]))


def bar(name: str, figure: float, *, above: float = -np.inf, below: float = np.inf, or_equal: bool = False) -> bool:
    """Print the line of a bar and return whether it is met."""
    goal = f"> {above:.4g}" if above > -np.inf else f"< {below:.4g}"
    met = above < figure < below or (or_equal and figure == above)
    print(
        f"bar {name}: {figure:.4g} (goal {'>=' + goal[1:] if or_equal else goal}) {'met' if met else 'short'}",
        flush=True,
    )
    return met


if __name__ == "__main__":
    sys.exit(main())
