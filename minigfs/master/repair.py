"""Makes up for replicas that are lost or damaged, and takes back those that are too many.

::

    a chunk has too few  --> copy order to one server (in the replies to its heartbeats)
        the server reports a sound replica
            it was in the chunk's set: done
            it was not: one entry of the log adds it, and drops members that are gone
    a chunk has too many --> one entry of the log takes a member out
        the member's replica is astray now: it is deleted once the others are known to be sound

Chunks with a single replica come first, then by how many they lack; live files before deleted ones;
whatever blocks a client before its equals (GFS section 4.3). One copy of a chunk is made at a time,
so that those in greater need overtake. Which servers copy how much at once is limited, and how
fast each may.

Pure. What is known here is soft: after a failover the new leader finds out anew, and a copy that
was made for the old one is found as a stray and made use of.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from minigfs.ids import ChunkHandle, ChunkserverId
from minigfs.master.commands import ReplicaChange
from minigfs.master.membership import Membership, Server, as_candidate
from minigfs.master.messages import CopyOrder, CopyReport
from minigfs.master.placement import Candidate, choose_target, choose_victim
from minigfs.master.repair_queue import RepairQueue
from minigfs.master.standing import Standing, holders_astray, standing_of
from minigfs.master.state import Chunk, FileSystemState

__all__ = ["RepairLimits", "Repairs"]

LOOKS_MAX = 1_000  # at chunks, in one turn: a few milliseconds of the master
ASSIGNMENTS_MAX = 300  # tries in one turn
CHANGES_MAX = 500  # in one entry of the log
STRAYS_MAX = 200  # looked at in one heartbeat
FAILURE_PAUSE_MS = 5_000  # before a server is asked again for a copy that it could not make
STUCK_RETRY_MS = 30_000
EXPIRY_MS = 1_000
LISTEN_MS = 1_500  # three heartbeats of every server
LEARN_MS = 10_000  # a million chunks are reported in less
_RATE_WINDOW_MS = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairLimits:
    """What repair may take from readers and writers."""

    server_bytes_per_second: int = 64 << 20  # copied to one server
    cluster_bytes_per_second: int = 1 << 30
    server_bytes_ordered: int = 128 << 20  # two chunks, so that a server never waits for orders
    server_count_ordered: int = 256  # small chunks cost a sync each, not bytes
    source_bytes_ordered: int = 256 << 20
    order_timeout_ms: int = 60_000


@dataclass(slots=True, kw_only=True)
class _Running:
    """A copy that was ordered. It has ended for its target once ``is_made``."""

    chunk: Chunk
    target: ChunkserverId
    source_ids: tuple[ChunkserverId, ...]
    deadline_ms: int
    is_made: bool = False


@dataclass(slots=True)
class _Load:
    """Of one server, by orders that stand."""

    orders: dict[ChunkHandle, CopyOrder] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(slots=True)
class _Turn:
    """What one turn knows of the servers; their loads are brought up to date as it assigns."""

    candidates: Mapping[ChunkserverId, Candidate]
    creations: dict[ChunkserverId, int]
    bytes_per_second: int
    now_ms: int


@dataclass(slots=True)
class _Seen:
    """The servers as the turn before saw them."""

    alive: frozenset[ChunkserverId] = frozenset()
    full_report_count: int = 0
    stuck_retry_ms: int = 0
    expiry_ms: int = 0  # when to look for late orders
    full: frozenset[ChunkserverId] = field(default_factory=frozenset)


class Repairs:
    """Belongs to one tenure; ``began_ms`` is its beginning. Times are of a monotonic clock."""

    def __init__(
        self, membership: Membership, *, began_ms: int, limits: RepairLimits | None = None
    ) -> None:
        self._membership = membership
        self._began_ms = began_ms
        self._limits = limits or RepairLimits()
        self._queue = RepairQueue()
        self._running: dict[ChunkHandle, _Running] = {}
        self._loads: dict[ChunkserverId, _Load] = {}
        self._changes: dict[ChunkHandle, ReplicaChange] = {}
        self._failing: dict[tuple[ChunkserverId, ChunkHandle], int] = {}  # until when
        self._blocking: dict[ChunkHandle, None] = {}
        self._made: deque[tuple[int, int]] = deque()  # when, and how many bytes
        self._seen = _Seen()
        self.wants_sweep = True  # of all chunks: nobody says what a server does not have

    @property
    def is_busy(self) -> bool:
        """Whether a turn is due at once."""
        return self._queue.has_unseen or bool(self._membership.news)

    @property
    def running_count(self) -> int:
        return len(self._running)

    def bytes_per_second(self, now_ms: int) -> int:
        """How fast replicas were made lately; 0 if none was."""
        while self._made and self._made[0][0] < now_ms - _RATE_WINDOW_MS:
            self._made.popleft()
        if not self._made:
            return 0
        took_ms = max(now_ms - self._made[0][0], 1_000)
        return sum(count for _, count in self._made) * 1000 // took_ms

    def look_at(self, handles: Sequence[ChunkHandle]) -> None:
        """Something may have happened to these chunks."""
        self._queue.look_at(handles)

    def boost(self, handle: ChunkHandle) -> None:
        """A client waits for this chunk, or may soon."""
        self._blocking[handle] = None
        self._queue.look_at((handle,))

    # What is to be done.

    def turn(self, state: FileSystemState, now_ms: int) -> tuple[ReplicaChange, ...]:
        """See what has changed, order what is needed; the changes to be logged.

        They are given again until they are ``logged``.
        """
        self._membership.expire_confirmed(now_ms)
        self._notice_servers(now_ms)
        self._expire(now_ms)
        news, self._membership.news = self._membership.news, []
        self._queue.look_at(news)
        for handle in self._queue.draw(LOOKS_MAX, now_ms):
            self._look(state.chunks.get(handle), handle, now_ms)
        if not self._is_learning(now_ms):
            self._assign(state, now_ms)
        return tuple(islice(self._changes.values(), CHANGES_MAX))

    def logged(self, changes: Sequence[ReplicaChange]) -> None:
        """The changes are in the log, and applied as far as they made sense."""
        for change in changes:
            self._changes.pop(change.handle, None)
            self._end(change.handle)
            for server in self._membership.servers(change.add):
                server.strays.pop(change.handle, None)
            for server in self._membership.servers(change.remove):
                if server.may_hold(change.handle):
                    server.strays[change.handle] = None
        self._queue.look_at([change.handle for change in changes])

    def orders_for(self, chunkserver_id: ChunkserverId) -> tuple[CopyOrder, ...]:
        """All copies that the server is to make now, the most urgent first."""
        return tuple(self._load(chunkserver_id).orders.values())

    def take_reports(
        self,
        chunkserver_id: ChunkserverId,
        reports: Iterable[CopyReport],
        state: FileSystemState,
        now_ms: int,
    ) -> None:
        """A server has ended some of its copies, well or not."""
        server = self._membership.server(chunkserver_id)
        if server is None:
            return
        for report in reports:
            chunk = state.chunks.get(report.handle)
            if chunk is None or chunk.version != report.version:
                self._end(report.handle)
                continue
            running = self._running.get(report.handle)
            if running is not None and (
                running.target != chunkserver_id or running.chunk.version != report.version
            ):
                running = None
            self._mark_damaged_sources(report)
            if report.failure:
                self._failing[chunkserver_id, report.handle] = now_ms + FAILURE_PAUSE_MS
                if running is not None:
                    self._end(report.handle)
            else:
                self._take_success(server, running, report, now_ms)
            self._queue.look_at((report.handle,))

    def strays_to_delete(
        self, chunkserver_id: ChunkserverId, state: FileSystemState, now_ms: int
    ) -> tuple[ChunkHandle, ...]:
        """Replicas of the server that nobody counts on any more, and may lose now.

        The state must be known to be the newest, or another leader may count on them already.
        """
        server = self._membership.server(chunkserver_id)
        if server is None or not server.reported:
            return ()
        deletable: list[ChunkHandle] = []
        for handle in list(islice(server.strays, STRAYS_MAX)):
            del server.strays[handle]
            chunk = state.chunks.get(handle)
            if chunk is None and handle < state.next_handle:
                server.doomed[handle] = None
            if chunk is None or chunkserver_id in chunk.replicas:
                continue
            server.strays[handle] = None  # the last of the queue
            sound_count = sum(
                s.is_alive(now_ms) and s.surely_has(handle)
                for s in self._membership.servers(chunk.replicas)
            )
            if (
                chunk.length_bytes
                and sound_count >= chunk.replication
                and handle not in self._running
            ):
                deletable.append(handle)
        return tuple(deletable)

    # What has happened.

    def _take_success(
        self, server: Server, running: _Running | None, report: CopyReport, now_ms: int
    ) -> None:
        self._membership.mark_sound(report.handle, server)
        if running is None:
            server.strays[report.handle] = None  # dropped when it turns out to be in the set
            return
        self._made.append((now_ms, running.chunk.length_bytes))
        if server.chunkserver_id in running.chunk.replicas:
            self._end(report.handle)
            return
        self._unload(running)
        running.is_made = True
        standing = standing_of(running.chunk, self._membership, now_ms, self._began_ms)
        self._changes[report.handle] = ReplicaChange(
            report.handle,
            report.version,
            add=(server.chunkserver_id,),
            remove=self._given_up(standing, now_ms),
        )

    def _given_up(self, standing: Standing, now_ms: int) -> tuple[ChunkserverId, ...]:
        """Members without a sound replica, if with the new one there are enough."""
        if len(standing.sound) + 1 < standing.goal:
            return ()
        sound = {server.chunkserver_id for server in standing.sound}
        return tuple(s for s in standing.chunk.replicas if s not in sound)

    def _mark_damaged_sources(self, report: CopyReport) -> None:
        running = self._running.get(report.handle)
        if running is None:
            return
        for server in self._membership.servers(running.source_ids):
            if server.last_heartbeat.address in report.damaged_sources:
                self._membership.mark_damaged(report.handle, server.chunkserver_id)

    def _notice_servers(self, now_ms: int) -> None:
        """Look again at the chunks of servers that died, and at all when one has come."""
        servers, seen = self._membership.all_servers(), self._seen
        alive = frozenset(s.chunkserver_id for s in servers if s.is_alive(now_ms))
        full = frozenset(s.chunkserver_id for s in servers if as_candidate(s).is_full)
        for server in self._membership.servers(tuple(sorted(seen.alive - alive))):
            self._queue.look_at((*server.held, *server.confirmed))
            self._drop_orders_of(server.chunkserver_id)
        reports = self._membership.full_report_count
        self.wants_sweep = self.wants_sweep or reports != seen.full_report_count
        may_fit = alive - seen.alive or seen.full - full or reports != seen.full_report_count
        if may_fit or now_ms >= seen.stuck_retry_ms:
            self._queue.look_at_stuck()
            seen.stuck_retry_ms = now_ms + STUCK_RETRY_MS
        seen.alive, seen.full = alive, full
        seen.full_report_count = reports

    def _drop_orders_of(self, chunkserver_id: ChunkserverId) -> None:
        dropped = tuple(self._load(chunkserver_id).orders)
        for handle in dropped:
            self._end(handle)
        self._queue.look_at(dropped)

    def _expire(self, now_ms: int) -> None:
        if now_ms < self._seen.expiry_ms:
            return
        self._seen.expiry_ms = now_ms + EXPIRY_MS
        late = [
            handle
            for handle, running in self._running.items()
            if now_ms > running.deadline_ms and not running.is_made
        ]
        for handle in late:
            self._failing[self._running[handle].target, handle] = now_ms + FAILURE_PAUSE_MS
            self._end(handle)
        self._queue.look_at(late)
        over = [key for key, until_ms in self._failing.items() if until_ms <= now_ms]
        for key in over:
            del self._failing[key]

    # What a chunk needs.

    def _look(self, chunk: Chunk | None, handle: ChunkHandle, now_ms: int) -> None:
        if handle in self._running or handle in self._changes:
            return  # looked at again when that has ended
        if chunk is None or chunk.length_bytes == 0:
            self._settle(handle)
            return
        standing = standing_of(chunk, self._membership, now_ms, self._began_ms)
        if len(standing.sound) >= standing.goal:
            self._settle(handle)
            self._trim(standing)
            return
        wait_ms = standing.wait_ms()
        if wait_ms > 0:
            self._queue.look_later(handle, now_ms + wait_ms)
        else:
            self._queue.put(handle, self._rank(standing))

    def _settle(self, handle: ChunkHandle) -> None:
        self._queue.forget(handle)
        self._blocking.pop(handle, None)

    def _rank(self, standing: Standing) -> int:
        is_blocking = standing.chunk.handle in self._blocking
        return min(len(standing.sound), 3) * 4 + (0 if is_blocking else 1)

    def _trim(self, standing: Standing) -> None:
        """Take out members that are too many, if all that remain are known to be sound."""
        handle, members = standing.chunk.handle, list(standing.sound)
        if not all(server.surely_has(handle) for server in members):
            return
        victims: list[ChunkserverId] = []
        while len(members) > standing.goal:
            victim = choose_victim([as_candidate(server) for server in members])
            members = [server for server in members if server.chunkserver_id != victim]
            victims.append(victim)
        if victims:
            self._changes[handle] = ReplicaChange(
                handle, standing.chunk.version, add=(), remove=tuple(victims)
            )

    # Who copies what.

    def _is_learning(self, now_ms: int) -> bool:
        """Whether, soon after an election, servers are still saying what they have: some of it may
        be the very replicas that seem to be missing."""
        led_ms = now_ms - self._began_ms
        servers = self._membership.all_servers()
        return led_ms < LISTEN_MS or (
            led_ms < LEARN_MS and any(s.is_alive(now_ms) and not s.reported for s in servers)
        )

    def _assign(self, state: FileSystemState, now_ms: int) -> None:
        candidates = {
            c.chunkserver_id: c for c in self._membership.candidates(now_ms) if self._may_take(c)
        }
        share = self._limits.cluster_bytes_per_second // max(len(candidates), 1)
        turn = _Turn(
            candidates=candidates,
            creations={c.chunkserver_id: c.recent_creations for c in candidates.values()},
            bytes_per_second=min(self._limits.server_bytes_per_second, share),
            now_ms=now_ms,
        )
        for handle in self._queue.first(ASSIGNMENTS_MAX):
            chunk = state.chunks.get(handle)
            if chunk is None or chunk.length_bytes == 0:
                self._settle(handle)
                continue
            standing = standing_of(chunk, self._membership, now_ms, self._began_ms)
            if len(standing.sound) >= standing.goal:
                self._queue.look_at((handle,))
                self._queue.forget(handle)
            else:
                self._assign_one(standing, turn)

    def _may_take(self, candidate: Candidate) -> bool:
        server = self._membership.server(candidate.chunkserver_id)
        return server is not None and server.reported and not candidate.is_full

    def _assign_one(self, standing: Standing, turn: _Turn) -> None:
        chunk = standing.chunk
        astray = holders_astray(chunk, self._membership, turn.now_ms)
        possible = self._possible_targets(standing, astray, turn)
        if not possible:
            until_ms = self._failing_until(chunk.handle)
            if until_ms is None:
                self._queue.put_stuck(chunk.handle)
            else:
                self._queue.look_later(chunk.handle, until_ms)
            return
        sources = self._sources(standing, astray)
        has_room = [c for c in possible if self._has_room(c.chunkserver_id, chunk.length_bytes)]
        if not has_room or not self._may_send(sources, chunk.length_bytes):
            return  # it stays in the queue
        members = [as_candidate(server) for server in (*standing.sound, *standing.lacking)]
        target = choose_target(has_room, members, turn.creations)
        turn.creations[target] += 1
        self._membership.note_creations(((target,),))
        self._order(standing, target, sources, turn)

    def _possible_targets(
        self, standing: Standing, astray: Sequence[Server], turn: _Turn
    ) -> list[Candidate]:
        """Where a replica may be made: in the place of a bad one, of a stray, or anew; the first
        of these kinds that has a server."""
        handle = standing.chunk.handle
        sources = (*standing.sound, *standing.lacking, *astray)
        fresh = turn.candidates.keys() - set(standing.chunk.replicas) if sources else ()
        for kind in (
            [server.chunkserver_id for server in standing.lacking],
            [server.chunkserver_id for server in astray],
            sorted(fresh),
        ):
            possible = [
                turn.candidates[server]
                for server in kind
                if server in turn.candidates and (server, handle) not in self._failing
            ]
            if possible:
                return possible
        return []

    def _failing_until(self, handle: ChunkHandle) -> int | None:
        """When the first of the servers that could not make the copy may try again."""
        untils = [until for (_, failed), until in self._failing.items() if failed == handle]
        return min(untils, default=None)

    def _sources(self, standing: Standing, astray: Sequence[Server]) -> list[Server]:
        """Who has the bytes: sound ones that are asked for little, then what else there is."""
        sound = sorted(
            standing.sound,
            key=lambda s: (self._load(s.chunkserver_id).bytes_out, s.chunkserver_id),
        )
        return [*sound, *astray, *standing.lacking]

    def _may_send(self, sources: Sequence[Server], length_bytes: int) -> bool:
        sent = self._load(sources[0].chunkserver_id).bytes_out if sources else 0
        return sent == 0 or sent + length_bytes <= self._limits.source_bytes_ordered

    def _has_room(self, target: ChunkserverId, length_bytes: int) -> bool:
        load, limits = self._load(target), self._limits
        if len(load.orders) >= limits.server_count_ordered:
            return False
        return not load.orders or load.bytes_in + length_bytes <= limits.server_bytes_ordered

    def _order(
        self, standing: Standing, target: ChunkserverId, sources: Sequence[Server], turn: _Turn
    ) -> None:
        chunk = standing.chunk
        others = [server for server in sources if server.chunkserver_id != target]
        order = CopyOrder(
            handle=chunk.handle,
            version=chunk.version,
            length_bytes=chunk.length_bytes,
            digest=chunk.digest,
            sources=tuple(server.last_heartbeat.address for server in others),
            bytes_per_second=turn.bytes_per_second,
        )
        load = self._load(target)
        load.orders[chunk.handle] = order
        load.bytes_in += chunk.length_bytes
        if others:
            self._load(others[0].chunkserver_id).bytes_out += chunk.length_bytes
        work_ms = 4_000 * load.bytes_in // turn.bytes_per_second
        self._queue.forget(chunk.handle)
        self._running[chunk.handle] = _Running(
            chunk=chunk,
            target=target,
            source_ids=tuple(server.chunkserver_id for server in others),
            deadline_ms=turn.now_ms + self._limits.order_timeout_ms + work_ms,
        )

    def _end(self, handle: ChunkHandle) -> None:
        running = self._running.pop(handle, None)
        if running is not None and not running.is_made:
            self._unload(running)

    def _unload(self, running: _Running) -> None:
        load = self._load(running.target)
        del load.orders[running.chunk.handle]
        load.bytes_in -= running.chunk.length_bytes
        if running.source_ids:
            self._load(running.source_ids[0]).bytes_out -= running.chunk.length_bytes

    def _load(self, chunkserver_id: ChunkserverId) -> _Load:
        return self._loads.setdefault(chunkserver_id, _Load())
