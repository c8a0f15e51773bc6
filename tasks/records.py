"""What is kept of every stage that runs: the ledger, logs, metrics, by Luigi's events; nothing here stops a night."""

from __future__ import annotations

import datetime
import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import luigi

from pipeline import exposition, ledger, usage
from pipeline.artifacts import verified
from pipeline.errors import ArtifactError, PipelineError
from pipeline.identity import Identity
from pipeline.ledger import Entry
from tasks import identities
from tasks.gate import CheckModel
from tasks.logs import RUN
from tasks.plan import InputFile
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

logger = logging.getLogger(__name__)
_begun: dict[str, tuple[Entry, float]] = {}  # by task: its entry, and when it began
_told: set[str] = set()
_absent: set[tuple[datetime.date, str]] = set()  # nights of which it is written that an input file is absent


@Stage.event_handler(luigi.Event.START)
def tell_begun(task: Stage) -> None:
    """Write that a stage runs."""
    usage.forget_peak()
    _begun[task.task_id] = new_entry(task), time.monotonic()
    _keep(task, _begun[task.task_id][0])


@InputFile.event_handler(luigi.Event.DEPENDENCY_MISSING)
def tell_absent(task: InputFile) -> None:
    """Write of each night that waits for this file that it could not begin, once."""
    for (date, name), identity in list(identities.known.items()):
        if name != identity.of("score") or (date, name) in _absent or not _reads(identity, task.path):
            continue
        _absent.add((date, name))
        night = ScoreCatalog(date=date, fingerprint=name)
        reason = f"input: {task.path}: is absent; see {task.named_by}"
        _keep(night, replace(new_entry(night), seconds=0.0, result=ledger.FAILED, reason=reason))


@Stage.event_handler(luigi.Event.SUCCESS)
def tell_done(task: Stage) -> None:
    """Write that a stage is done."""
    _end(task, ledger.DONE, reason_of(task), n_rows=n_rows(task.stage, task.folder))


@Stage.event_handler(luigi.Event.FAILURE)
def tell_failed(task: Stage, error: BaseException) -> None:
    """Write that a stage failed, and why."""
    _end(task, ledger.FAILED, str(error) if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}")


@Stage.event_handler(luigi.Event.PROCESS_FAILURE)
def tell_killed(task: Stage, reason: str) -> None:
    """Write that the process of a stage died; this is told in Luigi's own."""
    _keep(task, replace(new_entry(task), result=ledger.KILLED, reason=reason), write=ledger.lost)


@ScoreCatalog.event_handler(luigi.Event.DEPENDENCY_PRESENT)
def tell_present(task: ScoreCatalog) -> None:
    """Write that there was nothing to do: monitoring wants to know that the night was there."""
    _keep(task, replace(new_entry(task), seconds=0.0, result=ledger.PRESENT))


def new_entry(task: Stage) -> Entry:
    """Return the entry of a stage that begins now."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Entry(run=RUN, date=str(task.date), stage=task.stage, fingerprint=task.folder.name, started=now)


def _reads(identity: Identity, path: str) -> bool:
    """Return whether a run reads this input file."""
    return any(file.path == path for files in identity.inputs.values() for file in files)


def n_rows(stage: str, folder: Path) -> int | None:
    """Return how many rows a stage that is published has; None for one that counts none."""
    if stage == "features":
        import h5py

        from pipeline.hdf5 import read_facts

        with h5py.File(verified(folder, "transform.h5")) as file:
            return int(read_facts(file["transform"])["n_items"])
    if stage not in ROWS:
        return None
    file, name = ROWS[stage]
    content: dict[str, Any] = json.loads(verified(folder, file).read_text("utf-8"))
    return int(content[name])


def reason_of(task: Stage) -> str:
    """Return which model the scores are of and why, or what the gate says; nothing for other stages."""
    if isinstance(task, CheckModel):
        verdict = json.loads(verified(task.folder, "verdict.json").read_text("utf-8"))
        return "accepted" if verdict["accepted"] else f"{exposition.REFUSED}: {'; '.join(verdict['failed'])}"
    return task.identity.choice.reason if isinstance(task, ScoreCatalog) else ""


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
    _keep(task, ended)


def _keep(task: Stage, entry: Entry, *, write: Callable[[Path, Entry], None] = ledger.write) -> None:
    """Log an entry, write it to the ledger, and the metrics where they are wanted."""
    facts = {name: value for name, value in asdict(entry).items() if name not in ("run", "host", "pid")}
    level = logging.ERROR if entry.result in (ledger.FAILED, ledger.KILLED) else logging.INFO
    logger.log(level, "%s %s", task.title, entry.result, extra=facts)
    _try("ledger", lambda: write(task.root, entry))
    path = task.settings.monitoring.prometheus
    if path and entry.result != ledger.RUNNING:
        _try("prometheus", lambda: exposition.write(task.root, Path(path)))


def _try(what: str, action: Callable[[], None]) -> None:
    """Do it, or say once that it cannot be done: what is locked would be waited for again and again."""
    if what in _told:
        return
    try:
        action()
    except ArtifactError as error:
        _told.add(what)
        print(f"{what}: {error}", file=sys.stderr)
