"""Stage 1 on Spark: executors clean the windows of the items; joins, duplicates and the order stay DuckDB's work here.

Reading, joining by id and finding duplicate ids is done by one process, out of memory where need be. What costs most,
the rules for every distinct tag and grouping by item, is done window by window, and no window knows of another.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.cleaning import clean
from pipeline.config import Settings
from pipeline.downloads import expect
from pipeline.inputs import Role
from pipeline.model import load_rules
from pipeline.progress import Progress
from pipeline.spark.executor import Cleaned, CleanRows
from pipeline.spark.waves import through_executors
from pipeline.windows import Windows


def clean_on_spark(
    session: Any,
    settings: Settings,
    folder: Path,
    *,
    expected: Mapping[str, str],
    role: Role,
    progress: Progress,
    model_file: Path | None = None,
) -> None:
    """Do what `cleaning.clean` does, with the executors of a prepared session; the results have the same bytes.

    The rules are those of a model's file where one is given. With [clean] fix_mojibake the executors need ftfy.
    """
    for path, digest in expected.items():
        expect(path, digest)
    lists = None
    if model_file is not None:
        settings, lists = load_rules(model_file, settings)
    through = partial(_through, session, progress)
    clean(settings, folder, expected=expected, role=role, lists=lists, through=through)


def _through(session: Any, progress: Progress, windows: Windows) -> Iterator[pa.Table]:
    """Give the tables of items.parquet, in order; count and reject as the windows would."""
    layout, rules = windows.staged.layout, windows.rules
    work = CleanRows(windows.settings, layout, rules.lists, windows.labels, windows.schema)
    parts = ((number, pa.py_buffer(pickle.dumps(raw))) for number, raw in enumerate(windows.raw()))
    with closing(through_executors(session, parts, work)) as cleaned:
        for _, content in cleaned:
            found: Cleaned = pickle.loads(content)
            windows.counts.merge(found.counts)
            rules.known.update(found.known)
            windows.staged.database.rejects.take(found.rejects)
            progress.update(windows.counts.n_items)
            yield found.items
