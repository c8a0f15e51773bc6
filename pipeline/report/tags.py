"""Tags in a report: the most frequent, the most telling by the model, and those that training never saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.artifacts import verified
from pipeline.model import Model
from pipeline.report.tables import Cell, Table

N_ASKED = 5000  # the most frequent tags of training, which the model is asked about
N_TELLING = 10  # tags named of each label


@dataclass(frozen=True)
class Telling:
    """A tag that speaks for a label of the top level."""

    tag: str
    probability: float  # of the label, for an item with this tag alone
    n_items: int  # training items that carry it


@dataclass(frozen=True)
class Tags:
    """The tags of the scored catalog."""

    n_distinct: int
    n_applications: int  # of a tag to an item
    unseen_share: float  # of them, to tags that training never saw
    n_unseen: int  # distinct ones
    frequent: tuple[tuple[str, int], ...]  # with how many items carry each
    unseen: tuple[tuple[str, int], ...]


def count(model: Model, clean: Path, *, most: int) -> Tags:
    """Return how often which tags stand in a clean catalog, and which of them the model knows."""
    table = pq.read_table(verified(clean, "tags.parquet"), columns=["tag", "n_items"])
    table = table.sort_by([("n_items", "descending"), ("tag", "ascending")])
    new = pc.invert(pc.is_in(table["tag"], value_set=model.transform.vocabulary.terms))
    unseen = table.filter(new)
    n_all, n_new = (int(pc.sum(each["n_items"]).as_py() or 0) for each in (table, unseen))
    return Tags(
        n_distinct=table.num_rows,
        n_applications=n_all,
        unseen_share=n_new / max(1, n_all),
        n_unseen=unseen.num_rows,
        frequent=_rows(table, most),
        unseen=_rows(unseen, most),
    )


def telling(model: Model) -> dict[str, tuple[Telling, ...]]:
    """Return for each label of the top level the tags that speak for it most, with the probability by one alone.

    Asked are the tags that most training items carry. A tag stands below the label whose probability it raises most
    over that of an item without tags, weighted by how sure it makes the model.
    """
    vocabulary = model.transform.vocabulary
    # They stand by how many training items carry them.
    tags, counts = vocabulary.terms[:N_ASKED].to_pylist(), vocabulary.document_frequency[:N_ASKED]
    if not tags:
        return {}
    alone = model.predict_proba([[], *([tag] for tag in tags)])[0].astype(np.float64)
    prior, found = alone[0], alone[1:]
    gain = found * np.log(np.maximum(found, 1e-12) / np.maximum(prior, 1e-12))
    best = gain.argmax(axis=1)
    told = {}
    for index, path in enumerate(model.taxonomy.classes[0]):
        own = np.flatnonzero((best == index) & (gain[:, index] > 0))
        own = own[np.argsort(-gain[own, index], kind="stable")][:N_TELLING]
        told[path[0]] = tuple(Telling(tags[row], float(found[row, index]), int(counts[row])) for row in own)
    return told


def _rows(table: pa.Table, most: int) -> tuple[tuple[str, int], ...]:
    return tuple((row["tag"], row["n_items"]) for row in table.slice(0, most).to_pylist())


def tables(model: Model, clean: Path, *, most: int) -> list[Table]:
    """Return the most frequent tags of a clean catalog, and those of them that training never saw."""
    found = count(model, clean, most=most)
    frequent = f"Most frequent of {found.n_distinct:,} tags"
    unseen = f"Unseen in training: {found.n_unseen:,} tags, {found.unseen_share:.1%} of all that items carry"
    columns = ["tag", "items|count"]
    return [Table.of(frequent, columns, found.frequent), Table.of(unseen, columns, found.unseen)]


def telling_table(model: Model) -> Table | None:
    """Return the tags that speak for each label of the top level; None for a model without tags."""
    found = telling(model)
    rows: list[tuple[Cell, ...]] = [
        (label, each.tag, each.probability, each.n_items) for label, tags in found.items() for each in tags
    ]
    columns = ["label", "tag", "sure by it alone|share", "training items|count"]
    return Table.of("Most telling tags of each top label, by the model", columns, rows) if rows else None
