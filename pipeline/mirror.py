"""The small files of a root in an object store, kept the same in its working copy: pointers, plans, what is made again.

The store is written first and the copy follows, so the copy never says what the store does not. One process of this
machine at a time does either: what one has just written is not taken for removed by another.

<root>/work/store.json    URL, and the tag of each file as it was copied
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import pointers
from pipeline.conditional import ABSENT
from pipeline.digests import sealed, unsealed
from pipeline.errors import ArtifactError, SettingsError
from pipeline.files import remove, write_text
from pipeline.identity import STAGE_VERSIONS
from pipeline.locks import held
from pipeline.object_store import Entry
from pipeline.remote import Remote

PUBLISHED, PLANS, INVALIDATED = "published", "plan", "invalidated.json"


@contextmanager
def alone(remote: Remote) -> Iterator[None]:
    """Be the one process of this machine that writes small files into store and copy."""
    with held(remote.root / "work" / "mirror.lock"):
        yield


def refresh(remote: Remote) -> None:
    """Make the small files of the copy those of the store; what has not changed is not read again.

    Raises SettingsError where the directory is the copy of another root.
    """
    with alone(remote):
        update(remote)


def update(remote: Remote) -> None:
    """Do what `refresh` does, within `alone`."""
    memory = remote.root / "work" / "store.json"
    known = _remembered(remote, memory)
    if not memory.exists():  # First: from now on this directory is known for a copy.
        _remember(remote, memory, {})
    there: dict[str, Entry] = {}
    for prefix in (PUBLISHED, PLANS, INVALIDATED):
        there |= remote.objects.list(prefix)
    tags = {}
    for key, entry in sorted(there.items()):
        path = remote.root / key
        if known.get(key) != entry.tag or not path.exists():
            found = remote.objects.read(key)
            if found is None:
                continue
            _write(remote, path, as_copied(remote, key, found.content))
        tags[key] = entry.tag
    for path in _copies(remote.root):
        if remote.place(path) not in tags:
            remove(path)
    if tags != known:
        _remember(remote, memory, tags)
    pointers.link_latest(remote.root)


def keep_first(remote: Remote, path: Path, text: str) -> str:
    """Write a small file into the store unless there is one; return that which is there, and have it in the copy."""
    key = remote.place(path)
    with alone(remote):
        if not remote.objects.write_if(key, text.encode(), tag=ABSENT):
            found = remote.objects.read(key)
            if found is None:
                raise ArtifactError(f"{remote.objects.url_of(key)}: was removed meanwhile; run the same command again")
            text = found.content.decode()
        _write(remote, path, text)
    return text


def invalidate(remote: Remote, stages: Mapping[str, Mapping[str, str]]) -> None:
    """Add fingerprints to those whose results are made again."""

    def more(content: bytes | None) -> bytes:
        return sealed({**({} if content is None else unsealed(content.decode())), **stages}).encode()

    with alone(remote):
        remote.objects.change(INVALIDATED, more)
        update(remote)


def as_copied(remote: Remote, key: str, content: bytes) -> str:
    """Return what the copy has of a small file: of a pointer, directories as they are called there."""
    try:
        stored = unsealed(content.decode())
        name = key.rpartition("/")[2].removesuffix(".json")
        return sealed(vars(pointer_of(stored))) if key.startswith(PUBLISHED) and name != "removed" else content.decode()
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{remote.objects.url_of(key)}: has been changed ({error}); remove it and run the job again"
        ) from None


def pointer_of(stored: dict[str, Any]) -> pointers.Pointer:
    """Return a pointer of the store as the copy has it: without the attempts.

    >>> stored = {"date": "2026-11-23", "run": "1a", "folder": "score/1a/t-1", "model": "2b", "plan": "plan/p.json"}
    >>> pointer_of(stored | {"model_file": "export/2b/t-2/model.h5", "changes": None}).folder
    'score/1a'
    """
    known: dict[str, Any] = {name: stored[name] for name in ("date", "run", "model", "plan")}
    for name in ("folder", "changes", "report"):
        place = stored.get(name)
        known[name] = place and "/".join(place.split("/")[:2])
    return pointers.Pointer(**known)


def _remembered(remote: Remote, memory: Path) -> dict[str, str]:
    try:
        content = json.loads(memory.read_text("utf-8"))
        url, tags = content["url"], dict(content["tags"])
    except FileNotFoundError:
        _refuse_results(remote)
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if url != remote.objects.url:
        raise SettingsError(
            f"[storage] local = {remote.root}: is the working copy of {url}; name another directory for "
            f"{remote.objects.url}"
        )
    return tags


def _refuse_results(remote: Remote) -> None:
    """Raise SettingsError where a directory that is no copy has results: they would give way to those of the store."""
    found = next((name for name in (PUBLISHED, PLANS, *STAGE_VERSIONS) if any((remote.root / name).glob("*"))), None)
    if found is not None:
        raise SettingsError(
            f"[storage] local = {remote.root}: has results in {found}/ and is no working copy of {remote.objects.url}; "
            "name a directory that is empty"
        )


def _remember(remote: Remote, memory: Path, tags: Mapping[str, str]) -> None:
    write_text(memory, json.dumps({"url": remote.objects.url, "tags": tags}), work=remote.root / "work")


def _copies(root: Path) -> Iterator[Path]:
    for prefix in (PUBLISHED, PLANS):
        yield from (root / prefix).glob("*.json")
    if (root / INVALIDATED).exists():
        yield root / INVALIDATED


def _write(remote: Remote, path: Path, text: str) -> None:
    write_text(path, text, work=remote.root / "work")
