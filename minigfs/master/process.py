"""The master process: one member of the group, the services it hosts, one port for all of it.

``minigfs serve master`` hosts the file system alone; ``minimr`` adds the job coordinator to the
same log. The order of a start: lock the directory, open or make its member, attach the services,
listen, take part in the group. Services are led in when this master leads, and answer then; other
requests are answered with the leader's address. SIGTERM hands leadership over first. A log that
fails ends the process with its error, since nobody can know what the disk holds.
"""

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from minigfs.errors import InvalidConfig, MemberRemoved
from minigfs.master.interpreter import collect_for_ever, steady_interpreter
from minigfs.master.leadership import Leadership, LedService
from minigfs.master.metrics import group_metrics
from minigfs.master.options import MasterOptions
from minigfs.master.service import FileSystemService
from minigfs.ports import SystemClock, SystemRng
from minigfs.raft import NodeId
from minigfs.replication.admin import GroupAdmin, join_group
from minigfs.replication.directory_lock import DirectoryLock
from minigfs.replication.founding import (
    found_group,
    load_member,
    make_newcomer,
    remember_members,
)
from minigfs.replication.host import Machine, ReplicatedHost
from minigfs.replication.peers import PEER_LIMITS
from minigfs.transport.address import Address
from minigfs.transport.client import ConnectionPool
from minigfs.transport.control_server import ControlHandler, ControlServer
from minigfs.transport.messages import Request
from minigfs.transport.metrics import Metric
from minigfs.transport.security import check_listen_address

if TYPE_CHECKING:
    from minigfs.transport.metrics_http import MetricsServer

__all__ = ["FileSystemService", "HostedService", "MasterOptions", "serve_master"]

logger = logging.getLogger(__name__)

REMEMBER_INTERVAL_MS = 500
READY_TIMEOUT_MS = 5_000  # without a leader: others may have to be started first


class HostedService(LedService, Protocol):
    """Machines in the masters' log, with the requests that they answer.

    Every master hosts it, and answers its requests; unless it leads, with ``NotLeader``
    (``ReplicatedHost.require_leader``) or from what it knows, if that will do.
    """

    @property
    def machines(self) -> Mapping[str, Machine]:
        """By their names in the log, which never change."""
        ...

    def handlers(self) -> Mapping[type[Request[Any]], ControlHandler]: ...

    async def attach(self, host: ReplicatedHost) -> None:
        """Once, before anything is asked."""
        ...

    async def stop(self) -> None: ...


@runtime_checkable
class Measured(Protocol):
    """A service that has figures of its own."""

    def metrics(self) -> Iterator[Metric]:
        """May be called from any thread."""
        ...


async def serve_master(
    options: MasterOptions,
    services: Sequence[HostedService],
    *,
    ready: Callable[[Address], None],
) -> None:
    """Serve until SIGTERM or SIGINT, or until the group has removed this master; ``ready`` is told
    the bound address, once requests are answered here or it is known who answers them.

    Raises
    ------
    InvalidConfig
        The directory is in use, was made with other values, lost its log, or the address is not
        allowed.
    CorruptLog
        A record that was durable once does not read back.
    MemberRolledBack, MemberRemoved
        The directory is an old copy, or of a member that was none any more when this began.
    """
    check_listen_address(options.listen, options.security, options.insecure)
    options.directory.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        stack.enter_context(DirectoryLock(options.directory))
        stack.enter_context(steady_interpreter())
        host = _host_of(options, services)
        stack.push_async_callback(host.stop)
        gc.freeze()
        for service in services:
            await service.attach(host)
            stack.push_async_callback(service.stop)
        server = _server_of(host, options, services)
        bound = await server.start(options.listen)
        stack.push_async_callback(server.stop)
        collector = asyncio.create_task(collect_for_ever(), name="collector")
        stack.callback(collector.cancel)
        memory = asyncio.create_task(_remember_for_ever(host, options.directory), name="memory")
        stack.push_async_callback(_ended, memory)
        if options.metrics:
            metrics = _metrics_of(host, options, services)
            stack.callback(metrics.stop)
            metrics.start(options.directory)
        leadership = Leadership(host, services)
        stack.push_async_callback(leadership.stop)
        stopped = _stop_signal()
        await host.start(options.advertise or bound)
        logger.info("master %s listens on %s", host.member_id, bound)
        ends = {stopped, asyncio.ensure_future(host.wait_failed())}
        ends.add(asyncio.ensure_future(leadership.wait_failed()))
        begun = asyncio.create_task(_begin(host, leadership, options, bound))
        done, _ = await asyncio.wait({begun, *ends}, return_when=asyncio.FIRST_COMPLETED)
        has_served = begun in done
        if has_served:
            begun.result()
            ready(bound)
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in {begun, *ends} - done:
            task.cancel()
        try:
            for task in done:
                task.result()
        except MemberRemoved as removed:
            if not has_served:
                raise
            logger.info("ending: %s", removed)
            return
        await host.hand_over()


