"""Stage 1: how many items carry each clean tag; tags.parquet, from which unseen tags and drift are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_frequencies(connection: Any, items: Path, path: Path) -> None:
    """Write the tags of items.parquet, sorted, with `n_items` and, of these, `n_training`.

    DuckDB counts, out of memory where need be.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    query = """
        SELECT tag, count(*)::BIGINT AS n_items, count(*) FILTER (split = 'train')::BIGINT AS n_training
        FROM (SELECT unnest(tags) AS tag, split FROM read_parquet($items)) GROUP BY tag ORDER BY tag
    """
    schema = pa.schema([("tag", pa.string()), ("n_items", pa.int64()), ("n_training", pa.int64())])
    found = connection.sql(query, params={"items": str(items)})
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        for batch in found.to_arrow_reader(1 << 20):
            file.write_table(pa.table(batch).cast(schema))


def unseen_share(path: Path) -> float | None:
    """Return the share of the tags of held-out items that no training item has; None where they have no tag."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    held_out = pc.subtract(table["n_items"], table["n_training"])
    total = pc.sum(held_out, min_count=0).as_py()
    unseen = pc.sum(held_out.filter(pc.equal(table["n_training"], 0)), min_count=0).as_py()
    return round(unseen / total, 6) if total else None
