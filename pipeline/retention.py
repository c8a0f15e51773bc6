"""Retention: what may be removed below a root so that it does not grow for ever.

Kept are the runs of the newest `keep_runs` dates and those published last (a backfill of old dates is not thrown away
at once), the latest, a pinned one, and what running processes need; of each the model, the plan, and all directories
that it was made from, so that it can be explained and made again; and what was begun for the newest date or after it.
Of what a training started from the model itself is kept, not what that was made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import artifacts, files, leases, pointers
from pipeline.errors import ArtifactError
from pipeline.identity import STAGE_VERSIONS
from pipeline.leftovers import FINGERPRINT, REMOVED, leftovers
from pipeline.locks import held
from pipeline.plans import both, places, read_plan
from pipeline.pointers import Pointer
from pipeline.remote import remote_of
from pipeline.status import size

# The stages that results are made from; others are checks between them.
MAIN = ("clean", "features", "train", "export", "score")


@dataclass(frozen=True)
class Removed:
    """One thing that was removed, or would be."""

    path: str  # relative to the root
    size: int  # bytes


@dataclass(frozen=True)
class Plans:
    """The plans below a root, and the pointers that stay."""

    kept: tuple[Pointer, ...]
    old: tuple[Pointer, ...]  # of dates whose runs are not kept
    plans: tuple[tuple[Path, dict[str, Any]], ...]
    running: frozenset[str]  # fingerprints that running processes need

    def stays(self, place: str, plan: dict[str, Any]) -> bool:
        """Return whether a plan is followed by what is kept, or was made for the newest date or after it."""
        newest = max((pointer.date for pointer in self.kept), default="")
        named = place in {pointer.plan for pointer in self.kept}
        return named or plan["date"] >= newest or plan["fingerprint"] in self.running


def clean(root: Path, *, keep_runs: int, dry_run: bool = False) -> list[Removed]:
    """Remove what need not be kept, and return what that was; only return it where `dry_run`.

    Raises ArtifactError where a plan, a pointer or a directory that is kept is damaged: what it needs is unknown then.
    """
    if not root.is_dir():
        return []
    removed = []
    remote = remote_of(root)
    if remote is not None:
        from pipeline.remote_retention import clean as clean_remote

        removed = clean_remote(remote, keep_runs=keep_runs, dry_run=dry_run)
    work = root / "work"
    with held(work / "clean.lock"):  # Two that remove the same would stumble over each other.
        here = _clean(root, work, keep_runs, dry_run=dry_run)
    return here if remote is None else removed  # A copy that goes frees nothing that anybody would miss.


def _clean(root: Path, work: Path, keep_runs: int, *, dry_run: bool) -> list[Removed]:
    with held(leases.guard(root)):
        found = _plans(root, keep_runs)
        kept = _reached(root, found)
        paths = [*_directories(root, kept), *_old_plans(root, found)]
        removed = [Removed(path.relative_to(root).as_posix(), files.size_of(path)) for path in paths]
        if not dry_run:
            if remote_of(root) is None:
                pointers.forget(root, found.old)  # First: no pointer ever names what is not there.
            for path in paths:
                files.set_aside(path, work / f"{REMOVED}{path.parent.name}-{path.name}")
    with leftovers(work, kept) as left:
        aside = [path for path in left if path.name.startswith(REMOVED)]
        removed += [_as_removed(root, path) for path in left if dry_run or path not in aside]
        for path in () if dry_run else left:
            if path.parent == work and FINGERPRINT.fullmatch(path.name):
                artifacts.clear_work(path)
            else:
                files.remove(path)
    return removed


def told(removed: Sequence[Removed]) -> str:
    """Return one line that says what was freed.

    >>> told([Removed("score/1a", 2_000_000), Removed("plan/b.json", 500)])
    'freed          2.0 MB: 2 old results and leftovers, as [storage] keep_runs says'
    """
    total = size(sum(found.size for found in removed))
    return f"{'freed':<14} {total}: {len(removed)} old results and leftovers, as [storage] keep_runs says"


def _as_removed(root: Path, path: Path) -> Removed:
    return Removed(path.relative_to(root).as_posix(), files.size_of(path))


def _plans(root: Path, keep_runs: int) -> Plans:
    """Return which pointers stay and which do not."""
    dates = pointers.of_dates(root)
    by_time = sorted(dates, key=lambda one: pointers.of_date(root, one.date).stat().st_mtime_ns, reverse=True)
    named = [found for found in (pointers.latest(root), pointers.pinned(root)) if found is not None]
    runs = {found.run for found in named} | first_runs(reversed(dates), keep_runs) | first_runs(by_time, keep_runs)
    plans = read_plans(root)
    running = frozenset(leases.needed(root))
    runs |= running  # A date that is being run again has its pointer as long.
    kept = [pointer for pointer in dates if pointer.run in runs]
    old = [pointer for pointer in dates if pointer.run not in runs]
    return Plans((*kept, *named), tuple(old), tuple(plans), running)


def read_plans(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return all plans; raises ArtifactError for a damaged one."""
    return [(path, plan) for path in places(root) if (plan := read_plan(path)) is not None]


def first_runs(dates: Iterable[Pointer], n: int) -> set[str]:
    """Return the first n runs, each counted once."""
    return set(list(dict.fromkeys(pointer.run for pointer in dates))[:n])


def needed_by(root: Path, found: Plans) -> set[str]:
    """Return the fingerprints that running processes, pointers and plans name."""
    kept = set(found.running)
    for pointer in found.kept:
        kept |= {pointer.run, pointer.model}
    for path, plan in found.plans:
        if found.stays(path.relative_to(root).as_posix(), plan):
            kept |= set(plan["stages"].values())
    return kept


def _reached(root: Path, found: Plans) -> set[str]:
    """Return the fingerprints of all that is kept: of runs and plans, and of what their directories were made from."""
    kept = needed_by(root, found)
    left = list(kept)
    while left:
        name = left.pop()
        for folder in (root / stage / name for stage in MAIN):
            if folder.is_dir():
                facts = artifacts.origin_of(folder)
                new = set(facts["upstreams"].values()) - kept
                kept |= new | {facts.get("start") or name}
                left += new
    return kept


def _directories(root: Path, kept: set[str]) -> Iterator[Path]:
    """Give the published directories that are not kept; checks between stages stay as long as what they compared."""
    for stage in (*MAIN, *(stage for stage in STAGE_VERSIONS if stage not in MAIN)):
        for folder in sorted((root / stage).glob("*")):
            if not FINGERPRINT.fullmatch(folder.name) or folder.name in kept:
                continue
            compared = set() if stage in MAIN else _upstreams(folder)
            if not compared or not compared <= kept:
                yield folder


def _upstreams(folder: Path) -> set[str]:
    try:
        return set(artifacts.manifest(folder)["upstreams"].values())
    except ArtifactError as error:
        if error.__cause__ is not None:  # It could not be read, and may be one that is kept.
            raise
        return set()


def _old_plans(root: Path, found: Plans) -> list[Path]:
    old = [path for path, plan in found.plans if not found.stays(path.relative_to(root).as_posix(), plan)]
    return [file for path in old for file in both(path) if file.exists()]
