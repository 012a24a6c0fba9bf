"""What the master knows of chunkservers from their heartbeats: soft state, learnt again at start.

Which servers a chunk lives on is in the log; whether they have it is theirs to say (GFS section
2.6.2). A replica counts as present on a live server until something speaks against it: the
server's full report lacked it or had another version or length, the server reported it gone, or a
reader found it damaged. A server that was away, restarted, or is new to this master is asked for
a full report, and until the last part of it came its replicas count as present.

Deleting is the one order that cannot be taken back. It is given here for handles that the server
reported itself, that no file has, and that are below the state's next handle: what this master's
log has never handed out is not its to delete. A replica of a live chunk on a server that is not in
its set is a *stray*: ``repair`` may make use of it, or have it deleted. One of a version that this
log never gave is *ahead*: it is set aside by its server, for a person to look at (DESIGN 6.5).
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from msgspec.structs import replace as with_fields

from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion
from minigfs.master.handle_set import HandleSet
from minigfs.master.heartbeat_messages import (
    AheadReplica,
    Heartbeat,
    HeartbeatReply,
    ReplicaReport,
)
from minigfs.master.messages import (
    ChunkserverReport,
)
from minigfs.master.placement import Candidate
from minigfs.master.state import Chunk, FileSystemState

__all__ = ["ALIVE_MS", "DELETE_ORDERS_MAX", "Membership", "Server", "as_candidate"]

ALIVE_MS = 5_000  # heartbeats come twice a second: a long pause of a busy machine is no death
DELETE_ORDERS_MAX = 1_000  # per heartbeat, so that deleting a large tree disturbs nobody
GARBAGE_SWEEP_MAX = 4_000  # per tick, for the same reason
_CONFIRMED_MS = 30_000  # a full report that was under way when a chunk was sealed is older no more


@dataclass(slots=True, kw_only=True)
class Server:
    """One chunkserver; everything it said last."""

    chunkserver_id: ChunkserverId
    last_heartbeat: Heartbeat
    last_heard_ms: int
    reported: bool = False  # its full report is in, all of it
    report: int = 0  # the full report that its next part belongs to
    next_part: int = 0
    held: HandleSet = field(default_factory=HandleSet)
    confirmed: dict[ChunkHandle, int] = field(default_factory=dict)  # published, when
    damaged: HandleSet = field(default_factory=HandleSet)
    doomed: HandleSet = field(default_factory=HandleSet)  # to be deleted
    strays: HandleSet = field(default_factory=HandleSet)  # held, and not in their sets
    ahead: dict[ChunkHandle, ChunkVersion] = field(default_factory=dict)
    recent_creations: int = 0

    def is_alive(self, now_ms: int) -> bool:
        return now_ms - self.last_heard_ms <= ALIVE_MS

    def has(self, handle: ChunkHandle) -> bool:
        """Whether its replica of a chunk counts as present and sound while it is alive."""
        if handle in self.damaged:
            return False
        return not self.reported or handle in self.held or handle in self.confirmed

    def surely_has(self, handle: ChunkHandle) -> bool:
        """Whether it said so itself, or a writer has its acknowledgement."""
        return self.reported and self.has(handle)

    @property
    def chunks_left(self) -> int:
        """What it holds: a replica is deleted when all that count on it have others."""
        return len(self.held) + len(self.confirmed)

    def duty(self, is_draining: bool) -> str:
        """As ``ChunkserverReport`` has it."""
        if is_draining:
            return "empty" if self.reported and not self.chunks_left else "leaving"
        return "full" if as_candidate(self).is_full else "serving"

    def may_hold(self, handle: ChunkHandle) -> bool:
        return not self.reported or handle in self.held


class Membership:
    """All times are milliseconds of a clock that never goes back.

    ``news`` collects the chunks whose standing has changed by what a server, or a reader, said;
    ``full_report_count`` how often a server's whole stock became known. Repair looks at both.
    """

    def __init__(self) -> None:
        self._servers: dict[ChunkserverId, Server] = {}
        self.news: list[ChunkHandle] = []
        self.full_report_count = 0

    def heartbeat(self, beat: Heartbeat, state: FileSystemState, now_ms: int) -> HeartbeatReply:
        """Take in what a chunkserver says of itself; the answer has its orders."""
        server = self._servers.get(beat.chunkserver_id)
        if server is None:
            server = Server(
                chunkserver_id=beat.chunkserver_id, last_heartbeat=beat, last_heard_ms=now_ms
            )
            self._servers[beat.chunkserver_id] = server
        elif not server.is_alive(now_ms) or server.last_heartbeat.pid != beat.pid:
            server.reported, server.report = False, 0
        server.last_heard_ms = now_ms
        if not beat.full or self._accept_part(server, beat, now_ms):
            self._take_reports(server, beat, state)
            self._take_gone(server, beat.gone)
        damaged = [handle for handle in beat.damaged if server.may_hold(handle)]
        server.damaged.update(damaged)
        self.news += damaged
        server.last_heartbeat = _without_reports(beat)
        doomed = (handle for handle in server.doomed if handle not in server.ahead)
        delete = tuple(
            handle for handle in islice(doomed, DELETE_ORDERS_MAX) if _deletable(state, handle)
        )
        under_way = beat.full and beat.report == server.report
        ask = not server.reported and not under_way
        return HeartbeatReply(
            send_full_report=ask,
            delete=delete,
            delete_at_once=tuple(handle for handle in delete if handle in state.never_published),
            restore=tuple(_restorable(server, beat.trashed, state)),
        )

    def _accept_part(self, server: Server, beat: Heartbeat, now_ms: int) -> bool:
        """Whether a part of a full report is the one to come next; the first one starts over.

        A part may arrive twice, and late: its sender did not hear that it was taken.
        """
        if beat.part == 0 and beat.report > server.report:
            self._start_over(server, now_ms)
            server.report, server.next_part = beat.report, 0
        if (beat.report, beat.part) != (server.report, server.next_part):
            return False
        server.next_part += 1
        server.reported = not beat.more
        self.full_report_count += server.reported
        return True

    def _start_over(self, server: Server, now_ms: int) -> None:
        server.reported = False
        server.held = HandleSet()
        server.doomed = HandleSet()
        server.strays = HandleSet()
        server.ahead = {}
        server.confirmed = {
            handle: at_ms
            for handle, at_ms in server.confirmed.items()
            if now_ms - at_ms <= _CONFIRMED_MS
        }

    def _take_reports(self, server: Server, beat: Heartbeat, state: FileSystemState) -> None:
        for report in beat.chunks:
            handle = report.handle
            is_anew = handle in server.held and not beat.full
            server.held.add(handle)
            server.confirmed.pop(handle, None)
            chunk = state.chunks.get(handle)
            if _is_ahead(state, report):
                server.ahead[handle] = report.version
            if chunk is None:
                if handle < state.next_handle:
                    server.doomed.add(handle)
                continue
            if not _matches(chunk, report):
                server.damaged.add(handle)
                self.news.append(handle)
            elif is_anew:  # a first report, or a full one, cannot know what its readers met
                server.damaged.discard(handle)
            if server.chunkserver_id not in chunk.replicas and report.version <= chunk.version:
                server.strays.add(handle)
                self.news.append(handle)

    def _take_gone(self, server: Server, gone: Iterable[ChunkHandle]) -> None:
        for handle in gone:
            server.held.discard(handle)
            server.confirmed.pop(handle, None)
            server.damaged.discard(handle)
            server.doomed.discard(handle)
            server.strays.discard(handle)
            server.ahead.pop(handle, None)
            self.news.append(handle)

    def set_aside_orders(self, server: Server, state: FileSystemState) -> tuple[AheadReplica, ...]:
        """What a server has of versions that were never given; from which version on.

        The state must be known to be the newest, or another leader may have given them.
        """
        orders: list[AheadReplica] = []
        for handle, version in list(islice(server.ahead.items(), DELETE_ORDERS_MAX)):
            chunk = state.chunks.get(handle)
            given = chunk.version if chunk is not None else ChunkVersion(0)
            if version > given:
                orders.append(AheadReplica(handle, ChunkVersion(given + 1)))
            else:
                del server.ahead[handle]
        return tuple(orders)

    def confirm(self, chunk: Chunk, now_ms: int) -> None:
        """A writer has the acknowledgement of every replica of a chunk it published."""
        for chunkserver_id in chunk.replicas:
            server = self._servers.get(chunkserver_id)
            if server is not None and chunk.handle not in server.held:
                server.confirmed.pop(chunk.handle, None)  # the oldest stays the first
                server.confirmed[chunk.handle] = now_ms

    def expire_confirmed(self, now_ms: int) -> None:
        """What a server should have named by now, and has not, is not there."""
        for server in self._servers.values():
            if not server.reported or not server.is_alive(now_ms):
                continue
            while server.confirmed:
                handle, at_ms = next(iter(server.confirmed.items()))
                if now_ms - at_ms <= _CONFIRMED_MS:
                    break
                del server.confirmed[handle]
                self.news.append(handle)

    def mark_damaged(self, handle: ChunkHandle, chunkserver_id: ChunkserverId) -> None:
        server = self._servers.get(chunkserver_id)
        if server is not None:
            server.damaged.add(handle)
            self.news.append(handle)

    def mark_sound(self, handle: ChunkHandle, server: Server) -> None:
        """The server has just verified, or made, its replica of a chunk."""
        server.held.add(handle)
        server.damaged.discard(handle)
        server.confirmed.pop(handle, None)

    def replicas_to_read(self, chunk: Chunk, now_ms: int) -> list[Server]:
        """The live servers to read a chunk from, in the order of its replica set.

        Replicas known as damaged are offered only when nothing else is left: the reader verifies
        what it reads, and then it can tell damage from absence.
        """
        alive = [s for s in self._of(chunk.replicas) if s.is_alive(now_ms)]
        sound = [s for s in alive if s.has(chunk.handle)]
        return sound or [s for s in alive if chunk.handle in s.damaged]

    def gone_from(self, chunk: Chunk, now_ms: int) -> tuple[str, ...]:
        """The addresses of a chunk's servers, if all of them are there and none has it."""
        servers = list(self._of(chunk.replicas))
        is_gone = len(servers) == len(chunk.replicas) and all(
            s.is_alive(now_ms) and s.reported and not s.may_hold(chunk.handle) for s in servers
        )
        return tuple(s.last_heartbeat.address for s in servers) if is_gone else ()

    def present_count(self, chunk: Chunk, now_ms: int) -> int:
        """How many sound replicas of a chunk are on live servers."""
        return sum(s.is_alive(now_ms) and s.has(chunk.handle) for s in self._of(chunk.replicas))

    def candidates(self, now_ms: int) -> list[Candidate]:
        return [as_candidate(s) for s in self._servers.values() if s.is_alive(now_ms)]

    def server(self, chunkserver_id: ChunkserverId) -> Server | None:
        return self._servers.get(chunkserver_id)

    def all_servers(self) -> list[Server]:
        """All that were ever heard of, by this master."""
        return list(self._servers.values())

    def live_servers(self, now_ms: int) -> list[Server]:
        return [server for server in self._servers.values() if server.is_alive(now_ms)]

    def servers(self, chunkserver_ids: Sequence[ChunkserverId]) -> list[Server]:
        """Those of the servers that are known, in the same order."""
        return list(self._of(chunkserver_ids))

    def alive_count(self, now_ms: int) -> int:
        return sum(server.is_alive(now_ms) for server in self._servers.values())

    def note_creations(self, replica_sets: Sequence[Sequence[ChunkserverId]]) -> None:
        for replicas in replica_sets:
            for server in self._of(replicas):
                server.recent_creations += 1

    def halve_creations(self) -> None:
        """Called at a fixed interval: what was created long ago counts no more."""
        for server in self._servers.values():
            server.recent_creations //= 2

    def sweep_garbage(self, state: FileSystemState, now_ms: int) -> tuple[ChunkHandle, ...]:
        """Order the deletion of garbage; answers with the handles that are held nowhere.

        A dead server does not count: when it comes back its full report brings up what it holds.
        """
        forgotten: list[ChunkHandle] = []
        for handle, replicas in islice(state.garbage.items(), GARBAGE_SWEEP_MAX):
            holders = [s for s in self._of(replicas) if s.is_alive(now_ms) and s.may_hold(handle)]
            for server in holders:
                if server.reported:
                    server.doomed.add(handle)
            if not holders:
                forgotten.append(handle)
        return tuple(forgotten)

    def report(
        self, now_ms: int, draining: Collection[ChunkserverId] = ()
    ) -> tuple[ChunkserverReport, ...]:
        return tuple(
            ChunkserverReport(
                id=server.chunkserver_id,
                pid=server.last_heartbeat.pid,
                address=server.last_heartbeat.address,
                dir=server.last_heartbeat.directory,
                host=server.last_heartbeat.host,
                rack=server.last_heartbeat.rack,
                chunks=server.last_heartbeat.chunk_count,
                bytes=server.last_heartbeat.stored_bytes,
                capacity_bytes=server.last_heartbeat.capacity_bytes,
                free_bytes=server.last_heartbeat.free_bytes,
                alive=server.is_alive(now_ms),
                last_heard_ms_ago=now_ms - server.last_heard_ms,
                damaged=server.last_heartbeat.damaged_count,
                last_scrubbed_ms=server.last_heartbeat.last_scrubbed_ms,
                scrub_bound_ms=server.last_heartbeat.scrub_bound_ms,
                duty=server.duty(server.chunkserver_id in draining),
                chunks_left=server.chunks_left if server.chunkserver_id in draining else 0,
            )
            for server in sorted(self._servers.values(), key=lambda s: s.chunkserver_id)
        )

    def _of(self, chunkserver_ids: Iterable[ChunkserverId]) -> Iterator[Server]:
        for chunkserver_id in chunkserver_ids:
            server = self._servers.get(chunkserver_id)
            if server is not None:
                yield server


