"""What a report tells of the scores: counted by DuckDB over the Parquet parts, so that no catalog is too large."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from pipeline.artifacts import verified
from pipeline.changes import scores_of

N_BINS = 20  # of the distribution of confidence
N_TAGS = 12  # tags of an item that are shown
Path_ = tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """An item to look at."""

    item_id: str
    title: str
    tags: str
    given: str  # its path as it was labelled, empty for none
    predicted: str
    probability: float  # of the predicted path, or of its label at the level where the given one says otherwise
    part: str  # train, validation, test; empty where it has no label, or nobody knows


@dataclass(frozen=True)
class Scored:
    """The scores of a run, counted."""

    n_items: int
    n_without_tags: int
    n_no_known_tags: int
    n_labelled: int
    predicted: dict[Path_, int]  # items by their best path
    given: dict[Path_, int]  # labelled items by the path that they came with
    confidence: tuple[list[int], list[int]]  # items without and with labels, (n_bins,) each
    unsure: tuple[Item, ...]
    suspects: tuple[Item, ...]  # labelled items of which the model is sure that they are labelled wrongly


@contextmanager
def database() -> Iterator[Any]:
    """Give a connection that goes to disk where memory does not do."""
    import duckdb

    from pipeline.tables import MEMORY

    with TemporaryDirectory() as scratch:
        settings: dict[str, Any] = {"memory_limit": MEMORY, "temp_directory": scratch}
        with duckdb.connect(config=settings | {"autoload_known_extensions": False}) as connection:
            yield connection


def count(score: Path, clean: Path | None, levels: Sequence[str], *, n_unsure: int, n_suspects: int) -> Scored:
    """Return what there is to tell of the scores in a folder; tags and parts of items stand in the clean ones."""
    parts = {"scores": scores_of(score)}
    with database() as connection:
        n_items, n_without_tags, n_no_known, n_labelled = connection.execute(_TOTALS, parts).fetchone()
        bins: tuple[list[int], list[int]] = ([0] * N_BINS, [0] * N_BINS)
        for place, labelled, n in connection.execute(_CONFIDENCE.format(n=N_BINS), parts).fetchall():
            bins[labelled][place] = n
        return Scored(
            n_items=n_items,
            n_without_tags=n_without_tags,
            n_no_known_tags=n_no_known,
            n_labelled=n_labelled,
            predicted=_counts(connection.execute(_PREDICTED, parts)),
            given=_counts(connection.execute(_GIVEN, parts)),
            confidence=bins,
            unsure=_items(connection, _UNSURE, parts | {"most": n_unsure}, clean),
            suspects=_items(connection, suspicion(levels), parts | {"most": n_suspects}, clean),
        )


def tops(score: Path) -> dict[str, int]:
    """Return how many items of a run have which label of the top level."""
    with database() as connection:
        found = _counts(connection.execute(_PREDICTED, {"scores": scores_of(score)}))
    counts: dict[str, int] = {}
    for path, n in found.items():
        counts[path[0]] = counts.get(path[0], 0) + n
    return counts


def suspicion(levels: Sequence[str]) -> str:
    """Return the query of the labelled items whose best path leaves the given one, the surest first."""
    probabilities = ", ".join('"' + f"{level}_probability".replace('"', '""') + '"' for level in levels)
    return _SUSPECTS.format(probabilities=probabilities)


def _counts(found: Any) -> dict[Path_, int]:
    return {tuple(path): n for path, n in found.fetchall() if path}


def _items(connection: Any, query: str, parameters: dict[str, Any], clean: Path | None) -> tuple[Item, ...]:
    rows = connection.sql(query, params=parameters).to_arrow_table()
    known = _known(connection, rows, clean)
    return tuple(
        Item(
            item_id=str(row["item_id"]),
            title=row["title"] or str(row["item_id"]),
            tags=shown_tags(known.get(row["item_id"], {}).get("tags")),
            given=shown(row["given"]),
            predicted=shown(row["path"]),
            probability=row["probability"],
            part="" if row["given"] is None else known.get(row["item_id"], {}).get("split") or "",
        )
        for row in rows.to_pylist()
    )


def _known(connection: Any, rows: pa.Table, clean: Path | None) -> dict[Any, dict[str, Any]]:
    """Return tags and part of these items by their ids."""
    if clean is None or not rows.num_rows:
        return {}
    connection.register("wanted", rows.select(["item_id"]))
    file = {"items": str(verified(clean, "items.parquet"))}
    found = connection.sql(_TAGS, params=file).to_arrow_table().to_pylist()
    connection.unregister("wanted")
    return {row["item_id"]: row for row in found}


def shown(path: Sequence[str] | None) -> str:
    """Return a path as people write it.

    >>> shown(["Horror", "Zombies"]), shown(None), shown([])
    ('Horror > Zombies', '', '(no label)')
    """
    return "" if path is None else " > ".join(path) or "(no label)"


def shown_tags(tags: Sequence[str] | None) -> str:
    """Return the first tags of an item, and how many more there are.

    >>> shown_tags(["a", "b"]), shown_tags([str(n) for n in range(14)])[-7:], shown_tags(None)
    ('a, b', '11, + 2', '')
    """
    named = list(tags or ())
    return ", ".join([*named[:N_TAGS], *([f"+ {len(named) - N_TAGS}"] if len(named) > N_TAGS else [])])


_TOTALS = """
    SELECT count(*), count(*) FILTER (n_tags = 0), count(*) FILTER (no_known_tags), count(given_path)
    FROM read_parquet($scores)
"""
_PREDICTED = "SELECT best_paths[1], count(*) FROM read_parquet($scores) GROUP BY 1 ORDER BY 2 DESC, 1"
_GIVEN = (
    "SELECT given_path, count(*) FROM read_parquet($scores) WHERE given_path IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
)
_CONFIDENCE = """
    SELECT least({n} - 1, floor(path_probability * {n})::INT), (given_path IS NOT NULL)::INT, count(*)
    FROM read_parquet($scores) GROUP BY ALL
"""
# An item of which the model knows nothing is unsure for a reason that needs no list.
_UNSURE = """
    SELECT item_id, title, best_paths[1] AS path, given_path AS given, path_probability AS probability
    FROM read_parquet($scores) WHERE NOT no_known_tags
    ORDER BY path_probability, item_id LIMIT $most
"""
_SUSPECTS = """
    SELECT item_id, title, path, given, probabilities[level] AS probability
    FROM (
        SELECT item_id, title, best_paths[1] AS path, given_path AS given, [{probabilities}] AS probabilities,
            list_position(
                list_transform(
                    range(1, len(given_path) + 1), lambda k: best_paths[1][k] IS DISTINCT FROM given_path[k]
                ), true
            ) AS level
        FROM read_parquet($scores)
        WHERE given_path IS NOT NULL AND best_paths[1][1:len(given_path)] != given_path
    )
    WHERE probabilities[level] > 0.5
    ORDER BY probability DESC, item_id LIMIT $most
"""
_TAGS = """
    SELECT i.item_id, i.tags, i.split FROM read_parquet($items) i JOIN wanted w ON i.item_id = w.item_id
"""
