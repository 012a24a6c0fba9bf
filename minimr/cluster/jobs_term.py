"""One leader's coordinator at work: asyncio around the pure machine, for one term.

Every request becomes an event, and its answer an effect that carries the request's token; a long
poll is a token that is answered later. Changes go through the masters' log, in the order in which
the coordinator proposed them, and come back as events when they are committed and applied. When
leadership is lost all of it ends at once: who waits is sent to the next leader, whose coordinator
knows from the log what was decided.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, assert_never

from minigfs.errors import Busy, ClusterError, MinigfsError, NotLeader
from minigfs.master import commands as fs_commands
from minigfs.master.machine import FILE_SYSTEM_MACHINE, FileSystemMachine
from minigfs.master.namespace import get_inode, split_path
from minigfs.ports import Clock
from minigfs.replication.host import ReplicatedHost
from minigfs.transport.messages import Message
from minimr.cluster.publish import (
    PUBLISH_MACHINE,
    PublishCommand,
    decode_refusal,
    encode_publish,
)
from minimr.config import TICK_INTERVAL_MS
from minimr.coordinator.commands import Command, OpenTerm, PublishJob, encode_command
from minimr.coordinator.coordinator import Coordinator
from minimr.coordinator.effects import DiscardStaging, Effect, Propose, PublishOutput, Refuse, Reply
from minimr.coordinator.events import (
    Applied,
    Called,
    CallerGone,
    CoordinatorRequest,
    Event,
    PublishRefused,
    Refused,
    Tick,
)
from minimr.coordinator.machine import CoordinatorMachine
from minimr.ids import JobId
from minimr.messages import Failure, FailureKind, JobSpec, JobState
from minimr.plan.naming import staging_url, working_urls

__all__ = ["JOBS_MACHINE", "CoordinatorTerm", "path_of_url"]

logger = logging.getLogger(__name__)

JOBS_MACHINE = "jobs"  # its name in the log
_MINIGFS = "minigfs://"
_RETRY_S = 0.5  # between two proposals of a command that nobody waits for, while the disk is full


class CoordinatorTerm:
    """Belongs to one event loop; made by ``open``, ended by ``end``."""

    def __init__(
        self,
        host: ReplicatedHost,
        machine: CoordinatorMachine,
        files: FileSystemMachine,
        clock: Clock,
        *,
        term: int,
        discard_staging: Callable[[str], None],
    ) -> None:
        self._host = host
        self._files = files
        self._clock = clock
        self._discard_staging = discard_staging
        self._offset_ms = clock.now_ms() - clock.monotonic_ms()
        self._coordinator = Coordinator(machine, term=term, now_ms=self._now_ms())
        self._tokens = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._is_over = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._spawn(self._tick())
        for ended in machine.state.history:
            # The leader before may have died after it ended the job and before it swept up.
            if ended.state is not JobState.DONE:
                self._spawn(self._discard(ended.job_id, staging_url(ended.output, ended.job_id)))

    @classmethod
    async def open(
        cls,
        host: ReplicatedHost,
        machine: CoordinatorMachine,
        files: FileSystemMachine,
        clock: Clock,
        *,
        term: int,
        discard_staging: Callable[[str], None],
    ) -> "CoordinatorTerm":
        """Say in the log that this leader's coordinator takes over, then begin."""
        opened = OpenTerm(now_ms=clock.now_ms(), term=term)
        await host.propose(JOBS_MACHINE, encode_command(opened), to_lead=True)
        return cls(host, machine, files, clock, term=term, discard_staging=discard_staging)

    def end(self) -> None:
        """Answer nobody any more; workers and clients ask the next leader."""
        self._is_over = True
        for task in self._tasks:
            task.cancel()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(NotLeader("this master leads no more: try again"))

    async def wait_ended(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def answer(self, request: CoordinatorRequest) -> Message:
        token = next(self._tokens)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[token] = future
        try:
            self._handle(Called(token=token, request=request))
            return await future
        except asyncio.CancelledError:
            self._waiting.pop(token, None)
            self._handle(CallerGone(token=token))
            raise
        finally:
            self._waiting.pop(token, None)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_INTERVAL_MS / 1000)
            self._handle(Tick())

    def _now_ms(self) -> int:
        return self._offset_ms + self._clock.monotonic_ms()

    def _handle(self, event: Event) -> None:
        if self._is_over:
            return
        for effect in self._coordinator.handle(event, self._now_ms()):
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Reply(token=token, message=message):
                self._settle(token, message)
            case Refuse(token=token, error=error):
                self._settle(token, error)
            case Propose(command=command, token=token):
                self._spawn(self._propose(command, token))
            case PublishOutput(spec=spec):
                self._spawn(self._publish(spec))
            case DiscardStaging(spec=spec):
                self._spawn(self._discard(spec.job_id, spec.staging))
            case _:
                assert_never(effect)

    def _settle(self, token: int, answer: Message | MinigfsError) -> None:
        future = self._waiting.get(token)
        if future is None or future.done():
            return  # the caller went away meanwhile
        if isinstance(answer, MinigfsError):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Tasks begin in the order in which they are made, so proposals keep theirs."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("carrying out an effect of the coordinator failed", exc_info=error)

    async def _propose(self, command: Command, token: int | None) -> None:
        encoded = encode_command(command)
        while await self._commit(JOBS_MACHINE, encoded, token) is None:
            if token is not None:
                self._handle(Refused(command=command))
                return
            await asyncio.sleep(_RETRY_S)
        self._handle(Applied(command=command, token=token))

    async def _commit(self, machine: str, command: bytes, token: int | None) -> bytes | None:
        """The machine's reply; None if the log refused, and whoever waits has been told."""
        try:
            return await self._host.propose(machine, command)
        except ClusterError as error:
            logger.warning("the log refused a change of the coordinator: %s", error)
            if token is not None:
                self._settle(token, error)
            return None

    async def _publish(self, spec: JobSpec) -> None:
        now_ms = self._now_ms()
        command = encode_publish(
            PublishCommand(
                job_id=spec.job_id,
                staging=path_of_url(spec.staging),
                output=path_of_url(spec.output),
                overwrite=spec.overwrite,
                now_ms=now_ms,
            )
        )
        refusal: MinigfsError | None = None
        while (reply := await self._commit(PUBLISH_MACHINE, command, None)) is None or isinstance(
            refusal := decode_refusal(reply), Busy
        ):
            await asyncio.sleep(_RETRY_S)  # an output in a tree that is being cloned waits, too
        if refusal is None:
            self._handle(Applied(command=PublishJob(now_ms=now_ms, job_id=spec.job_id)))
        else:
            failure = Failure(kind=FailureKind.OUTPUT, error=refusal.message, url=spec.output)
            self._handle(PublishRefused(job_id=spec.job_id, failure=failure))

    async def _discard(self, job_id: JobId, staging: str) -> None:
        for url in working_urls(staging):
            await self._discard_one(job_id, url)

    async def _discard_one(self, job_id: JobId, staging: str) -> None:
        if staging.startswith(_MINIGFS):
            await self._remove(path_of_url(staging))
            return
        try:
            await asyncio.to_thread(self._discard_staging, staging)
        except FileNotFoundError:
            pass  # no attempt came so far as to write
        except (MinigfsError, OSError) as error:
            logger.warning("%s: %s stays behind: %s", job_id, staging, error)

    async def _remove(self, path: str) -> None:
        try:
            get_inode(self._files.state, split_path(path))
        except MinigfsError:
            return  # no attempt came so far as to write
        command = fs_commands.Remove(self._clock.now_ms(), path, recursive=True)
        encoded = fs_commands.encode_command(command)
        while (reply := await self._commit(FILE_SYSTEM_MACHINE, encoded, None)) is None or (
            isinstance(refused := fs_commands.decode_reply(reply), fs_commands.Refused)
            and refused.code == Busy.code
        ):
            await asyncio.sleep(_RETRY_S)


def path_of_url(url: str) -> str:
    """The path in minigfs that ``minigfs://[authority]/path`` names."""
    rest = url.removeprefix(_MINIGFS)
    assert rest != url, f"{url} is not on minigfs"
    return "/" + rest.partition("/")[2].strip("/")
