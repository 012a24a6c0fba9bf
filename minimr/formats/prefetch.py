"""Runs an iterator a few items ahead in a thread of its own."""

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import TypeVar

__all__ = ["prefetched"]

ItemT = TypeVar("ItemT")


class _End:
    """The iterator is done, by itself or by an error."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetched(items: Iterator[ItemT], ahead: int) -> Iterator[ItemT]:
    """The same items. Closing the generator stops the thread after the item it works on."""
    ready: SimpleQueue[ItemT | _End] = SimpleQueue()
    free = threading.Semaphore(ahead)
    stopped = threading.Event()

    def produce() -> None:
        error: BaseException | None = None
        try:
            free.acquire()
            for item in items:
                ready.put(item)
                free.acquire()
                if stopped.is_set():
                    break
        except BaseException as raised:  # whatever it is, it belongs to the consumer
            error = raised
        ready.put(_End(error))

    thread = threading.Thread(target=produce, name="read-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            free.release()
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        free.release()
        thread.join()
        close = getattr(items, "close", None)
        if close is not None:
            close()
