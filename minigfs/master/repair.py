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
so that those in greater need overtake. What a server that is being decommissioned has does not
count, but may be copied from. When nothing is missing, replicas are moved to even out the disks.

Pure. What is known here is soft: after a failover the new leader finds out anew, and a copy that
was made for the old one is found as a stray and made use of.
"""

from collections import deque
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from minigfs.ids import ChunkHandle, ChunkserverId
from minigfs.master.commands import ReplicaChange
from minigfs.master.copy_book import CopyBook, RepairLimits, RunningCopy
from minigfs.master.heartbeat_messages import CopyOrder, CopyReport
from minigfs.master.membership import Membership, Server, as_candidate
from minigfs.master.placement import Candidate, choose_target, choose_victim
from minigfs.master.rebalance import Rebalance
from minigfs.master.repair_queue import RepairQueue
from minigfs.master.standing import Standing, holders_astray, standing_of
from minigfs.master.state import Chunk, FileSystemState

__all__ = ["RepairLimits", "Repairs"]

LOOKS_MAX = 500  # at chunks, in one turn: a few milliseconds of the master
ASSIGNMENTS_MAX = 200  # tries in one turn
MOVES_MAX = 100  # in one round, if they are small
MOVES_SETTLE_MS = 1_500  # until heartbeats show what a round has done
CHANGES_MAX = 500  # in one entry of the log
STRAYS_MAX = 200  # looked at in one heartbeat, or a page of them more
STUCK_RETRY_MS = 30_000
LISTEN_MS = 1_500  # three heartbeats of every server
LEARN_MS = 20_000  # three million replicas are reported in thirteen seconds
_RATE_WINDOW_MS = 30_000


@dataclass(slots=True)
class _Turn:
    """What one turn knows of the servers that may take replicas."""

    candidates: Mapping[ChunkserverId, Candidate]
    creations: dict[ChunkserverId, int]
    rate: int
    now_ms: int


@dataclass(slots=True)
class _Seen:
    """The servers as the turn before saw them."""

    alive: frozenset[ChunkserverId] = frozenset()
    full: frozenset[ChunkserverId] = frozenset()
    draining: frozenset[ChunkserverId] = frozenset()
    full_report_count: int = 0
    stuck_retry_ms: int = 0
    moved_ms: int = 0  # when the last move ended


class Repairs:
    """Belongs to one tenure; ``began_ms`` is its beginning. Times are of a monotonic clock."""

    def __init__(
        self,
        membership: Membership,
        *,
        began_ms: int,
        limits: RepairLimits | None = None,
        barred: Collection[ChunkserverId] = (),
    ) -> None:
        """``barred`` are, at any time, servers that would not obey."""
        self._barred = barred
        self._membership = membership
        self._began_ms = began_ms
        self._queue = RepairQueue()
        self._book = CopyBook(limits or RepairLimits())
        self._changes: dict[ChunkHandle, ReplicaChange] = {}
        self._blocking: dict[ChunkHandle, None] = {}
        self._made: deque[tuple[int, int]] = deque()  # when, and how many bytes
        self._seen = _Seen()
        self.rebalance = Rebalance(membership)
        self.removed: Container[ChunkHandle] = ()  # by the last sweep: only removed files have them
        self.wants_sweep = True  # of all chunks: nobody says what a server does not have

    @property
    def is_busy(self) -> bool:
        """Whether a turn is due at once."""
        return self.has_unseen or bool(self._membership.news)

    @property
    def has_unseen(self) -> bool:
        """Whether chunks were given to be looked at that no turn has looked at yet."""
        return self._queue.has_unseen

    @property
    def waiting_count(self) -> int:
        """Chunks that need a replica, and no copy is being made yet."""
        return self._queue.waiting_count

    @property
    def running_count(self) -> int:
        return len(self._book)

    def bytes_per_second(self, now_ms: int) -> int:
        """How fast replicas were made lately; 0 if none was."""
        while self._made and self._made[0][0] < now_ms - _RATE_WINDOW_MS:
            self._made.popleft()
        if not self._made:
            return 0
        took_ms = max(now_ms - self._made[0][0], 1_000)
        return sum(count for _, count in self._made) * 1000 // took_ms

    def look_at(self, handles: Collection[ChunkHandle]) -> None:
        """Something may have happened to these chunks."""
        self._queue.look_at(handles)

    def published(self, chunk: Chunk) -> None:
        """A chunk has its first replicas, maybe fewer than it should, or on one that leaves."""
        is_whole = len(chunk.replicas) >= chunk.replication
        if not is_whole or not self._seen.draining.isdisjoint(chunk.replicas):
            self._queue.look_at((chunk.handle,))

    def boost(self, handle: ChunkHandle) -> None:
        """A client waits for this chunk, or may soon."""
        self._blocking[handle] = None
        self._queue.look_first(handle)

    # What is to be done.

    def turn(self, state: FileSystemState, now_ms: int) -> tuple[ReplicaChange, ...]:
        """See what has changed, order what is needed; the changes to be logged.

        They are given again until they are ``logged``.
        """
        self._membership.expire_confirmed(now_ms)
        self._notice_servers(frozenset(state.draining), now_ms)
        self._queue.look_at(self._book.end_late(now_ms))
        news, self._membership.news = self._membership.news, []
        self._queue.look_at(news)
        for handle in self._queue.draw(LOOKS_MAX, now_ms):
            self._look(state.chunks.get(handle), handle, now_ms)
        if not self._is_learning(now_ms):
            self._assign(state, now_ms)
        return tuple(islice(self._changes.values(), CHANGES_MAX))

    def logged(self, changes: Sequence[ReplicaChange]) -> None:
        """The changes are in the log, and applied as far as they made sense.

        What was to be added is a stray until it turns out to be in the set: the chunk may be gone.
        """
        for change in changes:
            self._changes.pop(change.handle, None)
            self._book.end(change.handle)
            for server in self._membership.servers((*change.add, *change.remove)):
                if server.may_hold(change.handle):
                    server.strays.add(change.handle)
        self._queue.look_at([change.handle for change in changes])

    def orders_for(self, chunkserver_id: ChunkserverId) -> tuple[CopyOrder, ...]:
        """All copies that the server is to make now, the most urgent first."""
        return self._book.orders_for(chunkserver_id)

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
        for handle in server.strays.take(STRAYS_MAX):
            chunk = state.chunks.get(handle)
            if chunk is None and handle < state.next_handle:
                server.doomed.add(handle)
            if chunk is None or chunkserver_id in chunk.replicas:
                continue
            server.strays.add(handle)  # the last ones now
            if self._can_do_without(chunk, now_ms):
                deletable.append(handle)
        return tuple(deletable)

    def _can_do_without(self, chunk: Chunk, now_ms: int) -> bool:
        sound_count = sum(
            server.is_alive(now_ms) and server.surely_has(chunk.handle)
            for server in self._membership.servers(chunk.replicas)
        )
        is_whole = sound_count >= chunk.replication and chunk.length_bytes > 0
        return is_whole and chunk.handle not in self._book

    # What has happened.

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
            copy = self._book.get(report.handle)
            if chunk is None or chunk.version != report.version:
                self._book.end(report.handle)
                continue
            if copy is not None:
                self._mark_damaged_sources(copy, report)
                if copy.target != chunkserver_id or copy.chunk.version != report.version:
                    copy = None
            if report.failure:
                self._book.failed(chunkserver_id, report.handle, now_ms)
            else:
                self._take_success(server, copy, report, now_ms)
            self._queue.look_at((report.handle,))

    def _take_success(
        self, server: Server, copy: RunningCopy | None, report: CopyReport, now_ms: int
    ) -> None:
        self._membership.mark_sound(report.handle, server)
        if copy is None:
            server.strays.add(report.handle)  # dropped when it turns out to be in the set
            return
        self._made.append((now_ms, copy.chunk.length_bytes))
        if copy.instead_of is not None:
            self._seen.moved_ms = now_ms
        if server.chunkserver_id in copy.chunk.replicas:
            self._book.end(report.handle)
            return
        self._book.made(copy)
        self._changes[report.handle] = ReplicaChange(
            report.handle,
            report.version,
            add=(server.chunkserver_id,),
            remove=self._given_up(copy, now_ms),
        )

    def _given_up(self, copy: RunningCopy, now_ms: int) -> tuple[ChunkserverId, ...]:
        """Who is to have the chunk no more, if with the new replica there are enough."""
        standing = self._standing(copy.chunk, now_ms)
        sound = [s for s in standing.sound if s.chunkserver_id != copy.instead_of]
        if len(sound) + 1 < standing.goal:
            return ()
        kept = {server.chunkserver_id for server in (*sound, *standing.leaving)}
        return tuple(s for s in standing.chunk.replicas if s not in kept)

    def _mark_damaged_sources(self, copy: RunningCopy, report: CopyReport) -> None:
        for server in self._membership.servers(copy.source_ids):
            if server.last_heartbeat.address in report.damaged_sources:
                self._membership.mark_damaged(report.handle, server.chunkserver_id)

    def _notice_servers(self, draining: frozenset[ChunkserverId], now_ms: int) -> None:
        """Look again at the chunks of servers that died, and at all when one has come."""
        servers, seen = self._membership.all_servers(), self._seen
        alive = frozenset(s.chunkserver_id for s in servers if s.is_alive(now_ms))
        full = frozenset(s.chunkserver_id for s in servers if as_candidate(s).is_full)
        for server in self._membership.servers(tuple(sorted(seen.alive - alive))):
            self._look_at_all_of(server)
            self._queue.look_at(self._book.withdraw(server.chunkserver_id))
        for server in self._membership.servers(tuple(sorted(draining - seen.draining))):
            self._look_at_all_of(server)
        reports = self._membership.full_report_count
        has_come = reports != seen.full_report_count or bool(seen.draining - draining)
        self.wants_sweep = self.wants_sweep or has_come
        if has_come or alive - seen.alive or seen.full - full or now_ms >= seen.stuck_retry_ms:
            self._queue.look_at_stuck()
            seen.stuck_retry_ms = now_ms + STUCK_RETRY_MS
        seen.alive, seen.full, seen.draining = alive, full, draining
        seen.full_report_count = reports

    def _look_at_all_of(self, server: Server) -> None:
        self._queue.look_at(server.held)
        self._queue.look_at(tuple(server.confirmed))

    # What a chunk needs.

    def _standing(self, chunk: Chunk, now_ms: int) -> Standing:
        return standing_of(chunk, self._membership, self._seen.draining, now_ms, self._began_ms)

    def _look(self, chunk: Chunk | None, handle: ChunkHandle, now_ms: int) -> None:
        if handle in self._book or handle in self._changes:
            return  # looked at again when that has ended
        if chunk is None or chunk.length_bytes == 0:
            self._settle(handle)
            return
        standing = self._standing(chunk, now_ms)
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
        readable_count = min(len(standing.sound) + len(standing.leaving), 3)
        handle = standing.chunk.handle
        return readable_count * 4 + (handle in self.removed) * 2 + (handle not in self._blocking)

    def _trim(self, standing: Standing) -> None:
        """Take out members that are too many, or bad, if all that remain are known to be sound."""
        handle, members = standing.chunk.handle, list(standing.sound)
        if not all(server.surely_has(handle) for server in members):
            return
        victims = [s.chunkserver_id for s in (*standing.leaving, *standing.lacking)]
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
        servers = [
            server
            for server in self._membership.all_servers()
            if server.is_alive(now_ms)
            and server.reported
            and server.chunkserver_id not in self._seen.draining
            and server.chunkserver_id not in self._barred
        ]
        candidates = {c.chunkserver_id: c for c in map(as_candidate, servers) if not c.is_full}
        turn = _Turn(
            candidates=candidates,
            creations={c.chunkserver_id: c.recent_creations for c in candidates.values()},
            rate=self._book.bytes_per_second(len(candidates)),
            now_ms=now_ms,
        )
        has_room = any(self._book.has_room(server, 0) for server in candidates)
        for handle in self._queue.first(ASSIGNMENTS_MAX if has_room or not candidates else 0):
            chunk = state.chunks.get(handle)
            if chunk is None or chunk.length_bytes == 0:
                self._settle(handle)
                continue
            standing = self._standing(chunk, now_ms)
            if len(standing.sound) >= standing.goal:
                self._queue.forget(handle)
                self._queue.look_at((handle,))
            else:
                self._assign_one(standing, turn)
        self._move(state, servers, turn)

    def _assign_one(self, standing: Standing, turn: _Turn) -> None:
        chunk = standing.chunk
        astray = holders_astray(chunk, self._membership, turn.now_ms)
        sources = self._sources(standing, astray)
        possible = self._possible_targets(standing, astray, sources, turn)
        if not possible:
            retry_ms = self._book.retry_ms(chunk.handle)
            if retry_ms is None:
                self._queue.put_stuck(chunk.handle)
            else:
                self._queue.look_later(chunk.handle, retry_ms)
            return
        has_room = [
            c for c in possible if self._book.has_room(c.chunkserver_id, chunk.length_bytes)
        ]
        may_send = not sources or self._book.may_send(sources[0].chunkserver_id, chunk.length_bytes)
        if not has_room or not may_send:
            return  # it stays in the queue
        members = [as_candidate(server) for server in (*standing.sound, *standing.lacking)]
        target = choose_target(has_room, members, turn.creations)
        self._queue.forget(chunk.handle)
        self._place(chunk, target, sources, turn)

    def _possible_targets(
        self,
        standing: Standing,
        astray: Sequence[Server],
        sources: Sequence[Server],
        turn: _Turn,
    ) -> list[Candidate]:
        """Where a replica may be made: in the place of a bad one, of a stray, or anew; the first
        of these kinds that has a server."""
        handle = standing.chunk.handle
        fresh = turn.candidates.keys() - set(standing.chunk.replicas) if sources else ()
        for kind in (
            [server.chunkserver_id for server in standing.lacking],
            [server.chunkserver_id for server in astray],
            sorted(fresh),
        ):
            possible = [
                turn.candidates[server]
                for server in kind
                if server in turn.candidates and self._book.may_try(server, handle)
            ]
            if possible:
                return possible
        return []

    def _sources(self, standing: Standing, astray: Sequence[Server]) -> list[Server]:
        """Who has the bytes: sound ones that are asked for little, then what else there is."""
        sound = sorted(
            (*standing.sound, *standing.leaving),
            key=lambda s: (self._book.sent_bytes(s.chunkserver_id), s.chunkserver_id),
        )
        return [*sound, *astray, *standing.lacking]

    def _place(
        self,
        chunk: Chunk,
        target: ChunkserverId,
        sources: Sequence[Server],
        turn: _Turn,
        *,
        instead_of: ChunkserverId | None = None,
    ) -> None:
        turn.creations[target] += 1
        self._membership.note_creations(((target,),))
        self._book.place(
            chunk, target, sources, rate=turn.rate, now_ms=turn.now_ms, instead_of=instead_of
        )

    def _move(self, state: FileSystemState, servers: Sequence[Server], turn: _Turn) -> None:
        """Even out the disks a little, when nothing is missing anywhere.

        In rounds, each of which begins when heartbeats show what the one before has done.
        """
        is_settled = turn.now_ms - self._seen.moved_ms >= MOVES_SETTLE_MS and not self._book.moves()
        is_settled = is_settled and not any(server.strays for server in servers)
        if not is_settled or self.waiting_count or self._queue.has_unseen or self.wants_sweep:
            return
        planned = dict.fromkeys((server.chunkserver_id for server in servers), 0)
        for _ in range(MOVES_MAX):
            move = self.rebalance.next_move(
                state,
                servers,
                takers=turn.candidates,
                planned=planned,
                is_busy=lambda handle: handle in self._book or handle in self._changes,
            )
            if move is None:
                self.rebalance.is_asked_for &= bool(self._book.moves())
                return
            source, target = move.source.chunkserver_id, move.target.chunkserver_id
            length_bytes = move.chunk.length_bytes
            sources = self._sources(self._standing(move.chunk, turn.now_ms), ())
            may_send = self._book.may_send(sources[0].chunkserver_id, length_bytes)
            if not may_send or not self._book.has_room(target, length_bytes):
                return
            self._place(move.chunk, target, sources, turn, instead_of=source)
            planned[source] -= length_bytes
            planned[target] += length_bytes
