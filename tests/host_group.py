"""Several members in one process, on one loop, with real logs, threads and sockets between them.

Time runs five times as fast as in production, so that elections take a fifth of a second.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

from minigfs.ports import SystemClock, SystemRng
from minigfs.replication.admin import GroupAdmin
from minigfs.replication.founding import found_group, load_member, make_newcomer
from minigfs.replication.host import HostSettings, ReplicatedHost
from minigfs.replication.peers import PEER_LIMITS
from minigfs.transport.control_server import ControlServer
from minigfs.transport.security import Security
from tests.addresses import free_address

__all__ = ["FAST", "GroupMember", "HostGroup", "Tally"]

FAST = HostSettings(tick_ms=10, heartbeat_ticks=2, election_timeout_ticks=10)
SECURITY = Security(b"t" * 32, "group")
PATIENCE_MS = 15_000


class Tally:
    """A machine that counts how often it was told each thing."""

    def __init__(self) -> None:
        self.counts: dict[bytes, int] = {}

    def apply(self, index: int, command: bytes) -> bytes:
        self.counts[command] = self.counts.get(command, 0) + 1
        return b"%d" % self.counts[command]

    def has(self, command: bytes, count: int) -> bool:
        return self.counts.get(command) == count

    def freeze(self) -> Iterator[bytes]:
        return iter([b"%d %s" % (count, name) for name, count in self.counts.items()])

    def restore(self, records: Iterator[bytes]) -> None:
        pairs = (record.split(b" ", 1) for record in records)
        self.counts = {name: int(count) for count, name in pairs}


@dataclass(slots=True)
class GroupMember:
    directory: Path
    address: str
    tally: Tally = field(default_factory=Tally)
    host: ReplicatedHost | None = None
    server: ControlServer | None = None

    @property
    def running(self) -> ReplicatedHost:
        assert self.host is not None
        return self.host

    async def start(self) -> ReplicatedHost:
        loaded = load_member(self.directory)
        assert loaded is not None
        log, file = loaded
        self.tally = Tally()
        self.host = host = ReplicatedHost(
            log,
            {"tally": self.tally},
            security=SECURITY,
            directory=self.directory,
            founding=file.members,
            clock=SystemClock(),
            rng=SystemRng(),
            settings=FAST,
        )
        self.server = ControlServer(
            GroupAdmin(host).handlers(),
            SECURITY,
            one_way=host.links.receiver,
            one_way_limits=PEER_LIMITS,
        )
        self.address = await self.server.start(self.address)
        await host.start(self.address)
        return host

    async def stop(self) -> None:
        """Without handing over: to the others it is as if it had been killed."""
        if self.server is not None:
            await self.server.stop()
        if self.host is not None:
            await self.host.stop()
        self.host = self.server = None


class HostGroup:
    """``async with HostGroup(tmp_path) as group``: founded, started, with a leader."""

    def __init__(self, root: Path, count: int = 3) -> None:
        self.root = root
        self.members = [
            GroupMember(directory=root / str(number), address=free_address())
            for number in range(count)
        ]

    async def __aenter__(self) -> Self:
        found_group([(m.directory, m.address) for m in self.members], SystemRng())
        for member in self.members:
            await member.start()
        await self.leader()
        return self

    async def __aexit__(self, *_: object) -> None:
        for member in self.members:
            await member.stop()

    @property
    def hosts(self) -> list[ReplicatedHost]:
        return [member.host for member in self.members if member.host is not None]

    async def leader(self) -> GroupMember:
        """The member that leads, once all others that run follow it."""
        any_host = self.hosts[0]
        assert await any_host.until(lambda: self._agreed() is not None, timeout_ms=PATIENCE_MS)
        leader = self._agreed()
        assert leader is not None
        return leader

    async def followers(self) -> list[GroupMember]:
        leader = await self.leader()
        return [m for m in self.members if m is not leader and m.host is not None]

    def _agreed(self) -> GroupMember | None:
        leaders = [m for m in self.members if m.host is not None and m.host.is_leader]
        if len(leaders) != 1:
            return None
        leader_id = leaders[0].running.member_id
        seen = {host.leader.member_id if host.leader else None for host in self.hosts}
        return leaders[0] if seen == {leader_id} else None

    async def add_newcomer(self, name: str) -> GroupMember:
        """A member of no group, running, that may ask to be taken in."""
        member = GroupMember(directory=self.root / name, address=free_address())
        make_newcomer(member.directory, member.address, SystemRng())
        self.members.append(member)
        await member.start()
        return member

    async def all_have(self, name: bytes, count: int = 1) -> None:
        """Return when every running member has applied it."""
        for member in self.members:
            if member.host is not None:
                assert await member.host.until(
                    partial(member.tally.has, name, count), timeout_ms=PATIENCE_MS
                )
