"""Pointers: which immutable run is the result of a date, and which is the latest.

<root>/published/<date>.json     the run of a date
<root>/published/latest.json     that of the newest date, or the one that a rollback has pinned
<root>/published/pinned.json     the run that a rollback has pinned; as long as it is there, `latest` stays
<root>/published/removed.json    dates whose results retention has removed, and which run they had
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.digests import sealed, unsealed
from pipeline.errors import ArtifactError
from pipeline.files import remove, replace_link, write_text
from pipeline.leases import guard
from pipeline.locks import held
from pipeline.manifests import exists_here
from pipeline.remote import remote_of

LINKS = ("latest", "latest_model.h5", "latest_report.html")  # below published/, for people
WITHOUT_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)


@dataclass(frozen=True)
class Pointer:
    """The run that is the result of a date."""

    date: str  # ISO, so that text order is time order
    run: str  # fingerprint of the scores
    folder: str  # where they lie, relative to the root
    model: str  # fingerprint of the exported model that made them
    plan: str  # file of the plan that was followed, relative to the root
    changes: str | None = None  # directory of changes.parquet, relative to the root; None where there is none
    report: str | None = None  # directory of report.html, relative to the root; None where there is none


def read(path: Path) -> Pointer | None:
    """Return what a pointer file says, None where there is none; raises ArtifactError for a damaged one."""
    try:
        return Pointer(**unsealed(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path}: is not a pointer ({error}); remove it and run the job again") from None


def latest(root: Path, *, until: str = "") -> Pointer | None:
    """Return the pointer to the latest published run, None before the first; others stand in for a damaged file.

    `until` asks for the run that one of this date goes on from, in ISO form: the newest up to it, unless another one is
    pinned; where there is none so old, the latest of all.
    """
    try:
        found = read(root / "published" / "latest.json")
    except ArtifactError:
        # It only repeats one of these, and `point` writes it again.
        dates = of_dates(root)
        found = pinned(root) or (dates[-1] if dates else None)
    if not until or found is None or found.date <= until or pinned(root) is not None:
        return found
    for path in sorted((root / "published").glob("[0-9]*.json"), reverse=True):
        with suppress(ArtifactError):
            if path.stem <= until and (earlier := read(path)) is not None:
                return earlier
    return found


def of_date(root: Path, date: str) -> Path:
    """Return the path of a date's pointer."""
    return root / "published" / f"{date}.json"


def point(root: Path, pointer: Pointer) -> None:
    """Make a run the result of its date, and the latest one unless a later date is published or another run is pinned.

    The date's own pointer comes last: as long as it is not there, the next run repeats all of this.
    """
    remote = remote_of(root)
    if remote is not None:
        from pipeline import remote_pointers

        return remote_pointers.point(remote, pointer)
    with held(guard(root)):
        newest, fixed = latest(root), pinned(root)
        make_latest(root, fixed or (pointer if newest is None or newest.date <= pointer.date else newest))
        _write(root, of_date(root, pointer.date), pointer)
    return None


def amend(root: Path, pointer: Pointer) -> None:
    """Write what a pointer says of its run anew, wherever that run of that date is named; elsewhere nothing changes."""
    remote = remote_of(root)
    if remote is not None:
        from pipeline import remote_pointers

        return remote_pointers.amend(remote, pointer)
    with held(guard(root)):
        published = root / "published"
        for path in (published / "latest.json", published / "pinned.json", of_date(root, pointer.date)):
            named = read(path)
            if named is not None and (named.date, named.run) == (pointer.date, pointer.run):
                _write(root, path, pointer)
        newest = latest(root)
        if newest is not None:
            _link_latest(root, newest)
    return None


def pinned(root: Path) -> Pointer | None:
    """Return the run that `latest` is pinned to, None where it moves on with every date."""
    return read(root / "published" / "pinned.json")


def pin(root: Path, pointer: Pointer) -> None:
    """Make `latest` name this run, whatever is published from now on, until `release`.

    Raises ArtifactError where it is there no more: retention may have removed it since it was found.
    """
    remote = remote_of(root)
    if remote is not None:
        from pipeline import remote_pointers

        return remote_pointers.pin(remote, pointer)
    with held(guard(root)):
        for folder in (root / pointer.folder, root / "export" / pointer.model):
            if not exists_here(folder):
                raise ArtifactError(f"{folder}: is gone or damaged; run the job of {pointer.date} again")
        _write(root, root / "published" / "pinned.json", pointer)
        make_latest(root, pointer)
    return None


def release(root: Path) -> Pointer | None:
    """Let `latest` name the newest date again, and move on; return that date's pointer, None where there is none."""
    remote = remote_of(root)
    if remote is not None:
        from pipeline import remote_pointers

        return remote_pointers.release(remote)
    with held(guard(root)):
        dates = of_dates(root)
        if dates:
            make_latest(root, dates[-1])
        remove(root / "published" / "pinned.json")
    return dates[-1] if dates else None


def of_dates(root: Path) -> list[Pointer]:
    """Return the pointers of all dates, the newest last; raises ArtifactError for a damaged one."""
    found = (read(path) for path in sorted((root / "published").glob("[0-9]*.json")))
    return [pointer for pointer in found if pointer is not None]


def removed(root: Path) -> dict[str, str]:
    """Return the dates whose results retention has removed, and the run of each; raises ArtifactError if damaged."""
    path = root / "published" / "removed.json"
    try:
        return unsealed(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); remove it: its dates count as not run") from None


def forget(root: Path, pointers: Sequence[Pointer]) -> None:
    """Remove pointers of dates, and remember which they were; the caller holds `guard`."""
    if pointers:
        gone = {**removed(root), **{pointer.date: pointer.run for pointer in pointers}}
        write_text(root / "published" / "removed.json", sealed(gone), work=root / "work")
    for pointer in pointers:
        remove(of_date(root, pointer.date))


def links(pointer: Pointer) -> dict[str, str]:
    """Return the links for people below published/ to the latest run, and what each leads to, relative to the root."""
    found = {"latest": pointer.folder, "latest_model.h5": f"export/{pointer.model}/model.h5"}
    return found | ({} if pointer.report is None else {"latest_report.html": f"{pointer.report}/report.html"})


def make_latest(root: Path, pointer: Pointer) -> None:
    """Let `latest` and the links for people name a run; the caller holds `guard`."""
    _write(root, root / "published" / "latest.json", pointer)
    _link_latest(root, pointer)


def _link_latest(root: Path, pointer: Pointer) -> None:
    wanted = links(pointer)
    for name, target in wanted.items():
        _link(root / "published" / name, root / target, work=root / "work")
    for name in LINKS:
        if name not in wanted:  # An older one would be taken for that of the latest run.
            remove(root / "published" / name)


def link_latest(root: Path) -> None:
    """Set the links of a working copy to what of the latest run is there; they are only for people."""
    pointer, published = latest(root), root / "published"
    wanted = {} if pointer is None else links(pointer)
    for name in LINKS:
        link, target = published / name, root / wanted.get(name, "")
        if name not in wanted or not target.exists():
            remove(link)
        elif link.resolve() != target.resolve():
            _link(link, target, work=root / "work")


def _write(root: Path, path: Path, pointer: Pointer) -> None:
    write_text(path, sealed(asdict(pointer)), work=root / "work")


def _link(link: Path, target: Path, *, work: Path) -> None:
    """Set a symbolic link for people; a file system that knows no links goes without, latest.json says the same."""
    try:
        replace_link(link, target, work=work)
    except ArtifactError as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in WITHOUT_LINKS:
            raise