def _host_of(options: MasterOptions, services: Sequence[HostedService]) -> ReplicatedHost:
    """The member of the directory, made if the options say so, with its machines restored."""
    machines: dict[str, Machine] = {}
    for service in services:
        assert machines.keys().isdisjoint(service.machines), "two machines with one name"
        machines.update(service.machines)
    rng = SystemRng()
    loaded = load_member(options.directory)
    if loaded is None:
        address = options.advertise or options.listen
        if options.founded:
            raise InvalidConfig(
                f"{options.directory} holds no master of this group (any more): what it promised "
                "is lost, so it cannot come back. Remove it from the group (admin masters remove) "
                "and start a new one with --join"
            )
        if options.join:
            make_newcomer(options.directory, address, rng)
        else:
            found_group([(options.directory, address)], rng)
        loaded = load_member(options.directory)
        assert loaded is not None
    log, members = loaded
    return ReplicatedHost(
        log,
        machines,
        security=options.security,
        directory=options.directory,
        founding=members.members,
        clock=SystemClock(),
        rng=rng,
    )


def _server_of(
    host: ReplicatedHost, options: MasterOptions, services: Sequence[HostedService]
) -> ControlServer:
    return ControlServer(
        {**GroupAdmin(host).handlers(), **_all_handlers(services)},
        options.security,
        name="master",
        one_way=host.links.receiver,
        one_way_limits=PEER_LIMITS,
    )


def _metrics_of(
    host: ReplicatedHost, options: MasterOptions, services: Sequence[HostedService]
) -> "MetricsServer":
    from minigfs.transport.metrics_http import MetricsServer

    def collect() -> Iterator[Metric]:
        yield from group_metrics(host)
        for service in services:
            if isinstance(service, Measured):
                yield from service.metrics()

    return MetricsServer(collect, options.metrics, options.security, insecure=options.insecure)


async def _begin(
    host: ReplicatedHost, leadership: Leadership, options: MasterOptions, bound: Address
) -> None:
    """Return when requests are answered, or it is known who answers them."""
    if options.join:
        pool = ConnectionPool(options.security)
        try:
            await join_group(host, options.advertise or bound, options.join, pool)
        finally:
            pool.close()
    serving = asyncio.create_task(leadership.serving.wait())
    following = asyncio.create_task(host.until(lambda: _follows(host), timeout_ms=READY_TIMEOUT_MS))
    await asyncio.wait({serving, following}, return_when=asyncio.FIRST_COMPLETED)
    serving.cancel()
    following.cancel()


def _follows(host: ReplicatedHost) -> bool:
    leader = host.leader
    return leader is not None and leader.member_id != host.member_id


def _all_handlers(
    services: Sequence[HostedService],
) -> dict[type[Request[Any]], ControlHandler]:
    handlers: dict[type[Request[Any]], ControlHandler] = {}
    for service in services:
        assert handlers.keys().isdisjoint(service.handlers()), "two handlers for one request"
        handlers.update(service.handlers())
    return handlers


async def _remember_for_ever(host: ReplicatedHost, directory: Path) -> None:
    """Keep the members' addresses beside the log, whenever they have changed."""
    remembered: dict[NodeId, Address] = {}
    while True:
        await asyncio.sleep(REMEMBER_INTERVAL_MS / 1000)
        members = host.view().configuration.members
        known = {m: address for m in members if (address := host.addresses.get(m)) is not None}
        if host.member_id in known and known != remembered:
            try:
                await asyncio.to_thread(remember_members, directory, known)
            except OSError as error:
                logger.warning("cannot keep the addresses of the masters: %s", error)
            else:
                remembered = known


async def _ended(task: "asyncio.Task[None]") -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.wait([task])


def _stop_signal() -> asyncio.Future[None]:
    """Done when the process is asked to end."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[None] = loop.create_future()

    def stop() -> None:
        if not stopped.done():
            stopped.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopped
