import threading
import time

import pytest

from pipeline.prefetch import Timed, ahead, prefetched


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


def test_the_next_item_is_made_while_one_is_used_and_no_more():
    made = []

    def make():
        for number in range(5):
            made.append(number)
            yield number

    for number in ahead(make()):
        assert len(made) <= number + 2
    assert made == [0, 1, 2, 3, 4]


def test_an_error_of_the_next_item_comes_in_its_place():
    def broken():
        yield 1
        raise ValueError("no second item")

    items = ahead(broken())
    assert next(items) == 1
    with pytest.raises(ValueError, match="no second item"):
        next(items)


def test_waiting_for_items_is_measured():
    def slow():
        yield 1
        time.sleep(0.05)
        yield 2

    items = Timed(slow())
    assert list(items) == [1, 2]
    assert items.seconds >= 0.05


def test_leaving_early_ends_the_thread():
    def endless():
        while True:
            yield 0

    with prefetched(endless(), 2) as items:
        next(items)
    assert "prefetch" not in [thread.name for thread in threading.enumerate()]


def test_a_thread_that_ends_without_a_word_is_not_waited_for(monkeypatch):
    class Ends(threading.Thread):
        def run(self):
            pass

    monkeypatch.setattr(threading, "Thread", Ends)
    monkeypatch.setattr("pipeline.prefetch.POLL_SECONDS", 0.01)
    with prefetched(range(3), 2) as items, pytest.raises(MemoryError, match="ended without a word"):
        next(items)
