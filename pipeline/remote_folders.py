"""Directories of stages in an object store: each appears whole or not at all, by one small object that is written last.

A writer puts its files below an attempt of its own, which nobody reads, and then writes the manifest, if there is none:
of two writers one comes first, and the other one takes what that has written. What a killed writer leaves is listed in
no manifest and goes with retention.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from pipeline import artifacts, digests, manifests
from pipeline.conditional import ABSENT
from pipeline.digests import sealed, unsealed
from pipeline.errors import ArtifactError
from pipeline.locks import held
from pipeline.remote import Remote

ROUNDS = 5  # of writers of the same directory whose manifest is in each other's way


def listed(remote: Remote, place: str) -> dict[str, Any] | None:
    """Return what the store's manifest of a directory says, None for none; raises ArtifactError for a damaged one."""
    found = remote.objects.read(f"{place}/{manifests.MANIFEST}")
    return None if found is None else _content(remote, place, found.content)


def exists(remote: Remote, folder: Path) -> bool:
    """Return whether the store has a directory's manifest and every file of it with its size."""
    place = remote.place(folder)
    try:
        content = listed(remote, place)
    except ArtifactError as error:
        if error.__cause__ is not None:  # There was no answer.
            raise
        return False
    return content is not None and _is_whole(remote, place, content)


def address(remote: Remote, folder: Path) -> str:
    """Return the URL of the files of a directory, or of where they would be."""
    place = remote.place(folder)
    content = listed(remote, place)
    return remote.objects.url_of(place if content is None else f"{place}/{content['attempt']}")


def published(remote: Remote, folder: Path) -> tuple[datetime.datetime, int]:
    """Return when a directory was published, and the bytes of its files. Raises ArtifactError where it is not there."""
    place = remote.place(folder)
    entry = remote.objects.list(f"{place}/{manifests.MANIFEST}").get(f"{place}/{manifests.MANIFEST}")
    content = listed(remote, place)
    if entry is None or content is None:
        raise ArtifactError(f"{remote.objects.url_of(place)}: nothing is published there; run the job again")
    return entry.modified, entry.size + sum(file["size"] for file in content["files"].values())


def publish(remote: Remote, folder: Path) -> None:
    """Make the store hold a directory that is published here; where it has one already, make this one the same."""
    place, own = remote.place(folder), manifests.manifest_here(folder)
    key, attempt = f"{place}/{manifests.MANIFEST}", ""
    for _ in range(ROUNDS):
        found = remote.objects.read(key)
        theirs = None if found is None else _readable(remote, place, found.content)
        if theirs is not None and _is_whole(remote, place, theirs):
            if attempt and attempt != theirs["attempt"]:
                remote.objects.remove(f"{place}/{attempt}/{name}" for name in own["files"])
            remote.compared.discard(place)
            if theirs["files"] != own["files"]:
                _adopt(remote, folder, theirs)
            return
        if not attempt:
            attempt = _upload(remote, folder, place, own["files"])
        data = sealed({**own, "attempt": attempt}).encode()
        if remote.objects.write_if(key, data, tag=ABSENT if found is None else found.tag):
            return
    raise ArtifactError(f"{remote.objects.url_of(place)}: others write it all the while; run the same command again")


def take(remote: Remote, folder: Path) -> None:
    """Make a directory that is not here the one that the store has, where it has a whole one; the lock of work is held.

    What the store has damaged is made anew.
    """
    place = remote.place(folder)
    if manifests.exists_here(folder) or not exists(remote, folder):
        return
    content = listed(remote, place)
    if content is not None:
        try:
            _adopt(remote, folder, content)
        except ArtifactError as error:
            if error.__cause__ is not None:  # There was no answer, or no room.
                raise
            _disown_that(remote, folder, content)


def bring(remote: Remote, folder: Path) -> None:
    """Make a directory here the one that the store has, its files verified; nothing where the store has none.

    Raises ArtifactError where a file is not what the manifest lists.
    """
    place = remote.place(folder)
    if place in remote.compared and manifests.exists_here(folder):
        return
    content = listed(remote, place)
    if content is None:
        return
    work = remote.root / "work" / folder.name
    if not _is_here(folder, content):
        with held(work / artifacts.LOCK):
            if not _is_here(folder, content):  # Else another process of this machine has brought it meanwhile.
                _adopt(remote, folder, content)
            artifacts.clear_work(work)
    remote.compared.add(place)


