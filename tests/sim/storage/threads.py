"""``threading``, ``time``, ``queue`` and futures, as fibers have them.

Only what the production code uses. A lock that is free is taken without a wait, also by the loop of
a simulated master; whoever has to wait must be a fiber.
"""

import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace, TracebackType
from typing import Any, Self

from tests.sim.scheduler import SECOND
from tests.sim.storage.fibers import Fiber, Fibers

__all__ = ["thread_modules"]


class _Primitives:
    """The classes, each bound to one world's fibers."""

    def __init__(self, fibers: Fibers) -> None:
        self.fibers = fibers
        primitives = self

        class Lock(_Lock):
            def __init__(self) -> None:
                super().__init__(primitives)

        class RLock(_RLock):
            def __init__(self) -> None:
                super().__init__(primitives)

        class Condition(_Condition):
            def __init__(self, lock: "_Lock | None" = None) -> None:
                super().__init__(primitives, lock or _RLock(primitives))

        class Event(_Event):
            def __init__(self) -> None:
                super().__init__(primitives)

        class Thread(_Thread):
            def __init__(self, *positional: Any, **named: Any) -> None:
                super().__init__(primitives, *positional, **named)

        class SimpleQueue(_SimpleQueue):
            def __init__(self) -> None:
                super().__init__(primitives)

            def __class_getitem__(cls, item: object) -> type["SimpleQueue"]:
                return cls

        class SimFuture(Future):  # type: ignore[type-arg]  # the name that a module imports
            def __init__(self) -> None:
                super().__init__()
                self._condition = Condition()

        class Executor(_Executor):
            def __init__(self, *_: Any, **__: Any) -> None:
                super().__init__(primitives)

        self.executor = Executor
        self.lock, self.rlock, self.condition, self.event = Lock, RLock, Condition, Event
        self.thread, self.simple_queue, self.future = Thread, SimpleQueue, SimFuture


class _Lock:
    def __init__(self, primitives: _Primitives) -> None:
        self._fibers = primitives.fibers
        self._owner: object = None
        self._waiting: deque[Fiber] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        assert timeout == -1, "no production code waits so"
        while self._owner is not None:
            if not blocking:
                return False
            fiber = self._fibers.current
            assert fiber is not None, "a loop would have to wait for a lock"
            self._waiting.append(fiber)
            self._fibers.park()
        self._owner = self._fibers.current or self
        return True

    def release(self) -> None:
        self._owner = None
        waiting, self._waiting = self._waiting, deque()
        for fiber in waiting:
            self._fibers.wake(fiber)

    def locked(self) -> bool:
        return self._owner is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class _RLock(_Lock):
    def __init__(self, primitives: _Primitives) -> None:
        super().__init__(primitives)
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._owner is None or self._owner is not (self._fibers.current or self):
            if not super().acquire(blocking, timeout):
                return False
            self._count = 0
        self._count += 1
        return True

    def release(self) -> None:
        self._count -= 1
        if not self._count:
            super().release()


class _Condition:
    def __init__(self, primitives: _Primitives, lock: _Lock) -> None:
        self._fibers = primitives.fibers
        self._lock = lock
        self._waiting: list[Fiber] = []

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def acquire(self) -> bool:
        return self._lock.acquire()

    def release(self) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        fiber = self._fibers.current
        assert fiber is not None
        self._waiting.append(fiber)
        self._lock.release()
        self._fibers.park(None if timeout is None else int(timeout * SECOND))
        was_notified = fiber not in self._waiting
        if not was_notified:
            self._waiting.remove(fiber)
        self._lock.acquire()
        return was_notified

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        now_us = self._fibers.scheduler.now_us
        until_us = None if timeout is None else now_us + int(timeout * SECOND)
        while not predicate():
            left_us = None
            if until_us is not None:
                left_us = until_us - self._fibers.scheduler.now_us
                if left_us <= 0:
                    return False
            self.wait(None if left_us is None else left_us / SECOND)
        return True

    def notify(self, n: int = 1) -> None:
        notified, self._waiting = self._waiting[:n], self._waiting[n:]
        for fiber in notified:
            self._fibers.wake(fiber)

    def notify_all(self) -> None:
        self.notify(len(self._waiting))


