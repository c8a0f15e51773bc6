"""Stage 2: tags (or words) and their ids. Ids start at 1, the most frequent first; 0 is padding or unseen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import arrow
from pipeline.errors import FeatureError
from pipeline.hdf5 import read_array, read_strings, write_array, write_strings

# Below this many terms a Python dict beats building Arrow's hash table of the whole vocabulary.
_FEW_TERMS = 512
_MERGE_AT = 2_000_000


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Distinct terms by descending document frequency, ties by text; the term at position i has id i + 1."""

    terms: pa.Array  # string (n,)
    document_frequency: NDArray[np.int64]  # (n,): on how many training items a term stands

    def __post_init__(self) -> None:
        if len(self.terms) != len(self.document_frequency):
            raise FeatureError(f"{len(self.terms)} terms with {len(self.document_frequency)} document frequencies")

    def __len__(self) -> int:
        return len(self.terms)

    def ids(self, terms: pa.Array) -> NDArray[np.int32]:
        """Return the id of each term, int32 (n,); 0 for a term that is not in the vocabulary.

        >>> vocabulary = Vocabulary(pa.array(["zombies", "space"]), np.array([9, 4]))
        >>> vocabulary.ids(pa.array(["space", "unheard of", "zombies"])).tolist()
        [2, 0, 1]
        """
        if len(terms) <= _FEW_TERMS:
            return np.array([self._id_of.get(term, 0) for term in terms.to_pylist()], np.int32)
        found = pc.index_in(terms.cast(pa.string()), value_set=self.terms)
        return arrow.values(found, null=-1).astype(np.int32) + np.int32(1)

    @cached_property
    def _id_of(self) -> dict[str, int]:
        return {term: position + 1 for position, term in enumerate(self.terms.to_pylist())}

    def table(self) -> pa.Table:
        """Return columns tag, id and document_frequency, as vocabulary.parquet holds them."""
        ids = np.arange(1, len(self) + 1, dtype=np.int32)
        return pa.table({"tag": self.terms, "id": ids, "document_frequency": self.document_frequency})

    def save(self, group: Any) -> None:
        """Write the vocabulary into an HDF5 group."""
        write_strings(group, "terms", self.terms)
        write_array(group, "document_frequency", self.document_frequency)

    @classmethod
    def load(cls, group: Any) -> Vocabulary:
        """Read a vocabulary from an HDF5 group. Raises FeatureError where it is damaged."""
        terms = read_strings(group, "terms")
        return cls(terms, read_array(group, "document_frequency", np.int64, (len(terms),)))


class TermCounter:
    """Adds up the document frequencies of terms, batch by batch, in memory that grows with distinct terms only."""

    def __init__(self) -> None:
        self._merged = _counted(pa.array([], pa.string()), np.zeros(0, np.int64))
        self._pending: list[pa.Table] = []
        self._n_pending = 0

    def add(self, terms: pa.Array, frequencies: NDArray[np.int64]) -> None:
        """Count a batch's distinct terms, each on as many items as `frequencies` says."""
        self._pending.append(_counted(terms.cast(pa.string()), frequencies))
        self._n_pending += len(terms)
        if self._n_pending > _MERGE_AT:
            self._merge()

    def merge(self, other: TermCounter) -> None:
        """Count what another counter has counted.

        >>> one, other = TermCounter(), TermCounter()
        >>> other.add(pa.array(["b", "a"]), np.array([2, 1]))
        >>> one.merge(other)
        >>> one.vocabulary(min_count=1, max_size=10).document_frequency.tolist()
        [2, 1]
        """
        for counted in (other._merged, *other._pending):
            self.add(pa.concat_arrays([pa.array([], pa.string()), *counted["term"].chunks]), counted["frequency"])

    def vocabulary(self, *, min_count: int, max_size: int) -> Vocabulary:
        """Return the terms on at least `min_count` items, at most `max_size` of them, the most frequent first.

        >>> counter = TermCounter()
        >>> counter.add(pa.array(["b", "a"]), np.array([2, 1]))
        >>> counter.add(pa.array(["a", "c"]), np.array([1, 1]))
        >>> counter.vocabulary(min_count=2, max_size=10).terms.to_pylist()
        ['a', 'b']
        """
        self._merge()
        frequent = self._merged.filter(pc.greater_equal(self._merged["frequency"], min_count))
        ranking = pc.sort_indices(frequent, sort_keys=[("frequency", "descending"), ("term", "ascending")])
        kept = frequent.take(ranking[:max_size]).combine_chunks()
        return Vocabulary(_whole(kept["term"]), np.array(kept["frequency"], np.int64))

    def _merge(self) -> None:
        everything = pa.concat_tables([self._merged, *self._pending])
        sums = everything.group_by("term").aggregate([("frequency", "sum")])
        self._merged = _counted(sums["term"], sums["frequency_sum"])
        self._pending, self._n_pending = [], 0


def _counted(terms: Any, frequencies: Any) -> pa.Table:
    return pa.table({"term": terms, "frequency": frequencies}, schema=_COUNTED)


_COUNTED = pa.schema([("term", pa.string()), ("frequency", pa.int64())])


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