def writer(remote: Remote, place: str, content: Mapping[str, Any]) -> Callable[[Path], None]:
    """Return a function that copies the files of a manifest into a directory."""

    def write(build: Path) -> None:
        for name in content["files"]:
            path = build / name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                remote.objects.download(f"{place}/{content['attempt']}/{name}", path)
            except FileNotFoundError:
                raise ArtifactError(
                    f"{remote.objects.url_of(place)}: {name} is gone; run the job again, which makes it anew"
                ) from None

    return write


def damages(remote: Remote, folder: Path) -> Iterator[str]:
    """Give a line for each file that the store does not have as it was published; all are read."""
    place = remote.place(folder)
    try:
        content = listed(remote, place)
    except ArtifactError as error:
        if error.__cause__ is not None:  # There was no answer: nothing is known to be damaged.
            raise
        yield str(error)
        return
    if content is None:
        yield f"{remote.objects.url_of(place)}: no {manifests.MANIFEST}: nothing was published there"
        return
    with TemporaryDirectory() as name:
        for file, facts in content["files"].items():
            key, path = f"{place}/{content['attempt']}/{file}", Path(name) / "copy"
            try:
                remote.objects.download(key, path)
            except FileNotFoundError:
                yield f"{remote.objects.url_of(key)}: is gone; the next run makes it again"
                continue
            if digests.sha256_of(path) != facts["sha256"]:
                yield f"{remote.objects.url_of(key)}: has changed since it was published; the next run makes it again"


def disown(remote: Remote, folder: Path) -> None:
    """Let a directory of the store that is damaged there count as not published: a run that needs it makes it again."""
    found = remote.objects.read(f"{remote.place(folder)}/{manifests.MANIFEST}")
    if found is not None and any(damages(remote, folder)):
        _disown_that(remote, folder, _readable(remote, remote.place(folder), found.content))


def _disown_that(remote: Remote, folder: Path, content: Mapping[str, Any] | None) -> None:
    """Take the manifest away, None for one that cannot be read, unless another machine has published anew since."""
    place = remote.place(folder)
    key = f"{place}/{manifests.MANIFEST}"
    found = remote.objects.read(key)
    if found is not None and _readable(remote, place, found.content) == content:
        remote.objects.remove([key])
    remote.compared.discard(place)


def _upload(remote: Remote, folder: Path, place: str, files: Mapping[str, Any]) -> str:
    """Copy all files below a new attempt and return its name, which begins with the time for whoever looks."""
    attempt = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(6)}"
    for name in files:
        remote.objects.upload(folder / name, f"{place}/{attempt}/{name}")
    return attempt


def _is_here(folder: Path, content: Mapping[str, Any]) -> bool:
    return manifests.exists_here(folder) and bool(manifests.manifest_here(folder)["files"] == content["files"])


def _adopt(remote: Remote, folder: Path, content: Mapping[str, Any]) -> None:
    """Put a directory of the store in place of the one here; the lock of work is held."""
    own = {name: value for name, value in content.items() if name != "attempt"}
    write = writer(remote, remote.place(folder), content)
    artifacts.adopt(folder, write, work=remote.root / "work" / folder.name, content=own)


def _is_whole(remote: Remote, place: str, content: Mapping[str, Any]) -> bool:
    there = remote.objects.list(f"{place}/{content['attempt']}")
    sizes = {key: entry.size for key, entry in there.items()}
    prefix = f"{place}/{content['attempt']}/"
    return all(sizes.get(prefix + name) == file["size"] for name, file in content["files"].items())


def _readable(remote: Remote, place: str, data: bytes) -> dict[str, Any] | None:
    try:
        return _content(remote, place, data)
    except ArtifactError:
        return None


def _content(remote: Remote, place: str, data: bytes) -> dict[str, Any]:
    """Return what a manifest says; raises ArtifactError for one that is damaged, or names what lies elsewhere."""
    try:
        content = unsealed(data.decode())
        names = [content["attempt"], *content["files"]]
        if not all(isinstance(name, str) and _is_below(name) for name in names):
            raise ValueError("it names files that lie elsewhere")
        if content.get("format") != manifests.FORMAT:
            raise ValueError(f"it is not of format {manifests.FORMAT}")
        for file in content["files"].values():
            int(file["size"]), str(file["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        url = remote.objects.url_of(f"{place}/{manifests.MANIFEST}")
        raise ArtifactError(f"{url}: cannot be read ({error}); the next run makes it again") from None
    return content


def _is_below(name: str) -> bool:
    """Return whether a name stays below the directory that it is taken in.

    >>> _is_below("scores.parquet/part-00000.parquet"), _is_below("../x"), _is_below("/etc/passwd"), _is_below("")
    (True, False, False, False)
    """
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
