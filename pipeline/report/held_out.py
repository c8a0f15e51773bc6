"""What a model says of labelled items that it has not learned from: the ground of all that a report judges by."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.calibration import Calibration
from pipeline.errors import FeatureError, ModelError
from pipeline.evaluation import Outcome, joined, outcome
from pipeline.judging import Right, batches, right, some_items
from pipeline.model import Model
from pipeline.outputs import fill_up
from pipeline.report.scored import Item, Path_, shown, shown_tags
from pipeline.scoring import one_thread
from pipeline.taxonomy import Taxonomy

N_BINS = 15  # of a calibration curve, as of the expected calibration error
N_PAIRS, N_EXAMPLES = 3, 3
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Curve:
    """A calibration curve: of the items in a bin of confidence, how many are right."""

    confidence: list[float]  # mean of each bin that has items
    accuracy: list[float]
    n_items: list[int]


@dataclass(frozen=True)
class Pair:
    """Two classes that are taken for each other."""

    given: str
    predicted: str
    n_items: int
    examples: tuple[Item, ...]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Labelled items of the validation and test parts, and what the model says of them before and after calibration."""

    items: pa.Table
    before: Outcome
    after: Outcome
    taxonomy: Taxonomy  # the model's

    @property
    def n_items(self) -> int:
        """Return how many items these are."""
        return int(self.items.num_rows)

    def accuracies(self) -> dict[Path_, tuple[int, int]]:
        """Return by class, of all levels, how many held-out items it was given to, and how many of them are right."""
        found: dict[Path_, tuple[int, int]] = {}
        for level, classes in enumerate(self.taxonomy.classes):
            given = self.after.labels[:, level]
            hit = given == self.after.classes[:, level]
            n = np.bincount(given[given >= 0], minlength=len(classes))
            n_right = np.bincount(given[(given >= 0) & hit], minlength=len(classes))
            found |= {path: (int(n[k]), int(n_right[k])) for k, path in enumerate(classes)}
        return found

    def confusion(self) -> npt.NDArray[np.int64]:
        """Return how many items of each top class, a row, are called which, a column, (n_classes, n_classes)."""
        n = len(self.taxonomy.classes[0])
        known = self.after.labels[:, 0] >= 0
        cells = self.after.labels[known, 0] * n + self.after.classes[known, 0]
        return np.bincount(cells, minlength=n * n).reshape(n, n)

    def pairs(self) -> dict[str, tuple[Pair, ...]]:
        """Return for each top label the pairs of classes that are confused most, where given and predicted part."""
        labels, classes = self.after.labels, self.after.classes
        wrong = (labels >= 0) & (labels != classes)
        counts: dict[str, Counter[tuple[Path_, Path_]]] = {}
        rows: dict[tuple[Path_, Path_], list[int]] = {}
        for row in np.flatnonzero(wrong.any(axis=1)):
            level = int(wrong[row].argmax())
            names = self.taxonomy.classes[level]
            pair = names[labels[row, level]], names[classes[row, level]]
            counts.setdefault(pair[0][0], Counter())[pair] += 1
            rows.setdefault(pair, []).append(int(row))
        return {
            top: tuple(
                Pair(self._shown(given), self._shown(predicted), n, self._examples(rows[given, predicted]))
                for (given, predicted), n in counts[top].most_common(N_PAIRS)
            )
            for top in sorted(counts)
        }

    def curves(self, level: int | None) -> tuple[Curve, Curve]:
        """Return the calibration curves of a level before and after calibration; of the whole path for None."""
        return curve(*confidence_of(self.before, level)), curve(*confidence_of(self.after, level))

    def _shown(self, path: Path_) -> str:
        return shown([name if name != self.taxonomy.stop_label else "(ends here)" for name in path])

    def _examples(self, rows: list[int]) -> tuple[Item, ...]:
        surest = sorted(rows, key=lambda row: -self.after.path_confidence[row])[:N_EXAMPLES]
        return tuple(self._item(row) for row in surest)

    def _item(self, row: int) -> Item:
        found = self.items.slice(row, 1).to_pylist()[0]
        given = [found[level] for level in self.taxonomy.levels if found[level] not in (None, self.taxonomy.stop_label)]
        path = self.taxonomy.classes[-1][self.after.classes[row, -1]]
        return Item(
            item_id=str(found["item_id"]),
            title=found.get("title") or str(found["item_id"]),
            tags=shown_tags(found["tags"]),
            given=shown(given),
            predicted=shown([name for name in path if name != self.taxonomy.stop_label]),
            probability=float(self.after.path_confidence[row]),
            part=found["split"],
        )


def ask(model: Model, clean: Path | None) -> HeldOut | None:
    """Return what a model says of the labelled items of today that no model learns from; None where there are none."""
    taxonomy = model.taxonomy
    items = labelled(clean, taxonomy)
    if items is None:
        return None
    plain = Calibration.none(len(taxonomy.levels)).legal
    before, after = [], []
    with one_thread():
        for batch in batches(model, items):
            labels = taxonomy.encode([batch.column(level) for level in taxonomy.levels])
            logits = model.network.logits(fill_up(model.transform.transform(batch), n_rows=batch.num_rows))
            before.append(outcome(logits, labels, plain, taxonomy))
            after.append(outcome(logits, labels, model.calibration.legal, taxonomy))
    return HeldOut(items, joined(before), joined(after), taxonomy)


def compare(new: Model, last: Model, held_out: HeldOut) -> tuple[Right, Right] | None:
    """Return which labels of the same items either model gets right; None where the last one cannot be asked."""
    try:
        return right(new, held_out.items, new.taxonomy), right(last, held_out.items, new.taxonomy)
    except (FeatureError, ModelError):
        return None


def labelled(clean: Path | None, taxonomy: Taxonomy) -> pa.Table | None:
    """Return at most 10,000 labelled items of the validation and test parts, the same in any order of the input."""
    if clean is None or not {*taxonomy.levels, "split"} <= set(pq.read_schema(clean / "items.parquet").names):
        return None
    top = '"' + taxonomy.levels[0].replace('"', '""') + '"'
    items = some_items(clean, where=f"split IN ('validation', 'test') AND {top} IS NOT NULL")
    return items if items.num_rows else None


def curve(confidence: Floats, correct: npt.NDArray[np.bool_]) -> Curve:
    """Return the calibration curve of some predictions.

    >>> curve(np.array([0.9, 0.92, 0.5]), np.array([True, False, True]))
    Curve(confidence=[0.5, 0.91], accuracy=[1.0, 0.5], n_items=[1, 2])
    """
    bins = np.clip(np.ceil(confidence * N_BINS).astype(int) - 1, 0, N_BINS - 1)
    n = np.bincount(bins, minlength=N_BINS)
    there = n > 0
    mean = np.bincount(bins, weights=confidence, minlength=N_BINS)[there] / n[there]
    share = np.bincount(bins, weights=correct, minlength=N_BINS)[there] / n[there]
    return Curve([round(float(x), 4) for x in mean], [round(float(x), 4) for x in share], n[there].tolist())


def confidence_of(found: Outcome, level: int | None) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return how sure the model was of each known label of a level, or path for None, and whether it was right."""
    if level is None:
        whole = (found.labels >= 0).all(axis=1)
        return found.path_confidence[whole], (found.classes == found.labels)[whole].all(axis=1)
    known = found.labels[:, level] >= 0
    return found.confidence[known, level], found.classes[known, level] == found.labels[known, level]
