"""Stage 1: the staged items, window by window in the order of the input, with clean tags: rows of items.parquet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.clean_rows import Cleaner, schema_of
from pipeline.config import Settings
from pipeline.counting import Counts
from pipeline.readers import one_array
from pipeline.sizes import PER_VALUE, cuts
from pipeline.splitting import SQL, thresholds
from pipeline.staging import Staged
from pipeline.tagging import Applications, TagRules

WINDOW = 65_536  # most rows of the items taken at a time; a row group of items.parquet
MAX_BYTES = 32 << 20  # and most bytes of them and of the applications of their tags
PART = 64  # rows that stay together


@dataclass(frozen=True)
class Windows:
    """The clean items of a staged catalog; what is counted on the way goes into `counts`."""

    staged: Staged
    settings: Settings
    rules: TagRules
    counts: Counts
    labels: frozenset[str] = frozenset()  # names of labels as tags; they are dropped where the settings say so

    @cached_property
    def schema(self) -> Any:
        """Return the schema of items.parquet."""
        number = "coalesce(try_cast(id AS BIGINT)::VARCHAR = id AND NOT text_id, false)"
        query = f"SELECT coalesce(bool_and({number}), false) FROM items"
        numbers = self.staged.database.connection.execute(query).fetchall()[0][0]
        return schema_of(self.settings.catalog, pa.int64() if numbers else pa.string())

    def __iter__(self) -> Iterator[Any]:
        """Give tables of items.parquet; rejected tags go to the rejects on the way."""
        rejects = self.staged.database.rejects
        cleaner = Cleaner(self.settings, self.staged.layout, self.rules, self.counts, rejects, self.labels)
        for rows, places in self.raw():
            yield cleaner.clean(rows, self.schema, own_applications(rows, places), places)

    def raw(self) -> Iterator[tuple[Any, Any]]:
        """Give rows of the items and, where these stand in a file of their own, of the applications of their tags."""
        sizes = self._part_sizes()
        for first, last in cuts(sizes, max_rows=max(1, WINDOW // PART), max_bytes=MAX_BYTES):
            window = {"start": first * PART, "stop": last * PART}
            rows = self._query(self._items_query, **window, **thresholds(self.settings.clean))
            # Sorted here: DuckDB would lay all texts of a window side by side first.
            rows = rows.take(pc.sort_indices(rows["n"]))
            if rows.num_rows:
                yield rows, self._own_applications(window)

    def _part_sizes(self) -> npt.NDArray[np.int64]:
        """Return the bytes of each PART rows of the input, (n_parts,)."""
        queries = [f"SELECT n // {PART} AS part, sum(size) AS size FROM items GROUP BY part"]
        if self.staged.layout.files.tags:
            size = f"sum(strlen(tag) + coalesce(strlen(given_by), 0) + {4 * PER_VALUE})"
            queries.append(f"SELECT n // {PART} AS part, {size} AS size FROM applications GROUP BY part")
        union = " UNION ALL ".join(queries)
        found = self.staged.database.connection.sql(union).to_arrow_table()
        part, size_of = (np.asarray(found[name].cast(pa.int64())) for name in ("part", "size"))
        sizes = np.zeros(int(part.max(initial=-1)) + 1, np.int64)
        np.add.at(sizes, part, size_of)
        return sizes

    @cached_property
    def _items_query(self) -> str:
        layout = self.staged.layout
        cells = [f"items.{layout.place(name)} AS {layout.place(name)}" for name in layout.columns]
        labels = [f"labels.l{k} AS l{k}" for k in range(len(self.settings.catalog.levels))]
        split = f"coalesce({layout.place(layout.split)}, {SQL})" if layout.split else SQL
        return f"""
            SELECT {", ".join(["items.n AS n", "source", "line", "id", "lists", *cells, *labels])}, {split} AS split
            FROM items
            LEFT JOIN (SELECT * FROM labels WHERE n >= $start AND n < $stop) labels ON labels.n = items.n
            WHERE items.n >= $start AND items.n < $stop
        """

    def _query(self, query: str, **parameters: Any) -> Any:
        return self.staged.database.connection.sql(query, params=parameters).to_arrow_table()

    def _own_applications(self, window: dict[str, int]) -> Any:
        """Return the raw tags of a window that stand in a file of their own, with source and line; None without one."""
        if not self.staged.layout.files.tags:
            return None
        columns = "n, source, line, tag, count, given_by"
        where = "n >= $start AND n < $stop"
        return self._query(f"SELECT {columns} FROM applications WHERE {where} ORDER BY n, line", **window)


def own_applications(rows: Any, places: Any) -> Applications | None:
    """Return the raw tags that stand in a file of their own as applications of the rows of items."""
    if places is None:
        return None
    row = np.searchsorted(rows["n"].to_numpy(), places["n"].to_numpy())
    user = one_array(places["given_by"]).dictionary_encode("encode").indices.to_numpy(zero_copy_only=False)
    return Applications.of(row, one_array(places["tag"]), count=places["count"].to_numpy(), user=user)
