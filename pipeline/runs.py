"""The runs whose results stand below a root, found by date or fingerprint: those of pointers, and those planned."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pipeline import pointers
from pipeline.artifacts import manifest, published_at, stands
from pipeline.errors import ArtifactError
from pipeline.plans import places, read_plan
from pipeline.pointers import Pointer
from pipeline.verification import published

MAX_NAMED = 10  # runs that are named where none is found


def find(root: Path, name: str | None) -> Pointer:
    """Return the run of a date, or whose fingerprint begins so; the latest one for None.

    Raises ArtifactError where there is none, or where it has been removed.
    """
    if name is None:
        found = pointers.latest(root)
        if found is None:
            raise ArtifactError(f"{root}: nothing is published yet; run: luigi --module tasks ScoreCatalog")
        return found
    return _of_date(root, name) if _is_date(name) else _of_fingerprint(root, name)


def standing(root: Path) -> list[Pointer]:
    """Return all runs that are there, by date and then by time, the newest last.

    A date has the run that its pointer names, and those that were planned for it before.
    """
    known = {(pointer.date, pointer.run): pointer for pointer in _planned(root)}
    known |= {(pointer.date, pointer.run): pointer for pointer in pointers.of_dates(root)}
    there = [pointer for pointer in known.values() if stands(root / pointer.folder)]
    return sorted(there, key=lambda pointer: (pointer.date, published_at(root / pointer.folder)))


def before_latest(root: Path) -> Pointer:
    """Return the last run up to the latest one's date that is another; raises ArtifactError where there is none.

    From a run that is pinned it goes further back.
    """
    latest, known = find(root, None), standing(root)
    earlier = [found for found in known if found.date <= latest.date]
    if pointers.pinned(root) is not None:
        places = [place for place, found in enumerate(earlier) if (found.date, found.run) == (latest.date, latest.run)]
        earlier = earlier[: places[0]] if places else earlier
    earlier = [found for found in earlier if found.run != latest.run]
    if not earlier:
        raise ArtifactError(f"{root}: no other run stands before {latest.run[:12]} of {latest.date}, the latest")
    return _with_beside(root, earlier[-1])


def name_of(root: Path, pointer: Pointer) -> str:
    """Return by what `find` finds a run: its date, or first digits of its fingerprint where the date has another."""
    return pointer.date if _is_named(root, pointer) else pointer.run[:12]


def _of_date(root: Path, date: str) -> Pointer:
    found = pointers.read(pointers.of_date(root, date))
    if found is not None:
        return found
    if date in pointers.removed(root):
        raise ArtifactError(
            f"{date}: its results were removed, as [storage] keep_runs says; luigi --module tasks ScoreCatalog "
            f"--date {date} makes them again"
        )
    raise ArtifactError(f"{date}: nothing is published for this date; there are {_names(root)}")


def _of_fingerprint(root: Path, start: str) -> Pointer:
    found = {pointer.run: pointer for pointer in standing(root) if pointer.run.startswith(start)}
    if len(found) == 1:
        return _with_beside(root, found.popitem()[1])
    what = "no run has a fingerprint that begins so" if not found else f"{len(found)} runs begin so; give more digits"
    raise ArtifactError(f"{start}: {what}; there are {_names(root)}")


def _names(root: Path) -> str:
    shown = [f"{pointer.run[:12]} of {pointer.date}" for pointer in standing(root)]
    return ", ".join(shown[-MAX_NAMED:]) or "none"


def _planned(root: Path) -> list[Pointer]:
    """Return the runs that plans name; one that cannot be read names none."""
    found = []
    for path in places(root):
        with suppress(ArtifactError, KeyError):
            plan = read_plan(path) or {}
            run, model = plan["stages"]["score"], plan["stages"]["export"]
            place = path.relative_to(root).as_posix()
            found.append(Pointer(date=plan["date"], run=run, folder=f"score/{run}", model=model, plan=place))
    return found


def _is_named(root: Path, pointer: Pointer) -> bool:
    """Return whether the pointer of its date names this run."""
    named = pointers.read(pointers.of_date(root, pointer.date))
    return named is not None and named.run == pointer.run


def _with_beside(root: Path, pointer: Pointer) -> Pointer:
    """Return a run with its changes and its report, where they stand: those of a run that only its plan names too."""
    if _is_named(root, pointer):
        return pointer
    plan = read_plan(root / pointer.plan) or {}
    since = {"run": pointer.run, "since": plan.get("last_published_run")}
    told = {"run": pointer.run, "model": pointer.model, "plan": pointer.plan}
    return replace(pointer, changes=_last_of(root, "changes", since), report=_last_of(root, "report", told))


def _last_of(root: Path, stage: str, facts: Mapping[str, object]) -> str | None:
    """Return the directory of a stage that was published last with these facts, relative to the root."""
    found = []
    for folder in published(root):
        with suppress(ArtifactError):
            if folder.parent.name == stage and facts.items() <= manifest(folder).items() and stands(folder):
                found.append((published_at(folder)[0], f"{stage}/{folder.name}"))
    return max(found)[1] if found else None


def _is_date(name: str) -> bool:
    with suppress(ValueError):
        return datetime.date.fromisoformat(name).isoformat() == name
    return False
