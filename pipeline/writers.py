"""Stage 5: scores become Parquet parts and one HDF5 file, both streamed, in bytes that do not depend on the batching.

Both writers take the record batches of `scoring.score_batch`: labels are dictionary-encoded, paths are lists.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import arrow
from pipeline.hdf5_files import Disk

ROW_GROUP = 65_536  # rows of a Parquet row group
BLOCK = 16_384  # most rows of an HDF5 chunk
CHUNK_BYTES = 8 << 20  # and most bytes of one
FILTERS: Mapping[str, Any] = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}
Array = npt.NDArray[Any]


class _Writer(ABC):
    """Collects batches, so that what is written has fixed numbers of rows; closes when the work went well."""

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._n_waiting = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        if kind is not None:
            self.abandon()
            return
        try:
            self.close()
        except BaseException:
            self.abandon()
            raise

    def write(self, batch: pa.RecordBatch) -> None:
        """Take the next rows of the result."""
        self._batches.append(batch)
        self._n_waiting += batch.num_rows
        while self._n_waiting >= self._wanted():
            self._write(self._take(self._wanted()))

    def close(self) -> None:
        """Write what waits, and end the files."""
        if self._n_waiting:
            self._write(self._take(self._n_waiting))
        self._end()

    @abstractmethod
    def abandon(self) -> None:
        """Let go of the open file after a failure; what stands on disk is not complete."""

    @abstractmethod
    def _wanted(self) -> int:
        """Return how many rows are written at once."""

    @abstractmethod
    def _write(self, rows: pa.Table) -> None:
        """Write as many rows, or at the end fewer."""

    @abstractmethod
    def _end(self) -> None:
        """End the files."""

    def _take(self, n: int) -> pa.Table:
        waiting = pa.Table.from_batches(self._batches)
        self._batches = waiting.slice(n).to_batches()
        self._n_waiting -= n
        return waiting.slice(0, n).combine_chunks()


class ParquetWriter(_Writer):
    """Writes `part-00000.parquet` and so on into a folder, `part_items` rows each, in the order of the input.

    Labels become plain strings, in dictionary-encoded pages; numbers and titles, which hardly repeat, are not. All is
    compressed by zstd, with a checksum and statistics of each page; `metadata` stands in the schema of each part. No
    rows make one part without rows.
    """

    def __init__(self, folder: Path, schema: pa.Schema, *, part_items: int, metadata: Mapping[str, str]) -> None:
        super().__init__()
        self.folder, self.schema, self.part_items, self.metadata = folder, schema, part_items, dict(metadata)
        self.n_parts = 0
        self._part: pq.ParquetWriter | None = None
        self._room = part_items  # rows that still fit the part
        folder.mkdir(parents=True, exist_ok=True)

    def abandon(self) -> None:
        """Close the open part as it is."""
        if self._part is not None:
            with suppress(OSError):
                self._part.close()

    def _wanted(self) -> int:
        return min(ROW_GROUP, self._room)

    def _write(self, rows: pa.Table) -> None:
        part = self._open() if self._part is None else self._part
        part.write_table(rows, row_group_size=ROW_GROUP)
        self._room -= rows.num_rows
        if not self._room:
            self._close_part(part)

    def _end(self) -> None:
        if self._part is not None or not self.n_parts:
            self._close_part(self._part or self._open())

    def _open(self) -> pq.ParquetWriter:
        # The Arrow schema is not stored: readers then see strings, not dictionaries.
        self._part = pq.ParquetWriter(
            self.folder / f"part-{self.n_parts:05}.parquet",
            self.schema,
            compression="zstd",
            use_dictionary=[place for field in self.schema for place in _labels_of(field.name, field.type)],
            write_page_checksum=True,
            write_page_index=True,
            store_schema=False,
        )
        self.n_parts += 1
        return self._part

    def _close_part(self, part: pq.ParquetWriter) -> None:
        part.add_key_value_metadata(self.metadata)
        part.close()
        self._part, self._room = None, self.part_items


class HDF5Writer(_Writer):
    """Writes the columns as flat datasets of one compressed file, numbers with a checksum (Fletcher32) of each chunk.

    Numbers stand as they are, ids and titles as UTF-8 strings ("" for none; U+FFFD for NUL, which HDF5 cannot hold).
    A label is an int32 code into the dataset `names`, where names[0] = "" is no label; a list is a row of a matrix
    as wide as `widths` says, filled up with 0: `names[path]` are the labels of the paths, (n_items, n_levels).
    `metadata` stands in the attributes of the file.
    """

    def __init__(
        self, path: Path, schema: pa.Schema, *, widths: Mapping[str, Sequence[int]], metadata: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.widths = {name: tuple(width) for name, width in widths.items()}
        self._codes = {"": 0}  # name -> code, in the order of appearance
        self._n_rows = 0
        self._disk = Disk(path)
        self._file = h5py.File(self._disk, "w")
        self._file.attrs.update(metadata)
        for field in schema:
            self._create(field.name, _stored_type(field.type), self.widths.get(field.name, ()))

    def abandon(self) -> None:
        """Close the file as it is."""
        self._file.close()
        self._disk.close()

    def _wanted(self) -> int:
        return BLOCK

    def _create(self, name: str, dtype: Any, width: tuple[int, ...]) -> None:
        self._file.create_dataset(
            name,
            shape=(0, *width),
            maxshape=(None, *width),
            chunks=(_chunk_rows(dtype, width), *width),
            dtype=dtype,
            # Strings lie in the heap of the file, which filters do not reach.
            **({} if h5py.check_string_dtype(dtype) else FILTERS),
            track_times=False,
        )

    def _write(self, rows: pa.Table) -> None:
        for name in rows.column_names:
            column = rows.column(name)
            # An empty table has no chunk.
            array = column.chunk(0) if column.num_chunks else pa.array([], column.type)
            values = self._values(array, self.widths.get(name, ()))
            self._file[name].resize(self._n_rows + rows.num_rows, axis=0)
            self._file[name][self._n_rows :] = values
        self._n_rows += rows.num_rows
        self._disk.check()

    def _end(self) -> None:
        names = np.array(list(self._codes), dtype=object)
        self._file.create_dataset("names", data=names, dtype=h5py.string_dtype(), track_times=False)
        self.abandon()
        self._disk.check()

    def _values(self, array: pa.Array, width: tuple[int, ...]) -> Array:
        if pa.types.is_list(array.type):
            values = array.flatten()
            labels = values.dictionary_encode() if pa.types.is_string(values.type) else values
            return _pad(self._values(labels, width[1:]), _lengths(array), width[0])
        if pa.types.is_dictionary(array.type):
            return self._encode(array)
        if pa.types.is_string(array.type):
            texts = pc.replace_substring(array, "\0", "\ufffd").to_pylist()
            return np.array(["" if text is None else text for text in texts], dtype=object)
        return arrow.values(array)

    def _encode(self, array: pa.DictionaryArray) -> Array:
        codes = [self._codes.setdefault(_without_nul(name), len(self._codes)) for name in array.dictionary.to_pylist()]
        known = np.array([0, *codes], dtype=np.int32)
        codes_of_rows: Array = known[arrow.values(array.indices, null=-1) + 1]
        return codes_of_rows


def _stored_type(kind: pa.DataType) -> Any:
    """Return the dtype of the dataset: int32 codes for labels, strings for other strings, else the numbers' own."""
    if pa.types.is_list(kind):
        return np.dtype(np.int32) if pa.types.is_string(kind.value_type) else _stored_type(kind.value_type)
    if pa.types.is_dictionary(kind):
        return np.dtype(np.int32)
    return h5py.string_dtype() if pa.types.is_string(kind) else arrow.dtype_of(kind)


