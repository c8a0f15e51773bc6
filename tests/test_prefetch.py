import threading

import pytest

from pipeline.prefetch import prefetched


@pytest.mark.parametrize("size", [0, 1, 4])
def test_prefetching_gives_the_same_items_in_the_same_order(size):
    with prefetched(range(20), size) as items:
        assert list(items) == list(range(20))


@pytest.mark.parametrize("size", [0, 2])
def test_an_error_while_making_an_item_is_raised_in_its_place(size):
    def broken():
        yield 1
        raise ValueError("no second item")

    with prefetched(broken(), size) as items:
        assert next(items) == 1
        with pytest.raises(ValueError, match="no second item"):
            next(items)


def test_leaving_early_ends_the_thread():
    def endless():
        while True:
            yield 0

    with prefetched(endless(), 2) as items:
        next(items)
    assert "prefetch" not in [thread.name for thread in threading.enumerate()]
