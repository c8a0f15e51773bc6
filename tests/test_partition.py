"""Which of the labelled items are used, and where each stands."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.hashing import hash_strings
from pipeline.partition import place


def used(ids, *, max_items):
    """Return the ids that are used of each part, in their order; a tenth of the items is not labelled."""
    import pyarrow as pa

    numbers = np.array(ids)
    split = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 2], np.uint8)[numbers % 10]
    labels = np.where(numbers % 7 == 0, -1, 0).astype(np.int32)[:, None]
    order = place(labels, split, hash_strings(pa.array([str(number) for number in ids])), max_items=max_items)
    ranked = numbers[order.position >= 0][np.argsort(order.position[order.position >= 0])]
    return [[number for number in ranked.tolist() if number % 10 in of] for of in (range(6), (6, 7), (8, 9))]


def test_of_the_training_items_the_first_are_used_and_of_the_others_the_same_share():
    all_of_them, some = used(range(20_000), max_items=0), used(range(20_000), max_items=2_000)
    assert [len(part) for part in all_of_them] == [10_285, 3_429, 3_428]
    assert len(some[0]) == 2_000
    for part, whole in zip(some, all_of_them, strict=True):
        assert part == whole[: len(part)]
        assert abs(len(part) / len(whole) - 2_000 / 10_285) < 0.02


def test_with_room_for_all_none_is_left_out():
    for max_items in (0, 10_285, 20_000):
        assert used(range(20_000), max_items=max_items) == used(range(20_000), max_items=0)


@given(ids=st.permutations(range(300)), max_items=st.integers(1, 120))
def test_which_are_used_does_not_depend_on_the_order_of_the_input(ids, max_items):
    assert used(ids, max_items=max_items) == used(range(300), max_items=max_items)


@given(n_more=st.integers(0, 300), max_items=st.integers(1, 120))
def test_a_larger_catalog_only_takes_places_from_the_highest(n_more, max_items):
    before, after = (set(used(range(n), max_items=max_items)[0]) for n in (300, 300 + n_more))
    kept = before & after
    new = {number for number in after if number >= 300}
    assert after == kept | new
    assert len(after) == min(max_items, len(used(range(300 + n_more), max_items=0)[0]))
