"""The coordinator as a service of the masters: the one that leads has one at work.

See ``jobs_term`` for what it does. The other masters only apply what the log says, and send whoever
asks to the leader.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

from msgspec.structs import replace as with_fields

from minigfs.errors import NotLeader
from minigfs.master.barrier import SharedBarrier
from minigfs.master.service import FileSystemService, master_addresses
from minigfs.ports import Clock
from minigfs.replication.host import Machine, ReplicatedHost
from minigfs.transport.control_server import ControlHandler
from minigfs.transport.messages import Message, Request
from minigfs.transport.metrics import Metric
from minimr.cluster.jobs_metrics import job_metrics
from minimr.cluster.jobs_term import JOBS_MACHINE, CoordinatorTerm
from minimr.cluster.publish import PUBLISH_MACHINE, PublishMachine
from minimr.coordinator.events import CoordinatorRequest
from minimr.coordinator.machine import CoordinatorMachine
from minimr.messages import GetJob, GetJobSpec, ListJobs, PingReply

__all__ = ["CoordinatorService"]

_READS = (GetJob, GetJobSpec, ListJobs)  # shown only by who leads for certain: never the past


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
        self._term: CoordinatorTerm | None = None

    @property
    def machines(self) -> Mapping[str, Machine]:
        return {JOBS_MACHINE: self._machine, PUBLISH_MACHINE: self._publish_machine}

    def handlers(self) -> Mapping[type[Request[Any]], ControlHandler]:
        return dict.fromkeys(get_args(CoordinatorRequest), self._answer)

    def metrics(self) -> Iterator[Metric]:
        """May be called from any thread."""
        return job_metrics(self._machine.state)

    async def attach(self, host: ReplicatedHost) -> None:
        self._host = host
        self._barrier = SharedBarrier(host.read_barrier)

    async def lead(self, term: int) -> None:
        """Open a new term: attempts of former coordinators are told from ours by it."""
        self._term = await CoordinatorTerm.open(
            self._host,
            self._machine,
            self._files.machine,
            self._clock,
            term=term,
            discard_staging=self._discard_staging,
        )

    def follow(self) -> None:
        if self._term is not None:
            self._term.end()
            self._term = None

    async def stop(self) -> None:
        term = self._term
        self.follow()
        if term is not None:
            await term.wait_ended()

    async def _answer(self, request: CoordinatorRequest) -> Message:
        self._host.require_leader()
        if isinstance(request, _READS):
            await self._barrier.wait()
        if self._term is None:
            raise NotLeader("this master does not lead: try again")
        answer = await self._term.answer(request)
        if isinstance(answer, PingReply):
            return with_fields(answer, masters=master_addresses(self._host))
        return answer
