"""What each part of network and training is worth: one row a part, switched on or off against the settings as they are.

Every row is a run of the job up to ExportModel with one network and flags of its own, from two seeds, and is judged by
evaluation.json on a fifth of the items held out by hash: of products inside train.json, so that validation.json stays
unread. Clean items and features are made once for all rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from real_data import SETTINGS

from pipeline.decoding import decode_raw
from pipeline.evaluation import forward
from pipeline.metrics import f1_scores, path_accuracy
from pipeline.model import load_model
from pipeline.parts import open_parts

HOLD_OUT = ("--clean-test-share", "0.2", "--clean-split-salt", "ablation", "--scoring-items", "")
PARTS: dict[str, tuple[str, ...]] = {
    "as set, one network": (),
    "negative log-likelihood, not hinge": ("--training-loss", "nll"),
    "Adam, not row-wise steps": ("--training-optimizer", "adam"),
    "no wide path": ("--network-wide", "false"),
    "single shot, not feedback": ("--network-kind", "single_shot"),
    "label feedback": ("--network-label-feedback", "true"),
    "parent mask": ("--network-parent-mask", "true"),
    "4 experts over the hidden layer": ("--network-experts", "4"),
    "4 experts over the outputs": ("--network-experts", "4", "--network-experts-at", "outputs"),
    "BatchNorm, not LayerNorm": ("--network-norm", "batch"),
    "no LayerNorm": ("--network-norm", "none"),
    "label smoothing 0.05": ("--training-label-smoothing", "0.05"),
    "no dropout of features": ("--training-feature-dropout", "0"),
    "constant step size": ("--training-schedule", "constant"),
    "averaged weights": ("--training-keep", "averaged"),
    "class weights, effective number": ("--training-class-weights", "effective"),
    "3 members": ("--training-members", "3"),
    "5 members": ("--training-members", "5"),
}


def ablate(name: str, *, seeds: Sequence[int], quick: bool) -> None:
    """Print a table of what each part is worth on a data set, as rows of Markdown."""
    print(f"\n{name}, {len(seeds)} seeds: mean and half the range\n")
    print("| part | F1, mean of levels | whole path | |\n|---|---|---|---|")
    first: float | None = None
    with tempfile.TemporaryDirectory() as folder:
        for part, flags in PARTS.items():
            models = [train(name, Path(folder), seed, flags, quick=quick) for seed in seeds]
            figures = np.array([evaluated(model) for model in models])
            first = row(part, figures, first)
            if part == next(iter(PARTS)):
                row(
                    "each level by itself, not legal paths", np.array([evaluated_raw(model) for model in models]), first
                )


def train(name: str, root: Path, seed: int, flags: Sequence[str], *, quick: bool) -> Path:
    """Run the job and return the folder of the model."""
    command = [str(Path(sys.executable).with_name("luigi")), "--module", "tasks", "ExportModel"]
    members = () if "--training-members" in flags else ("--training-members", "1")
    shorter = ("--training-epochs", "2") if quick else ()
    options = ["--storage-root", str(root), "--training-seed", str(seed), *HOLD_OUT, *members, *flags, *shorter]
    before = set((root / "export").glob("*"))
    environment = {**os.environ, "LUIGI_CONFIG_PATH": str(SETTINGS / f"{name}.cfg")}
    subprocess.run([*command, *options], env=environment, check=True, stdout=sys.stderr)
    (folder,) = set((root / "export").glob("*")) - before
    return folder


def evaluated(model: Path) -> tuple[float, float]:
    """Return weighted F1, averaged over the levels, and the share of right paths."""
    figures: dict[str, Any] = json.loads((model / "evaluation.json").read_text("utf-8"))
    return float(np.mean([level["weighted_f1"] for level in figures["levels"]])), figures["path"]["accuracy"]


def evaluated_raw(model: Path) -> tuple[float, float]:
    """Return the same of the most probable label of each level by itself."""
    (features,) = (model.parents[1] / "features").glob("*")
    chunks = list(forward(load_model(model / "model.h5").network, open_parts(features).test))
    found = np.concatenate([decode_raw(levels).classes[:, 0] for levels, _ in chunks])
    given = np.concatenate([labels for _, labels in chunks])
    f1 = [f1_scores(found[:, level], given[:, level])["weighted_f1"] for level in range(found.shape[1])]
    return float(np.mean(np.array(f1, float))), float(path_accuracy(found, given) or 0)


def row(part: str, figures: Any, first: float | None) -> float:
    """Print a row; return the mean F1 that later rows are compared with."""
    mean, spread = figures.mean(axis=0), np.ptp(figures, axis=0) / 2
    change = "" if first is None else f"{mean[0] - first:+.4f}"
    print(f"| {part} | {mean[0]:.4f} ± {spread[0]:.4f} | {mean[1]:.4f} ± {spread[1]:.4f} | {change} |", flush=True)
    return float(mean[0]) if first is None else first
