"""Items made ready in a thread while the one before is used; order and content do not change."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
POLL_SECONDS = 1.0


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items, the next of them being made in a thread while one is used: two exist at a time."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        following: Future[Any] = pool.submit(next, iterator, end)
        while (item := following.result()) is not end:
            following = pool.submit(next, iterator, end)
            yield item
            del item  # Before the one after the next is begun: else there would be three.


class Timed(Iterator[Item]):
    """The same items, and how long was waited for them."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self.seconds = 0.0

    def __next__(self) -> Item:
        started = time.monotonic()
        try:
            return next(self._items)
        finally:
            self.seconds += time.monotonic() - started


@contextmanager
def prefetched(items: Iterable[Item], size: int) -> Iterator[Iterator[Item]]:
    """Give the same items in the same order, made in a thread up to `size` ahead; 0: made when asked for.

    An exception of the thread is raised where the item would have been; leaving early ends the thread.
    """
    if not size:
        yield iter(items)
        return
    ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(size)
    stopped = threading.Event()

    def put(item: Item | None, error: BaseException | None = None) -> bool:
        while not stopped.is_set():
            try:
                ready.put((item, error), timeout=0.05)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            if all(put(item) for item in items):
                put(None, StopIteration())
        except BaseException as error:
            put(None, error)

    def take() -> Iterator[Item]:
        while True:
            try:
                item, error = ready.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if thread.is_alive() or not ready.empty():
                    continue
                raise MemoryError("the thread that makes batches ended without a word, for want of memory") from None
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]  # None only beside an error

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        stopped.set()
        thread.join()
