"""Threads for a member's jobs: one a lane, so that a snapshot never holds up the log.

A job goes out on the loop and comes back on the loop; between, its lane's thread runs it. Jobs of
one lane run in the order in which they came.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue

from minigfs.replication.jobs import Job, Lane

__all__ = ["LaneThreads"]

JobReturned = Callable[[Job, BaseException | None], None]


class LaneThreads:
    """Belongs to a running loop; ``returned`` is called on it for every job that was run."""

    def __init__(self, returned: JobReturned) -> None:
        self._loop = asyncio.get_running_loop()
        self._returned = returned
        self._queues: dict[Lane, SimpleQueue[Job | None]] = {lane: SimpleQueue() for lane in Lane}
        self._threads = [
            threading.Thread(
                target=self._run, args=(queue,), name=f"{lane.value}-lane", daemon=True
            )
            for lane, queue in self._queues.items()
        ]
        for thread in self._threads:
            thread.start()

    def run(self, job: Job) -> None:
        self._queues[job.lane].put(job)

    async def stop(self) -> None:
        """Let what is under way come to its end; nothing may be run afterwards."""
        for queue in self._queues.values():
            queue.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _run(self, queue: "SimpleQueue[Job | None]") -> None:
        while (job := queue.get()) is not None:
            error: BaseException | None = None
            try:
                job.run()
            except BaseException as raised:  # it is the loop that must hear of it, whatever it is
                error = raised
            self._loop.call_soon_threadsafe(self._returned, job, error)
