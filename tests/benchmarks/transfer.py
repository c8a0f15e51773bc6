"""Are the learned features worth something to another model? Products, a tenth of the labels of the last level.

A network learns the two upper levels; LinearSVC then learns the third from a tenth of the training items, once from the
features of stage 2 and once from the network's `hidden`, and is judged on a fifth of train.json that neither has seen.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import real_data
from ablation import HOLD_OUT
from scipy.sparse import csr_matrix, hstack
from sklearn.metrics import f1_score
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from pipeline import shards
from pipeline.evaluation import CHUNK
from pipeline.examples import Examples, chunks
from pipeline.model import load_model
from pipeline.network import Inputs
from pipeline.parts import open_parts

UPPER = ("--catalog-levels", "lvl1, lvl2")
# Without a wide path, which would leave the hidden layer little to learn.
DEEP = ("--network-wide", "false", "--network-hidden", "256", "--training-optimizer", "adam", "--training-loss", "nll")
DEEP += ("--training-learning-rate", "0.002", "--training-clip-norm", "5", "--training-feature-dropout", "0.3")


def measure(root: Path, *, seeds: Sequence[int], quick: bool) -> dict[str, float]:
    """Print a table and return weighted F1 of level 3 from raw features, `hidden` and both, averaged over seeds."""
    model = load_model(train(root, quick=quick) / "model.h5")
    (folder,) = (path.parent for path in root.glob("features/*/features-00000.h5"))
    data = open_parts(folder)
    training, test = (next(chunks(part, part.n_positions)) for part in (data.train, data.test))
    labels = third_level(folder)
    n_train = len(training)
    y, given = labels[:n_train], labels[len(labels) - len(test) :]
    learned = [hidden_of(model.network["hidden"], part) for part in (training, test)]
    raw = [training.features, test.features]
    both = [hstack([normalize(csr_matrix(h)), x]).tocsr() for h, x in zip(learned, raw, strict=True)]
    print(f"\nproducts, level 3 from {n_train // 10:,} labels of {n_train:,}; weighted F1 on {len(given):,} items")
    figures = {}
    for name, (seen, unseen) in {"raw features": raw, "hidden": learned, "both": both}.items():
        figures[name] = [f1_of(seen, unseen, y, given, tenth(n_train, seed)) for seed in seeds]
        print(f"  LinearSVC on {name:<14} {np.mean(figures[name]):.4f} ± {np.std(figures[name]):.4f}", flush=True)
    return {name: float(np.mean(values)) for name, values in figures.items()}


def train(root: Path, *, quick: bool) -> Path:
    """Run the job up to ExportModel and return the folder of the model of the two upper levels."""
    command = [str(Path(sys.executable).with_name("luigi")), "--module", "tasks", "ExportModel"]
    options = ["--storage-root", str(root), *HOLD_OUT, *UPPER, *DEEP, "--training-seed", "0", "--training-members", "1"]
    shorter = ("--training-epochs", "2") if quick else ()
    environment = {**os.environ, "LUIGI_CONFIG_PATH": str(real_data.SETTINGS / "products.cfg")}
    subprocess.run([*command, *options, *shorter], env=environment, check=True, stdout=sys.stderr)
    (model,) = (root / "export").glob("*")
    return model


def third_level(folder: Path) -> Any:
    """Return the level-3 labels of the items of the shards, in their order."""
    training, _ = real_data.products()
    by_id = training.set_index(training["ID"].astype(str))["lvl3"]
    ids = pa.chunked_array([part.cast(pa.string()) for part in shards.read_item_ids(folder)])
    return by_id.loc[ids.to_pylist()].to_numpy(dtype=str)


def hidden_of(hidden: Callable[[Inputs], Any], items: Examples) -> Any:
    """Return the output of the hidden layer, (n, n_hidden), of several members side by side."""
    rows = [slice(start, start + CHUNK) for start in range(0, len(items), CHUNK)]
    return np.concatenate([hidden(items.take(part).inputs) for part in rows])


def tenth(n: int, seed: int) -> Any:
    """Return a tenth of the rows, drawn at random."""
    return np.random.default_rng(seed).permutation(n)[: n // 10]


def f1_of(seen: Any, unseen: Any, labels: Any, given: Any, rows: Any) -> float:
    """Return the weighted F1 of LinearSVC that learns from these rows."""
    found = LinearSVC().fit(seen[rows], labels[rows]).predict(unseen)
    return float(f1_score(given, found, average="weighted", zero_division=0))
