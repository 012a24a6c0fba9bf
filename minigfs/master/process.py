"""The master process: one replicated log, the services it hosts, one port that they answer on.

``minigfs serve master`` hosts the file system alone; ``minimr`` adds the job coordinator to the
same log. The order of a start: lock the directory, replay the log, start the services, listen. A
log that fails ends the process with its error, since nobody can know what the disk holds.
"""

import asyncio
import gc
import logging
import os
import secrets
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from minigfs.errors import InvalidConfig
from minigfs.ids import MasterId
from minigfs.master.options import MasterOptions
from minigfs.master.service import FileSystemService
from minigfs.ports import RealDisk
from minigfs.replication.directory_lock import DirectoryLock
from minigfs.replication.host import Machine, ReplicatedHost
from minigfs.replication.wal import WriteAheadLog
from minigfs.transport.address import Address
from minigfs.transport.control_server import ControlHandler, ControlServer
from minigfs.transport.messages import Request
from minigfs.transport.security import check_listen_address

__all__ = ["FileSystemService", "HostedService", "MasterOptions", "serve_master"]

logger = logging.getLogger(__name__)

WAL_DIRECTORY = "wal"
MASTER_ID_FILE = "master.id"
COLLECT_INTERVAL_MS = 10_000


class HostedService(Protocol):
    """Machines in the master's log, with the requests that they answer."""

    @property
    def machines(self) -> Mapping[str, Machine]:
        """By their names in the log, which never change."""
        ...

    def handlers(self) -> Mapping[type[Request[Any]], ControlHandler]: ...

    async def start(self, host: ReplicatedHost) -> None:
        """The log is replayed; from now on the service may propose."""
        ...

    async def stop(self) -> None: ...


async def serve_master(
    options: MasterOptions,
    services: Sequence[HostedService],
    *,
    ready: Callable[[Address], None],
) -> None:
    """Serve until SIGTERM or SIGINT; ``ready`` is told the bound address.

    Raises
    ------
    InvalidConfig
        The directory is in use, was made with other values, or the address is not allowed.
    CorruptLog
        A record that was durable once does not read back.
    """
    check_listen_address(options.listen, options.security, options.insecure)
    options.directory.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        stack.enter_context(DirectoryLock(options.directory))
        master_id = _load_or_create_master_id(options.directory)
        stack.enter_context(_collector_off())
        host = await _replay(options, services)
        gc.freeze()
        stack.push_async_callback(host.stop)
        for service in services:
            await service.start(host)
            stack.push_async_callback(service.stop)
        server = ControlServer(_all_handlers(services), options.security, name="master")
        bound = await server.start(options.listen)
        stack.push_async_callback(server.stop)
        host.introduce(master_id, options.advertise or bound)
        collector = asyncio.create_task(_collect_for_ever(), name="collector")
        stack.callback(collector.cancel)
        stopped = _stop_signal()
        logger.info("master %s serves %s at entry %d", master_id, bound, host.commit_index)
        ready(bound)
        failed = asyncio.ensure_future(host.wait_failed())
        await asyncio.wait([stopped, failed], return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            failed.result()
        failed.cancel()


async def _replay(options: MasterOptions, services: Sequence[HostedService]) -> ReplicatedHost:
    """The host, with every entry of its log applied."""
    machines: dict[str, Machine] = {}
    for service in services:
        assert machines.keys().isdisjoint(service.machines), "two machines with one name"
        machines.update(service.machines)
    wal = WriteAheadLog(RealDisk(options.directory), WAL_DIRECTORY)
    host = ReplicatedHost(wal, machines)
    await host.start()
    return host


def _all_handlers(
    services: Sequence[HostedService],
) -> dict[type[Request[Any]], ControlHandler]:
    handlers: dict[type[Request[Any]], ControlHandler] = {}
    for service in services:
        assert handlers.keys().isdisjoint(service.handlers()), "two handlers for one request"
        handlers.update(service.handlers())
    return handlers


@contextmanager
def _collector_off() -> Iterator[None]:
    """No collection by itself: it would stop every call for as long as it walks the state."""
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


async def _collect_for_ever() -> None:
    """Collect what was made since the last time, then look at it no more.

    This costs what was allocated in the interval, however large the state, and still frees the
    cycles that errors leave behind.
    """
    while True:
        await asyncio.sleep(COLLECT_INTERVAL_MS / 1000)
        gc.collect()
        gc.freeze()


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


def _load_or_create_master_id(directory: Path) -> MasterId:
    """The name that this directory's master has for ever."""
    path = directory / MASTER_ID_FILE
    if path.exists():
        master_id = path.read_text().strip()
        if not master_id:
            raise InvalidConfig(f"{path} is empty: write the master's id to it again")
        return MasterId(master_id)
    master_id = secrets.token_hex(8)
    fresh = path.with_suffix(".new")
    with fresh.open("w") as file:
        file.write(master_id + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return MasterId(master_id)
