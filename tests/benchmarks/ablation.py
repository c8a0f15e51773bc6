"""What each part of network and training is worth: one row a part, switched on or off against the settings as they are.

The job makes clean items and features once, up to BuildFeatures; every row is then trained by `fit` in this process,
as stage 3 trains one member, from three seeds, calibrated and evaluated as stage 4 does. It is judged on a fifth of the
items held out by hash: of products inside train.json, so that validation.json stays unread.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from real_data import SETTINGS

from pipeline.config import Settings, make_settings
from pipeline.decoding import decode_raw
from pipeline.ensemble import together
from pipeline.evaluation import evaluate, forward
from pipeline.examples import Source
from pipeline.export import calibrate
from pipeline.fitting import fit
from pipeline.metrics import f1_scores, path_accuracy
from pipeline.network import FeedbackNetwork, NetworkConfig
from pipeline.parts import Part, open_parts
from pipeline.taxonomy import Taxonomy
from pipeline.training import held

HOLD_OUT = ("--clean-test-share", "0.2", "--clean-split-salt", "ablation", "--scoring-items", "")
LIKELIHOOD = {"loss": "nll", "label_smoothing": 0.05}
ADAM = {"optimizer": "adam", "learning_rate": 0.002, "clip_norm": 5}
PARTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "negative log-likelihood with smoothing, not hinge": {"training": LIKELIHOOD},
    "Adam (step size 0.002), not row-wise steps": {"training": ADAM},
    "no wide path, with Adam and negative log-likelihood": {
        "network": {"wide": False},
        "training": {**ADAM, **LIKELIHOOD},
    },
    "single shot, not feedback": {"network": {"kind": "single_shot"}},
    "label feedback": {"network": {"label_feedback": True}},
    "parent mask": {"network": {"parent_mask": True}},
    "4 experts over the hidden layer": {"network": {"experts": 4}},
    "4 experts over the outputs, with negative log-likelihood": {
        "network": {"experts": 4, "experts_at": "outputs"},
        "training": LIKELIHOOD,
    },
    "BatchNorm, not LayerNorm": {"network": {"norm": "batch"}},
    "no norm of the hidden layer": {"network": {"norm": "none"}},
    "label smoothing 0.05": {"training": {"label_smoothing": 0.05}},
    "no dropout of features": {"training": {"feature_dropout": 0}},
    "constant step size": {"training": {"schedule": "constant"}},
    "averaged weights": {"training": {"keep": "averaged"}},
    "last weights, not those of the best epoch": {"training": {"keep": "last"}},
    "class weights, effective number": {"training": {"class_weights": "effective"}},
}
Figures = tuple[float, float]  # weighted F1, mean of the levels; share of right paths


@dataclass(frozen=True)
class Bench:
    """A data set with its features made, on which networks are trained and judged."""

    settings: Settings
    taxonomy: Taxonomy
    training: Source
    validation: Source
    test: Part
    class_counts: Sequence[Any]  # of the training part, (n_classes,) a level

    def train(self, seed: int, **changes: Mapping[str, Any]) -> FeedbackNetwork:
        """Return the network that stage 3 trains by the settings with these changes, {section: {name: value}}."""
        sections = self.settings.model_dump()
        for section, values in changes.items():
            sections[section] |= values
        changed = make_settings(sections)
        config = NetworkConfig.of(changed.network, self.test.widths, self.taxonomy.parents)
        settings = changed.training.model_copy(update={"seed": seed})
        network = FeedbackNetwork.initialise(config, np.random.default_rng(seed))
        trained = fit(network, self.training, self.validation, settings, taxonomy=self.taxonomy).network
        assert isinstance(trained, FeedbackNetwork)
        return trained

    def judge(self, *members: FeedbackNetwork) -> Figures:
        """Return the figures of evaluation.json for these members averaged: the best legal paths, calibrated."""
        network = together(members)
        calibration = calibrate([(network, self.validation)], self.taxonomy)
        figures = evaluate(network, self.test, self.taxonomy, calibration=calibration, class_counts=self.class_counts)
        return float(np.mean([level["weighted_f1"] for level in figures["levels"]])), figures["path"]["accuracy"]

    def judge_raw(self, network: FeedbackNetwork) -> Figures:
        """Return the same of the most probable label of each level by itself."""
        chunks = list(forward(network, self.test))
        found = np.concatenate([decode_raw(levels).classes[:, 0] for levels, _ in chunks])
        given = np.concatenate([labels for _, labels in chunks])
        f1 = [f1_scores(found[:, level], given[:, level])["weighted_f1"] for level in range(found.shape[1])]
        return float(np.mean(np.array(f1, float))), float(path_accuracy(found, given) or 0)


def ablate(name: str, *, seeds: Sequence[int], quick: bool) -> None:
    """Print a table of what each part is worth on a data set, as rows of Markdown."""
    started = time.monotonic()
    print(f"\n{name}, {len(seeds)} seeds: mean and half the range\n")
    print("| part | F1, mean of levels | whole path | F1 against the first row |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = prepare(name, Path(folder), quick=quick)
        first: float | None = None
        for part, figures in rows(bench, seeds):
            first = tell(part, np.array(figures), first)
    print(f"\n{name}: {(time.monotonic() - started) / 60:.0f} minutes")


def prepare(name: str, root: Path, *, quick: bool) -> Bench:
    """Return the data set, cleaned and made into features by the job."""
    command = [str(Path(sys.executable).with_name("luigi")), "--module", "tasks", "BuildFeatures"]
    options = ["--storage-root", str(root), *HOLD_OUT]
    environment = {**os.environ, "LUIGI_CONFIG_PATH": str(SETTINGS / f"{name}.cfg")}
    subprocess.run([*command, *options], env=environment, check=True, stdout=sys.stderr)
    (features,) = (root / "features").glob("*")
    (clean,) = (root / "clean").glob("*")
    parts = open_parts(features)
    file = ConfigParser(interpolation=None)
    file.read(SETTINGS / f"{name}.cfg", "utf-8")
    learning = {section: dict(file[section]) for section in ("network", "training")}
    return Bench(
        settings=make_settings({**learning, "training": {**learning["training"], **({"epochs": 2} if quick else {})}}),
        taxonomy=Taxonomy.from_json((clean / "taxonomy.json").read_text("utf-8")),
        training=held(parts.train),
        validation=held(parts.validation),
        test=parts.test,
        class_counts=parts.train.class_counts(),
    )


def rows(bench: Bench, seeds: Sequence[int]) -> Iterator[tuple[str, list[Figures]]]:
    """Yield each part and the figures of its seeds."""
    as_set = [bench.train(seed) for seed in seeds]
    yield "as set, one network", [bench.judge(network) for network in as_set]
    yield "each level by itself, not legal paths", [bench.judge_raw(network) for network in as_set]
    more = [[bench.train(seed + step) for step in (1000, 2000)] for seed in seeds]
    yield "3 members", [bench.judge(one, *two) for one, two in zip(as_set, more, strict=True)]
    for part, changes in PARTS.items():
        yield part, [bench.judge(bench.train(seed, **changes)) for seed in seeds]


def tell(part: str, figures: Any, first: float | None) -> float:
    """Print a row; return the mean F1 that later rows are compared with."""
    mean, spread = figures.mean(axis=0), np.ptp(figures, axis=0) / 2
    change = "" if first is None else f"{mean[0] - first:+.4f}"
    print(f"| {part} | {mean[0]:.4f} ± {spread[0]:.4f} | {mean[1]:.4f} ± {spread[1]:.4f} | {change} |", flush=True)
    return float(mean[0]) if first is None else first
