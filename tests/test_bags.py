"""Bags of terms: tags, words of tags, words and neighbours of texts, once per distinct term."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bags import Bag, BatchBags, bigram_terms, list_terms, word_terms
from pipeline.errors import FeatureError


def bags(**columns) -> BatchBags:
    return BatchBags(pa.table(columns), text_lengths={"plot": 20})


def counts_of(bag: Bag) -> list[dict[str, float]]:
    rows = bag.counts.toarray()
    return [{bag.terms[j].as_py(): rows[i, j] for j in np.flatnonzero(rows[i])} for i in range(len(rows))]


def test_a_tag_counts_as_often_as_it_was_applied():
    counts = pa.array([[3, 1], []], pa.list_(pa.int32()))
    made = bags(tags=[["space", "robots"], []], tag_counts=counts)
    assert counts_of(made.tags) == [{"space": 3, "robots": 1}, {}]


def test_a_tag_that_stands_twice_on_an_item_is_one_term():
    made = bags(tags=[["space", "robots", "space"]])
    assert counts_of(made.tags) == [{"space": 2, "robots": 1}]
    assert made.tags.document_frequency().tolist() == [1, 1]


def test_words_of_tags_add_up_over_the_tags():
    made = bags(tags=[["space opera", "deep space"]], tag_counts=pa.array([[2, 1]], pa.list_(pa.int32())))
    assert counts_of(made.tag_words) == [{"space": 3, "opera": 2, "deep": 1}]


def test_texts_are_cut_folded_and_split_into_words():
    plot = ["The END, the_end! cafe\u0301 no more", None, "..."]  # cut behind the accent
    made = BatchBags(pa.table({"text.plot": plot}), text_lengths={"plot": 23})
    assert counts_of(made.text_words("plot")) == [{"the": 1, "end": 1, "the_end": 1, "caf\u00e9": 1}, {}, {}]
    assert counts_of(made.text_bigrams("plot"))[0] == {"the end": 1, "end the_end": 1, "the_end caf\u00e9": 1}


def test_compatible_forms_of_a_letter_are_one_word():
    assert counts_of(word_terms(pa.array(["\ufb01lm FILM film"])).bag()) == [{"film": 3}]


@given(st.lists(st.text("aB_ -\t'0\x00", max_size=8) | st.none(), min_size=1, max_size=6))
def test_a_few_texts_have_the_words_that_many_have(texts):
    few = word_terms(pa.array(texts, pa.string()))
    many = word_terms(pa.array(texts * 300, pa.string()))
    assert few.distinct.to_pylist() == many.distinct.to_pylist()
    assert few.codes.tolist() == many.codes[: len(few.codes)].tolist()
    assert few.indptr.tolist() == many.indptr[: len(texts) + 1].tolist()


@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=6), max_size=6))
def test_neighbours_never_cross_from_one_item_to_the_next(texts):
    made = bigram_terms(word_terms(pa.array([" ".join(words) for words in texts], pa.string())))
    terms = made.distinct.to_pylist()
    found = [[terms[code] for code in made.codes[a:b]] for a, b in pairwise(made.indptr)]
    assert found == [[f"{a} {b}" for a, b in pairwise(words)] for words in texts]


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string())])
def test_lists_of_either_size_and_slices_of_them_are_read(kind):
    lists = pa.array([["x"], ["b", "a"], None, ["a"]], kind)[1:]
    terms = list_terms(lists)
    assert terms.indptr.tolist() == [0, 2, 2, 3]
    assert [terms.distinct[int(code)].as_py() for code in terms.codes] == ["b", "a", "a"]


def test_by_id_drops_unseen_terms_and_leaves_the_bag_as_it_was():
    bag = list_terms(pa.array([["c", "b", "a"], ["b"]])).bag(np.array([1, 2, 3, 4], np.float32))
    assert bag.by_id(np.array([3, 0, 1], np.int32), n_columns=3).toarray().tolist() == [[3, 0, 1], [0, 0, 0]]
    assert bag.by_id(np.array([3, 2, 1], np.int32), n_columns=3).toarray().tolist() == [[3, 2, 1], [0, 4, 0]]
    assert counts_of(bag) == [{"c": 1, "b": 2, "a": 3}, {"b": 4}]


def test_an_empty_batch_gives_empty_bags():
    batch = pa.table({"tags": pa.array([], pa.list_(pa.string())), "text.plot": pa.array([], pa.string())})
    made = BatchBags(batch, text_lengths={"plot": 9})
    for bag in (made.tags, made.tag_words, made.text_words("plot"), made.text_bigrams("plot")):
        assert bag.counts.shape == (0, 0)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"title": ["x"]}, "column 'tags' is missing; the columns are title"),
        ({"tags": ["x"]}, r"column 'tags' is string, not list<string>"),
        ({"tags": [[1]]}, "column 'tags' holds int64, not strings"),
        ({"tags": [["x", None]]}, "holds 1 nulls within its lists"),
        ({"tags": [["x"], ["y"]], "tag_counts": [[1], [1, 2]]}, "row 1: tags and tag_counts"),
        ({"tags": [["x"]], "tag_counts": [[0]]}, "holds 0; a tag counts at least 1"),
        ({"tags": [["x"]], "tag_counts": [[None]]}, "not list<int32>"),
        ({"tags": [["x"]], "tag_counts": [["many"]]}, "not list<int32>"),
    ],
)
def test_columns_that_do_not_fit_are_refused(columns, message):
    with pytest.raises(FeatureError, match=message):
        _ = bags(**columns).tags
