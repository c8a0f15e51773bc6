"""Stage 1: what the footer of a Parquet file declares, told by a child process: a damaged one can end Arrow's process.

Run as a program (`python -P footer.py FILE`) it prints the column chunks as JSON; it imports nothing of the library.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq


def chunks(path: str) -> Iterator[dict[str, Any]]:
    """Give the size, rows, values and encoding of every column of every group of rows."""
    metadata = pq.read_metadata(path)
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            is_text = chunk.physical_type == "BYTE_ARRAY"
            yield {
                "path": chunk.path_in_schema,
                "n_rows": group.num_rows,
                "n_values": chunk.num_values,
                "n_bytes": chunk.total_uncompressed_size,
                "n_packed": chunk.total_compressed_size,
                "is_dictionary": is_text and any("DICTIONARY" in encoding for encoding in chunk.encodings),
            }


if __name__ == "__main__":
    print(json.dumps(list(chunks(sys.argv[1]))))
