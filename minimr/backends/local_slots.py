"""Where the local backend runs an attempt: in a thread of this process, or in a child of its own.

Every slot says the same things to the coordinator as a worker of a cluster does.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from minigfs.errors import MinigfsError
from minimr.formats.storage import Storage
from minimr.ids import WorkerId
from minimr.job import Job
from minimr.messages import (
    Assignment,
    AttemptResult,
    Failure,
    GetMapOutputs,
    JobSpec,
    MapOutputNews,
    WorkerInfo,
)

if TYPE_CHECKING:
    from minimr.backends.executor_slot import ExecutorSlot
    from minimr.shuffle.pack import SegmentPack
    from minimr.tasks.map_outputs import MapOutputs

__all__ = ["HOST", "ProcessSlot", "Slot", "ThreadSlot"]

HOST = "localhost"  # one host: every segment is read from the disk


class Slot(Protocol):
    """Runs one attempt at a time, on the thread that calls ``run``."""

    @property
    def info(self) -> WorkerInfo: ...

    @property
    def worked_ms(self) -> int:
        """As in `Progress`, of the attempt that runs, or ran last."""

    def run(self, assignment: Assignment, on_progress: Callable[[int, int], None]) -> AttemptResult:
        """The attempt's result; raises ``AttemptFailed``."""

    def cancel(self) -> None:
        """End the attempt that runs, from any thread; it fails as cancelled."""

    def close(self) -> None:
        """End what runs and free what that held, from any thread."""

    def release(self) -> None:
        """Free what the slot holds between attempts, on the thread that has run them."""


def _info(index: int, scratch: Path) -> WorkerInfo:
    return WorkerInfo(
        worker_id=WorkerId(f"local-{index}"),
        incarnation="1",
        address="",
        host=HOST,
        pid=0,
        executor_pid=0,
        directory=str(scratch),
    )


class ThreadSlot:
    """User code in this process: nothing to start, and pdb can see it."""

    def __init__(
        self,
        index: int,
        scratch: Path,
        spec: JobSpec,
        job: Job,
        storage: Storage,
        ask_outputs: Callable[[GetMapOutputs], MapOutputNews],
    ) -> None:
        self.info = _info(index, scratch)
        self._ask_outputs = ask_outputs
        self._map_outputs: MapOutputs | None = None
        self._pack: SegmentPack | None = None
        self._scratch = scratch
        self._spec = spec
        self._job = job
        self._storage = storage
        self._cancelled = threading.Event()

    def run(self, assignment: Assignment, on_progress: Callable[[int, int], None]) -> AttemptResult:
        # Arrow takes longest to load, so it is loaded by the threads that need it.
        from minimr.shuffle.fetch import SegmentFetcher
        from minimr.shuffle.pack import SegmentPack
        from minimr.tasks.attempt import AttemptContext, run_attempt
        from minimr.tasks.map_outputs import MapOutputs

        self._cancelled.clear()
        if self._map_outputs is None:
            self._map_outputs = MapOutputs(self._ask_outputs)
            self._pack = SegmentPack()
        return run_attempt(
            AttemptContext(
                job=self._job,
                spec=self._spec,
                assignment=assignment,
                scratch=self._scratch,
                worker_id=self.info.worker_id,
                address="",
                host=HOST,
                fetcher=SegmentFetcher(HOST, None),
                report_progress=on_progress,
                is_cancelled=self._cancelled.is_set,
                storage=self._storage,
                map_outputs=self._map_outputs,
                pack=self._pack,
            )
        )

    @property
    def worked_ms(self) -> int:
        return -1  # nothing to start

    def cancel(self) -> None:
        self._cancelled.set()

    def close(self) -> None:
        self._cancelled.set()

    def release(self) -> None:
        if self._pack is not None:
            self._pack.close()


class ProcessSlot:
    """User code in a child: as many interpreters as slots, and a crash costs one attempt."""

    def __init__(
        self,
        index: int,
        scratch: Path,
        spec: JobSpec,
        executors: "ExecutorSlot",
        ask_outputs: Callable[[GetMapOutputs], MapOutputNews],
    ) -> None:
        self.info = _info(index, scratch)
        self._ask_outputs = ask_outputs
        self._scratch = scratch
        self._spec = spec
        self._executors = executors
        self._worked_ms = 0  # of the last attempt

    @property
    def worked_ms(self) -> int:
        page = self._executors.page
        return page.worked_ms if page is not None else self._worked_ms

    def run(self, assignment: Assignment, on_progress: Callable[[int, int], None]) -> AttemptResult:
        from minimr.backends.executor import AttemptWork
        from minimr.tasks.attempt import AttemptFailed

        work = AttemptWork(
            spec=self._spec,
            assignments=(assignment,),
            scratch=self._scratch,
            worker_id=self.info.worker_id,
            host=HOST,
        )
        executor = self._executors.acquire(self._spec.job_id)
        try:

            def note(_turn: int, done_bytes: int, total_bytes: int) -> None:
                on_progress(done_bytes, total_bytes)

            # ``cancel`` kills it.
            (end,) = executor.run(work, note, lambda: False, self._news_of)
        finally:
            self._executors.release()
        self._worked_ms = end.worked_ms
        if end.failure is not None:
            raise AttemptFailed(_without_log(end.failure))
        assert end.result is not None
        return end.result

    def _news_of(
        self, request: GetMapOutputs, has_ended: Callable[[], bool]
    ) -> MapOutputNews | None:
        while not has_ended():
            try:
                news = self._ask_outputs(request)
            except MinigfsError:  # the backend is closing, and the executor with it
                return None
            if news.outputs or news.gone or not news.is_wanted:
                return news
        return None

    def cancel(self) -> None:
        self._executors.cancel()

    def close(self) -> None:
        self._executors.close()

    def release(self) -> None:
        """It holds nothing: the pack is the executor's."""


def _without_log(failure: Failure) -> Failure:
    """The log lies in our scratch directory and goes with it; its tail is in the traceback."""
    return msgspec.structs.replace(failure, error=failure.error.partition(" (log: ")[0])
