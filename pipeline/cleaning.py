"""Stage 1: raw tags, items and labels become a clean catalog; every row ends in it or among the rejects, once.

Reading and joining are DuckDB's and Arrow's work (staging.py); the items go by in windows (windows.py), in the order
of the input. Memory holds a window and the distinct tags.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import CleanSettings, Settings
from pipeline.tagging import Applications, GroupedTags, TagRules, group_tags

if TYPE_CHECKING:  # DuckDB stays out of scoring, which imports this module for clean_tags
    from pipeline.inputs import Role


def clean_tags(tags: Any, clean: CleanSettings) -> GroupedTags:
    """Return the clean tags of lists of raw tags: normalised, sorted, distinct, counted; tags over the length go.

    Cleaning again changes nothing. An item without tags, or with null, gets an empty list.

    >>> import pyarrow as pa
    >>> clean_tags(pa.array([["Sci-Fi", "ALIENS", "sci fi "], None]), CleanSettings()).tags.to_pylist()
    [['aliens', 'sci fi'], []]
    """
    return group_tags(Applications.of_lists(tags), len(tags), TagRules(clean))


def clean(settings: Settings, folder: Path, *, expected: Mapping[str, str], role: Role) -> None:
    """Write items.parquet, rejects.parquet, statistics.json and, for training, taxonomy.json to the folder.

    `expected` has the SHA-256 of every input file. Raises CatalogError where a file is not the one that was
    expected, cannot be read, lacks a column, or has more rejects than [clean] max_reject_share; and for training
    where there are no labels, only one class, no labelled item in the training part, or no tags at all.
    """
    import pyarrow.parquet as pq

    from pipeline.counting import Counts
    from pipeline.ladder import find_ladder
    from pipeline.staging import stage
    from pipeline.tables import open_database
    from pipeline.windows import Windows

    max_share, counts, rules = (
        settings.clean.max_reject_share,
        Counts(settings.catalog.levels),
        TagRules(settings.clean),
    )
    with open_database(folder, expected) as database:
        staged = stage(database, settings, role=role)
        database.rejects.check_share(staged.n_rows, max_share=max_share)
        n_tags_gone = sum(database.rejects.reasons("tag").values())
        taxonomy = find_ladder(staged, settings) if role == "training" else None
        windows = Windows(staged, settings, rules, counts)
        with pq.ParquetWriter(folder / "items.parquet", windows.schema, compression="zstd") as file:
            for table in windows:
                file.write_table(table, row_group_size=len(table))
        n_rows = staged.n_rows | {"tag": n_tags_gone + counts.n_raw_tags}
        database.rejects.check_share(n_rows, max_share=max_share)
        if taxonomy is not None:
            catalog = settings.catalog
            others = (*catalog.text, *catalog.categories, *catalog.numbers, *catalog.vectors)
            counts.check_training(has_text=bool(others))
            (folder / "taxonomy.json").write_text(taxonomy.to_json() + "\n", encoding="utf-8")
        database.rejects.write(folder / "rejects.parquet")
        facts = counts.as_json(
            n_rows=staged.n_rows, rejects=database.rejects, rules=rules, stop_label=settings.clean.stop_label
        )
        text = json.dumps(facts, ensure_ascii=False, indent=1) + "\n"
        (folder / "statistics.json").write_text(text, encoding="utf-8")
