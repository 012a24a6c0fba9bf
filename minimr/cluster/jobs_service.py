"""The coordinator as a service of the master: asyncio around the pure machine.

Every request becomes an event, and its answer an effect that carries the request's token; a long
poll is a token that is answered later. Changes go through the master's log, in the order in which
the coordinator proposed them, and come back as events when they are durable and applied.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, assert_never, get_args

from minigfs.errors import MinigfsError, NoSpace, OutcomeUnknown, Unreachable
from minigfs.master import commands as fs_commands
from minigfs.master.machine import FILE_SYSTEM_MACHINE
from minigfs.master.namespace import get_inode, split_path
from minigfs.master.service import FileSystemService
from minigfs.ports import Clock
from minigfs.replication.host import Machine, ReplicatedHost
from minigfs.transport.control_server import ControlHandler
from minigfs.transport.messages import Message, Request
from minimr.cluster.publish import (
    PUBLISH_MACHINE,
    PublishCommand,
    PublishMachine,
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
from minimr.plan.naming import staging_url

__all__ = ["JOBS_MACHINE", "CoordinatorService"]

logger = logging.getLogger(__name__)

JOBS_MACHINE = "jobs"  # its name in the log
_MINIGFS = "minigfs://"
_RETRY_S = 0.5  # between two proposals of a command that nobody waits for, while the disk is full


class CoordinatorService:
    """See ``minigfs.master.process.HostedService``.

    ``discard_staging`` removes a directory outside of minigfs by its URL; it runs in a thread.
    """

    def __init__(
        self,
        files: FileSystemService,
        clock: Clock,
        *,
        discard_staging: Callable[[str], None],
    ) -> None:
        self._files = files
        self._clock = clock
        self._discard_staging = discard_staging
        self._machine = CoordinatorMachine()
        self._publish_machine = PublishMachine(files.machine, self._machine)
        self._host: ReplicatedHost | None = None
        self._coordinator: Coordinator | None = None
        self._offset_ms = 0
        self._tokens = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.Task[None] | None = None

    @property
    def machines(self) -> Mapping[str, Machine]:
        return {JOBS_MACHINE: self._machine, PUBLISH_MACHINE: self._publish_machine}

    def handlers(self) -> Mapping[type[Request[Any]], ControlHandler]:
        return dict.fromkeys(get_args(CoordinatorRequest), self._answer)

    async def start(self, host: ReplicatedHost) -> None:
        """Open a new term: attempts of former coordinators are told from ours by it."""
        self._host = host
        self._offset_ms = self._clock.now_ms() - self._clock.monotonic_ms()
        term = self._machine.state.term + 1
        await host.propose(JOBS_MACHINE, encode_command(OpenTerm(now_ms=self._now_ms(), term=term)))
        self._coordinator = Coordinator(self._machine, term=term, now_ms=self._now_ms())
        self._ticker = asyncio.create_task(self._tick(), name="coordinator-tick")
        for ended in self._machine.state.history:
            # The master before may have died after it ended the job and before it swept up.
            if ended.state is not JobState.DONE:
                self._spawn(self._discard(ended.job_id, staging_url(ended.output, ended.job_id)))

    async def stop(self) -> None:
        """Answer nobody any more; workers and clients ask the next master."""
        tasks = [*self._tasks, *([self._ticker] if self._ticker is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for future in self._waiting.values():
            future.cancel()

    async def _answer(self, request: CoordinatorRequest) -> Message:
        if self._coordinator is None:
            raise Unreachable("this master is starting: try again")
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
        assert self._coordinator is not None
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
        assert self._host is not None
        try:
            return await self._host.propose(machine, command)
        except (NoSpace, Unreachable, OutcomeUnknown) as error:
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
        while (reply := await self._commit(PUBLISH_MACHINE, command, None)) is None:
            await asyncio.sleep(_RETRY_S)
        refusal = decode_refusal(reply)
        if refusal is None:
            self._handle(Applied(command=PublishJob(now_ms=now_ms, job_id=spec.job_id)))
        else:
            failure = Failure(kind=FailureKind.OUTPUT, error=refusal.message, url=spec.output)
            self._handle(PublishRefused(job_id=spec.job_id, failure=failure))

    async def _discard(self, job_id: JobId, staging: str) -> None:
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
            get_inode(self._files.machine.state, split_path(path))
        except MinigfsError:
            return  # no attempt came so far as to write
        command = fs_commands.Remove(self._clock.now_ms(), path, recursive=True)
        encoded = fs_commands.encode_command(command)
        while await self._commit(FILE_SYSTEM_MACHINE, encoded, None) is None:
            await asyncio.sleep(_RETRY_S)


def path_of_url(url: str) -> str:
    """The path in minigfs that ``minigfs://[authority]/path`` names."""
    rest = url.removeprefix(_MINIGFS)
    assert rest != url, f"{url} is not on minigfs"
    return "/" + rest.partition("/")[2].strip("/")
