"""Where a model is right, where it is not, and whether it knows: the tree of labels, confusions, calibration."""

from __future__ import annotations

import numpy as np

from pipeline.metrics import expected_calibration_error
from pipeline.report.charts import Chart, heat, histogram, reliability, treemap, with_parents
from pipeline.report.held_out import HeldOut, confidence_of
from pipeline.report.scored import N_BINS, Scored, shown
from pipeline.report.tables import Cell, Table


def tree(found: Scored, asked: HeldOut | None) -> Chart:
    """Return all labels: area by items, as predicted or as labelled, colour by the accuracy of held-out items."""
    accuracies = {} if asked is None else asked.accuracies()
    n_predicted, n_given = with_parents(found.predicted), with_parents(found.given)
    rows = []
    for path in sorted({*n_predicted, *n_given}):
        n, n_right = accuracies.get(path, (0, 0))
        counts = n_predicted.get(path, 0), n_given.get(path, 0)
        rows.append([shown(path), len(path), *counts, n, n_right / n if n else None])
    columns = ["label", "level|count", "predicted|count", "labelled|count", "held out|count", "right|share"]
    says = f"Area: items by predicted label, {found.n_items:,} in all. Colour: share of held-out items that are right."
    return Chart(
        "tree",
        "The ladder of labels",
        says,
        treemap(found.predicted, accuracies, root="all items, as predicted"),
        Table.of("Labels of all levels", columns, rows),
        treemap(found.given, accuracies, root="labelled items, as labelled") if found.given else None,
    )


def confusion(asked: HeldOut) -> Chart:
    """Return which top label is taken for which."""
    names = [path[0] for path in asked.taxonomy.classes[0]]
    counts = asked.confusion()
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    rows = [[names[i], names[j], int(wrong[i, j]), wrong[i, j] / counts[i].sum()] for i, j in np.argwhere(wrong)]
    rows.sort(key=lambda row: -row[2])
    columns = ["labelled", "called", "items|count", "of its items|share"]
    n, n_wrong = int(counts.sum()), int(wrong.sum())
    says = f"{n:,} held-out items by the label they came with and the one they got: {n_wrong:,} differ."
    table = Table.of("Top labels that are taken for others", columns, rows, most=500)
    return Chart("confusion", "Top labels taken for each other", says, heat(names, counts), table)


def calibration(asked: HeldOut) -> list[Chart]:
    """Return the calibration curves of the path and of each level."""
    charts = []
    for level, name in ((None, "whole path"), *enumerate(asked.taxonomy.levels)):
        if level is not None and len(asked.taxonomy.levels) == 1:
            continue  # It is the path.
        before, after = asked.curves(level)
        errors: list[float | None] = [
            expected_calibration_error(*confidence_of(side, level)) for side in (asked.before, asked.after)
        ]
        shown_errors = " before and ".join("unknown" if error is None else f"{error:.3f}" for error in errors)
        rows: list[tuple[Cell, ...]] = [
            (side, *cells)
            for side, found in (("before", before), ("after", after))
            for cells in zip(found.confidence, found.accuracy, found.n_items, strict=True)
        ]
        columns = ["calibration", "sure|share", "right|share", "items|count"]
        says = f"Expected calibration error {shown_errors} after calibration, on held-out items."
        table = Table.of(f"How honest probabilities are: {name}", columns, rows)
        place = "path" if level is None else str(level + 1)
        charts.append(Chart(f"calibration-{place}", name, says, reliability(before, after), table))
    return charts


def confidence(found: Scored) -> Chart:
    """Return how sure the model is of the items that it has scored."""
    without, labelled = found.confidence
    n_sure = sum(without[-2:]) + sum(labelled[-2:])
    rows = [[k / N_BINS, (k + 1) / N_BINS, without[k], labelled[k]] for k in range(N_BINS)]
    says = f"{n_sure:,} of {found.n_items:,} items have a path that is at least 90% probable."
    columns = ["from|share", "to|share", "without labels|count", "labelled|count"]
    table = Table.of("Items by the probability of their path", columns, rows)
    return Chart("confidence", "How sure it is", says, histogram(without, labelled), table)
