"""Arrow's arrays made of bytes are those that Arrow makes itself, and come back as NumPy's."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import arrow


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint64", "float32", "float64"])
@pytest.mark.parametrize("n", [0, 1, 9])
def test_numbers_are_those_of_arrow(dtype, n):
    numbers = np.arange(n).astype(dtype)
    mask = numbers % 3 == 1
    assert arrow.numbers(numbers).equals(pa.array(numbers))
    assert arrow.numbers(numbers, mask=mask).equals(pa.array(numbers, mask=mask))
    assert arrow.values(pa.array(numbers)).dtype == numbers.dtype
    assert arrow.values(pa.array(numbers)).tolist() == numbers.tolist()


def test_numbers_that_do_not_lie_side_by_side_are_taken_in_their_order():
    matrix = np.arange(6, dtype=np.int32).reshape(3, 2)
    assert arrow.numbers(matrix[:, 1]).to_pylist() == [1, 3, 5]


@given(st.lists(st.text(max_size=4), max_size=9))
def test_strings_are_those_of_arrow(texts):
    made = arrow.strings(texts)
    made.validate(full=True)
    assert made.equals(pa.array(texts, pa.string()))


@given(st.lists(st.lists(st.text(max_size=3), max_size=4), max_size=6))
def test_lists_are_those_of_arrow(rows):
    made = arrow.string_lists(rows)
    made.validate(full=True)
    assert made.equals(pa.array(rows, pa.list_(pa.string())))


@given(st.lists(st.sampled_from([True, False, None]), max_size=30), st.integers(0, 30))
def test_flags_come_back_from_any_place_in_their_bytes(truth, start):
    part = pa.array(truth, pa.bool_())[start:]
    assert arrow.values(part, null=False).tolist() == [bool(flag) for flag in truth[start:]]
    known = np.array([flag is True for flag in truth], np.bool_)
    assert arrow.flags(known).equals(pa.array(known))


@given(st.lists(st.integers(0, 9) | st.none(), max_size=20), st.integers(0, 20))
def test_what_stands_for_nothing_is_put_in_its_place(numbers, start):
    part = pa.array(numbers, pa.int32())[start:]
    assert arrow.values(part, null=-1).tolist() == [-1 if number is None else number for number in numbers[start:]]


def test_chunks_come_back_as_one():
    assert arrow.values(pa.chunked_array([[1, 2], [], [3]])).tolist() == [1, 2, 3]


def test_nothing_stands_for_nothing_unless_it_is_said():
    with pytest.raises(ValueError, match="1 of 2 values are null"):
        arrow.values(pa.array([1, None]))


def test_half_a_surrogate_pair_is_no_text():
    with pytest.raises(UnicodeEncodeError):
        arrow.strings(["\ud800"])