def _labels_of(name: str, kind: pa.DataType) -> list[str]:
    """Return the path by which Parquet calls the labels of a column; none where it has no labels.

    >>> _labels_of("path", pa.list_(pa.dictionary(pa.int32(), pa.string()))), _labels_of("title", pa.string())
    (['path.list.element'], [])
    """
    if pa.types.is_list(kind):
        # Given labels, the only strings in lists, repeat too.
        inner = pa.dictionary(pa.int32(), pa.string()) if pa.types.is_string(kind.value_type) else kind.value_type
        return _labels_of(f"{name}.list.element", inner)
    return [name] if pa.types.is_dictionary(kind) else []


def _chunk_rows(dtype: Any, width: tuple[int, ...]) -> int:
    """Return how many rows a chunk has.

    >>> _chunk_rows(np.dtype(np.float32), (3,)), _chunk_rows(np.dtype(np.float32), (4096,))
    (16384, 512)
    """
    return int(max(1, min(BLOCK, CHUNK_BYTES // (math.prod(width) * dtype.itemsize))))


def _without_nul(text: str | None) -> str:
    """Return the text as HDF5 can hold it.

    >>> _without_nul(None), _without_nul("plain")
    ('', 'plain')
    """
    return "" if text is None else text.replace("\0", "\ufffd")


def _lengths(array: pa.ListArray) -> Array:
    """Return the length of each list, 0 for null, (n,)."""
    return arrow.values(array.value_lengths(), null=0)


def _pad(values: Array, lengths: Array, width: int) -> Array:
    """Return lists that lie end to end as rows of `width` columns, filled up with zeros.

    >>> _pad(np.array([7, 8, 9]), np.array([2, 0, 1]), 2)
    array([[7, 8],
           [0, 0],
           [9, 0]])
    """
    padded: Array = np.zeros((len(lengths), width, *values.shape[1:]), dtype=values.dtype)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    columns = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    padded[rows, columns] = values
    return padded
