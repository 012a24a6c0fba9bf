"""The event loop of a simulated master: callbacks are events of the world's scheduler."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from tests.sim.scheduler import SECOND
from tests.sim.storage.fibers import Fibers, Life

__all__ = ["SimLoop"]


class SimLoop(asyncio.AbstractEventLoop):
    """Of one life: when that ends, nothing it planned happens any more."""

    def __init__(
        self, fibers: Fibers, life: Life, failed: Callable[[Life, dict[str, Any]], None]
    ) -> None:
        self._fibers = fibers
        self._life = life
        self._failed = failed

    def run(self, action: Callable[..., Any], *arguments: Any) -> Any:
        """Do it on this loop, now."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            with self._fibers.within(self._life):
                return action(*arguments)
        finally:
            asyncio._set_running_loop(before)

    def _turn(self, handle: asyncio.Handle) -> None:
        if handle.cancelled() or not self._life.alive:
            return
        if self._life.paused:
            self._life.hold(lambda: self._turn(handle))
            return
        self.run(handle._run)

    # What asyncio asks of a loop

    def time(self) -> float:
        return self._fibers.scheduler.now_us / SECOND

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._fibers.scheduler.after(0, self._turn, handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(self.time() + delay, callback, args, self, context)
        self._fibers.scheduler.after(round(delay * SECOND), self._turn, handle)
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_later(when - self.time(), callback, *args, context=context)

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Any,
        *,
        name: str | None = None,
        context: Context | None = None,
        **_: Any,
    ) -> "asyncio.Task[Any]":
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def run_in_executor(
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        """A thread of the process, for as long as this takes."""
        future = self.create_future()

        def settle(error: BaseException | None, result: object) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        def work() -> None:
            try:
                result = func(*args)
            except Exception as error:
                self.call_soon_threadsafe(settle, error, None)
            else:
                self.call_soon_threadsafe(settle, None, result)

        self._fibers.spawn(self._life, work, name="executor")
        return future

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Begin a task from outside."""
        task: asyncio.Task[Any] = self.run(self.create_task, coroutine)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._failed(self._life, context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass
