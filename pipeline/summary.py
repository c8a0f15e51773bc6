"""The closing words of a run, put together from what its stages published."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifacts import address, manifest, stands, verified
from pipeline.changes import COUNTS, FILE, line
from pipeline.pointers import Pointer, latest, pinned
from pipeline.remote import remote_of

RULE = "─" * 78


def closing(root: Path, pointer: Pointer, *, clean: Path, scored: Path, reason: str) -> str:
    """Return what a run tells at its end; `clean` and `scored` are the directories of the two cleanings.

    `reason` says why this model was used.

    Raises ArtifactError where a file that it is told from has changed.
    """
    summary = _read(root / pointer.folder, "summary.json")
    parts = []
    for folder, title in {clean: "to learn from", scored: "rows" if clean == scored else "to score"}.items():
        if stands(folder):  # It may have been removed since the model was made from it.
            parts.append(row_lines(title, _read(folder, "statistics.json")))
    parts.append(accuracy_lines(_read(root / "export" / pointer.model, "evaluation.json")))
    parts.append(example_lines(summary["examples"]))
    made = manifest(root / "export" / pointer.model)["origin"]["date"]
    parts.append(
        [*place_lines(root, pointer, summary), f"               of {made}, {reason}", *report_lines(root, pointer)]
    )
    parts.append(latest_lines(root, pointer))
    return "\n".join([RULE, *("\n".join(part) for part in parts if part), RULE])


def nothing_to_do(root: Path, pointer: Pointer) -> str:
    """Return one line that says that this date is done already, and where its results lie."""
    return f"ScoreCatalog {pointer.date}: nothing to do, run {pointer.run[:12]} stands in {place(root, pointer)}"


def place(root: Path, pointer: Pointer) -> Path | str:
    """Return where a person finds the results: published/latest where it names this run, else its directory or URL."""
    if remote_of(root) is not None:
        return address(root / pointer.folder)
    newest = latest(root)
    link = root / "published" / "latest"
    return link if newest is not None and newest.run == pointer.run and link.exists() else root / pointer.folder


def row_lines(title: str, statistics: Mapping[str, Any]) -> list[str]:
    """Return how many rows were read, and how many were rejected for which reason.

    >>> row_lines("rows", {"n_rows": 1200, "n_items": 1198, "rejects": {"item": {"duplicate item_id": 2}}})
    ['rows           1,200 read, 1,198 kept, 2 rejected', '                     2  item: duplicate item_id']
    """
    reasons = [
        (count, f"{scope}: {reason}")
        for scope, found in statistics["rejects"].items()
        for reason, count in found.items()
    ]
    n_rows, n_items = statistics["n_rows"], statistics["n_items"]
    lines = [f"{title:<14} {n_rows:,} read, {n_items:,} kept, {n_rows - n_items:,} rejected"]
    return lines + [f"{count:>22,}  {reason}" for count, reason in sorted(reasons, reverse=True)]


def accuracy_lines(evaluation: Mapping[str, Any]) -> list[str]:
    """Return the accuracy of every level on the held-out part beside that of the majority class.

    >>> level = {"level": "genre", "n_items": 80, "accuracy": 0.8125, "majority_accuracy": 0.25}
    >>> for line in accuracy_lines({"part": "test", "levels": [level], "path": {"n_items": 60, "accuracy": None}}):
    ...     print(line)
    accuracy       on the test part, beside always saying the most frequent class
      genre        0.812  majority 0.250  (80 items)
      whole path   unknown  (60 items)
    """
    if evaluation["part"] is None:
        return ["accuracy       unknown: no labelled items were held out"]
    lines = [f"accuracy       on the {evaluation['part']} part, beside always saying the most frequent class"]
    for level in evaluation["levels"]:
        majority = f"  majority {_share(level['majority_accuracy'])}"
        lines.append(f"  {level['level']:<12} {_share(level['accuracy'])}{majority}  ({level['n_items']:,} items)")
    path = evaluation["path"]
    return [*lines, f"  {'whole path':<12} {_share(path['accuracy'])}  ({path['n_items']:,} items)"]


def example_lines(examples: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a few predictions, one a line.

    >>> example_lines([{"item_id": 7, "title": "Alien", "path": ["Horror", "Space"], "path_probability": 0.914}])
    ['predictions    of items without labels first', '  Alien: Horror > Space  (0.91)']
    >>> example_lines([])
    []
    """
    lines = []
    for found in examples:
        path = " > ".join(found["path"]) or "(no label)"
        lines.append(f"  {found['title'] or found['item_id']}: {path}  ({found['path_probability']:.2f})")
    return ["predictions    of items without labels first", *lines] if lines else []


def place_lines(root: Path, pointer: Pointer, summary: Mapping[str, Any]) -> list[str]:
    """Return how many items were scored and where the scores lie."""
    folder, model = place(root, pointer), str(root / "published" / "latest_model.h5")
    if not isinstance(folder, Path) or folder.name != "latest":
        model = f"{address(root / 'export' / pointer.model)}/model.h5"
    return [
        f"scored         {summary['n_items']:,} items, {summary['n_without_tags']:,} of them without tags",
        *change_lines(root, pointer),
        f"results        {folder}/scores.parquet",
        f"               {folder}/scores.h5",
        f"model          {model}",
    ]


def change_lines(root: Path, pointer: Pointer) -> list[str]:
    """Return what changed since the last published run, and where that is listed; nothing where it is not."""
    if pointer.changes is None:
        return []
    folder = root / pointer.changes
    return [line(_read(folder, COUNTS)), f"               {address(folder)}/{FILE}"]


def report_lines(root: Path, pointer: Pointer) -> list[str]:
    """Return where a person finds the report; nothing where there is none."""
    if pointer.report is None:
        return []
    folder = place(root, pointer)
    if isinstance(folder, Path) and folder.name == "latest":
        return [f"report         {root / 'published' / 'latest_report.html'}"]
    return [f"report         {address(root / pointer.report)}/report.html"]


def latest_lines(root: Path, pointer: Pointer) -> list[str]:
    """Return why `latest` does not name this run; nothing where it does."""
    fixed, newest = pinned(root), latest(root)
    if fixed is not None:
        stays = f"latest         stays at run {fixed.run[:12]} of {fixed.date}"
        return [stays, "               until: python -m tasks rollback --release"]
    if newest is None or newest.date <= pointer.date:
        return []
    return [
        f"latest         stays at run {newest.run[:12]} of {newest.date}, a later date",
        f"               if that date is a mistake: python -m tasks forget {newest.date}",
    ]


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _read(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(verified(folder, name).read_text("utf-8"))
    return content
