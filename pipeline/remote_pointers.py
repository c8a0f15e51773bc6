"""Pointers in an object store: moved by compare-and-swap, as pipeline/pointers.py moves those of a disk under a lock.

A pointer of the store names directories that other tools read as they are: `folder`, `changes` and `report` with the
attempt, `model_file`. Each function leaves the working copy as the store is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from pipeline.digests import sealed, unsealed
from pipeline.errors import ArtifactError
from pipeline.mirror import PUBLISHED, alone, as_copied, pointer_of, update
from pipeline.pointers import Pointer
from pipeline.remote import Remote
from pipeline.remote_folders import listed

BESIDE = ("changes", "report")
LATEST, PINNED, REMOVED = (f"{PUBLISHED}/{name}.json" for name in ("latest", "pinned", "removed"))


def point(remote: Remote, pointer: Pointer) -> None:
    """Make a run the result of its date, and the latest one unless a later date is published or another is pinned."""
    stored = as_stored(remote, pointer)

    def newest(content: bytes | None) -> bytes:
        # Read after latest.json: who pins a run writes that behind pinned.json, and so this one is refused then.
        fixed = remote.objects.read(PINNED)
        if fixed is not None:
            return fixed.content
        known = None if content is None else _read(remote, LATEST, content)
        return stored if known is None or known["date"] <= pointer.date else content or stored

    with alone(remote):
        remote.objects.change(LATEST, newest)
        remote.objects.change(_of_date(pointer.date), lambda _: stored)
        update(remote)


def amend(remote: Remote, pointer: Pointer) -> None:
    """Write what a pointer says of its run anew, wherever that run of that date is named."""
    stored = as_stored(remote, pointer)

    def changed(key: str, content: bytes | None) -> bytes | None:
        known = {} if content is None else _read(remote, key, content)
        return stored if (known.get("date"), known.get("run")) == (pointer.date, pointer.run) else content

    with alone(remote):
        for key in (LATEST, PINNED, _of_date(pointer.date)):
            remote.objects.change(key, partial(changed, key))
        update(remote)


def pin(remote: Remote, pointer: Pointer) -> None:
    """Make `latest` name this run, whatever is published from now on, until `release`."""
    stored = as_stored(remote, pointer)
    with alone(remote):
        remote.objects.change(PINNED, lambda _: stored)
        remote.objects.change(LATEST, lambda _: stored)
        update(remote)


def release(remote: Remote) -> Pointer | None:
    """Let `latest` name the newest date again; return that date's pointer, None where there is none."""
    with alone(remote):
        pinned = remote.objects.read(PINNED)
        remote.objects.remove([PINNED])
        dates = sorted(key for key in remote.objects.list(PUBLISHED) if key.rpartition("/")[2][0].isdigit())
        found = remote.objects.read(dates[-1]) if dates else None
        newest = None if found is None else _read(remote, dates[-1], found.content)

        def moved(content: bytes | None) -> bytes | None:
            # Another machine may have published since: a later date stays, unless it is the run that was pinned.
            if found is None or newest is None or content is None or (pinned is not None and content == pinned.content):
                return None if found is None else found.content
            return content if _read(remote, LATEST, content)["date"] > newest["date"] else found.content

        remote.objects.change(LATEST, moved)
        update(remote)
    return None if newest is None else pointer_of(newest)


def forget(remote: Remote, gone: Sequence[Pointer]) -> None:
    """Remove pointers of dates, and remember which they were."""
    if not gone:
        return

    def more(content: bytes | None) -> bytes:
        known = {} if content is None else _read(remote, REMOVED, content)
        return sealed({**known, **{pointer.date: pointer.run for pointer in gone}}).encode()

    with alone(remote):
        remote.objects.change(REMOVED, more)
        for pointer in gone:
            found = remote.objects.read(_of_date(pointer.date))
            if found is not None and _read(remote, _of_date(pointer.date), found.content)["run"] == pointer.run:
                remote.objects.remove([_of_date(pointer.date)])
        update(remote)


def as_stored(remote: Remote, pointer: Pointer) -> bytes:
    """Return what the store has of a pointer. Raises ArtifactError where a directory that it names is not there."""
    folder, model = _named(remote, pointer.folder), _named(remote, f"export/{pointer.model}")
    beside = {name: place and _named(remote, place) for name in BESIDE if (place := getattr(pointer, name)) is not None}
    content = asdict(pointer) | {"folder": folder, "model_file": f"{model}/model.h5"} | beside
    return sealed(content).encode()


def _named(remote: Remote, place: str) -> str:
    content = listed(remote, place)
    if content is None:
        raise ArtifactError(f"{remote.objects.url_of(place)}: is gone; run the same command again, which makes it anew")
    return f"{place}/{content['attempt']}"


def _of_date(date: str) -> str:
    return f"{PUBLISHED}/{date}.json"


def _read(remote: Remote, key: str, content: bytes) -> dict[str, Any]:
    as_copied(remote, key, content)  # Raises where it was changed, and says where it lies.
    return unsealed(content.decode())
