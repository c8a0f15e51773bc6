"""Plans on disk: each is kept twice, as what it has frozen of yesterday could be made again from nothing else.

    <root>/plan/<date>-<fingerprint>.json           what a run starts from (tasks/plan.py)
    <root>/plan/copies/<date>-<fingerprint>.json    the same again

One that is whole is enough to read a plan, and to write the other again (`mend`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.digests import sealed, unsealed
from pipeline.errors import ArtifactError
from pipeline.files import remove, write_text
from pipeline.leases import guard
from pipeline.locks import held
from pipeline.remote import remote_with

COPIES = "copies"


def both(path: Path) -> tuple[Path, ...]:
    """Return the two files of a plan; one below the working copy of a store, which has the other.

    >>> [file.as_posix() for file in both(Path("plan/a.json"))]
    ['plan/a.json', 'plan/copies/a.json']
    """
    return (path,) if remote_with(path) is not None else (path, path.parent / COPIES / path.name)


def places(root: Path) -> list[Path]:
    """Return the paths of all plans, the oldest date first, also of one whose first file is gone."""
    folder = root / "plan"
    names = {path.name for pattern in ("*.json", f"{COPIES}/*.json") for path in folder.glob(pattern)}
    return [folder / name for name in sorted(names)]


def read_plan(path: Path) -> dict[str, Any] | None:
    """Return what a plan has frozen, from a file of the two that is whole; None where there is neither.

    Raises ArtifactError where one is damaged and the other no better.
    """
    damages = []
    for file in both(path):
        try:
            return unsealed(file.read_text("utf-8"))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            damages.append(damaged(file, error))
    for damage in damages:
        raise damage
    return None


def damaged(path: Path, error: Exception) -> ArtifactError:
    """Return what to say of a plan that cannot be read, and from which file none can."""
    return ArtifactError(f"{path}: is not a plan ({error}); the next run of its date removes it and plans anew")


def write_plan(path: Path, content: Mapping[str, Any], *, work: Path) -> None:
    """Write both files of a plan; who is killed between the two has planned, and the next run writes the other."""
    for file in both(path):
        write_text(file, sealed(content), work=work)


def damages(root: Path) -> Iterator[str]:
    """Give a line for each file of a plan that is damaged or gone: what it is, and what becomes of it."""
    for path in places(root):
        for file in both(path):
            error = _wrong(file)
            if error is not None:
                yield f"{file}: is not a plan ({error}); the next run writes it again, or plans anew"


def mend(root: Path) -> list[str]:
    """Write the file of a plan that is damaged or gone again from the other, and return a line for each.

    A plan of which neither is whole is removed: its date is planned anew, from what is published then. Raises
    ArtifactError where the file system refuses.
    """
    if not any(damages(root)):
        return []
    told = []
    # Retention removes the two one after the other, and who plans writes them so.
    with held(guard(root)), held(root / "work" / "plan.lock"):
        for path in places(root):
            wrong = [file for file in both(path) if _wrong(file) is not None]
            if len(wrong) == len(both(path)):
                told.append(f"plan: {path}: was damaged, and its copy too; the next run of its date plans anew")
                for file in wrong:
                    remove(file)
                continue
            for file in wrong:
                write_text(file, sealed(read_plan(path) or {}), work=root / "work")
                told.append(f"plan: {file}: was damaged or gone, and is written again from its copy")
    return told


def _wrong(file: Path) -> Exception | None:
    """Return what is wrong with one file of a plan, None where it is whole."""
    try:
        unsealed(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        return error
    return None
