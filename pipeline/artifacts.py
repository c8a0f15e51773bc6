"""Publication: a directory appears whole or not at all, with a manifest; pointers name the run to read.

    <root>/<stage>/<fingerprint>/    results of a stage and manifest.json; written once, never changed
    <root>/published/<date>.json     which run is the result of a date
    <root>/published/latest.json     the newest of these; published/latest is a symbolic link to its directory,
                                     published/latest_model.h5 one to the model that made it,
                                     published/latest_report.html one to its report
    <root>/work/<fingerprint>/       what is not finished: the directory being built, a lock
    <root>/work/in-use-..., removed-...  what running processes need (pipeline/leases.py); what is on its way out

Below the working copy of a root in an object store (pipeline/remote.py) a directory is published here and then there,
and the store says what exists. Nothing else in the project renames, syncs or deletes. The order of a publication:
files synced, their directories synced, manifest written and synced, one rename, parent synced. An fsync that fails is
not tried again, as the kernel may have dropped the pages.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.digests import Digests, fingerprint, sealed, sha256_of, unsealed
from pipeline.errors import ArtifactError, PipelineError
from pipeline.locks import held
from pipeline.refusals import DISK, nothing_lost, refusal
from pipeline.remote import remote_with

__all__ = [
    "Digests",
    "address",
    "adopt",
    "at_hand",
    "clear_work",
    "damages",
    "damages_here",
    "disown",
    "disowned",
    "exists",
    "exists_here",
    "fingerprint",
    "manifest",
    "manifest_here",
    "origin_of",
    "publish",
    "published_at",
    "readable",
    "remove",
    "replace_link",
    "set_aside",
    "sha256_of",
    "size_of",
    "sweep",
    "unchanged",
    "verified",
    "verify",
    "write_file",
    "write_text",
]

MANIFEST = "manifest.json"
PROBE_BYTES = 1 << 16  # room for what else is written there
DISOWNED = "manifest-of-what-is-damaged.json"
LOCK = "lock"
FORMAT = 2  # 2: the manifest carries its own digest
PACKAGES = ("luigi", "numpy", "scipy", "h5py", "pyarrow", "duckdb", "pandas", "pydantic", "theano", "pytensor")


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
            _build(folder, write, work / "build", partial(_seal, facts))
        if remote is not None:
            remote_folders.publish(remote, folder)
        clear_work(work)


def adopt(
    folder: Path, write: Callable[[Path], None], *, work: Path, content: Mapping[str, Any], locked: bool = False
) -> None:
    """Make `folder` hold what was published elsewhere with this manifest, and `write(directory)` brings, whole.

    What stands there until now makes room. `locked` says that the caller has the lock of `work`. Raises ArtifactError
    where a file is not what the manifest lists.
    """
    with nullcontext() if locked else held(work / LOCK):
        _build(folder, write, work / "build", partial(_seal_as, folder, content))
        if not locked:
            clear_work(work)


def _build(folder: Path, write: Callable[[Path], None], build: Path, seal: Callable[[Path, float], None]) -> None:
    started = time.monotonic()
    remove(build)
    try:
        with _told(folder):
            build.mkdir(parents=True)
        with _told(folder, only=DISK), nothing_lost():
            write(build)
        with _told(folder):
            seal(build, time.monotonic() - started)
            _make(folder.parent)
            if folder.exists():  # It lost its manifest or a file; what is left must make room.
                damaged = build.with_name("damaged")
                remove(damaged)
                folder.rename(damaged)
            build.rename(folder)
            _sync(folder.parent)
    except BaseException:
        remove(build)
        raise


def sweep(root: Path) -> None:
    """Clear what is left in work/ of what is published: its process was killed between the two."""
    for work in (root / "work").iterdir():
        if any(exists(folder) for folder in root.glob(f"*/{work.name}")):
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


def _seal(facts: Mapping[str, Any], build: Path, seconds: float) -> None:
    """Sync all files, and write the manifest: sizes and digests of all of them, facts, versions, duration."""
    files = _synced_files(build)
    content = {"format": FORMAT, "files": files, **facts, "versions": versions(), "seconds": round(seconds, 3)}
    _write_synced(build / MANIFEST, sealed(json.loads(json.dumps(content, default=str))))
    _sync(build)


def _seal_as(folder: Path, content: Mapping[str, Any], build: Path, _: float) -> None:
    """Sync all files, and write a manifest that was written elsewhere, if it is theirs."""
    files, wanted = _synced_files(build), content["files"]
    for name in sorted({*files, *wanted}):
        if files.get(name) != wanted.get(name):
            raise ArtifactError(
                f"{folder / name}: is not what its manifest lists; python -m tasks verify finds what is damaged where "
                "it comes from, and the next run makes it again"
            )
    _write_synced(build / MANIFEST, sealed(content))
    _sync(build)


def _synced_files(build: Path) -> dict[str, Any]:
    """Return size and digest of each file, once all are synced."""
    files = {}
    for directory, _, names in os.walk(build, topdown=False):
        for name in names:
            path = Path(directory, name)
            _sync(path)
            files[path.relative_to(build).as_posix()] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
        _sync(Path(directory))
    return files


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


def manifest_here(folder: Path, name: str = MANIFEST) -> dict[str, Any]:
    """Return the manifest of a directory of this machine; raises ArtifactError where there is none to be read."""
    try:
        content = unsealed((folder / name).read_text("utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{folder}: no {name}: nothing was published there; run the job again") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder / name}: cannot be read ({error}); {_remedy(folder)}") from None
    if not isinstance(content.get("files"), dict) or content.get("format") != FORMAT:
        raise ArtifactError(f"{folder / name}: is not a manifest of format {FORMAT}; {_remedy(folder)}")
    return content


def exists(folder: Path) -> bool:
    """Return whether a directory was published there and every file still has its size; of a store it says that."""
    remote = remote_with(folder)
    if remote is None:
        return exists_here(folder)
    from pipeline import remote_folders

    return remote_folders.exists(remote, folder)


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


def exists_here(folder: Path) -> bool:
    """Return whether a directory is whole on this machine: a manifest, and every file with its size."""
    try:
        files = manifest_here(folder)["files"]
        return all((folder / name).stat().st_size == file["size"] for name, file in files.items())
    except (ArtifactError, OSError, KeyError, TypeError):
        return False


def verified(folder: Path, name: str) -> Path:
    """Return the path of a file of a published directory; raises ArtifactError if it is not as it was published."""
    known = manifest_here(at_hand(folder))["files"].get(name)
    path = folder / name
    if known is None:
        raise ArtifactError(f"{path}: is not in {MANIFEST}; files there: {', '.join(manifest_here(folder)['files'])}")
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}); {_remedy(folder)}") from None
    if digest != known["sha256"]:
        raise ArtifactError(f"{path}: has changed since it was published; {_remedy(folder)}")
    return path


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


def damages_here(folder: Path) -> Iterator[str]:
    """Give a line for each changed, missing or extra file on this machine: what it is, and the remedy."""
    try:
        names = set(manifest_here(folder)["files"])
    except ArtifactError as error:
        yield str(error)
        return
    for name in sorted(names):
        try:
            verified(folder, name)
        except ArtifactError as error:
            yield str(error)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for extra in sorted(there - names - {MANIFEST}):
        yield f"{folder / extra}: was not published with this directory; remove it"


def disown(folder: Path) -> None:
    """Let a damaged directory count as not published: its stage makes it again, and this one stands aside then.

    A copy of what a store has is removed: it is brought again.
    """
    if remote_with(folder) is not None:
        remove(folder)
    elif (folder / MANIFEST).exists():
        set_aside(folder / MANIFEST, folder / DISOWNED)
    elif folder.is_dir():  # It is the manifest that is missing.
        with _told(folder):
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


def write_text(path: Path, text: str, *, work: Path) -> None:
    """Replace a file by one rename, synced; readers see the old text or the new one, never a part.

    The temporary file lies in `work`, on the same file system. Its name is the same every time, so that one that a
    killed process has left is written over; one process at a time writes there.
    """
    write_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), work=work)


def write_file(path: Path, write: Callable[[Path], object], *, work: Path, before: Path | None = None) -> None:
    """Replace a file by what `write(temporary)` writes, as `write_text` does; the one until now becomes `before`."""
    temporary = work / f"{path.name}.new"
    with held(work / "write.lock"), _told(path):
        _make(path.parent)
        try:
            with nothing_lost():
                write(temporary)
            _sync(temporary)
            if before is not None and path.exists():
                path.replace(before)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(path.parent)


def replace_link(link: Path, target: Path, *, work: Path) -> None:
    """Make `link` a relative symbolic link to `target`, by one rename."""
    temporary = work / f"{link.name}.new"
    with held(work / "write.lock"), _told(link):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath(target, link.parent))
        temporary.replace(link)
        _sync(link.parent)


def readable(path: Path) -> bool:
    """Return whether the path is a file that may be read.

    >>> readable(Path(__file__)), readable(Path(__file__).parent)
    (True, False)
    """
    return path.is_file() and os.access(path, os.R_OK)


def writable(folder: Path) -> bool:
    """Return whether a file can be written into a directory of work/, which is made where it is not there."""
    probe = folder / "probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(bytes(PROBE_BYTES))
        probe.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def remove(path: Path) -> None:
    """Remove a file, or a directory and what is in it, if it is there."""
    with _told(path, "removed"), suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def set_aside(path: Path, aside: Path) -> None:
    """Take a published directory or a file out of sight by one rename, on the same file system, for `remove`."""
    with _told(path, "removed"):
        path.rename(aside)
        _sync(path.parent)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a directory; what goes away meanwhile counts nothing."""
    total = 0
    for file in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):
            total += 0 if file.is_dir() else file.lstat().st_size
    return total


@cache
def versions() -> Mapping[str, str]:
    """Return the versions of Python and of the libraries that bear on results, those that are installed.

    They are asked once a process: to find them takes as long as to publish a small directory.
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _make(folder: Path) -> None:
    """Make a directory and those above it, each of them synced into the one above."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(path: Path) -> None:
    """Force a file's data, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remedy(folder: Path) -> str:
    return f"remove {folder}: the next run builds it again"


@contextmanager
def _told(path: Path, what: str = "published", *, only: Container[int] | None = None) -> Iterator[None]:
    """Turn an error of the file system into one that names the path and what to do; of these codes, where given."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        cause = refusal(error, only)
        if cause is None:
            raise
        raise ArtifactError(
            f"{path}: cannot be {what} ({cause}); free space or give write permission below [storage] root, "
            "then run the same command again"
        ) from error
