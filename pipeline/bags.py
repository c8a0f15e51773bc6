"""Stage 2: the tags and texts of a batch of items as bags of distinct terms.

A bag says how often each term stands on each item. Terms are distinct within a batch, so that whatever is
slow (splitting, hashing, looking up) is done once per distinct term and the rest by array operations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unicodedata import normalize

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import arrow
from pipeline.errors import FeatureError
from pipeline.sparse import by_id, csr, merged
from pipeline.vocabulary import Vocabulary

_NO_WORD = r"[^\p{L}\p{M}\p{N}_]+"
_NO_ASCII_WORD = re.compile("[^A-Za-z0-9_]+")
_FEW_TEXTS = 256


@dataclass(frozen=True, eq=False)
class Terms:
    """Lists of terms, in their order: item i has `codes[indptr[i]:indptr[i + 1]]`, indices into `distinct`."""

    indptr: NDArray[np.int64]  # (n_items + 1,)
    codes: NDArray[np.int32]
    distinct: pa.Array  # string

    def keep(self, mask: NDArray[np.bool_]) -> Terms:
        """Return the lists without the places where the mask is false."""
        kept_before = np.concatenate([[0], np.cumsum(mask)])
        return Terms(kept_before[self.indptr], self.codes[mask], self.distinct)

    def bag(self, counts: NDArray[np.float32] | None = None) -> Bag:
        """Return how often each term stands on each item; `counts` says how much each place counts, else 1."""
        weights = np.ones(len(self.codes), np.float32) if counts is None else counts
        return Bag(merged(csr(weights, self.codes, self.indptr, n_columns=len(self.distinct))), self.distinct)


@dataclass(frozen=True, eq=False)
class Bag:
    """How often each distinct term stands on each item."""

    counts: Any  # csr_matrix float32 (n_items, n_terms), no duplicates
    terms: pa.Array  # string (n_terms,)

    def document_frequency(self) -> NDArray[np.int64]:
        """Return on how many items each term stands, (n_terms,)."""
        return np.bincount(self.counts.indices, minlength=len(self.terms))

    def by_id(self, ids: NDArray[np.int32], *, n_columns: int) -> Any:
        """Return the counts with column id - 1 for each term, CSC; id 0 drops a term."""
        return by_id(self.counts, ids, n_columns=n_columns)


class BatchBags:
    """The bags of one batch of items, each made when it is first asked for.

    `text_lengths` says how many characters are taken of each text column.
    """

    def __init__(self, batch: pa.RecordBatch | pa.Table, *, text_lengths: Mapping[str, int]) -> None:
        self._batch = batch
        self._text_lengths = text_lengths
        self._words: dict[str, Terms] = {}
        self._known_tags: Any = None
        self.n_items: int = batch.num_rows

    @cached_property
    def tags(self) -> Bag:
        """Tags, counted as often as they were applied where the batch has tag_counts."""
        terms = self._tag_terms
        if "tag_counts" not in self._batch.schema.names:
            return terms.bag()
        return terms.bag(tag_counts(column_of(self._batch, "tag_counts"), terms.indptr))

    @cached_property
    def _tag_terms(self) -> Terms:
        return list_terms(column_of(self._batch, "tags"))

    @property
    def n_tags(self) -> NDArray[np.int32]:
        """Return how many distinct tags stand on each item, (n_items,)."""
        return np.asarray(np.diff(self.tags.counts.indptr), np.int32)

    def known_tags(self, vocabulary: Vocabulary) -> Any:
        """Return the counts of the tags of a vocabulary, CSC float32 (n_items, n_terms); made once a batch."""
        if self._known_tags is None:
            self._known_tags = self.count_tags(vocabulary)
        return self._known_tags

    def tag_order(self, vocabulary: Vocabulary) -> NDArray[np.float32]:
        """Return the place from which each of the known tags stands on its item, in the order of a CSR matrix."""
        terms = self._tag_terms
        places = csr(places_in(self._batch, terms), terms.codes, terms.indptr, n_columns=len(terms.distinct))
        order = merged(places, join=np.minimum)
        return in_rows(order, vocabulary.ids(terms.distinct), len(vocabulary))

    def count_tags(self, vocabulary: Vocabulary) -> Any:
        """Return what `known_tags` keeps."""
        return self.tags.by_id(vocabulary.ids(self.tags.terms), n_columns=len(vocabulary))

    @cached_property
    def tag_words(self) -> Bag:
        """Words of tags."""
        words = word_terms(self.tags.terms).bag()
        return Bag(self.tags.counts @ words.counts, words.terms)

    def text_words(self, column: str) -> Bag:
        """Words of a text column."""
        return self._words_of(column).bag()

    def text_bigrams(self, column: str) -> Bag:
        """Pairs of words of a text column that follow each other."""
        return bigram_terms(self._words_of(column)).bag()

    def categories(self, column: str) -> Bag:
        """Values of a column of categories: in NFKC with case folded, without blanks around; null is none."""
        values = _strings(self.column(f"category.{column}"), column)
        is_value = ~np.asarray(pc.is_null(values))
        encoded = values.drop_null().dictionary_encode()
        folded = pa.array([" ".join(fold(value).split()) for value in encoded.dictionary.to_pylist()], pa.string())
        places = folded.dictionary_encode()
        codes = np.asarray(places.indices).astype(np.int32)[np.asarray(encoded.indices)]
        return Terms(np.concatenate([[0], np.cumsum(is_value)]), codes, places.dictionary).bag()

    def column(self, name: str) -> pa.Array:
        """Return a column of the batch. Raises FeatureError where it has none of that name."""
        return column_of(self._batch, name)

    def _words_of(self, column: str) -> Terms:
        if column not in self._words:
            texts = self.column(f"text.{column}")
            short = pc.utf8_slice_codeunits(texts.cast(pa.large_string()), 0, self._text_lengths[column])
            self._words[column] = word_terms(short)
        return self._words[column]


def list_terms(lists: pa.Array) -> Terms:
    """Return the lists of a list<string> array; a null list is empty.

    Raises FeatureError for another type and for a null within a list.

    >>> terms = list_terms(pa.array([["space", "robots"], None, ["space"]]))
    >>> terms.indptr.tolist(), terms.codes.tolist(), terms.distinct.to_pylist()
    ([0, 2, 2, 3], [0, 1, 0], ['space', 'robots'])
    """
    if pa.types.is_null(lists.type):
        lists = lists.cast(pa.list_(pa.string()))
    if not (pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type)):
        raise FeatureError(f"column 'tags' is {lists.type}, not list<string>; clean the tags first")
    flat = lists.flatten()
    if flat.null_count:
        raise FeatureError(f"column 'tags' holds {flat.null_count} nulls within its lists; clean the tags first")
    encoded = flat if pa.types.is_dictionary(flat.type) else _strings(flat, "tags").dictionary_encode()
    codes = arrow.values(encoded.indices).astype(np.int32, copy=False)
    return Terms(_indptr(lists), codes, encoded.dictionary.cast(pa.string()))


def places_in(batch: pa.RecordBatch | pa.Table, terms: Terms) -> NDArray[np.int64]:
    """Return the place of each tag on its item, from 0: by the column tag_order, else as in the lists.

    Raises FeatureError where tag_order does not stand beside the tags.
    """
    if "tag_order" not in batch.schema.names:
        return np.asarray(np.arange(len(terms.codes)) - np.repeat(terms.indptr[:-1], np.diff(terms.indptr)), np.int64)
    order = column_of(batch, "tag_order")
    if (_indptr(order) != terms.indptr).any():
        raise FeatureError("tags and tag_order are lists of different length; run stage 1 again")
    return np.asarray(order.flatten()).astype(np.int64)


def in_rows(order: Any, ids: NDArray[np.int32], n_columns: int) -> NDArray[np.float32]:
    """Return the values of a CSR matrix in the order in which they stand when its columns have ids."""
    return np.asarray(by_id(order, ids, n_columns=n_columns).tocsr().data, np.float32)


def without_nulls(lists: pa.Array) -> pa.Array:
    """Return a list<string> array with an empty string for every null within a list."""
    if pa.types.is_null(lists.type) or not lists.flatten().null_count:
        return lists
    offsets = pa.array(_indptr(lists), pa.int32())
    return pa.ListArray.from_arrays(offsets, pc.fill_null(lists.flatten(), ""))


def word_terms(texts: pa.Array) -> Terms:
    """Return the words of each text, in NFKC and with case folded; a word is a run of letters, digits and _.

    >>> terms = word_terms(pa.array(["The thing, the END", None]))
    >>> terms.distinct.take(pa.array(terms.codes)).to_pylist(), terms.indptr.tolist()
    (['the', 'thing', 'the', 'end'], [0, 4, 4])
    """
    texts = _strings(texts, "text")
    if len(texts) <= _FEW_TEXTS:
        few = [text or "" for text in texts.to_pylist()]
        if "".join(few).isascii():
            return _few_words(few)
    pieces = list_terms(pc.split_pattern_regex(texts, _NO_WORD))
    # Not Arrow's utf8_normalize: that of pyarrow 25 takes letters apart and does not put them together again.
    folded = pa.array([fold(word) for word in pieces.distinct.to_pylist()], pa.string()).dictionary_encode()
    words = Terms(pieces.indptr, arrow.values(folded.indices).astype(np.int32)[pieces.codes], folded.dictionary)
    nothing = pc.index(words.distinct, "").as_py()
    # Text that begins or ends without a word leaves an empty piece there.
    return words if nothing < 0 else _without(words, nothing)


def _few_words(texts: list[str]) -> Terms:
    """Return the words of a few texts in ASCII: Arrow would compile its pattern for them anew each time."""
    code_of: dict[str, int] = {}
    codes, indptr = [], [0]
    for text in texts:
        words = filter(None, _NO_ASCII_WORD.split(text.lower()))
        codes += [code_of.setdefault(word, len(code_of)) for word in words]
        indptr.append(len(codes))
    return Terms(np.array(indptr, np.int64), np.array(codes, np.int32), arrow.strings(list(code_of)))


def fold(word: str) -> str:
    r"""Return a word in NFKC with case folded.

    >>> fold("\ufb01LM"), fold("cafe\u0301") == "caf\u00e9"
    ('film', True)
    """
    if word.isascii():
        return word.lower()
    return normalize("NFKC", normalize("NFKC", word).casefold())


def bigram_terms(words: Terms) -> Terms:
    """Return the pairs of neighbours in each list, as "first second".

    >>> bigrams = bigram_terms(word_terms(pa.array(["new york new york", "york"])))
    >>> bigrams.distinct.take(pa.array(bigrams.codes)).to_pylist(), bigrams.indptr.tolist()
    (['new york', 'york new', 'new york'], [0, 3, 3])
    """
    lengths = np.diff(words.indptr)
    first_of_pair = np.ones(len(words.codes), np.bool_)
    first_of_pair[words.indptr[1:][lengths > 0] - 1] = False
    first = words.codes[first_of_pair].astype(np.int64)
    second = words.codes[np.flatnonzero(first_of_pair) + 1]
    pairs, codes = np.unique(first * max(1, len(words.distinct)) + second, return_inverse=True)
    left, right = np.divmod(pairs, max(1, len(words.distinct)))
    distinct = pc.binary_join_element_wise(
        words.distinct.take(pa.array(left)), words.distinct.take(pa.array(right)), " "
    )
    indptr = np.concatenate([[0], np.cumsum(first_of_pair)])[words.indptr]
    return Terms(indptr, codes.reshape(-1).astype(np.int32), distinct)


def _without(terms: Terms, code: int) -> Terms:
    """Return the lists without one term; the distinct terms behind it move down."""
    kept = terms.keep(terms.codes != code)
    distinct = pa.concat_arrays([terms.distinct[:code], terms.distinct[code + 1 :]])
    return Terms(kept.indptr, kept.codes - (kept.codes > code).astype(np.int32), distinct)


def column_of(batch: pa.RecordBatch | pa.Table, name: str) -> pa.Array:
    """Return a column as one array. Raises FeatureError where the batch has none of that name."""
    if name not in batch.schema.names:
        raise FeatureError(f"column '{name}' is missing; the columns are {', '.join(batch.schema.names)}")
    column = batch.column(name)
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return column


def _strings(array: pa.Array, name: str) -> pa.Array:
    """Return the array where it holds strings. Raises FeatureError for another type."""
    if pa.types.is_null(array.type):
        return array.cast(pa.string())
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        raise FeatureError(f"column '{name}' holds {array.type}, not strings")
    return array


def _indptr(lists: pa.Array) -> NDArray[np.int64]:
    """Return where each list begins in the flattened values, (n + 1,)."""
    lengths = arrow.values(pc.list_value_length(lists), null=0).astype(np.int64)
    return np.concatenate([[0], np.cumsum(lengths)])


def tag_counts(lists: pa.Array, indptr: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the counts of all tags. Raises FeatureError where they do not stand beside tags, or are below 1."""
    if pa.types.is_null(lists.type):
        lists = lists.cast(pa.list_(pa.int32()))
    if not pa.types.is_list(lists.type) or not pa.types.is_integer(lists.type.value_type):
        raise FeatureError(f"column 'tag_counts' is {lists.type}, not list<int32>")
    flat = lists.flatten()
    wrong = np.flatnonzero(_indptr(lists) != indptr)
    if len(wrong):
        raise FeatureError(f"row {max(0, wrong[0] - 1)}: tags and tag_counts are lists of different length")
    counts = arrow.values(flat, null=0)
    if len(counts) and counts.min() < 1:
        raise FeatureError(f"column 'tag_counts' holds {counts.min()}; a tag counts at least 1")
    return counts.astype(np.float32)
