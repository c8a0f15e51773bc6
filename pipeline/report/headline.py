"""The top of a report: what the gate says, and the figures by which a person judges a night."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.gate import drop_error
from pipeline.judging import Right
from pipeline.report.sources import Run
from pipeline.report.tables import Table

State = Literal["good", "bad", "unknown"]


@dataclass(frozen=True)
class Card:
    """One figure of the top."""

    name: str
    value: str
    note: str
    state: State = "unknown"  # how it moved


@dataclass(frozen=True)
class Verdict:
    """What became of the model of this night."""

    state: State
    title: str
    says: str
    checks: Table | None


def verdict_of(run: Run) -> Verdict:
    """Return the verdict of the gate on this night's model, which may not be the one that scored."""
    found = run.read("gate", "verdict.json")
    if found is None:
        return Verdict("unknown", "Not judged", "No gate has looked at the model of this run.", None)
    model, last = found["model"][:12], found["last_accepted_model"]
    against = (
        f"no worse than {found['compared']}" if last is not None else f"{found['compared']}; it passes what is asked"
    )
    if last == found["model"]:
        against = "it is the model that was accepted before"
    rows = [
        (check["text"], "passed" if check["passed"] else "failed", check["n_items"], judged)
        for judged, checks in (("yes", found["checks"]), ("no, too few items", found["too_few_items"]))
        for check in checks
    ]
    checks = Table.of("What the gate looked at", ["check", "result", "items|count", "counts"], rows) if rows else None
    if found["accepted_by_hand"]:
        return Verdict("bad", "Let through by hand", f"Model {model} failed: {'; '.join(found['failed'])}.", checks)
    if found["accepted"]:
        return Verdict("good", "Accepted", f"Model {model}: {against}.", checks)
    instead = f"The model accepted before, {run.pointer.model[:12]}, has scored instead."
    if run.pointer.model == found["model"]:
        instead = "It has scored all the same."
    return Verdict("bad", "Refused", f"Model {model} was refused: {'; '.join(found['failed'])}. {instead}", checks)


def cards_of(run: Run, changes: Mapping[str, Any] | None, compared: tuple[Right, Right] | None) -> list[Card]:
    """Return the figures of the top: accuracies, rows, items that changed."""
    evaluation = run.read("export", "evaluation.json") or {}
    summary = run.read("score", "summary.json") or {}
    statistics = run.read("scored", "statistics.json")
    levels = evaluation.get("levels", [])
    figures = [("whole path", path_figures(evaluation), -1)] if levels else []
    figures += [(level["level"], level, k) for k, level in enumerate(levels)]
    found = [_accuracy(name, figure, change_of(compared, column)) for name, figure, column in figures]
    found.append(Card("scored", f"{summary['n_items']:,}", f"{summary['n_without_tags']:,} of them without tags"))
    if statistics is not None:
        n_rejected = statistics["n_rows"] - statistics["n_items"]
        state: State = "bad" if n_rejected else "good"
        found.append(Card("rejected", f"{n_rejected:,}", f"of {statistics['n_rows']:,} rows read", state))
    if changes is not None:
        since = changes["since_date"] or changes["since"][:12]
        note = f"another path than on {since}; {changes['new']:,} new, {changes['gone']:,} gone"
        found.append(Card("changed", f"{changes['path']:,}", note))
    return found


def change_of(compared: tuple[Right, Right] | None, column: int) -> tuple[float, float] | None:
    """Return by how much an accuracy differs from the last accepted model's on the same items, and by how much chance
    alone may move it (95%); None where nothing is known."""
    if compared is None or not compared[0].known[:, column].any():
        return None
    now, before = compared
    column %= now.known.shape[1]
    return now.accuracy(column) - before.accuracy(column), 1.96 * drop_error(now, before, column)


def accuracy_table(run: Run, compared: tuple[Right, Right] | None) -> Table | None:
    """Return the accuracies of all levels and of the path beside the majority class and the last accepted model."""
    evaluation = run.read("export", "evaluation.json")
    if evaluation is None or evaluation["part"] is None:
        return None
    rows = []
    for column, level in enumerate([*evaluation["levels"], {"level": "whole path", **path_figures(evaluation)}]):
        change = change_of(compared, column)
        error = level.get("calibration_error")
        cells = [level["level"], level["n_items"], level["accuracy"], level.get("majority_accuracy")]
        cells += [None, None] if change is None else list(change)
        rows.append([*cells, level.get("weighted_f1"), level.get("log_loss"), error])
    columns = ["level", "items|count", "right|share", "most frequent class|share", "change|points"]
    columns += ["by chance ±|margin", "weighted F1|number", "log loss|number", "calibration error|number"]
    return Table.of(f"On the {evaluation['part']} part, which the model has not seen", columns, rows)


def path_figures(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of the path; its most frequent class is that of the last level, which is a whole path."""
    last = evaluation["levels"][-1]
    return {"majority_accuracy": last["majority_accuracy"], **evaluation["path"]}


def _accuracy(name: str, figure: Mapping[str, Any], change: tuple[float, float] | None) -> Card:
    value = figure.get("accuracy")
    if value is None or math.isnan(value):
        return Card(name, "–", "no labelled items were held out")  # noqa: RUF001 (a dash, for people)
    majority = figure.get("majority_accuracy")
    note = "right" if majority is None else f"most frequent class {majority:.1%}"
    if change is None:
        return Card(name, f"{value:.1%}", note)
    moved, chance = change
    state: State = "unknown" if abs(moved) <= chance else "good" if moved > 0 else "bad"
    words = f"{moved * 100:+.1f} points since the model before" + (", within chance" if state == "unknown" else "")
    return Card(name, f"{value:.1%}", f"{note}; {words}", state)
