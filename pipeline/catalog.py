"""Stage 2 over a whole catalog: items, batch by batch, become a fitted transform and shards of features.

The items are read once. Each distinct tag gets a code when it is first met, and from there on tags are numbers:
rows of codes go to scratch files (partition.py), shard by shard, and come back when the transform is fitted. So
memory holds a batch, a shard, and the distinct tags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.bags import Bag, BatchBags, Terms, column_of, in_rows, list_terms, places_in, tag_counts, without_nulls
from pipeline.config import Settings
from pipeline.errors import CatalogError
from pipeline.features import FeatureTransform, Fitter
from pipeline.hdf5_files import created
from pipeline.partition import Dealer, Order, read_batches, read_order
from pipeline.shards import write_shard
from pipeline.sources import FeatureColumns
from pipeline.sparse import by_id, csr, merged
from pipeline.taxonomy import Taxonomy
from pipeline.vocabulary import Vocabulary

_OF_TAGS = ("tags", "tag_counts", "tag_order")
Rules = Callable[[str], Sequence[Any]]  # a raw tag becomes a clean one, which comes first, or ''


def build(settings: Settings, clean_folder: Path, folder: Path) -> None:
    """Fit the transform on the labelled training items, and write everything that stage 2 leaves behind.

    Raises CatalogError where no training item is labelled, or where items.parquet lacks a column.
    """
    taxonomy, order = read_labelled(settings, clean_folder)
    batches = read_batches(clean_folder / "items.parquet", columns_of(settings))
    write_catalog(batches, settings, folder, order=order, n_classes=taxonomy.n_classes)


def read_labelled(settings: Settings, clean_folder: Path) -> tuple[Taxonomy, Order]:
    """Return the taxonomy of clean items, and the order of those that are used.

    Raises CatalogError where no training item is labelled.
    """
    items = clean_folder / "items.parquet"
    taxonomy = Taxonomy.from_json((clean_folder / "taxonomy.json").read_text(encoding="utf-8"))
    order = read_order(items, taxonomy, max_items=settings.features.max_items)
    if not order.training.any():
        raise CatalogError(
            f"{items}: of {len(order.labels):,} items, {order.n_labelled:,} are labelled and none of them is for "
            "training; give more items a top label, or lower [clean] validation_share and test_share"
        )
    return taxonomy, order


def columns_of(settings: Settings) -> list[str]:
    """Return the columns of items.parquet that stage 2 reads."""
    of_tags = _OF_TAGS if settings.features.keep_tags == "first" else _OF_TAGS[:2]
    return ["item_id", *of_tags, *FeatureColumns.of(settings.catalog).names]


def write_catalog(
    batches: Iterable[pa.RecordBatch],
    settings: Settings,
    folder: Path,
    *,
    order: Order,
    n_classes: Sequence[int],
    rules: Rules | None = None,
) -> FeatureTransform:
    """Write vocabulary.parquet, transform.h5 and features-NNNNN.h5 into the folder, and return the transform.

    Batches have the columns of items.parquet (item_id, tags, and what the settings name); `order` says of each
    row whether it is a training item and where it goes. Tags are clean, or `rules` clean them (tagging.TagRules).
    Raises FeatureError where a column is missing or of another type, or no row is a training item.
    """
    codes, fitter, training = TagCodes(rules), Fitter(settings), order.training
    with Dealer(order, shard_items=settings.features.shard_items, scratch=folder) as dealer:
        n_rows = 0
        for batch in batches:
            coded = codes.coded(batch, ordered=settings.features.keep_tags == "first")
            dealer.add(coded)
            chosen = training[n_rows : n_rows + batch.num_rows]
            n_rows += batch.num_rows
            bags = CodedBags(coded if chosen.all() else coded.filter(pa.array(chosen)), codes, fitter.text_lengths)
            codes.count(bags.codes)
            fitter.add(bags)
        fitter.tags.add(codes.terms, codes.frequency)
        transform = fitter.transform()
        write_transform(transform, folder)
        for number, piece in enumerate(dealer.pieces()):
            features = transform.transform_bags(CodedBags(piece.items, codes, fitter.text_lengths))
            path = folder / f"features-{number:05}.h5"
            write_shard(path, piece, features, transform, n_classes=n_classes)
    return transform


def write_transform(transform: FeatureTransform, folder: Path) -> None:
    """Write vocabulary.parquet and transform.h5."""
    pq.write_table(transform.vocabulary.table(), folder / "vocabulary.parquet")
    with created(folder / "transform.h5") as file:
        transform.save(file.create_group("transform"))


class TagCodes:
    """The distinct tags of a catalog by code, in the order in which they were met, and how many items have each."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules
        self.frequency = np.zeros(0, np.int64)
        self._raw = pa.array([], pa.string())  # distinct raw tags
        self._code_of_raw = np.zeros(0, np.int32)  # -1 for one that the rules reject
        self._code_of: dict[str, int] = {}  # clean tag -> code
        self._ids: tuple[Vocabulary, NDArray[np.int32]] | None = None  # of the vocabulary that was asked for last

    def __len__(self) -> int:
        return len(self._code_of) if self.rules else len(self._raw)

    @property
    def terms(self) -> pa.Array:
        """Return the distinct clean tags, string (n,)."""
        return pa.array(list(self._code_of), pa.string()) if self.rules else self._raw

    def coded(self, batch: pa.RecordBatch, *, ordered: bool = False) -> pa.RecordBatch:
        """Return the batch with lists of distinct codes for its tags, tag_counts and (`ordered`) tag_order beside."""
        lists = column_of(batch, "tags")
        raw = list_terms(lists if self.rules is None else without_nulls(lists))
        times = np.ones(len(raw.codes), np.float32)
        if "tag_counts" in batch.schema.names:
            times = tag_counts(column_of(batch, "tag_counts"), raw.indptr)
        codes, places = self._codes(raw), places_in(batch, raw) if ordered else times
        terms = Terms(raw.indptr, codes, raw.distinct)
        if terms.codes.min(initial=0) < 0:
            kept = terms.codes >= 0
            terms, times, places = terms.keep(kept), times[kept], places[kept]
        counts = merged(csr(times, terms.codes, terms.indptr, n_columns=len(self)))
        offsets = pa.array(counts.indptr, pa.int32())
        tags = pa.ListArray.from_arrays(offsets, pa.array(counts.indices, pa.int32()))
        applied = pa.ListArray.from_arrays(offsets, pa.array(counts.data, pa.float32()))
        columns = {name: batch.column(name) for name in batch.schema.names if name not in _OF_TAGS}
        columns |= {"tags": tags, "tag_counts": applied}
        if ordered:
            firsts = merged(csr(places, terms.codes, terms.indptr, n_columns=len(self)), join=np.minimum)
            columns["tag_order"] = pa.ListArray.from_arrays(offsets, pa.array(firsts.data))
        return pa.RecordBatch.from_pydict(columns)

    def count(self, codes: NDArray[np.int32]) -> None:
        """Count the distinct codes of training items."""
        found = np.bincount(codes, minlength=len(self))
        found[: len(self.frequency)] += self.frequency
        self.frequency = found

    def ids(self, vocabulary: Vocabulary) -> NDArray[np.int32]:
        """Return the id of each code; 0 for a tag that is not in the vocabulary."""
        if self._ids is None or self._ids[0] is not vocabulary or len(self._ids[1]) < len(self):
            self._ids = (vocabulary, vocabulary.ids(self.terms))
        return self._ids[1]

    def _codes(self, raw: Terms) -> NDArray[np.int32]:
        """Return the code of each place; the rules see only what was never met before."""
        n_known = len(self._raw)
        known = pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), self._raw)
        found = pa.DictionaryArray.from_arrays(pa.array(np.arange(len(raw.distinct)), pa.int32()), raw.distinct)
        both = pa.chunked_array([known, found]).unify_dictionaries()  # what is known stays in its place
        places, self._raw = np.asarray(both.chunk(1).indices), both.chunk(1).dictionary
        if self.rules is None:
            return np.asarray(places[raw.codes], np.int32)
        new = [self._judge(tag) for tag in self._raw[n_known:].to_pylist()]
        self._code_of_raw = np.concatenate([self._code_of_raw, np.array(new, np.int32)])
        return np.asarray(self._code_of_raw[places][raw.codes], np.int32)

    def _judge(self, raw: str) -> int:
        assert self.rules is not None
        tag = self.rules(raw)[0]
        return self._code_of.setdefault(tag, len(self._code_of)) if tag else -1


