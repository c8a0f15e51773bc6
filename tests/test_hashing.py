"""The hash of strings and n-grams against a plain loop over the formula in hashing.py."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import FeatureError
from pipeline.hashing import hash_strings, hashed_counts, ngrams, utf8

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=6)


def plain_hash(text: str) -> int:
    value = 1
    for character in text:
        value = (value * 6364136223846793005 + ord(character)) % 2**64
    for mixer in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = ((value ^ (value >> 33)) * mixer) % 2**64
    return value ^ (value >> 33)


def plain_ngrams(text: str, shortest: int, longest: int) -> list[str]:
    text = f" {text} "
    if len(text) < shortest:
        return [text]
    return [text[i : i + n] for n in range(shortest, longest + 1) for i in range(len(text) - n + 1)]


def test_hash_has_the_documented_values_on_every_platform():
    values = hash_strings(pa.array(["zombies", "é", "movie-1"]))
    assert [int(value) for value in values] == [plain_hash(text) for text in ("zombies", "é", "movie-1")]
    assert int(values[0]) == 0x520EC5CC7A3AF06


@given(TEXTS)
def test_hash_of_many_strings_is_the_hash_of_each(texts):
    assert hash_strings(pa.array(texts, pa.string())).tolist() == [plain_hash(text) for text in texts]


@given(TEXTS)
def test_every_ngram_of_every_string_is_found_once(texts):
    found = [
        (int(owner), int(value))
        for grams in ngrams(pa.array(texts, pa.string()), shortest=4, longest=5)
        for owner, value in zip(grams.owner, grams.hashes, strict=True)
    ]
    wanted = [(i, plain_hash(gram)) for i, text in enumerate(texts) for gram in plain_ngrams(text, 4, 5)]
    assert sorted(found) == sorted(wanted)


def test_a_string_shorter_than_the_shortest_ngram_counts_once_as_a_whole():
    counts = hashed_counts(pa.array(["a", "abab"]), shortest=4, longest=4, width=1000).toarray()
    assert counts.sum(axis=1).tolist() == [1, 3]
    assert counts[0, plain_hash(" a ") % 1000] == 1


def test_an_ngram_that_stands_twice_counts_twice():
    counts = hashed_counts(pa.array(["aaaa"]), shortest=3, longest=3, width=2**20)
    assert counts[0, plain_hash("aaa") % 2**20] == 2


def test_utf8_of_a_slice_begins_at_zero():
    offsets, data = utf8(pa.array(["xx", "é", "y"])[1:])
    assert offsets.tolist() == [0, 2, 3]
    assert data.tobytes() == "éy".encode()


def test_nothing_to_hash_gives_nothing():
    assert hash_strings(pa.array([], pa.string())).shape == (0,)
    assert hashed_counts(pa.array([], pa.string()), shortest=3, longest=5, width=16).shape == (0, 16)
    assert hash_strings(pa.array([""])).dtype == np.uint64


def test_null_and_bad_utf8_are_refused():
    with pytest.raises(FeatureError, match="1 of 2 strings are null"):
        hash_strings(pa.array(["a", None]))
    broken = pa.Array.from_buffers(pa.string(), 1, [*pa.array(["ab"]).buffers()[:2], pa.py_buffer(b"\xff\xfe")])
    with pytest.raises(FeatureError, match="not UTF-8"):
        hash_strings(broken)
