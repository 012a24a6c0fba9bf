"""What `status` and `admin report` show: the health of the data, the servers, what is under way."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from minigfs.config import FileSystemConfig
from minigfs.master.health import HealthTally
from minigfs.master.membership import Server
from minigfs.master.messages import (
    ChunkserverReport,
    ClusterReport,
    GetClusterReport,
    MasterReport,
    RepairReport,
    TrashReport,
)
from minigfs.master.state import TRASH_ID, DirectoryInode, FileSystemState
from minigfs.master.tenure import Tenure
from minigfs.master.trash import next_to_expire
from minigfs.replication.host import MemberStatus
from minigfs.transport.control_server import ControlHandler
from minigfs.transport.messages import Request

__all__ = ["Reporting", "trash_report"]


class Reporting:
    """Answers ``GetClusterReport`` for a service, leading or not."""

    def __init__(
        self,
        config: FileSystemConfig,
        *,
        members: Callable[[], Sequence[MemberStatus]],
        readable: Callable[[bool], Awaitable[object]],
        state: Callable[[], FileSystemState],
        tenure: Callable[[], Tenure | None],
    ) -> None:
        """``readable(stale_ok)`` returns when the state may be shown."""
        self._config = config
        self._members = members
        self._readable = readable
        self._state = state
        self._tenure = tenure

    def handlers(self) -> Mapping[type[Request[Any]], ControlHandler]:
        return {GetClusterReport: self._report}

    async def _report(self, request: GetClusterReport) -> ClusterReport:
        await self._readable(request.stale_ok)
        tenure, masters = self._tenure(), self._members()
        silent = [master for master in masters if master.role == "silent"]
        reasons = tuple(f"master {master.address} is not heard of" for master in silent)
        if tenure is None:
            reasons = (*reasons, "told by a master that does not lead")
            return self._made(masters, "DEGRADED", reasons)
        tally = await tenure.tally(self._state)
        servers = tenure.membership.report(tenure.now_ms, self._state().draining)
        word, more = tally.verdict(
            alive_count=sum(s.alive and s.duty in ("serving", "full") for s in servers),
            replication=self._config.replication,
            may_still_report=tenure.may_still_report,
            full=[server.address for server in servers if server.alive and server.duty == "full"],
        )
        reasons += tuple(
            f"chunkserver {address} has seen a newer log than this master's: an old copy leads?"
            for address in tenure.strangers.values()
        )
        reasons += tuple(_set_aside(tenure.membership.live_servers(tenure.now_ms)))
        repair = _repair_report(tenure, tally)
        return self._made(
            masters,
            "DEGRADED" if word == "OK" and reasons else word,
            (*more, *reasons),
            servers=servers,
            notes=_notes(repair, servers),
            repair=repair,
        )

    def _made(
        self,
        masters: Sequence[MemberStatus],
        health: str,
        reasons: tuple[str, ...],
        *,
        servers: tuple[ChunkserverReport, ...] = (),
        notes: tuple[str, ...] = (),
        repair: RepairReport | None = None,
    ) -> ClusterReport:
        state = self._state()
        unpublished_count = sum(len(file.chunks) for file in state.temporary.values())
        return ClusterReport(
            cluster_id=self._config.cluster_id,
            chunk_bytes=self._config.chunk_bytes,
            replication=self._config.replication,
            health=health,
            reasons=reasons,
            masters=tuple(_master_report(master) for master in masters),
            elections=max(master.term for master in masters),
            chunkservers=servers,
            file_count=state.file_count,
            directory_count=state.directory_count,
            chunk_count=len(state.chunks) - unpublished_count,
            notes=notes,
            repair=repair,
            trash=trash_report(state),
        )


def _set_aside(servers: Iterable[Server]) -> Iterator[str]:
    for server in servers:
        beat = server.last_heartbeat
        if beat.set_aside_count:
            yield (
                f"chunkserver {beat.address} set {beat.set_aside_count} replicas aside, of "
                "versions that these masters never gave: did they lose a part of their log? `fsck` "
                f"names the files; look at {beat.directory}/quarantine, then empty it"
            )


def _repair_report(tenure: Tenure, tally: HealthTally) -> RepairReport:
    repairs, rate = tenure.repairs, tenure.repairs.bytes_per_second(tenure.now_ms)
    is_nearing = rate > 0 and repairs.running_count > 0
    return RepairReport(
        waiting=repairs.waiting_count,
        copying=repairs.running_count,
        missing_bytes=tally.missing_bytes,
        single_replicas=tally.single_count,
        bytes_per_second=rate,
        remaining_ms=tally.missing_bytes * 1000 // rate if is_nearing else None,
        rebalancing=repairs.rebalance.is_asked_for,
    )


def trash_report(state: FileSystemState) -> TrashReport:
    root = state.inodes[TRASH_ID]
    assert isinstance(root, DirectoryInode)
    first = next_to_expire(state)
    return TrashReport(
        things=len(state.trash),
        files=root.file_count,
        directories=root.directory_count,
        next_expiry_ms=first[1] if first is not None else None,
    )


def _notes(repair: RepairReport, servers: Sequence[ChunkserverReport]) -> tuple[str, ...]:
    notes: list[str] = []
    if repair.missing_bytes and repair.copying:
        left = "" if repair.remaining_ms is None else f", {_duration(repair.remaining_ms)} left"
        notes.append(f"repair: {repair.copying} copies under way, {repair.waiting} to come{left}")
    elif repair.waiting:
        notes.append(f"repair: {repair.waiting} chunks wait for a chunkserver that can take them")
    if repair.rebalancing:
        notes.append(f"rebalancing: {repair.copying} copies under way")
    for server in servers:
        if server.duty == "leaving":
            left = f"{server.chunks_left} chunks are not safe elsewhere yet"
            notes.append(f"chunkserver {server.address} is being decommissioned: {left}")
        elif server.duty == "empty":
            notes.append(f"chunkserver {server.address} is decommissioned: it can be stopped")
    return tuple(notes)


def _duration(milliseconds: int) -> str:
    seconds = max(milliseconds // 1000, 1)
    return f"about {seconds} s" if seconds < 120 else f"about {seconds // 60} min"


def _master_report(member: MemberStatus) -> MasterReport:
    return MasterReport(
        id=member.member_id,
        role=member.role,
        term=member.term,
        pid=member.pid,
        address=member.address,
        dir=member.directory,
        commit_index=member.commit_index,
    )
