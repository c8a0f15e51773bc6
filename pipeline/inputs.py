"""Which files a run reads: the paths of [catalog] to learn from, those of [scoring] where another catalog is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Literal

from pipeline.config import Settings

COMPRESSIONS = (".gz", ".zst")
Role = Literal["training", "scoring"]
# The settings that name the files of a role.
NAMED_BY: Mapping[Role, tuple[tuple[str, str], ...]] = {
    "training": (("catalog", "items"), ("catalog", "tags"), ("catalog", "labels"), ("catalog", "taxonomy")),
    "scoring": (("scoring", "items"), ("scoring", "tags"), ("scoring", "labels"), ("catalog", "taxonomy")),
}


@dataclass(frozen=True)
class InputPath:
    """The path of an input file, and the setting that names it."""

    path: str
    section: str
    setting: str


def input_paths(settings: Settings, *, role: Role) -> tuple[InputPath, ...]:
    """Return the files that a role reads, setting by setting, globs expanded; absent ones too."""
    return tuple(
        InputPath(path, section, setting)
        for section, setting in NAMED_BY[role]
        for path in expand(getattr(getattr(settings, section), setting))
    )


def extensions(path: str) -> tuple[str, str]:
    """Return the extension that decides how a file is read, and the one of its compression, in small letters.

    >>> extensions("data/Movies.CSV.gz"), extensions("tags.tsv")
    (('.csv', '.gz'), ('.tsv', ''))
    """
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    return (suffixes[-1] if suffixes else ""), compression


def expand(pattern: str) -> tuple[str, ...]:
    """Return the sorted paths that a setting names, none for an empty one.

    A plain path is returned as it is, there or not, and so is a pattern that matches nothing: whoever
    opens it tells that it is absent.

    >>> expand("absent.csv"), expand("absent-*.csv"), expand("")
    (('absent.csv',), ('absent-*.csv',), ())
    """
    if not pattern:
        return ()
    if Path(pattern).exists() or not has_magic(pattern):
        return (pattern,)
    return tuple(sorted(glob(pattern))) or (pattern,)  # noqa: PTH207 (Path.glob wants a folder and a relative pattern)