class _Event:
    def __init__(self, primitives: _Primitives) -> None:
        self._fibers = primitives.fibers
        self._is_set = False
        self._waiting: list[Fiber] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        waiting, self._waiting = self._waiting, []
        for fiber in waiting:
            self._fibers.wake(fiber)

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        scheduler = self._fibers.scheduler
        until_us = None if timeout is None else scheduler.now_us + int(timeout * SECOND)
        while not self._is_set:
            left_us = None if until_us is None else until_us - scheduler.now_us
            if left_us is not None and left_us <= 0:
                return False
            fiber = self._fibers.current
            assert fiber is not None, "a loop would have to wait for an event"
            self._waiting.append(fiber)
            self._fibers.park(left_us)
            if fiber in self._waiting:
                self._waiting.remove(fiber)
        return True


class _Thread:
    def __init__(
        self,
        primitives: _Primitives,
        *,
        target: Callable[..., Any],
        args: tuple[Any, ...] = (),
        name: str = "thread",
        daemon: bool = False,
    ) -> None:
        self._primitives = primitives
        self._target, self._arguments = target, args
        self.name, self.daemon = name, daemon
        self.ident = 0
        self._fiber: Fiber | None = None
        self._ended = _Event(primitives)

    def start(self) -> None:
        fibers = self._primitives.fibers
        assert fibers.life is not None
        self._fiber = fibers.spawn(fibers.life, self._target, *self._arguments, name=self.name)
        self._fiber.ended.append(self._ended.set)

    def is_alive(self) -> bool:
        return self._fiber is not None and not self._fiber.is_done

    def join(self, timeout: float | None = None) -> None:
        self._ended.wait(timeout)


class _SimpleQueue:
    def __init__(self, primitives: _Primitives) -> None:
        self._items: deque[Any] = deque()
        self._arrived = _Event(primitives)

    def put(self, item: object) -> None:
        self._items.append(item)
        self._arrived.set()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        while not self._items:
            self._arrived.clear()
            if not block or not self._arrived.wait(timeout):
                raise queue.Empty
        return self._items.popleft()

    def get_nowait(self) -> Any:
        return self.get(block=False)


class _Executor:
    """A pool of threads: each task gets one of its own."""

    def __init__(self, primitives: _Primitives) -> None:
        self._primitives = primitives
        self._threads: list[_Thread] = []

    def submit(self, work: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        future: Future[Any] = self._primitives.future()

        def run() -> None:
            try:
                result = work(*arguments)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        thread = self._primitives.thread(target=run, name="executor")
        self._threads.append(thread)
        thread.start()
        return future

    def map(self, work: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]:
        futures = [self.submit(work, *arguments) for arguments in zip(*iterables, strict=False)]
        return (future.result() for future in futures)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        for thread in self._threads if wait else ():
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()


def thread_modules(fibers: Fibers) -> dict[str, Any]:
    """What a production module finds under these names while a world runs."""
    primitives = _Primitives(fibers)
    scheduler = fibers.scheduler

    def sleep(seconds: float) -> None:
        fibers.sleep_us(int(seconds * SECOND))

    return {
        "threading": SimpleNamespace(
            Lock=primitives.lock,
            RLock=primitives.rlock,
            Condition=primitives.condition,
            Event=primitives.event,
            Thread=primitives.thread,
            current_thread=lambda: fibers.current,
            get_native_id=lambda: 0,
        ),
        "time": SimpleNamespace(
            sleep=sleep,
            monotonic=lambda: scheduler.now_us / SECOND,
            monotonic_ns=lambda: scheduler.now_us * 1000,
        ),
        "queue": SimpleNamespace(SimpleQueue=primitives.simple_queue, Empty=queue.Empty),
        "Future": primitives.future,
        "ThreadPoolExecutor": primitives.executor,
    }
