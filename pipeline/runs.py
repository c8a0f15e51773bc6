"""The runs whose results stand below a root, found by date or fingerprint: those of pointers, and those planned."""

from __future__ import annotations

import datetime
from contextlib import suppress
from pathlib import Path

from pipeline import pointers
from pipeline.artifacts import exists, published_at
from pipeline.errors import ArtifactError
from pipeline.plans import places, read_plan
from pipeline.pointers import Pointer

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
    there = [pointer for pointer in known.values() if exists(root / pointer.folder)]
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
    return earlier[-1]


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
        return found.popitem()[1]
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


def _is_date(name: str) -> bool:
    with suppress(ValueError):
        return datetime.date.fromisoformat(name).isoformat() == name
    return False
