"""How far the run of a date is: each of its stages, done or not, with age, duration and size."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.artifacts import address, manifest, published_at, stands
from pipeline.ledger import FAILED, KILLED, Entry
from pipeline.locks import holder

State = Literal["complete", "running", "damaged", "missing"]


@dataclass(frozen=True)
class StageState:
    """What stands of one stage."""

    stage: str
    state: State
    fingerprint: str
    folder: str
    published: datetime.datetime | None = None
    seconds: float | None = None  # that it took
    size: int | None = None  # bytes
    process: int | None = None  # that is at it now
    failure: str | None = None  # how it ended the last time, where it is not complete


def state_of(stage: str, folder: Path, *, work: Path, failure: str | None = None) -> StageState:
    """Return the state of a stage that publishes this directory; `work` is where it is built, and locked meanwhile."""
    process = holder(work / "lock")
    if not stands(folder):
        state: State = "running" if process is not None else "damaged" if folder.exists() else "missing"
        return StageState(stage, state, folder.name, str(folder), process=process, failure=failure)
    moment, n_bytes = published_at(folder)
    published = datetime.datetime.fromtimestamp(moment).astimezone()
    seconds = manifest(folder)["seconds"]
    return StageState(stage, "complete", folder.name, str(address(folder)), published, seconds, n_bytes, process)


def table(states: Sequence[StageState], *, now: datetime.datetime) -> list[str]:
    """Return a line a stage, below a line of titles."""
    width = max([len("stage"), *(len(state.stage) for state in states)])
    lines = [f"{'stage':<{width}}  state     fingerprint   published            age     took     size"]
    for state in states:
        line = f"{state.stage:<{width}}  {state.state:<8}  {state.fingerprint[:12]:<12}"
        if state.published is not None and state.seconds is not None and state.size is not None:
            age = (now - state.published).total_seconds()
            line += (
                f"  {state.published:%Y-%m-%d %H:%M:%S}  {span(age):<6}  {state.seconds:>6.1f} s  {size(state.size)}"
            )
        elif state.process is not None:
            line += f"  process {state.process} is at it"
        elif state.failure is not None:
            line += f"  {state.failure}"
        lines.append(line.rstrip())
    return lines


def failures(entries: Sequence[Entry]) -> dict[str, str]:
    """Return by fingerprint how each stage ended the last time that it ran, where that was not well.

    >>> from dataclasses import replace
    >>> failed = Entry("r1", "2026-11-23", "train", "f1", "2026-11-23T02:30:00+00:00", result="failed", reason="why")
    >>> failures([failed])
    {'f1': 'failed 2026-11-23T02:30 UTC: why'}
    >>> failures([failed, replace(failed, result="done")])
    {}
    """
    last = {entry.fingerprint: entry for entry in entries}
    return {
        name: f"{entry.result} {entry.started[:16]} UTC: {entry.reason}".removesuffix(": ")
        for name, entry in last.items()
        if entry.result in (FAILED, KILLED)
    }


def span(seconds: float) -> str:
    """Return a span of time as a person says it.

    >>> span(42), span(4000), span(200_000), span(9_000_000)
    ('42 s', '67 min', '56 h', '104 d')
    """
    for unit, length, most in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 72)):
        if seconds < most * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def size(n_bytes: int) -> str:
    """Return a number of bytes as a person says it.

    >>> size(812), size(12_345), size(3_900_000_000)
    ('812 B', '12.3 kB', '3.9 GB')
    """
    value = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
