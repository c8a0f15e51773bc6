"""Retention in an object store: the same runs are kept as on a disk (pipeline/retention.py), whoever made them.

Nothing is renamed there, and there is no lock. So it takes manifests away first, by which directories stop to exist;
then it looks once more for what running processes need, and gives those manifests back; and only then removes files. A
process says what it needs before it looks what there is: either it is seen, or it finds the directory gone. Files that
no manifest lists are removed when they are older than [storage] unfinished_hours, unless a pointer names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import remote_leases, retention
from pipeline.conditional import ABSENT
from pipeline.digests import unsealed
from pipeline.errors import ArtifactError
from pipeline.identity import STAGE_VERSIONS
from pipeline.leftovers import FINGERPRINT
from pipeline.manifests import MANIFEST
from pipeline.mirror import PUBLISHED, alone, pointer_of, refresh, update
from pipeline.object_store import Entry
from pipeline.pointers import Pointer
from pipeline.remote import Remote
from pipeline.remote_folders import listed
from pipeline.remote_pointers import forget
from pipeline.retention import MAIN, Plans, Removed


@dataclass(frozen=True)
class Directory:
    """What the store has of one directory of a stage."""

    place: str
    manifest: Entry | None
    attempts: Mapping[str, tuple[Entry, ...]]


def clean(remote: Remote, *, keep_runs: int, dry_run: bool = False) -> list[Removed]:
    """Remove what need not be kept, and return what that was; only return it where `dry_run`."""
    refresh(remote)
    listing = remote.objects.list()
    pointers, named = _pointers(remote, listing)
    found = _plans(remote, listing, pointers, keep_runs)
    there = directories(listing)
    kept = _reached(remote, found, there)
    gone = [each for each in there.values() if each.manifest is not None and not _stays(remote, each, kept)]
    plans = [path for path, plan in found.plans if not found.stays(remote.place(path), plan)]
    left = [*_unlisted(remote, there, named), *remote_leases.over(remote)]
    left += [entry for entry in remote.objects.unfinished().values() if remote_leases.is_over(remote, entry)]
    files = [entry for each in gone for entries in each.attempts.values() for entry in entries]
    removed = [Removed(each.place, sum(entry.size for entry in _files(each))) for each in gone]
    removed += [Removed(remote.place(path), path.stat().st_size) for path in plans]
    removed += [Removed(entry.key, entry.size) for entry in left]
    if not dry_run:
        forget(remote, found.old)  # First: no pointer ever names what is not there.
        back = _take_away(remote, gone)  # Manifests once only: another machine may have made one anew since.
        remote.objects.remove(entry.key for entry in files if not entry.key.startswith(tuple(back)))
        remote.objects.remove(entry.key for entry in left)
        with alone(remote):
            remote.objects.remove(remote.place(path) for path in plans)
            update(remote)
    return removed


def directories(listing: Mapping[str, Entry]) -> dict[str, Directory]:
    """Return the directories of stages by place."""
    found: dict[str, tuple[list[Entry], dict[str, list[Entry]]]] = {}
    for key, entry in listing.items():
        stage, _, rest = key.partition("/")
        name, _, inner = rest.partition("/")
        if stage not in STAGE_VERSIONS or not FINGERPRINT.fullmatch(name):
            continue
        manifests, attempts = found.setdefault(f"{stage}/{name}", ([], {}))
        if inner == MANIFEST:
            manifests.append(entry)
        else:
            attempts.setdefault(inner.partition("/")[0], []).append(entry)
    return {
        place: Directory(place, next(iter(manifests), None), {name: tuple(each) for name, each in attempts.items()})
        for place, (manifests, attempts) in found.items()
    }


def _take_away(remote: Remote, gone: Iterable[Directory]) -> list[str]:
    """Remove manifests; return the places of those that were given back, as a running process needs them after all."""
    texts = {}
    for each in gone:
        found = remote.objects.read(f"{each.place}/{MANIFEST}")
        if found is not None:
            texts[each.place] = found.content
    remote.objects.remove(f"{place}/{MANIFEST}" for place in texts)
    needed = remote_leases.needed(remote)
    back = [place for place in texts if place.rpartition("/")[2] in needed]
    for place in back:
        remote.objects.write_if(f"{place}/{MANIFEST}", texts[place], tag=ABSENT)
    remote.compared.difference_update(texts)
    return [f"{place}/" for place in back]


def _pointers(remote: Remote, listing: Mapping[str, Entry]) -> tuple[dict[str, Pointer], set[str]]:
    """Return the pointers by key, and the directories that they name, attempts and all."""
    found, named = {}, set()
    for key in listing:
        if not key.startswith(f"{PUBLISHED}/") or key.endswith("/removed.json"):
            continue
        read = remote.objects.read(key)
        if read is None:
            continue
        try:
            stored = unsealed(read.content.decode())
            found[key] = pointer_of(stored)
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{remote.objects.url_of(key)}: is not a pointer ({error}); remove it") from None
        named |= {
            stored["folder"],
            stored["changes"],
            stored.get("report"),
            stored["model_file"].rpartition("/")[0],
        } - {None}
    return found, named


def _plans(remote: Remote, listing: Mapping[str, Entry], found: Mapping[str, Pointer], keep_runs: int) -> Plans:
    dates = {key: pointer for key, pointer in sorted(found.items()) if key.rpartition("/")[2][0].isdigit()}
    by_time = sorted(dates, key=lambda key: listing[key].modified, reverse=True)
    named = [pointer for key, pointer in found.items() if key not in dates]
    runs = {pointer.run for pointer in named}
    runs |= retention.first_runs(reversed(dates.values()), keep_runs)
    runs |= retention.first_runs((dates[key] for key in by_time), keep_runs)
    running = frozenset(remote_leases.needed(remote))
    runs |= running
    kept = tuple(pointer for pointer in dates.values() if pointer.run in runs)
    old = tuple(pointer for pointer in dates.values() if pointer.run not in runs)
    return Plans((*kept, *named), old, tuple(retention.read_plans(remote.root)), running)


def _reached(remote: Remote, found: Plans, there: Mapping[str, Directory]) -> set[str]:
    """Return the fingerprints of all that is kept, and of what its directories were made from."""
    kept = retention.needed_by(remote.root, found)
    left = list(kept)
    while left:
        name = left.pop()
        for stage in MAIN:
            directory = there.get(f"{stage}/{name}")
            if directory is not None and directory.manifest is not None:
                facts = _facts(remote, directory.place)
                new = set(facts.get("upstreams", {}).values()) - kept
                kept |= new | {facts.get("start") or name}
                left += new
    return kept


def _stays(remote: Remote, directory: Directory, kept: set[str]) -> bool:
    """Return whether a directory is kept; a check between stages is as long as what it compared."""
    stage, _, name = directory.place.partition("/")
    if name in kept:
        return True
    compared = set() if stage in MAIN else set(_facts(remote, directory.place).get("upstreams", {}).values())
    return bool(compared) and compared <= kept


def _unlisted(remote: Remote, there: Mapping[str, Directory], named: set[str]) -> list[Entry]:
    """Return files that no manifest lists, no pointer names, and whose writer is taken for gone."""
    found = []
    for place, directory in there.items():
        old = {
            name: entries
            for name, entries in directory.attempts.items()
            if f"{place}/{name}" not in named and all(remote_leases.is_over(remote, entry) for entry in entries)
        }
        if old:
            counts = None if directory.manifest is None else _facts(remote, place).get("attempt")
            found += [entry for name, entries in old.items() if name != counts for entry in entries]
    return found


def _facts(remote: Remote, place: str) -> dict[str, Any]:
    """Return what the manifest of the store says."""
    content = listed(remote, place)
    return {} if content is None else content


def _files(directory: Directory) -> list[Entry]:
    manifest = () if directory.manifest is None else (directory.manifest,)
    return [*manifest, *(entry for entries in directory.attempts.values() for entry in entries)]
