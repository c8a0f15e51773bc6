"""How the networks of a run have learned: curves over the epochs, members, experts."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from pipeline.artifacts import verified
from pipeline.report.charts import Chart, bars, lines
from pipeline.report.sources import Run
from pipeline.report.tables import Table


def history_of(run: Run) -> list[tuple[dict[str, Any], list[dict[str, str]]]]:
    """Return what every member tells of its training, and its epochs."""
    found = []
    for folder in run.training:
        facts = json.loads(verified(folder, "training.json").read_text("utf-8"))
        text = verified(folder, "history.csv").read_text("utf-8")
        found.append((facts, list(csv.DictReader(io.StringIO(text)))))
    return found


def curves(run: Run, levels: tuple[str, ...]) -> list[Chart]:
    """Return the learning curves of the first member: losses and accuracies, of training and validation."""
    found = history_of(run)
    if not found:
        return []
    facts, epochs = found[0]
    charts = []
    for kind, title, names in (("loss", "Loss", levels), ("accuracy", "Accuracy", (*levels, "path"))):
        columns = {f"all levels, {part}": f"{part}_loss" for part in ("training", "validation") if kind == "loss"}
        columns |= {f"{name}, {part}": f"{part}_{name}_{kind}" for name in names for part in ("training", "validation")}
        known = {name: [_number(row.get(column)) for row in epochs] for name, column in columns.items()}
        known = {name: values for name, values in known.items() if any(value is not None for value in values)}
        if not known:
            continue
        says = f"{title} of each epoch; the weights are those of epoch {facts['best_epoch']} of {facts['n_epochs']}."
        rows = [[place, *(values[place - 1] for values in known.values())] for place in range(1, len(epochs) + 1)]
        table = Table.of(f"{title} of each epoch", ["epoch|count", *(f"{name}|number" for name in known)], rows)
        drawn = lines(known, y_title=kind, chosen=facts["best_epoch"], percent=kind == "accuracy")
        charts.append(Chart(f"learning-{kind}", title, says, drawn, table))
    return charts


def _number(text: str | None) -> float | None:
    return float(text) if text else None


def members(run: Run) -> Table | None:
    """Return how each member of an ensemble did; None for a single network."""
    found = history_of(run)
    if len(found) < 2:
        return None
    rows = []
    for number, (facts, epochs) in enumerate(found, start=1):
        best = epochs[facts["best_epoch"] - 1]
        figures = [_number(best.get(f"validation_{name}")) for name in ("loss", "path_accuracy")]
        rows.append([str(number), facts["n_epochs"], facts["best_epoch"], *figures, facts["seconds"]])
    columns = ["member", "epochs|count", "chosen|count", "validation loss|number", "path|share", "took|seconds"]
    return Table.of("Members of the ensemble; the curves are the first one's", columns, rows)


def experts(run: Run) -> list[Chart]:
    """Return which share of the training items each expert of a member has; nothing without experts."""
    charts = []
    for number, (facts, _) in enumerate(history_of(run), start=1):
        if shares := facts.get("expert_shares"):
            title = "Experts" if len(run.training) == 1 else f"Experts of member {number}"
            values = {f"expert {place}": share for place, share in enumerate(shares, start=1)}
            says = f"Weight that the gate gives each of {len(shares)} experts, over the training items."
            rows = list(values.items())
            drawn = bars(values, x_title="share of the weight", tickformat=".0%")
            charts.append(
                Chart(f"experts-{number}", title, says, drawn, Table.of(title, ["expert", "share|share"], rows))
            )
    return charts
