"""Stage 2: blocks of sparse features. Each maps a bag of terms to columns and weighs its rows to length 1.

    tags, tag_words                 a column per tag, per word of tags
    text_words, text_bigrams        a column per word, per pair of neighbours; a block for each text column
    categories                      a column per value; a block for each column of categories
    tag_chars, text_chars           n-grams of characters, hashed into a fixed number of columns (hashing.py)

Values: 1 (binary), the count (counts), or (1 + ln count) * idf (tfidf), where idf = ln((1 + n) / (1 + df)) + 1
over the n training items, as in scikit-learn. Each row of a block is then divided by its Euclidean length and
multiplied by the block's weight, so that values lie in [0, 1]; a row without terms stays zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.bags import BatchBags
from pipeline.config_features import FeatureSettings
from pipeline.errors import FeatureError
from pipeline.hashing import hashed_counts, ngrams, spaced
from pipeline.hdf5 import read_array, read_facts, read_group, write_array, write_facts
from pipeline.sources import Source
from pipeline.sparse import csc
from pipeline.vocabulary import TermCounter, Vocabulary

Weighting = Literal["binary", "counts", "tfidf"]


class BlockFitter:
    """Counts, batch by batch, on how many items each column of a block stands."""

    def __init__(self, source: Source, settings: FeatureSettings) -> None:
        self.source = source
        self._settings = settings
        self._counter = TermCounter()
        self._frequency = np.zeros(settings.hash_width if source.hashed else 0, np.int64)

    def add(self, bags: BatchBags) -> None:
        """Count a batch."""
        if self.source.kind == "tags":
            return  # The block shares the vocabulary of the tag index.
        bag = self.source.bag(bags)
        if self.source.hashed:
            counts = bag.counts @ _hashed(bag.terms, self._settings)
            self._frequency += np.bincount(counts.indices, minlength=len(self._frequency))
        else:
            self._counter.add(bag.terms, bag.document_frequency())

    def merge(self, other: BlockFitter) -> None:
        """Count what another fitter of the same block has counted."""
        self._counter.merge(other._counter)
        self._frequency += other._frequency

    def block(self, tags: Vocabulary, *, n_items: int) -> Block:
        """Return the fitted block."""
        if self.source.hashed:
            return Block(self.source, None, self._frequency, n_items)
        if self.source.kind == "tags":
            return Block(self.source, tags, tags.document_frequency, n_items)
        limits = {"min_count": self._settings.min_document_count, "max_size": self._settings.max_words}
        terms = self._counter.vocabulary(**limits)
        return Block(self.source, terms, terms.document_frequency, n_items)


@dataclass(frozen=True, eq=False)
class Block:
    """A fitted block."""

    source: Source
    vocabulary: Vocabulary | None  # None for a hashed block
    document_frequency: NDArray[np.int64]  # (n_columns,)
    n_items: int  # training items that it was fitted on

    @property
    def n_columns(self) -> int:
        """Return the number of features."""
        return len(self.document_frequency)

    @cached_property
    def idf(self) -> NDArray[np.float32]:
        """Return the inverse document frequencies, (n_columns,)."""
        idf: NDArray[np.float64] = np.log((1 + self.n_items) / (1 + self.document_frequency)) + 1
        return idf.astype(np.float32)

    def transform(self, bags: BatchBags, settings: FeatureSettings) -> Any:
        """Return the block's features of a batch, CSC float32 (n_items, n_columns)."""
        if self.source.kind == "tags" and self.vocabulary is not None:
            counts = bags.known_tags(self.vocabulary)
        else:
            bag = self.source.bag(bags)
            if self.vocabulary is None:
                counts = (bag.counts @ _hashed(bag.terms, settings)).tocsc()
            else:
                counts = bag.by_id(self.vocabulary.ids(bag.terms), n_columns=self.n_columns)
        return weigh(counts, weighting=settings.weighting, idf=self.idf, weight=self.source.weight)

    def name(self, column: int, settings: FeatureSettings, tags: Vocabulary) -> str:
        """Return a column's name; a bucket of tag_chars is called by its n-gram on the most frequent tag."""
        if self.vocabulary is not None:
            return self.source.name(self.vocabulary.terms[column].as_py())
        gram = _example(column, tags.terms, settings) if self.source.kind == "tag_chars" else None
        return self.source.name(f"#{column}" if gram is None else gram)

    def save(self, group: Any) -> None:
        """Write the block into an HDF5 group."""
        write_facts(group, {"kind": self.source.kind, "column": self.source.column, "weight": self.source.weight})
        if self.vocabulary is None:
            write_array(group, "document_frequency", self.document_frequency)
        elif self.source.kind != "tags":
            self.vocabulary.save(group.create_group("vocabulary"))

    @classmethod
    def load(cls, group: Any, *, source: Source, settings: FeatureSettings, tags: Vocabulary, n_items: int) -> Block:
        """Read a block that `source` describes. Raises FeatureError where the group holds another."""
        facts = {"kind": source.kind, "column": source.column, "weight": source.weight}
        if read_facts(group) != facts:
            raise FeatureError(f"{group.file.filename}: {group.name} holds {read_facts(group)}, not {facts}")
        if source.hashed:
            frequency = read_array(group, "document_frequency", np.int64, (settings.hash_width,))
            return cls(source, None, frequency, n_items)
        vocabulary = tags if source.kind == "tags" else Vocabulary.load(read_group(group, "vocabulary"))
        return cls(source, vocabulary, vocabulary.document_frequency, n_items)


