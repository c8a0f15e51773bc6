"""Stage 1: raw tags, items and labels become a clean catalog; every row ends in it or among the rejects, once.

Reading and joining are DuckDB's and Arrow's work (staging.py); the items go by in windows (windows.py), in the order
of the input. Memory holds a window and the distinct tags.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import Settings
from pipeline.config_catalog import CleanSettings
from pipeline.tag_lists import TagLists
from pipeline.tagging import Applications, GroupedTags, TagRules, group_tags

if TYPE_CHECKING:  # DuckDB stays out of scoring, which imports this module for clean_tags
    from pipeline.inputs import Role
    from pipeline.windows import Windows

_ONCE = {"min_tag_count": 1, "min_tag_users": 1}


def clean_tags(tags: Any, clean: CleanSettings, lists: TagLists | None = None) -> GroupedTags:
    """Return the clean tags of lists of raw tags: normalised, sorted, distinct, counted; tags over the length go.

    How often a tag was given, and by whom, is not asked for here. Cleaning again changes nothing. An item
    without tags, or with null, gets an empty list.

    >>> import pyarrow as pa
    >>> clean_tags(pa.array([["Sci-Fi", "ALIENS", "sci fi "], None]), CleanSettings()).tags.to_pylist()
    [['aliens', 'sci fi'], []]
    """
    rules = TagRules(clean.model_copy(update=_ONCE), TagLists() if lists is None else lists)
    return group_tags(Applications.of_lists(tags), len(tags), rules)


def clean(
    settings: Settings,
    folder: Path,
    *,
    expected: Mapping[str, str],
    role: Role,
    lists: TagLists | None = None,
    through: Callable[[Windows], Iterable[Any]] = iter,
) -> None:
    """Write the tables items, tags, rejects (Parquet) and statistics, tag_lists (JSON) to the folder.

    For training also taxonomy.json. Where `lists` of a trained model are given, its rules are followed in place of
    those that the settings name, and the files of either role are only to be scored.

    `through` gives the tables of items.parquet of the windows, and counts and rejects as these themselves would.

    `expected` has the SHA-256 of every input file. Raises CatalogError where a file is not the one that was
    expected, cannot be read, lacks a column, or has more rejects than [clean] max_reject_share; and for training
    where there are no labels, only one class, no labelled item in the training part, or no tags at all.
    """
    import pyarrow.parquet as pq

    from pipeline.counting import Counts
    from pipeline.frequencies import unseen_share, write_frequencies
    from pipeline.ladder import find_ladder
    from pipeline.schema import check_filled
    from pipeline.staging import stage
    from pipeline.tables import open_database
    from pipeline.windows import Windows

    max_share, counts = settings.clean.max_reject_share, Counts(settings.catalog.levels)
    learns = role == "training" and lists is None
    lists = TagLists.read(settings.clean, expected=expected) if lists is None else lists
    rules = TagRules(settings.clean, lists)
    with open_database(folder, expected) as database:
        staged = stage(database, settings, role=role)
        database.rejects.check_share(staged.n_rows, max_share=max_share)
        check_filled(staged)
        n_tags_gone = sum(database.rejects.reasons("tag").values())
        taxonomy = find_ladder(staged, settings) if learns else None
        if taxonomy is not None and settings.clean.drop_label_tags:
            lists = lists.with_labels(taxonomy.names, settings.clean)
        windows = Windows(staged, settings, rules, counts, labels=lists.labels)
        with pq.ParquetWriter(folder / "items.parquet", windows.schema, compression="zstd") as file:
            for table in through(windows):
                file.write_table(table, row_group_size=len(table))
        n_rows = staged.n_rows | {"tag": n_tags_gone + counts.n_raw_tags}
        database.rejects.check_share(n_rows, max_share=max_share)
        if taxonomy is not None:
            catalog = settings.catalog
            others = (*catalog.text, *catalog.categories, *catalog.numbers, *catalog.vectors)
            counts.check_training(has_text=bool(others))
            (folder / "taxonomy.json").write_text(taxonomy.to_json() + "\n", encoding="utf-8")
        database.rejects.write(folder / "rejects.parquet")
        write_frequencies(database.connection, folder / "items.parquet", folder / "tags.parquet")
        facts = counts.as_json(
            n_rows=staged.n_rows, rejects=database.rejects, rules=rules, unknown_labels=staged.unknown_labels
        )
        facts["share_unseen"] = unseen_share(folder / "tags.parquet") if learns else None
        _write_json(folder / "statistics.json", facts)
        _write_json(folder / "tag_lists.json", lists.to_json())


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
