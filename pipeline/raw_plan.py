"""Stage 5: does a catalog need stage 1's database, or can each row be cleaned by itself?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import arrow
from pipeline.config import Settings
from pipeline.layout import Layout
from pipeline.parquet_rows import Source
from pipeline.raw_items import Plan
from pipeline.readers import kind_of, without_nul
from pipeline.schema import check_columns
from pipeline.streams import open_file, verify_digest
from pipeline.tables import Files, open_database

BATCH = 262_144  # ids read at a time


def plan(settings: Settings, folder: Path, expected: Mapping[str, str]) -> Plan | None:
    """Return the plan of a catalog whose rows can be cleaned one by one; None for any other.

    It lies in Parquet files with tags and labels in them, no id is there twice, and no column must be looked through as
    a whole. The files are verified, the ids read; a folder holds what does not fit in memory meanwhile. Raises
    CatalogError as stage 1 does.
    """
    layout = Layout(settings.catalog, Files.of(settings, role="scoring"), "scoring")
    files = layout.files
    catalog = settings.catalog
    if files.tags or files.labels or files.taxonomy or catalog.text or catalog.word_columns:
        return None
    if not layout.label_columns or any(kind_of(path) != ".parquet" for path in files.items):
        return None
    check_columns(layout)
    sources, n_rows, kinds = [], [], set()
    for path in files.items:
        with open_file(path) as file:
            verify_digest(path, hashlib.file_digest(file, "sha256").hexdigest(), expected.get(path))
            sources.append(Source.of(path, layout.items_wanted))
            parquet = sources[-1].open(file)
            n_rows.append(parquet.metadata.num_rows)
            if catalog.item_id:
                kinds.add(_kind(parquet.schema_arrow.field(catalog.item_id).type))
    if not sum(n_rows) or len(kinds) > 1 or "" in kinds:
        return None
    found = Plan(tuple(sources), tuple(n_rows), numbers=kinds != {"text"})
    return None if catalog.item_id and _has_twice(found, catalog.item_id, folder) else found


def verify_again(plan: Plan, expected: Mapping[str, str]) -> None:
    """Raise CatalogError where a file has changed since."""
    for source in plan.sources:
        with open_file(source.path) as file:
            verify_digest(source.path, hashlib.file_digest(file, "sha256").hexdigest(), expected.get(source.path))


def _kind(kind: Any) -> str:
    """Return what ids of a type are; nothing where only stage 1 knows.

    >>> _kind(pa.int32()), _kind(pa.string()), _kind(pa.float64()), _kind(pa.uint64())
    ('number', 'text', '', '')
    """
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return "number"
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return "text" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else ""


def _has_twice(found: Plan, column: str, folder: Path) -> bool:
    """Return whether an id is there twice, or cannot be told."""
    if found.numbers and _ascend(found, column):
        return False
    with open_database(folder, {}) as database:
        database.create("ids (id VARCHAR)")
        for batch in _ids(found, column):
            try:
                ids = pc.utf8_trim_whitespace(without_nul(pc.cast(batch, pa.string())))
            except pa.ArrowInvalid:  # not UTF-8
                return True
            database.connection.register("more", pa.table({"id": ids}))
            database.connection.execute("INSERT INTO ids SELECT id FROM more WHERE id <> ''")
            database.connection.unregister("more")
        n_rows, n_ids = database.connection.execute("SELECT count(*), count(DISTINCT id) FROM ids").fetchall()[0]
    return bool(n_rows != n_ids)


def _ascend(found: Plan, column: str) -> bool:
    """Return whether whole numbers ascend, as they often do: then none is there twice."""
    last = -(2**63)
    for batch in _ids(found, column):
        if batch.null_count:
            return False
        ids = arrow.values(pc.cast(batch, pa.int64()))
        if len(ids) and (ids[0] <= last or (ids[1:] <= ids[:-1]).any()):
            return False
        last = int(ids[-1]) if len(ids) else last
    return True


def _ids(found: Plan, column: str) -> Iterator[Any]:
    """Give the ids, some at a time."""
    for source in found.sources:
        for batch in source.open(source.path).iter_batches(BATCH, columns=[column], use_threads=False):
            ids = batch.column(0)
            yield ids.dictionary_decode() if pa.types.is_dictionary(ids.type) else ids
