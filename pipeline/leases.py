"""Which results running processes need: each says so in a file that it keeps locked, and retention goes round them.

<root>/work/in-use-<host>-<pid>    JSON list of fingerprints; who wrote it is at work as long as it is locked
"""

from __future__ import annotations

import atexit
import json
import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.errors import ArtifactError
from pipeline.files import remove
from pipeline.locks import held, take
from pipeline.remote import remote_of

PREFIX = "in-use-"
_own: dict[tuple[int, Path], tuple[int, set[str]]] = {}  # by process and file: descriptor and fingerprints


def guard(root: Path) -> Path:
    """Return the name of the lock under which leases are taken, pointers move and retention decides."""
    return root / "work" / "published.lock"


def hold(root: Path, fingerprints: Iterable[str]) -> None:
    """Say that this process needs these results until it ends; raises ArtifactError where that cannot be written.

    It waits while retention decides: what is looked for afterwards is kept, or gone already.
    """
    fingerprints = set(fingerprints)
    remote = remote_of(root)
    if remote is not None:
        from pipeline import remote_leases

        remote_leases.hold(remote, fingerprints)
    path = _file(root)
    with held(guard(root)):
        known = _own.get((os.getpid(), path))
        if known is None:
            descriptor = take(path)
            if descriptor is None:
                raise ArtifactError(f"{path}: is locked by another process of this number; remove it")
            known = _own[os.getpid(), path] = (descriptor, set())
            atexit.register(_end, os.getpid(), path)
        known[1].update(fingerprints)
        text = json.dumps(sorted(known[1])).encode()
        try:
            os.ftruncate(known[0], 0)
            os.pwrite(known[0], text, 0)
        except OSError as error:
            raise ArtifactError(
                f"{path}: cannot be written ({error.strerror}); free space below [storage] root"
            ) from error


def needed(root: Path) -> set[str]:
    """Return the fingerprints that running processes need; call it under `guard`. Files of dead ones are removed.

    Raises ArtifactError where a running process could not write down what it needs.
    """
    found: set[str] = set()
    for path in (root.absolute() / "work").glob(f"{PREFIX}*"):
        own = _own.get((os.getpid(), path))
        if own is not None:  # To open and close the file would give up the lock.
            found |= own[1]
            continue
        descriptor = take(path)
        if descriptor is None:
            found |= _read(path)
        else:
            remove(path)
            os.close(descriptor)
    return found


def _read(path: Path) -> set[str]:
    try:
        return set(json.loads(path.read_text("utf-8")))
    except ValueError:
        raise ArtifactError(f"{path}: a running process could not say what it needs; try again when it ended") from None


def _file(root: Path) -> Path:
    return root.absolute() / "work" / f"{PREFIX}{platform.node()}-{os.getpid()}"


def _end(process: int, path: Path) -> None:
    """Remove the file when its process ends; a forked child leaves that to its parent."""
    if os.getpid() == process and (process, path) in _own:
        with suppress(ArtifactError):  # What stays is swept by the next one that cleans.
            remove(path)
