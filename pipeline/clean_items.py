"""Stage 5: the clean items of stage 1, read by their place."""

from __future__ import annotations

from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq


class Items:
    """The rows of items.parquet by their place; the group of rows that was read last is kept."""

    def __init__(self, file: pq.ParquetFile, wanted: set[str]) -> None:
        self._file = file
        self._columns = [name for name in file.schema_arrow.names if name in wanted]
        self._starts = [0]
        for group in range(file.num_row_groups):
            self._starts.append(self._starts[-1] + file.metadata.row_group(group).num_rows)
        self._last: tuple[int, pa.Table | None] = (-1, None)
        self.n_items = self._starts[-1]
        self.schema = file.schema_arrow

    def read(self, start: int, stop: int) -> pa.RecordBatch:
        """Return the rows from start to before stop, at least one."""
        parts = []
        for group, (first, behind) in enumerate(pairwise(self._starts)):
            if first < stop and start < behind:
                parts.append(self._group(group)[max(0, start - first) : stop - first])
        return pa.concat_tables(parts).combine_chunks().to_batches()[0]

    def _group(self, group: int) -> pa.Table:
        if self._last[0] != group or self._last[1] is None:
            self._last = (group, self._file.read_row_group(group, columns=self._columns, use_threads=False))
        return self._last[1]