def as_candidate(server: Server) -> Candidate:
    """What placement cares for."""
    beat = server.last_heartbeat
    return Candidate(
        chunkserver_id=server.chunkserver_id,
        host=beat.host,
        rack=beat.rack,
        capacity_bytes=beat.capacity_bytes,
        free_bytes=beat.free_bytes,
        recent_creations=server.recent_creations,
        stored_bytes=beat.stored_bytes,
    )


def _without_reports(beat: Heartbeat) -> Heartbeat:
    """What is worth keeping of a heartbeat: a full report may name a million chunks."""
    return with_fields(beat, chunks=(), gone=(), damaged=(), trashed=(), copied=())


def _matches(chunk: Chunk, report: ReplicaReport) -> bool:
    """Whether a reported replica can be the chunk's; length and digest are known once it is
    published."""
    if report.version != chunk.version:
        return False
    if chunk.length_bytes == 0:
        return True
    return chunk.length_bytes == report.length_bytes and report.digest in (0, chunk.digest)


def _is_ahead(state: FileSystemState, report: ReplicaReport) -> bool:
    chunk = state.chunks.get(report.handle)
    if chunk is None:
        return report.handle >= state.next_handle
    return report.version > chunk.version


def _restorable(
    server: Server, trashed: Iterable[ChunkHandle], state: FileSystemState
) -> Iterator[ChunkHandle]:
    """What a server threw away, by some order, and is meant to have."""
    for handle in trashed:
        chunk = state.chunks.get(handle)
        if chunk is not None and server.chunkserver_id in chunk.replicas:
            yield handle


def _deletable(state: FileSystemState, handle: ChunkHandle) -> bool:
    return handle not in state.chunks and handle < state.next_handle
