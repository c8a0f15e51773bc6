"""The commands of `python -m tasks`: each takes its options and Luigi's flags, prints, and returns an exit code."""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import artifacts, forgetting, invalidation, leases, pointers, reasons, retention, runs, verification
from pipeline.config import Settings
from pipeline.doctor import examine, lines
from pipeline.errors import ArtifactError, SettingsError
from pipeline.identity import engine_name
from pipeline.manifests import is_broken
from pipeline.members import member_names
from pipeline.remote import remote_of, root_of
from pipeline.status import size, table
from tasks import config, night
from tasks.identities import current_identity
from tasks.retries import patiently

STAGES = retention.MAIN
Flags = Sequence[str]


def status(chosen: argparse.Namespace, flags: Flags) -> int:
    """Print each stage of the run of a date, and which run its pointer and `latest` name; 1 where one is not done."""
    with night.command_line(flags) as root:
        task = night.run_of(_date(chosen))
        states = night.states(task)
        pointer, latest, pinned = (
            pointers.read(pointers.of_date(root, str(task.date))),
            pointers.latest(root),
            pointers.pinned(root),
        )
    done = (
        all(state.state == "complete" for state in states) and pointer is not None and pointer.run == task.fingerprint
    )
    if chosen.json:
        facts = {"date": task.date, "root": shown(root), "complete": done, "stages": states}
        _print_json({**facts, "pointer": pointer, "latest": latest, "pinned": pinned})
        return 0 if done else 1
    print(f"run of {task.date} below {shown(root)}: {'complete' if done else 'not complete'}")
    print("\n".join(table(states, now=datetime.datetime.now().astimezone())))
    for name, found in ((str(task.date), pointer), ("latest", latest), ("pinned", pinned)):
        if found is not None:
            note = "" if found.run == task.fingerprint else "  (another run)"
            print(f"{name:<10}  run {found.run[:12]} of {found.date}{note}")
    return 0 if done else 1


def explain(chosen: argparse.Namespace, flags: Flags) -> int:
    """Print why each stage would run, compared with the last run: of the date, or the latest."""
    with night.command_line(flags) as root:
        task = night.run_of(_date(chosen))
        pointer = pointers.read(pointers.of_date(root, str(task.date)))
        last = runs.find(root, chosen.against) if chosen.against else pointer or pointers.latest(root)
        found = reasons.explain(night.wanted(task), root, last, invalidated=invalidation.invalidated(root))
        moved = [] if last is None else reasons.changed_versions(root / last.folder)
    if chosen.json:
        _print_json({"compared_with": last, "pointer": pointer, "stages": found, "versions": moved})
        return 0
    print("no run to compare with" if last is None else f"compared with run {last.run[:12]} of {last.date}")
    print("\n".join(reasons.lines(found)))
    if not any(each.runs for each in found) and (pointer is None or pointer.run != task.fingerprint):
        names = "there is none" if pointer is None else f"it names run {pointer.run[:12]}"
        print(f"only the pointer of {task.date} is written: {names}")
    for reason in moved:
        print(f"(no stage runs for it: {reason})")
    return 0


def doctor(chosen: argparse.Namespace, flags: Flags) -> int:
    """Print what was looked at and what is wrong with it; 1 where something is."""
    identity, mistake, settings = None, None, Settings()
    with night.flags_of(flags):
        try:
            settings = config.load()
            identity = current_identity(_date(chosen))
        except (SettingsError, ArtifactError) as error:
            mistake = str(error)
        root = root_of(settings.storage)
        found = examine(identity, engine=engine_name(settings.training), root=root, mistake=mistake)
        if identity is not None:
            from tasks import spark

            found += spark.examine(identity.settings)
    if chosen.json:
        _print_json(found)
    else:
        print("\n".join(lines(found)))
    return 1 if any(check.state == "wrong" for check in found) else 0


def where(chosen: argparse.Namespace, flags: Flags) -> int:
    """Print the directory of a published run, or the model that made it, or its report."""
    with night.command_line(flags) as root:
        found = runs.find(root, _run_name(chosen))
        if chosen.report and found.report is None:
            of = runs.name_of(root, found)
            raise ArtifactError(f"run {found.run[:12]} has no report; make it: luigi --module tasks Report --of {of}")
        place = root / ((chosen.report and found.report) or (f"export/{found.model}" if chosen.model else found.folder))
        if not artifacts.exists(place):
            raise ArtifactError(
                f"{place}: is gone or damaged; run luigi --module tasks ScoreCatalog --date {found.date}"
            )
        address = artifacts.address(place)
    file = "/model.h5" if chosen.model else "/report.html" if chosen.report else ""
    print(f"{address}{file}")
    return 0


def verify(chosen: argparse.Namespace, flags: Flags) -> int:
    """Print each damaged file; 1 where there is one. Its directory does not count any more: the next run makes it."""
    with night.command_line(flags) as root:
        name = _run_name(chosen)
        if name is None:
            known = {path.name for path in verification.published(root)}
        else:
            known = set(reasons.fingerprints_of(root, runs.find(root, name)).values())
        need(root, known)
        folders = [path for path in verification.published(root) if path.name in known]
        damages = list(verification.damaged_pointers(root)) if name is None else []
        by_folder, unread = damages_of(folders)
        if by_folder:  # What another process has removed or made again meanwhile is not damaged.
            folders = [path for path in verification.published(root) if path in folders]
            by_folder, more = damages_of([path for path in folders if path in by_folder])
            unread += more
        damages += [*(damage for found in by_folder.values() for damage in found), *unread]
    if chosen.json:
        _print_json({"directories": len(folders), "damages": damages})
    else:
        print("\n".join([*damages, f"{len(folders)} directories verified, {len(damages) or 'no'} damages"]))
    for folder in by_folder:  # After the words: a root that cannot be written can be verified too.
        artifacts.disown(folder)
    return 1 if damages else 0


