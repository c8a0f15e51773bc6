"""Which files a run reads: those of [catalog] to learn from, those of [scoring] where another catalog is scored.

And the model file that training starts from, where one is named.

A path may be a file, a glob or a directory, also as a URL of an object store, and may hold `{date}`, which the task
replaces by the date of the run.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Literal

from pipeline.config import Settings
from pipeline.errors import SettingsError
from pipeline.urls import is_url

COMPRESSIONS = (".gz", ".zst")
Role = Literal["training", "scoring", "start"]
LAST = "last"  # [training] warm_start: no file, but the last published model
_RULES = (("clean", "aliases"), ("clean", "stop_list"))
# The settings that name the files of a role.
NAMED_BY: Mapping[Role, tuple[tuple[str, str], ...]] = {
    "training": (("catalog", "items"), ("catalog", "tags"), ("catalog", "labels"), ("catalog", "taxonomy"), *_RULES),
    "scoring": (("scoring", "items"), ("scoring", "tags"), ("scoring", "labels"), ("catalog", "taxonomy"), *_RULES),
    "start": (("training", "warm_start"),),
}
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
_DATE = re.compile(r"\{date(?::([^{}]*))?\}")


@dataclass(frozen=True)
class InputPath:
    """The path of an input file, and the setting that names it."""

    path: str
    section: str
    setting: str


def input_paths(settings: Settings, *, role: Role) -> tuple[InputPath, ...]:
    """Return the files that a role reads, setting by setting, globs and directories expanded; absent ones too."""
    return tuple(
        InputPath(path, section, setting)
        for section, setting in NAMED_BY[role]
        for path in _expanded(settings, section, setting)
    )


def _expanded(settings: Settings, section: str, setting: str) -> tuple[str, ...]:
    pattern = getattr(getattr(settings, section), setting)
    return () if (setting, pattern) == ("warm_start", LAST) else expand(pattern)


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

    A plain path is returned as it is, there or not, and so is a pattern that matches nothing and a directory without
    a table: whoever opens it tells that it is absent. Of a directory the tables are taken that lie in it directly and
    whose names do not begin with a dot or an underline.

    >>> expand("absent.csv"), expand("absent-*.csv"), expand("")
    (('absent.csv',), ('absent-*.csv',), ())
    """
    if not pattern:
        return ()
    if is_url(pattern):
        from pipeline.downloads import expanded

        return expanded(pattern, is_table=is_table) or (pattern,)
    try:
        is_folder, there = Path(pattern).is_dir(), Path(pattern).exists()
    except (OSError, ValueError):  # too long, or with a NUL
        return (pattern,)
    if is_folder:
        inside = (path for path in Path(pattern).iterdir() if is_table(path.name) and path.is_file())
        return tuple(sorted(map(str, inside))) or (pattern,)
    if there or not has_magic(pattern):
        return (pattern,)
    return tuple(sorted(glob(pattern))) or (pattern,)  # noqa: PTH207 (Path.glob wants a folder and a relative pattern)


def with_date(settings: Settings, date: datetime.date) -> Settings:
    """Return the settings with `{date}` in the paths of input files replaced by the date of the run.

    `{date}` is 2026-11-23; behind a colon the form is given as strftime has it. Raises SettingsError for a form that
    gives no name.

    >>> settings = Settings(catalog={"items": "in/{date:%Y/%m}/items-{date}.csv"})
    >>> with_date(settings, datetime.date(2026, 11, 23)).catalog.items
    'in/2026/11/items-2026-11-23.csv'
    """

    def written(form: re.Match[str]) -> str:
        text = format(date, form[1] or "")
        if not text.isprintable():
            raise SettingsError(f"{form[0]}: gives {text!r}, which is no part of a path")
        return text

    changed = {}
    for section in ("catalog", "clean", "scoring", "training"):
        model = getattr(settings, section)
        names = {name for named in NAMED_BY.values() for at, name in named if at == section}
        paths = {name: _DATE.sub(written, getattr(model, name)) for name in names}
        changed[section] = model.model_copy(update=paths)
    return settings.model_copy(update=changed)


def is_table(name: str) -> bool:
    """Return whether a file of that name in a directory is one to read.

    >>> is_table("films.csv.gz"), is_table("_SUCCESS"), is_table(".films.csv")
    (True, False, False)
    """
    return extensions(name)[0] in TABLES and name[0] not in "._"