class CodedBags(BatchBags):
    """The bags of a batch whose tags are codes."""

    def __init__(self, batch: pa.RecordBatch | pa.Table, known: TagCodes, text_lengths: Mapping[str, int]) -> None:
        super().__init__(batch, text_lengths=text_lengths)
        self._known = known
        lists, counts = self.column("tags"), self.column("tag_counts")
        offsets = np.asarray(lists.offsets)
        self.codes: NDArray[np.int32] = np.asarray(lists.flatten())
        self._counts = csr(np.asarray(counts.flatten()), self.codes, offsets - offsets[:1], n_columns=len(known))

    @property
    def n_tags(self) -> NDArray[np.int32]:
        """Return how many distinct tags stand on each item, (n_items,)."""
        return np.asarray(np.diff(self._counts.indptr), np.int32)

    @cached_property
    def tags(self) -> Bag:
        """Tags, those of the batch only."""
        used = np.flatnonzero(np.bincount(self.codes, minlength=len(self._known)))
        place = np.zeros(len(self._known), np.int32)
        place[used] = np.arange(1, len(used) + 1)
        terms = self._known.terms.take(pa.array(used))
        return Bag(by_id(self._counts, place, n_columns=len(used)).tocsr(), terms)

    def tag_order(self, vocabulary: Vocabulary) -> NDArray[np.float32]:
        """Return the place from which each of the known tags stands on its item, in the order of a CSR matrix."""
        places = np.asarray(self.column("tag_order").flatten())
        order = csr(places, self.codes, self._counts.indptr, n_columns=len(self._known))
        return in_rows(order, self._known.ids(vocabulary), len(vocabulary))

    def count_tags(self, vocabulary: Vocabulary) -> Any:
        """Return the counts of the tags of a vocabulary, CSC float32 (n_items, n_terms)."""
        return by_id(self._counts, self._known.ids(vocabulary), n_columns=len(vocabulary))
