"""The manifest of a directory of this machine: its files with their sizes and SHA-256, and what it was made of."""

from __future__ import annotations

import errno
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.digests import sealed, sha256_of, unsealed
from pipeline.errors import ArtifactError
from pipeline.files import sync, write_synced

MANIFEST = "manifest.json"
FORMAT = 2  # 2: the manifest carries its own digest
# What says that a file is not there, or is none. Other errors of reading may pass, and say nothing of the file.
NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
PACKAGES = ("luigi", "numpy", "scipy", "h5py", "pyarrow", "duckdb", "pandas", "pydantic", "theano", "pytensor")


def seal(facts: Mapping[str, Any], build: Path, seconds: float) -> None:
    """Sync all files, and write the manifest: sizes and digests of all of them, facts, versions, duration."""
    files = _synced_files(build)
    content = {"format": FORMAT, "files": files, **facts, "versions": versions(), "seconds": round(seconds, 3)}
    write_synced(build / MANIFEST, sealed(json.loads(json.dumps(content, default=str))))
    sync(build)


def seal_as(folder: Path, content: Mapping[str, Any], build: Path, _: float) -> None:
    """Sync all files, and write a manifest that was written elsewhere, if it is theirs."""
    files, wanted = _synced_files(build), content["files"]
    for name in sorted({*files, *wanted}):
        if files.get(name) != wanted.get(name):
            raise ArtifactError(
                f"{folder / name}: is not what its manifest lists; python -m tasks verify finds what is damaged where "
                "it comes from, and the next run makes it again"
            )
    write_synced(build / MANIFEST, sealed(content))
    sync(build)


def _synced_files(build: Path) -> dict[str, Any]:
    """Return size and digest of each file, once all are synced."""
    files = {}
    for directory, _, names in os.walk(build, topdown=False):
        for name in names:
            path = Path(directory, name)
            sync(path)
            files[path.relative_to(build).as_posix()] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
        sync(Path(directory))
    return files


def manifest_here(folder: Path, name: str = MANIFEST) -> dict[str, Any]:
    """Return the manifest of a directory of this machine; raises ArtifactError where there is none to be read.

    Its cause is an OSError where reading failed, and nothing is known of the manifest.
    """
    try:
        content = unsealed((folder / name).read_text("utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{folder}: no {name}: nothing was published there; run the job again") from None
    except (*NOT_THERE, ValueError) as error:
        raise ArtifactError(f"{folder / name}: cannot be read ({error}); {_remedy(folder)}") from None
    except OSError as error:
        raise _unread(folder / name, error) from error
    if not isinstance(content.get("files"), dict) or content.get("format") != FORMAT:
        raise ArtifactError(f"{folder / name}: is not a manifest of format {FORMAT}; {_remedy(folder)}")
    return content


def exists_here(folder: Path) -> bool:
    """Return whether a directory is whole on this machine: a manifest, and every file with its size.

    Raises ArtifactError where that cannot be read: what is there must not be made again for it.
    """
    try:
        files = manifest_here(folder)["files"]
        return all((folder / name).stat().st_size == file["size"] for name, file in files.items())
    except ArtifactError as error:
        if error.__cause__ is not None:
            raise
    except (*NOT_THERE, KeyError, TypeError):
        pass
    except OSError as error:
        raise _unread(folder, error) from error
    return False


def verified_here(folder: Path, name: str) -> Path:
    """Return the path of a file of a directory of this machine; raises ArtifactError for one that has changed.

    Its cause is an OSError where reading failed, and nothing is known of the file.
    """
    known = manifest_here(folder)["files"].get(name)
    path = folder / name
    if known is None:
        raise ArtifactError(f"{path}: is not in {MANIFEST}; files there: {', '.join(manifest_here(folder)['files'])}")
    try:
        digest = sha256_of(path)
    except NOT_THERE as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}); {_remedy(folder)}") from None
    except OSError as error:
        raise _unread(path, error) from error
    if digest != known["sha256"]:
        raise ArtifactError(f"{path}: has changed since it was published; {_remedy(folder)}")
    return path


def damages_here(folder: Path) -> Iterator[str]:
    """Give a line for each changed, missing or extra file on this machine: what it is, and the remedy.

    Raises ArtifactError where reading fails: as long as it does, nothing is known to be damaged.
    """
    try:
        names = set(manifest_here(folder)["files"])
    except ArtifactError as error:
        yield _damage(error)
        return
    for name in sorted(names):
        try:
            verified_here(folder, name)
        except ArtifactError as error:
            yield _damage(error)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for extra in sorted(there - names - {MANIFEST}):
        yield f"{folder / extra}: was not published with this directory; remove it"


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


def is_broken(error: ArtifactError) -> bool:
    """Return whether a disk cannot read a file, which after all tries is as good as damaged."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EIO


def _damage(error: ArtifactError) -> str:
    if error.__cause__ is not None:
        raise error
    return str(error)


def _unread(path: Path, error: OSError) -> ArtifactError:
    return ArtifactError(f"{path}: cannot be read ({error.strerror}); run the same command again")


def _remedy(folder: Path) -> str:
    return f"remove {folder}: the next run builds it again"
