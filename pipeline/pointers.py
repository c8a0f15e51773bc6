"""Pointers: which immutable run is the result of a date, and which is the latest."""

from __future__ import annotations

import errno
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.artifacts import replace_link, write_text
from pipeline.digests import sealed, unsealed
from pipeline.errors import ArtifactError
from pipeline.locks import held

WITHOUT_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)


@dataclass(frozen=True)
class Pointer:
    """The run that is the result of a date."""

    date: str  # ISO, so that text order is time order
    run: str  # fingerprint of the scores
    folder: str  # where they lie, relative to the root
    model: str  # fingerprint of the exported model that made them
    plan: str  # file of the plan that was followed, relative to the root


def read(path: Path) -> Pointer | None:
    """Return what a pointer file says, None where there is none; raises ArtifactError for a damaged one."""
    try:
        return Pointer(**unsealed(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path}: is not a pointer ({error}); remove it and run the job again") from None


def latest(root: Path) -> Pointer | None:
    """Return the pointer to the latest published run, None before the first."""
    return read(root / "published" / "latest.json")


def of_date(root: Path, date: str) -> Path:
    """Return the path of a date's pointer."""
    return root / "published" / f"{date}.json"


def point(root: Path, pointer: Pointer) -> None:
    """Make a run the result of its date, and the latest one unless a later date is published already.

    The date's own pointer comes last: as long as it is not there, the next run repeats all of this.
    """
    work, published = root / "work", root / "published"
    text = sealed(asdict(pointer))
    with held(work / "published.lock"):
        newest = latest(root)
        if newest is None or newest.date <= pointer.date:
            write_text(published / "latest.json", text, work=work)
            _link(published / "latest", root / pointer.folder, work=work)
            _link(published / "latest_model.h5", root / "export" / pointer.model / "model.h5", work=work)
        write_text(of_date(root, pointer.date), text, work=work)


def _link(link: Path, target: Path, *, work: Path) -> None:
    """Set a symbolic link for people; a file system that knows no links goes without, latest.json says the same."""
    try:
        replace_link(link, target, work=work)
    except ArtifactError as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in WITHOUT_LINKS:
            raise
