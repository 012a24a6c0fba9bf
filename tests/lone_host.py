"""A group of one on a disk of the test's choice: real log, real threads, no other members."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from minigfs.errors import NoSpace
from minigfs.ports import Disk, SystemClock, SystemRng
from minigfs.raft import Configuration, NodeId
from minigfs.replication.durable_log import DurableLog, LogSettings, NoLog
from minigfs.replication.host import HostSettings, Machine, ReplicatedHost
from minigfs.transport.security import Security

__all__ = ["LONE_ADDRESS", "LONE_MEMBER", "lone_host", "lone_log", "with_space"]

LONE_ADDRESS = "127.0.0.1:1"  # nobody will ask for it
LONE_MEMBER = NodeId("alone")


def lone_log(disk: Disk, *, settings: LogSettings | None = None) -> DurableLog:
    """The log on the disk; a new one if there is none."""
    settings = settings or LogSettings(segment_bytes=1 << 20)
    try:
        return DurableLog.open(disk, "", settings=settings)
    except NoLog:
        founding = Configuration(voters=(LONE_MEMBER,))
        return DurableLog.create(
            disk, "", member_id=LONE_MEMBER, configuration=founding, settings=settings
        )


def lone_host(
    disk: Disk,
    machines: Mapping[str, Machine],
    *,
    settings: HostSettings | None = None,
    log_settings: LogSettings | None = None,
) -> ReplicatedHost:
    """A host to be started (``await host.start(LONE_ADDRESS)``: then it leads) and stopped."""
    return ReplicatedHost(
        lone_log(disk, settings=log_settings),
        machines,
        security=Security(b"t" * 32, "alone"),
        directory=Path("/nowhere"),
        founding={},
        clock=SystemClock(),
        rng=SystemRng(),
        settings=settings,
    )


async def with_space(
    host: ReplicatedHost, call: Callable[[Any], Awaitable[Any]], request: object
) -> Any:
    """The reply, once the host has noticed that there is space again: it looks now and then."""
    while True:
        try:
            return await call(request)
        except NoSpace:
            await host.until(lambda: False, timeout_ms=50)
