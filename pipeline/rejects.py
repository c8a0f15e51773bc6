"""Stage 1: what is not taken, as it was read, from where and why; and when there is too much of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import CatalogError

SCOPES = ("item", "tag", "label")
MAX_RAW = 2000
SCHEMA = pa.schema(
    [
        ("scope", pa.string()),
        ("source", pa.string()),
        ("line", pa.int64()),
        ("item_id", pa.string()),
        ("raw", pa.string()),
        ("reason", pa.string()),
    ]
)
_ORDER = "list_position(['item', 'tag', 'label'], scope), source, line, raw, reason, item_id"


@dataclass(frozen=True)
class Rejects:
    """A table of rejects in a DuckDB connection."""

    connection: Any

    def __post_init__(self) -> None:
        columns = ", ".join(f"{name} {'BIGINT' if name == 'line' else 'VARCHAR'}" for name in SCHEMA.names)
        self.connection.execute(f"CREATE TABLE rejects ({columns})")

    def add(
        self, scope: str, source: Sequence[str], line: Any, item_id: Sequence[Any], raw: Sequence[str], reason: Any
    ) -> None:
        """Add rejects; all but the scope are columns of one length."""
        if len(source):
            self.take(as_rejects(scope, source, line, item_id, raw, reason))

    def take(self, table: Any) -> None:
        """Add a table of rejects."""
        self.connection.register("more_rejects", table)
        self.connection.execute("INSERT INTO rejects SELECT * FROM more_rejects")
        self.connection.unregister("more_rejects")

    def reasons(self, scope: str) -> dict[str, int]:
        """Return how many were rejected in a scope for each reason, the most frequent first."""
        query = "SELECT reason, count(*) FROM rejects WHERE scope = ? GROUP BY reason ORDER BY count(*) DESC, reason"
        return dict(self.connection.execute(query, [scope]).fetchall())

    def check_share(self, n_rows: Mapping[str, int], *, max_share: float) -> None:
        """Raise CatalogError where more than the share of a scope's rows is rejected; names the top reasons."""
        for scope, total in n_rows.items():
            reasons = self.reasons(scope)
            n_rejected = sum(reasons.values())
            if n_rejected <= max_share * total:
                continue
            top = "; ".join(
                f"{count:,} x {reason}{self._first(scope, reason)}" for reason, count in [*reasons.items()][:5]
            )
            what = {"item": "rows of the items", "tag": "tags", "label": "rows of the labels"}[scope]
            share = f"{n_rejected:,} of {total:,} {what} are rejected ({n_rejected / max(1, total):.1%})"
            limit = f"more than [clean] max_reject_share = {max_share}"
            raise CatalogError(f"{share}, {limit}: {top}. Mend the files, or raise max_reject_share")

    def _first(self, scope: str, reason: str) -> str:
        """Return where the first rows stand that were rejected for a reason, and how they read."""
        query = f"SELECT source, line, raw FROM rejects WHERE scope = ? AND reason = ? ORDER BY {_ORDER} LIMIT 3"
        found = self.connection.execute(query, [scope, reason]).fetchall()
        shown = (f"{source} line {line}: {raw[:60]!r}{'...' if len(raw) > 60 else ''}" for source, line, raw in found)
        return f" ({', '.join(shown)})"

    def write(self, path: Path) -> None:
        """Write all rejects as Parquet, ordered by scope, source and line."""
        import pyarrow.parquet as pq

        names = ", ".join(SCHEMA.names)
        table = self.connection.sql(f"SELECT {names} FROM rejects ORDER BY {_ORDER}").to_arrow_table()
        pq.write_table(table.cast(SCHEMA).combine_chunks(), path, compression="zstd")


class Gathered:
    """Rejects in memory: of a few rows, or in a process that has no DuckDB."""

    def __init__(self) -> None:
        self._tables = [SCHEMA.empty_table()]

    def add(
        self, scope: str, source: Sequence[str], line: Any, item_id: Sequence[Any], raw: Sequence[str], reason: Any
    ) -> None:
        """Add rejects, as to Rejects."""
        if len(source):
            self._tables.append(as_rejects(scope, source, line, item_id, raw, reason))

    @property
    def table(self) -> Any:
        """Return all of them."""
        return pa.concat_tables(self._tables).combine_chunks()


def as_rejects(
    scope: str, source: Sequence[str], line: Any, item_id: Sequence[Any], raw: Sequence[str], reason: Any
) -> Any:
    """Return a table of rejects; all but the scope are columns of one length."""
    cut = [text[:MAX_RAW] for text in raw]
    columns = [[scope] * len(cut), source, line, item_id, cut, reason]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types, strict=True)]
    return pa.table(arrays, schema=SCHEMA)


def as_json(table: Any, names: Mapping[str, str] | None = None) -> list[str]:
    """Return each row as JSON of its columns that have a value, called as they are or as `names` says.

    >>> as_json(pa.table({"c0": ["7"], "c1": [None]}), {"c0": "id", "c1": "title"})
    ['{"id": "7"}']
    """
    names = {name: name for name in table.column_names} if names is None else names
    return [
        json.dumps({names[key]: value for key, value in row.items() if value is not None}, ensure_ascii=False)
        for row in table.select(list(names)).to_pylist()
    ]
