"""After stage 5: which items are new, gone, or have another path than in the last published run; changes.parquet.

The two runs are joined by DuckDB, which goes to disk where they do not fit into memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.artifacts import manifest, verified
from pipeline.errors import ArtifactError

FILE, COUNTS = "changes.parquet", "changes.json"
NEW, GONE, PATH = "new", "gone", "path"

# Paths are compared by their hashes, so that the join holds few bytes an item; then those that differ are looked up.
_DIFFER = """
    CREATE TEMP TABLE differ AS
    SELECT coalesce(n.id, b.id) AS id, CASE WHEN b.id IS NULL THEN 'new' WHEN n.id IS NULL THEN 'gone' ELSE 'path' END
        AS change
    FROM (SELECT {id} AS id, hash(path) AS path FROM read_parquet($now)) n
    FULL JOIN (SELECT {id} AS id, hash(path) AS path FROM read_parquet($before)) b ON n.id = b.id
    WHERE n.id IS NULL OR b.id IS NULL OR n.path != b.path
"""
_CHANGES = """
    CREATE TEMP TABLE changes AS
    SELECT d.id AS item_id, coalesce(n.title, b.title) AS title, d.change AS change,
        b.path AS path_before, b.path_probability AS path_probability_before, n.path AS path, n.path_probability
    FROM differ d
    LEFT JOIN (SELECT {id} AS id, title, path::VARCHAR[] AS path, path_probability FROM read_parquet($now)) n
        ON n.id = d.id
    LEFT JOIN (SELECT {id} AS id, title, path::VARCHAR[] AS path, path_probability FROM read_parquet($before)) b
        ON b.id = d.id
"""


@dataclass(frozen=True)
class Counts:
    """How many items changed in which way."""

    n_items: int  # of the new run
    new: int
    gone: int
    path: int  # that have another path


def list_changes(now: Path, before: Path, folder: Path, *, since: str | None) -> None:
    """Write changes.parquet and changes.json: what the run in `now` has otherwise than the one in `before`, of a date.

    Rows are sorted by id; an item that is new has no path before, one that is gone none today. Ids are compared as text
    where they were numbers in one run only. Raises ArtifactError where a file of a run has changed.
    """
    import duckdb

    from pipeline.tables import MEMORY

    runs = {"now": scores_of(now), "before": scores_of(before)}
    try:
        with TemporaryDirectory(dir=folder, prefix=".scratch-") as scratch:
            settings: dict[str, str | bool | int | float | list[str]] = {
                "memory_limit": MEMORY,
                "temp_directory": scratch,
                "autoload_known_extensions": False,
            }
            with duckdb.connect(config=settings) as connection:
                item_id = (
                    "item_id"
                    if len({_type_of(connection, files) for files in runs.values()}) == 1
                    else "item_id::VARCHAR"
                )
                for query in (_DIFFER, _CHANGES):
                    connection.execute(query.format(id=item_id), runs)
                counts = dict(connection.execute("SELECT change, count(*) FROM changes GROUP BY change").fetchall())
                _write(connection, folder / FILE, {"run": now.name, "since": before.name})
    except duckdb.Error as error:
        raise ArtifactError(f"{folder}: changes cannot be listed ({error}); is there space left?") from error
    n_items = json.loads(verified(now, "summary.json").read_text("utf-8"))["n_items"]
    found = Counts(n_items, *(counts.get(kind, 0) for kind in (NEW, GONE, PATH)))
    facts = {"run": now.name, "since": before.name, "since_date": since, **asdict(found)}
    (folder / COUNTS).write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


def scores_of(folder: Path) -> list[str]:
    """Return the parts of scores.parquet of a published run; raises ArtifactError where one has changed."""
    names = sorted(name for name in manifest(folder)["files"] if name.startswith("scores.parquet/"))
    return [str(verified(folder, name)) for name in names]


def line(counts: Mapping[str, Any]) -> str:
    """Return in one line what changes.json says.

    >>> line({"n_items": 1204, "new": 3, "gone": 1, "path": 12, "since_date": "2026-11-22", "since": "6b6c9aa642dc0f"})
    'changes        1,204 items: 3 new, 1 gone, 12 with another path, since 2026-11-22'
    """
    since = counts["since_date"] or f"run {counts['since'][:12]}"
    changed = f"{counts['new']:,} new, {counts['gone']:,} gone, {counts['path']:,} with another path"
    return f"changes        {counts['n_items']:,} items: {changed}, since {since}"


def _type_of(connection: Any, files: Sequence[str]) -> str:
    """Return the type of the ids of a run."""
    query = "SELECT typeof(item_id) FROM read_parquet($files) LIMIT 1"
    found = connection.execute(query, {"files": files}).fetchone()
    return "" if found is None else str(found[0])


def _write(connection: Any, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the table of changes, the same bytes for the same rows."""
    import pyarrow.parquet as pq

    connection.execute("SET threads = 1")  # The rows of a batch then do not depend on how fast which thread was.
    rows = connection.sql("SELECT * FROM changes ORDER BY item_id").to_arrow_reader(65_536)
    with pq.ParquetWriter(path, rows.schema.with_metadata(dict(metadata)), compression="zstd") as writer:
        for batch in rows:
            writer.write_batch(batch)
