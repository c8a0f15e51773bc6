"""Stage 1, reading: rows of the input files become tables of a DuckDB database, or rejects.

What DuckDB is for: duplicate ids, joins by id, and sorting, out of memory where need be. In every table `n` is the
number of the row in the input from 0, rejected rows counted, so the order of the input is never lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Settings
from pipeline.errors import CatalogError
from pipeline.inputs import Role, input_paths
from pipeline.readers import JSON_LINES, LINE, LISTS, ROW, Broken, Rows, Wanted, kind_of, missing_column, read
from pipeline.rejects import Gathered, Rejects, as_json

MEMORY = "400MB"  # what DuckDB may take before it goes to disk


@dataclass(frozen=True)
class Files:
    """The input files of a role, globs expanded."""

    items: tuple[str, ...]
    tags: tuple[str, ...]
    labels: tuple[str, ...]
    taxonomy: tuple[str, ...]
    aliases: tuple[str, ...]
    stop_list: tuple[str, ...]

    @classmethod
    def of(cls, settings: Settings, *, role: Role, planned: Collection[str] | None = None) -> Files:
        """Return the files of the catalog, or of the catalog to score.

        Of those in a directory or of a pattern only the planned ones, where they are given: what has come since belongs
        to the next run. Raises CatalogError where one of them has gone.
        """
        named = input_paths(settings, role=role)
        if planned is not None:
            for path in sorted(set(planned) - {file.path for file in named}):
                raise CatalogError(f"{path}: is gone since the run was planned; run again")
            named = tuple(file for file in named if file.path in planned)
        return cls(*(tuple(file.path for file in named if file.setting == field.name) for field in fields(cls)))


@dataclass(frozen=True)
class Database:
    """A DuckDB database of staged rows, with its rejects and the digests that the files should have."""

    connection: Any
    rejects: Rejects
    expected: Mapping[str, str]

    def create(self, definition: str) -> None:
        """Create a table."""
        self.connection.execute(f"CREATE TABLE {definition}")

    def read(
        self, paths: Sequence[str], wanted: Wanted, *, optional: Sequence[str] = ()
    ) -> Iterator[tuple[str, int, Rows]]:
        """Give path, number of rows before the file, and rows, for each block of the files.

        Raises CatalogError for a column that is missing and not optional. An object of JSON may leave out a key,
        so there a column is missing only if no row of any file has it.
        """
        before, known = 0, dict[str, None]()
        for path in paths:
            n_rows = 0
            for rows in read(path, wanted, expected=self.digest(path)):
                known |= dict.fromkeys(rows.known)
                if kind_of(path) not in JSON_LINES:
                    _require(path, wanted, optional, rows.known)
                yield path, before, rows
                n_rows += rows.n_rows
            before += n_rows
        if before:
            _require(paths[0], wanted, optional, tuple(known))

    def digest(self, path: str) -> str:
        """Return the SHA-256 that a file should have."""
        return self.expected[path]

    def add(self, name: str, scope: str, block: Block) -> None:
        """Add the rows of a block to a table, those with a reason and the broken ones to the rejects."""
        self.connection.register("block", block.good)
        self.connection.execute(f"INSERT INTO {name} SELECT * FROM block")
        self.connection.unregister("block")
        block.reject(scope, self.rejects)

    def reject_duplicates(self, name: str, scope: str, names: Mapping[str, str]) -> None:
        """Move all but the first row of an id from a table to the rejects."""
        self.create(f"firsts AS SELECT id, min(n) AS n FROM {name} GROUP BY id HAVING count(*) > 1")
        later = f"SELECT t.n FROM {name} t JOIN firsts f ON t.id = f.id AND t.n > f.n ORDER BY t.n"
        self._move(name, scope, later, names, "duplicate item_id")
        self.connection.execute("DROP TABLE firsts")

    def reject_orphans(self, name: str, scope: str, names: Mapping[str, str]) -> None:
        """Move rows of a table whose id no item has to the rejects."""
        orphans = f"SELECT t.n FROM {name} t ANTI JOIN items i ON t.id = i.id ORDER BY t.n"
        self._move(name, scope, orphans, names, "item_id is not in the items")

    def _move(self, name: str, scope: str, query: str, names: Mapping[str, str], reason: str) -> None:
        # The numbers first: mostly there are none, and whole rows may be large.
        for numbers in self.connection.sql(query).to_arrow_table().to_batches(max_chunksize=65_536):
            self.connection.register("moved", pa.table(numbers))
            rows = self.connection.sql(f"SELECT * FROM {name} WHERE n IN (SELECT n FROM moved)").to_arrow_table()
            rows = rows.take(pc.sort_indices(rows["n"]))
            source, line, ids = (rows[key].to_pylist() for key in ("source", "line", "id"))
            raw = as_json(rows, names)
            self.rejects.add(scope, source, line, ids, raw, [reason] * len(raw))
            self.connection.execute(f"DELETE FROM {name} WHERE n IN (SELECT n FROM moved)")
            self.connection.unregister("moved")


@dataclass(frozen=True)
class Block:
    """Rows on their way into a table: the columns n, source, line, id, and what the table has besides."""

    path: str
    table: Any
    reasons: Any  # string array; null where the row is good
    raw: list[str]  # of each row that has a reason, as it was read
    broken: tuple[Broken, ...]

    @classmethod
    def of(
        cls,
        path: str,
        before: int,
        rows: Rows,
        *,
        ids: Any,
        cells: Mapping[str, Any],
        reasons: Any,
        list_column: str = "",
    ) -> Block:
        """Return the block of some rows that were read; an id that is missing is a reason."""
        ids = pc.utf8_trim_whitespace(ids)
        missing = pc.equal(pc.binary_length(pc.fill_null(ids, "")), 0)
        n = pc.add(rows.table[ROW], before - 1)
        columns = {"n": n, "source": pa.repeat(path, len(n)), "line": rows.table[LINE], "id": ids, **cells}
        reasons = _chunked(pc.if_else(missing, "no item_id", reasons))
        wrong = rows.table.drop_columns([ROW, LINE]).filter(pc.is_valid(reasons))
        raw = as_json(wrong, {name: name for name in wrong.column_names} | {LISTS: list_column})
        return cls(path, pa.table(columns), reasons, raw, rows.broken)

    @property
    def good(self) -> Any:
        """Return the rows that have no reason."""
        return self.table.filter(pc.is_null(self.reasons))

    def reject(self, scope: str, rejects: Rejects | Gathered) -> None:
        """Put the rows that have a reason, and the broken ones, among the rejects."""
        wrong = pc.is_valid(self.reasons)
        ids = self.table["id"].filter(wrong).to_pylist()
        lines, reasons = self.table["line"].filter(wrong), self.reasons.filter(wrong)
        rejects.add(scope, [self.path] * len(ids), lines, ids, self.raw, reasons)
        broken = [(self.path, row.line, None, row.raw, row.reason) for row in self.broken]
        if broken:
            source, line, item_id, raw, reason = map(list, zip(*broken, strict=True))
            rejects.add(scope, source, line, item_id, raw, reason)


@contextmanager
def open_database(folder: Path, expected: Mapping[str, str]) -> Iterator[Database]:
    """Give an empty database that lives on disk below the folder, and goes with the context.

    What DuckDB raises becomes a CatalogError.
    """
    import duckdb

    try:
        with TemporaryDirectory(dir=folder, prefix=".scratch-") as scratch:
            settings: dict[str, str | bool | int | float | list[str]] = {
                "memory_limit": MEMORY,
                "temp_directory": scratch,
                "autoload_known_extensions": False,
            }
            with duckdb.connect(str(Path(scratch) / "rows.duckdb"), config=settings) as connection:
                yield Database(connection, Rejects(connection), expected)
    except duckdb.Error as error:
        cause = str(error).strip().split("\n")[0]  # Whole: what the disk said comes after a long path.
        raise CatalogError(
            f"{folder}: the catalog cannot be joined ({cause}); where the disk is full, free space below "
            "[storage] root, then run the same command again"
        ) from error


def _require(path: str, wanted: Wanted, optional: Sequence[str], known: Sequence[str]) -> None:
    for column in wanted.columns:
        if column not in known and column not in optional:
            raise missing_column(path, column, known)


def _chunked(column: Any) -> Any:
    return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
