"""A date that was published by mistake: one of the next century, say, at which `latest` would stay for ever."""

from __future__ import annotations

from pathlib import Path

from pipeline import pointers
from pipeline.digests import unsealed
from pipeline.errors import ArtifactError
from pipeline.files import remove
from pipeline.leases import guard
from pipeline.locks import held
from pipeline.plans import both, places
from pipeline.pointers import Pointer
from pipeline.remote import Remote, remote_of


def forget(root: Path, date: str) -> Pointer:
    """Remove the pointer and the plans of a date, and return the latest run then; results go by retention.

    Raises ArtifactError where nothing is published for this date or for no other one, or `latest` is pinned to it.
    """
    remote = remote_of(root)
    if remote is not None:
        return _forget_stored(remote, date)
    with held(guard(root)), held(root / "work" / "plan.lock"):
        newest = _latest_without(root, date)
        pointers.make_latest(root, newest)
        for plan in places(root):
            if plan.name.startswith(f"{date}-"):
                for file in both(plan):
                    remove(file)
        remove(pointers.of_date(root, date))  # Last: until then the command can be repeated.
    return newest


def _forget_stored(remote: Remote, date: str) -> Pointer:
    from pipeline import mirror, remote_pointers

    newest = _latest_without(remote.root, date)
    stored = remote_pointers.as_stored(remote, newest)

    def moved(content: bytes | None) -> bytes:
        # Another machine may have published a later date since.
        return stored if content is None or unsealed(content.decode())["date"] == date else content

    with mirror.alone(remote):
        remote.objects.change(remote_pointers.LATEST, moved)
        plans = [key for key in remote.objects.list(mirror.PLANS) if key.startswith(f"{mirror.PLANS}/{date}-")]
        remote.objects.remove([*plans, f"{mirror.PUBLISHED}/{date}.json"])
        mirror.update(remote)
    return pointers.latest(remote.root) or newest


def _latest_without(root: Path, date: str) -> Pointer:
    """Return the latest run, or that of the newest other date where it is of this one."""
    fixed, newest = pointers.pinned(root), pointers.latest(root)
    if pointers.read(pointers.of_date(root, date)) is None:
        raise ArtifactError(f"{date}: nothing is published for this date")
    if fixed is not None and fixed.date == date:
        raise ArtifactError(f"{date}: `latest` is pinned to its run; first: python -m tasks rollback --release")
    if newest is not None and newest.date != date:
        return newest
    others = [pointer for pointer in pointers.of_dates(root) if pointer.date != date]
    if not others:
        raise ArtifactError(f"{date}: no other date is published; run the job of another one first")
    return others[-1]
