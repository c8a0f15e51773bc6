"""Stage 3: what training tells of each epoch, and the rule that ends it."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.decoding import path_scores
from pipeline.examples import CHUNK, Array, Source, chunks
from pipeline.network import Network
from pipeline.objective import Goal, Totals
from pipeline.taxonomy import Taxonomy


@dataclass(frozen=True)
class Evaluation:
    """How a network does on examples; nan where nothing is known to compare with."""

    loss: float
    accuracy: tuple[float, ...]  # a level: share of its known labels that are predicted
    path_accuracy: float  # share of the items labelled at every level of which every label is predicted
    losses: tuple[float, ...] = ()  # a level, without its weight; empty for a loss of one's own


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv."""

    number: int  # from 1
    loss: float  # of the training part, with dropout, while the weights move
    validation: Evaluation | None  # None without a validation part
    items_per_second: float  # in training steps
    seconds: float  # validation included
    waiting: float = 0.0  # share of the time of training steps in which the engine waited for a batch
    training: Evaluation | None = None  # of the first items of the training part, as the validation part is measured


def evaluate(network: Network, examples: Source, objective: Goal, *, taxonomy: Taxonomy | None = None) -> Evaluation:
    """Return the evaluation of a network of arrays; memory stays bounded, whatever the number of examples.

    Predicted is the most probable legal path, as scoring does it; without a taxonomy each level's most probable class.
    """
    n_levels = len(network.config.n_classes)
    known, hits = (np.zeros(n_levels) for _ in range(2))
    totals: Totals = []
    paths = path_hits = 0
    for part in chunks(examples, CHUNK):
        outputs = network.logits(part.inputs)
        totals = _added(totals, objective.totals(outputs, part.labels))
        right = predicted(outputs, taxonomy) == part.labels
        known += (part.labels >= 0).sum(axis=0)
        hits += right.sum(axis=0)
        paths += int((part.labels >= 0).all(axis=1).sum())
        path_hits += int(right.all(axis=1).sum())
    accuracy = tuple(_share(hit, n) for hit, n in zip(hits, known, strict=True))
    # A loss of one's own is not made of levels.
    losses = tuple(_share(float(total), float(n)) for total, n in totals) if len(totals) == n_levels else ()
    return Evaluation(float(objective.combine(totals)), accuracy, _share(path_hits, paths), losses)


def predicted(logits: Sequence[Array], taxonomy: Taxonomy | None) -> Array:
    """Return the class of every level, (n, n_levels): of the best legal path, or of each level without a taxonomy.

    >>> ladder = Taxonomy.of(("genre", "theme"), [("Drama", "War"), ("Horror", "Zombies")])
    >>> logits = [np.array([[1.0, 0.0]]), np.array([[0.0, 3.0]])]
    >>> predicted(logits, ladder).tolist(), predicted(logits, None).tolist()
    ([[1, 1]], [[0, 1]])
    """
    if taxonomy is None:
        return np.stack([level.argmax(axis=1) for level in logits], axis=1)
    return taxonomy.paths[path_scores(logits, taxonomy).argmax(axis=1)]


def _added(totals: Totals, more: Totals) -> Totals:
    """Return the sums added up in float64."""
    parts = [(np.float64(total), np.float64(n)) for total, n in more]
    return [(a + c, b + d) for (a, b), (c, d) in zip(totals, parts, strict=True)] if totals else parts


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan


def best_epoch(history: Sequence[Epoch]) -> int:
    """Return the number of the epoch with the lowest validation loss, the first of equals; without one the last.

    >>> losses = [Epoch(n, 0.0, Evaluation(loss, (), 0.0), 1.0, 1.0) for n, loss in enumerate([3.0, 1.0, 2.0], 1)]
    >>> best_epoch(losses)
    2
    """
    validated = [epoch for epoch in history if epoch.validation is not None]
    if not validated:
        return history[-1].number
    return min(validated, key=lambda epoch: epoch.validation.loss if epoch.validation else math.inf).number


def should_stop(history: Sequence[Epoch], *, patience: int) -> bool:
    """Return whether `patience` epochs have passed since the best one."""
    return history[-1].number - best_epoch(history) >= patience


def rows(history: Sequence[Epoch], levels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the history as rows of history.csv: epoch, losses, accuracy per level and path, speed.

    `validation_` and `training_` stand before what is measured of these parts, of a level behind its name. Values that
    do not exist (no validation part) are None.
    """
    table = []
    for epoch in history:
        row: dict[str, Any] = {"epoch": epoch.number, "loss": epoch.loss}
        for part, found in (("validation", epoch.validation), ("training", epoch.training)):
            row |= {f"{part}_{name}": value for name, value in _measured(found, levels).items()}
        row["items_per_second"] = epoch.items_per_second
        row["waiting"] = epoch.waiting
        row["seconds"] = epoch.seconds
        table.append(row)
    return table


def _measured(found: Evaluation | None, levels: Sequence[str]) -> dict[str, float | None]:
    """Return what was measured of a part by its name, without that of the part."""
    row: dict[str, float | None] = {"loss": None if found is None else found.loss}
    for level, name in enumerate(levels):
        row[f"{name}_loss"] = found.losses[level] if found is not None and found.losses else None
        row[f"{name}_accuracy"] = None if found is None else found.accuracy[level]
    row["path_accuracy"] = None if found is None else found.path_accuracy
    return row


def facts_of(epoch: Epoch) -> dict[str, object]:
    """Return what a person wants to see of an epoch while it runs."""
    facts: dict[str, object] = {"loss": epoch.loss, "items_per_second": epoch.items_per_second}
    if epoch.validation is not None:
        facts["validation_loss"] = epoch.validation.loss
        facts["accuracy"] = " ".join(f"{accuracy:.2f}" for accuracy in epoch.validation.accuracy)
    return facts


def write_history(path: Path, history: Sequence[Epoch], levels: Sequence[str]) -> None:
    """Write history.csv; a value that does not exist is an empty field."""
    table = rows(history, levels)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        for row in table:
            writer.writerow({name: _shown(value) for name, value in row.items()})


def _shown(value: object) -> object:
    """Return six digits of a float, nothing for what does not exist.

    >>> _shown(0.1234567), _shown(float("nan")), _shown(3)
    ('0.123457', '', 3)
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
