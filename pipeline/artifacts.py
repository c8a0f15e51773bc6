"""Publication: a directory appears whole or not at all, with a manifest; pointers name the run to read.

    <root>/<stage>/<fingerprint>/    results of a stage and manifest.json; written once, never changed
    <root>/published/<date>.json     which run is the result of a date
    <root>/published/latest.json     the newest of these; published/latest is a symbolic link to its directory,
                                     published/latest_model.h5 one to the model that made it,
                                     published/latest_report.html one to its report
    <root>/work/<fingerprint>/       what is not finished: the directory being built, a lock
    <root>/work/in-use-..., removed-...  what running processes need (pipeline/leases.py); what is on its way out

Below the working copy of a root in an object store (pipeline/remote.py) a directory is published here and then there,
and the store says what exists. The order of a publication: files synced, their directories synced, manifest written and
synced, one rename, parent synced.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.digests import sha256_of
from pipeline.errors import ArtifactError
from pipeline.files import make, remove, set_aside, size_of, sync, told
from pipeline.leftovers import FINGERPRINT
from pipeline.locks import held
from pipeline.manifests import MANIFEST, damages_here, exists_here, manifest_here, seal, seal_as, verified_here
from pipeline.refusals import DISK
from pipeline.remote import remote_with

DISOWNED = "manifest-of-what-is-damaged.json"
LOCK = "lock"


def publish(
    folder: Path,
    write: Callable[[Path], None],
    *,
    work: Path,
    facts: Mapping[str, Any],
    waiting: Callable[[], None] = lambda: None,
) -> None:
    """Make `folder` hold what `write(directory)` writes, whole; do nothing where it is there already.

    `work` belongs to this folder alone, on the same file system; it is removed at the end, and left with
    all but the half-built directory where `write` fails (checkpoints). Two processes that publish the
    same folder build it once. `facts` (settings, upstreams ...) go into the manifest as they are.

    Raises ArtifactError where the file system refuses, and lets the exceptions of `write` through.
    """
    remote = remote_with(folder)
    with held(work / LOCK, waiting=waiting):
        if remote is not None:
            from pipeline import remote_folders

            remote_folders.take(remote, folder)  # Another machine may have made it since this run began.
        if not exists_here(folder):
            _build(folder, write, work / "build", partial(seal, facts))
        if remote is not None:
            remote_folders.publish(remote, folder)
        clear_work(work)


def adopt(folder: Path, write: Callable[[Path], None], *, work: Path, content: Mapping[str, Any]) -> None:
    """Make `folder` hold what was published elsewhere with this manifest, and `write(directory)` brings, whole.

    What stands there until now makes room. The caller has the lock of `work`. Raises ArtifactError where a file is not
    what the manifest lists.
    """
    _build(folder, write, work / "build", partial(seal_as, folder, content))


def _build(folder: Path, write: Callable[[Path], None], build: Path, finish: Callable[[Path, float], None]) -> None:
    started = time.monotonic()
    remove(build)
    try:
        with told(folder):
            build.mkdir(parents=True)
        with told(folder, only=DISK):
            write(build)
        with told(folder):
            finish(build, time.monotonic() - started)
            make(folder.parent)
            if folder.exists():  # It lost its manifest or a file; what is left must make room.
                damaged = build.with_name("damaged")
                remove(damaged)
                folder.rename(damaged)
            build.rename(folder)
            sync(folder.parent)
    except BaseException:
        remove(build)
        raise


def sweep(root: Path) -> None:
    """Clear what is left in work/ of what is published: its process was killed between the two."""
    for work in (root / "work").iterdir():
        # Nothing else there is one: a link to a published directory may lie there, half made.
        if FINGERPRINT.fullmatch(work.name) and any(stands(folder) for folder in root.glob(f"*/{work.name}")):
            with held(work / LOCK):
                clear_work(work)


def clear_work(work: Path) -> None:
    """Remove a directory of work by the holder of its lock, which goes last: until then nobody else is in there.

    Who waits for the lock may make a new one then, and removes the directory itself.
    """
    for path in work.iterdir():
        if path.is_dir():
            remove(path)
        elif path.name != LOCK:
            path.unlink()
    (work / LOCK).unlink()
    with suppress(OSError):
        work.rmdir()


def manifest(folder: Path, name: str = MANIFEST) -> dict[str, Any]:
    """Return the manifest of a published directory; raises ArtifactError where there is none that can be read.

    Where a directory of the store has not been brought here, it is that of the store.
    """
    remote = remote_with(folder)
    if remote is not None and name == MANIFEST and not (folder / name).exists():
        from pipeline import remote_folders

        found = remote_folders.listed(remote, remote.place(folder))
        if found is not None:
            return found
    return manifest_here(folder, name)


def exists(folder: Path) -> bool:
    """Return whether a directory was published there and every file still has its size; of a store it says that."""
    remote = remote_with(folder)
    if remote is None:
        return exists_here(folder)
    from pipeline import remote_folders

    return remote_folders.exists(remote, folder)


def stands(folder: Path) -> bool:
    """Return what `exists` says, for who only looks: a directory of this machine that cannot be read is not there."""
    try:
        return exists(folder)
    except ArtifactError:
        if remote_with(folder) is not None:
            raise
        return False


def at_hand(folder: Path) -> Path:
    """Return a published directory, brought here from the store that has it, where one does.

    Raises ArtifactError where a file has been damaged there.
    """
    remote = remote_with(folder)
    if remote is not None:
        from pipeline import remote_folders

        remote_folders.bring(remote, folder)
    return folder


def address(folder: Path) -> Path | str:
    """Return where others find a published directory: its URL, where a store has it."""
    remote = remote_with(folder)
    if remote is None:
        return folder
    from pipeline import remote_folders

    return remote_folders.address(remote, folder)


def published_at(folder: Path) -> tuple[float, int]:
    """Return when a directory was published, in seconds since 1970, and the bytes of its files."""
    remote = remote_with(folder)
    if remote is None:
        return (folder / MANIFEST).stat().st_mtime, size_of(folder)
    from pipeline import remote_folders

    moment, n_bytes = remote_folders.published(remote, folder)
    return moment.timestamp(), n_bytes


def verified(folder: Path, name: str) -> Path:
    """Return the path of a file of a published directory; raises ArtifactError if it is not as it was published."""
    return verified_here(at_hand(folder), name)


def verify(folder: Path) -> Path:
    """Return the directory, all its files verified; raises ArtifactError for a changed, missing or extra one."""
    for damage in damages_here(at_hand(folder)):
        raise ArtifactError(damage)
    return folder


def damages(folder: Path) -> Iterator[str]:
    """Give a line for each changed, missing or extra file of a published directory, of a store where it lies in one."""
    remote = remote_with(folder)
    if remote is None:
        return damages_here(folder)
    from pipeline import remote_folders

    return remote_folders.damages(remote, folder)


def disown(folder: Path) -> None:
    """Let a damaged directory count as not published: its stage makes it again, and this one stands aside then.

    A copy of what a store has is removed, to be brought again, and where the store has it damaged it is made again.
    """
    remote = remote_with(folder)
    if remote is not None:
        from pipeline import remote_folders

        remove(folder)
        remote_folders.disown(remote, folder)
    elif (folder / MANIFEST).exists():
        set_aside(folder / MANIFEST, folder / DISOWNED)
    elif folder.is_dir():  # It is the manifest that is missing.
        with told(folder):
            (folder / DISOWNED).touch()


def disowned(folder: Path) -> bool:
    """Return whether a directory was found damaged and has not been made again."""
    return (folder / DISOWNED).exists()


def origin_of(folder: Path) -> dict[str, Any]:
    """Return the manifest of a directory, also of one that does not count any more; raises ArtifactError as that."""
    return manifest(folder, DISOWNED if disowned(folder) and not (folder / MANIFEST).exists() else MANIFEST)


def unchanged(path: Path, digest: str) -> Path:
    """Return the path of an input file; raises ArtifactError where it does not have this SHA-256 any more."""
    if sha256_of(path) != digest:
        raise ArtifactError(f"{path}: has changed since this run was planned; run the same command again")
    return path
