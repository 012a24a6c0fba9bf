"""What a person asks for the chunkservers: to empty one, to use it again, to even out the disks."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from minigfs.config import FileSystemConfig
from minigfs.errors import UsageError
from minigfs.ids import ChunkserverId
from minigfs.master import commands
from minigfs.master.messages import ChunkserverReport, SetDecommission, StartRebalance
from minigfs.master.state import FileSystemState
from minigfs.master.tenure import Tenure
from minigfs.ports import Clock
from minigfs.transport.control_server import ControlHandler
from minigfs.transport.messages import Empty, Request

__all__ = ["ChunkserverCare"]


class ChunkserverCare:
    """Answers ``SetDecommission`` and ``StartRebalance`` for a service that leads."""

    def __init__(
        self,
        config: FileSystemConfig,
        clock: Clock,
        *,
        state: Callable[[], FileSystemState],
        leading: Callable[[], Tenure],
        change: Callable[[commands.Command], Awaitable[None]],
    ) -> None:
        self._config = config
        self._clock = clock
        self._state = state
        self._leading = leading
        self._change = change

    def handlers(self) -> Mapping[type[Request[Any]], ControlHandler]:
        return {SetDecommission: self._set_decommission, StartRebalance: self._rebalance}

    async def _set_decommission(self, request: SetDecommission) -> ChunkserverReport:
        tenure, server = self._leading(), request.chunkserver_id
        is_draining = server in self._state().draining
        if request.decommission and not is_draining:
            self._check_can_go(tenure, server, force=request.force)
        if request.decommission != is_draining:
            now_ms = self._clock.now_ms()
            await self._change(commands.SetDraining(now_ms, server, request.decommission))
        return self._report_of(self._leading(), server)

    def _check_can_go(self, tenure: Tenure, server: ChunkserverId, *, force: bool) -> None:
        self._report_of(tenure, server)
        left = [
            other
            for other in tenure.membership.report(tenure.now_ms, self._state().draining)
            if other.id != server and other.alive and other.duty == "serving"
        ]
        if len(left) < self._config.replication and not force:
            raise UsageError(
                f"without chunkserver {server} there are {len(left)} that take data, and files ask "
                f"for {self._config.replication} replicas: start another one first, or give "
                "--force to move what can be moved"
            )

    def _report_of(self, tenure: Tenure, server: ChunkserverId) -> ChunkserverReport:
        reports = tenure.membership.report(tenure.now_ms, self._state().draining)
        for report in reports:
            if report.id == server:
                return report
        raise UsageError(
            f"there is no chunkserver {server}: "
            f"`admin chunkservers list` shows the {len(reports)} that there are"
        )

    async def _rebalance(self, _request: StartRebalance) -> Empty:
        self._leading().repairs.rebalance.is_asked_for = True
        return Empty()
