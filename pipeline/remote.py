"""A root in an object store, and the directory of this machine that is its working copy.

    <url>/<stage>/<fingerprint>/<attempt>/...          files of a stage, by an attempt of one writer alone
    <url>/<stage>/<fingerprint>/manifest.json          which attempt counts, and what it holds; written last, once
    <url>/plan/<date>-<fingerprint>.json               plans; the first one counts
    <url>/published/<date>.json, latest.json ...       pointers; they name the attempt's directory
    <url>/invalidated.json, in-use/...                 what is made again; what running processes need

Stages work below a local directory as they always do. What is published there is copied into the store by
remote_folders.py and fetched from it where another machine has made it; mirror.py keeps the small files the same. The
store decides what exists: whether a stage is done is asked there, whatever the copy has.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.downloads import cache_folder
from pipeline.object_store import ObjectStore
from pipeline.urls import is_url

if TYPE_CHECKING:
    from pipeline.config_results import StorageSettings

_known: dict[Path, Remote] = {}  # by the directory of the working copy


@dataclass(frozen=True)
class Remote:
    """A root in an object store."""

    root: Path  # the working copy
    objects: ObjectStore
    hours: float  # after which what nobody lists or needs any more is taken for left behind
    compared: set[str] = field(default_factory=set)  # places whose copy here is known to be that of the store

    def place(self, folder: Path) -> str:
        """Return the key below which the store has a directory or file of the working copy."""
        return folder.relative_to(self.root).as_posix()


def root_of(storage: StorageSettings) -> Path:
    """Return the directory of all results; of a root in an object store its working copy, known from then on."""
    if not is_url(storage.root):
        return Path(storage.root)
    url = storage.root.rstrip("/")
    name = hashlib.sha256(url.encode()).hexdigest()[:32]
    root = (Path(storage.local) if storage.local else cache_folder() / "roots" / name).absolute()
    known = _known.get(root)
    if known is None or known.objects.url != url:
        _known[root] = Remote(root, ObjectStore(url), storage.unfinished_hours)
    return root


def open_root(storage: StorageSettings) -> Path:
    """Return the directory of all results, the small files of a working copy as the store has them now."""
    root = root_of(storage)
    remote = remote_of(root)
    if remote is not None:
        from pipeline.mirror import refresh

        refresh(remote)
    return root


def remote_of(root: Path) -> Remote | None:
    """Return the store that a directory is a working copy of, None for a root of this machine."""
    return _known.get(root)


def remote_with(folder: Path) -> Remote | None:
    """Return the store that has the directory of a stage, None for one of this machine."""
    return _known.get(folder.parent.parent) if _known else None
