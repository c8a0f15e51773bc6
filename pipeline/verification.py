"""Are the published files as they were published? All of them, or those of one directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline import plans, pointers
from pipeline.artifacts import exists
from pipeline.errors import ArtifactError
from pipeline.identity import STAGE_VERSIONS
from pipeline.pointers import Pointer
from pipeline.remote import remote_of, remote_with


def published(root: Path) -> list[Path]:
    """Return all published directories, those that a store has where the root lies in one."""
    remote = remote_of(root)
    if remote is not None:
        from pipeline.remote_retention import directories

        there = directories(remote.objects.list()).values()
        return sorted(root / found.place for found in there if found.manifest is not None)
    return [path for stage in STAGE_VERSIONS for path in sorted((root / stage).glob("*")) if path.is_dir()]


def damaged_pointers(root: Path) -> Iterator[str]:
    """Give a line for each pointer, link or plan that is damaged, or names what is not there."""
    yield from plans.damages(root)
    known = ("latest", "pinned", "removed")
    named = [root / "published" / f"{name}.json" for name in known[:2]]
    for path in (*named, *sorted((root / "published").glob("[0-9]*.json"))):
        try:
            pointer = pointers.read(path)
        except ArtifactError as error:
            yield str(error)
            continue
        if pointer is not None:
            yield from _names_nothing(root, path, pointer)
    try:
        pointers.removed(root)
    except ArtifactError as error:
        yield str(error)
    yield from _links(root)


def _names_nothing(root: Path, path: Path, pointer: Pointer) -> Iterator[str]:
    if path.stem not in ("latest", "pinned") and path.stem != pointer.date:
        yield f"{path}: is the pointer of {pointer.date}; remove it and run the job again"
    for place in (pointer.folder, f"export/{pointer.model}", pointer.plan, pointer.changes, pointer.report):
        if place is not None and not _is_there(root, place):
            yield f"{path}: names {place}, which is not there; run the job of {pointer.date} again"


def _is_there(root: Path, place: str) -> bool:
    path = root / place
    return (path.exists() if remote_with(path) is None else exists(path)) if path.suffix == "" else path.exists()


def _links(root: Path) -> Iterator[str]:
    """Give a line for each link that does not name what latest.json names; there may be none."""
    try:
        latest = pointers.latest(root)
    except ArtifactError:
        return
    wanted = {} if latest is None else pointers.links(latest)
    for name, target in wanted.items():
        link = root / "published" / name
        if link.is_symlink() and link.resolve() != (root / target).resolve():
            yield f"{link}: names {link.resolve()}, and latest.json {target}; run the job again"