def weigh(counts: Any, *, weighting: Weighting, idf: NDArray[np.float32], weight: float) -> Any:
    """Return weighted rows of Euclidean length `weight`, CSC float32, from counts (CSC, no duplicates).

    >>> from scipy.sparse import csc_matrix
    >>> counts = csc_matrix(np.array([[4, 3], [0, 0]], np.float32))
    >>> weigh(counts, weighting="counts", idf=np.ones(2, np.float32), weight=0.5).toarray().tolist()
    [[0.4000000059604645, 0.30000001192092896], [0.0, 0.0]]
    """
    values = np.ones_like(counts.data) if weighting == "binary" else counts.data.astype(np.float32)
    if weighting == "tfidf":
        several = values > 1
        values[several] = 1 + np.log(values[several])
        values *= idf[columns_of(counts)]
    # Columns ascend within a row, whatever batch the row came in: the same bits for one item or a million.
    squares = np.bincount(counts.indices, weights=np.square(values, dtype=np.float64), minlength=counts.shape[0])
    lengths = np.sqrt(squares).astype(np.float32)
    values /= lengths[counts.indices]
    if weight != 1:
        values *= np.float32(weight)
    return csc(values, counts.indices, counts.indptr, n_rows=counts.shape[0])


def columns_of(matrix: Any) -> NDArray[np.int64]:
    """Return the column of each value of a CSC matrix, (nnz,); where they are few without going through all

    >>> from scipy.sparse import csc_matrix
    >>> columns_of(csc_matrix([[1, 0, 1], [1, 0, 0]])).tolist()
    [0, 0, 2]
    """
    if 16 * matrix.nnz < matrix.shape[1]:
        return np.searchsorted(matrix.indptr, np.arange(matrix.nnz), side="right") - 1
    return np.repeat(np.arange(matrix.shape[1]), np.diff(matrix.indptr))


def beside(matrices: list[Any], *, n_items: int) -> Any:
    """Return CSC matrices beside each other as one, float32 with int32 indices; none at all give no columns."""
    if len(matrices) == 1:
        return matrices[0]
    n_values = sum(matrix.nnz for matrix in matrices)
    index_type = np.int32 if n_values < 2**31 else np.int64
    indptr, before = [np.zeros(1, index_type)], 0
    for matrix in matrices:
        indptr.append((matrix.indptr[1:] + before).astype(index_type))
        before += matrix.nnz
    values = np.concatenate([np.zeros(0, np.float32), *(matrix.data for matrix in matrices)])
    indices = np.concatenate([np.zeros(0, index_type), *(matrix.indices for matrix in matrices)])
    return csc(values, indices, np.concatenate(indptr), n_rows=n_items)


def _hashed(terms: pa.Array, settings: FeatureSettings) -> Any:
    """Return the hashed n-grams of each term, CSR (n_terms, hash_width)."""
    limits = {"shortest": settings.chars_min, "longest": settings.chars_max}
    return hashed_counts(terms, width=settings.hash_width, **limits)


def _example(bucket: int, terms: pa.Array, settings: FeatureSettings) -> str | None:
    """Return the n-gram of the first term that falls into a bucket; None where no term has one."""
    best: tuple[int, int, int] | None = None
    for grams in ngrams(terms, shortest=settings.chars_min, longest=settings.chars_max):
        hits = np.flatnonzero(grams.hashes % np.uint64(settings.hash_width) == bucket)
        if len(hits):
            candidate = (int(grams.owner[hits[0]]), grams.n, int(grams.start[hits[0]]))
            best = candidate if best is None else min(best, candidate)
    if best is None:
        return None
    owner, n, start = best
    begin = sum(len(text) + 2 for text in terms[:owner].to_pylist())
    text: str = spaced(terms.slice(owner, 1))[0].as_py()
    return text[start - begin : start - begin + n]