def invalidate(chosen: argparse.Namespace, flags: Flags) -> int:
    """Make a stage run again; the published run stays where it is until the next one is whole."""
    with night.command_line(flags) as root:
        task = night.run_of(_date(chosen))
        identity, settings = task.identity, task.settings
        if chosen.stage == "export" and identity.choice.model is not None:
            identity.of("train")  # Raises: a model that is used again is not made by this run.
        names = member_names(settings) if chosen.stage == "train" else (chosen.stage,)
        names += ("scored",) if chosen.stage == "clean" else ()
        prints = {name: identity.of(name) for name in names}
        there = {name: value for name, value in prints.items() if is_there(root / chosen.stage / value)}
        if not there:
            raise ArtifactError(
                f"{chosen.stage}: has no results for {task.date} and these settings; the next run makes them"
            )
        invalidation.invalidate(root, there)
    for name, value in there.items():
        print(f"{name} {value[:12]} is made again by the next run, with all that follows; until then it stays")
    return 0


def rollback(chosen: argparse.Namespace, flags: Flags) -> int:
    """Pin `latest` to an earlier run, or let it go."""
    with night.command_line(flags) as root:
        if chosen.release:
            if chosen.run_name is not None:
                raise SettingsError("--release: takes no RUN; latest becomes the newest date's")
            newest = pointers.release(root)
            print("nothing is published" if newest is None else f"latest is run {newest.run[:12]} of {newest.date}")
            return 0
        found = runs.before_latest(root) if chosen.run_name is None else runs.find(root, chosen.run_name)
        need(root, (found.run, found.model))
        for folder in (root / found.folder, root / "export" / found.model):
            for damage in artifacts.damages(folder):
                raise ArtifactError(damage)
        pointers.pin(root, found)
    print(f"latest is run {found.run[:12]} of {found.date}, and stays so until: python -m tasks rollback --release")
    return 0


def forget(chosen: argparse.Namespace, flags: Flags) -> int:
    """Remove the pointer and the plans of a date, and let `latest` name another one."""
    with night.command_line(flags) as root:
        newest = forgetting.forget(root, str(chosen.mistake))
    print(f"{chosen.mistake} is forgotten; latest is run {newest.run[:12]} of {newest.date}")
    return 0


def clean(chosen: argparse.Namespace, flags: Flags) -> int:
    """Remove what need not be kept, and print what was freed."""
    with night.command_line(flags) as root:
        keep = config.load().storage.keep_runs
        removed = retention.clean(root, keep_runs=keep, dry_run=chosen.dry_run)
    if chosen.json:
        _print_json({"dry_run": chosen.dry_run, "removed": removed})
        return 0
    what = "would be removed" if chosen.dry_run else "removed"
    print("".join(f"{what}  {found.path}  {size(found.size)}\n" for found in removed), end="")
    print(
        f"{size(sum(found.size for found in removed))} {'to free' if chosen.dry_run else 'freed'} below {shown(root)}"
    )
    return 0


def damages_of(folders: Iterable[Path]) -> tuple[dict[Path, list[str]], list[str]]:
    """Return what is damaged of each directory that is, and a line for each that cannot be read, and may be whole.

    What a disk cannot read after all tries is damaged.
    """
    storage, damaged, unread = config.load().storage, dict[Path, list[str]](), list[str]()
    for folder in folders:
        try:
            found = patiently(partial(_damages, folder), storage, note=config.note)
        except ArtifactError as error:
            if not is_broken(error):
                unread.append(str(error))
                continue
            found = [str(error)]
        if found:
            damaged[folder] = found
    return damaged, unread


def _damages(folder: Path) -> list[str]:
    return list(artifacts.damages(folder))


def need(root: Path, fingerprints: Collection[str]) -> None:
    """Say that this command reads these results; where that cannot be written, nothing can be removed either."""
    if fingerprints:
        with suppress(ArtifactError):
            leases.hold(root, fingerprints)


def shown(root: Path) -> Path | str:
    """Return the root as the settings have it: the URL of one in an object store."""
    remote = remote_of(root)
    return root if remote is None else remote.objects.url


def is_there(folder: Path) -> bool:
    """Return whether a stage has left a directory, whole or not."""
    return folder.exists() if remote_of(folder.parent.parent) is None else artifacts.exists(folder)


def _date(chosen: argparse.Namespace) -> datetime.date:
    return datetime.date.today() if chosen.date is None else chosen.date


def _run_name(chosen: argparse.Namespace) -> str | None:
    """Return the run that was asked for, by RUN or --date; None for the latest."""
    if chosen.run_name is not None and chosen.date is not None:
        raise SettingsError("RUN and --date: give one of them")
    name: str | None = chosen.run_name
    return name if chosen.date is None else str(chosen.date)


def _print_json(content: Any) -> None:
    print(json.dumps(content, default=_plain, indent=1, ensure_ascii=False))


def _plain(value: object) -> object:
    """Return what JSON knows in place of what it does not."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return (
        str(value) if isinstance(value, Path | datetime.date) else list(value) if isinstance(value, Iterable) else value
    )
