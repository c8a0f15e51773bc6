"""What is kept of every stage that runs: a row of the ledger, told by Luigi's events; nothing here stops a night."""

from __future__ import annotations

import datetime
import json
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import luigi

from pipeline import ledger, usage
from pipeline.artifacts import verified
from pipeline.errors import ArtifactError, PipelineError
from pipeline.ledger import Entry
from tasks.score import ScoreCatalog
from tasks.stage import Stage

# Which file of a stage says how many rows it has, and under which name.
ROWS = {
    "clean": ("statistics.json", "n_items"),
    "train": ("training.json", "n_training_items"),
    "export": ("evaluation.json", "n_items"),
    "score": ("summary.json", "n_items"),
}
MAX_REASON = 2000  # characters of an error
RUN = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"  # of this command and its workers

_begun: dict[str, tuple[Entry, float]] = {}  # by task: its entry, and when it began
_told: set[str] = set()


@Stage.event_handler(luigi.Event.START)
def tell_begun(task: Stage) -> None:
    """Write that a stage runs."""
    usage.forget_peak()
    _begun[task.task_id] = new_entry(task), time.monotonic()
    _kept(ledger.write, task.root, _begun[task.task_id][0])


@Stage.event_handler(luigi.Event.SUCCESS)
def tell_done(task: Stage) -> None:
    """Write that a stage is done."""
    reason = task.identity.choice.reason if isinstance(task, ScoreCatalog) else ""
    _end(task, ledger.DONE, reason, n_rows=n_rows(task.stage, task.folder))


@Stage.event_handler(luigi.Event.FAILURE)
def tell_failed(task: Stage, error: BaseException) -> None:
    """Write that a stage failed, and why."""
    reason = str(error) if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}"
    _end(task, ledger.FAILED, reason)


@Stage.event_handler(luigi.Event.PROCESS_FAILURE)
def tell_killed(task: Stage, reason: str) -> None:
    """Write that the process of a stage died; this is told in Luigi's own."""
    _kept(ledger.lost, task.root, replace(new_entry(task), reason=reason))


@ScoreCatalog.event_handler(luigi.Event.DEPENDENCY_PRESENT)
def tell_present(task: ScoreCatalog) -> None:
    """Write that there was nothing to do: monitoring wants to know that the night was there."""
    _kept(ledger.write, task.root, replace(new_entry(task), seconds=0.0, result=ledger.PRESENT))


def new_entry(task: Stage) -> Entry:
    """Return the entry of a stage that begins now."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Entry(run=RUN, date=str(task.date), stage=task.stage, fingerprint=task.folder.name, started=now)


def n_rows(stage: str, folder: Path) -> int | None:
    """Return how many rows a stage that is published has; None for one that counts none."""
    if stage not in ROWS:
        return None
    file, name = ROWS[stage]
    content: dict[str, Any] = json.loads(verified(folder, file).read_text("utf-8"))
    return int(content[name])


def _end(task: Stage, result: str, reason: str, *, n_rows: int | None = None) -> None:
    # A stage whose upstream was found damaged by another one meanwhile fails before it begins.
    entry, began = _begun.pop(task.task_id, (new_entry(task), time.monotonic()))
    ended = replace(
        entry,
        seconds=round(time.monotonic() - began, 3),
        n_rows=n_rows,
        peak_mb=usage.peak_mb(),
        children_peak_mb=usage.children_peak_mb(),
        result=result,
        reason=reason[:MAX_REASON],
    )
    _kept(ledger.write, task.root, ended)


def _kept(write: Callable[[Path, Entry], None], root: Path, entry: Entry) -> None:
    """Write to the ledger, or say once that it cannot be written."""
    if "ledger" in _told:  # Locked, it would be waited for again and again.
        return
    try:
        write(root, entry)
    except ArtifactError as error:
        _told.add("ledger")
        print(f"ledger: {error}", file=sys.stderr)
