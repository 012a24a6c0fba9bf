"""A Raft group in one process: real nodes, memory storage, a network that does as it is told.

``Member`` is a driver taken apart, so that a test decides when a write ends, when a message leaves
and what a crash takes with it. ``Group`` puts members on a network where every message waits in
``in_flight`` until it is delivered, and checks the invariants after every event.
"""

import dataclasses
import random
from collections.abc import Callable, Iterable

import msgspec

from minigfs.raft import (
    AnyMessage,
    ChangeKind,
    Configuration,
    EntryKind,
    LogPosition,
    MembershipChange,
    MemoryStorage,
    NodeId,
    Persist,
    RaftConfig,
    RaftNode,
    ReadState,
    Ready,
    Role,
    Snapshot,
)
from minigfs.raft.errors import SnapshotTemporarilyUnavailable
from minigfs.raft.invariants import ClusterHistory, check_cluster

ELECTION_TICKS = 10


def names(count: int) -> list[NodeId]:
    return [NodeId(str(number)) for number in range(1, count + 1)]


class Member:
    """One node, its disk, and its machine: the list of commands applied."""

    def __init__(self, config: RaftConfig, storage: MemoryStorage, rng: random.Random) -> None:
        self.config = config
        self.storage = storage
        self.rng = rng
        self.start()

    def start(self) -> None:
        """Begin a life: everything but ``storage`` is new."""
        ticks = self.config.election_timeout_ticks
        self.node = RaftNode(
            self.config, self.storage, lambda: self.rng.randrange(ticks, 2 * ticks)
        )
        self.machine: list[bytes] = []
        self.machine_index = self.storage.snapshot_metadata().last_included_index
        if self.machine_index:
            self._restore(self.storage.snapshot())
        self.writing: Persist | None = None
        self.applying: Ready | None = None
        self.reads: list[tuple[ReadState, int]] = []
        self.reads_dropped: list[bytes] = []

    @property
    def id(self) -> NodeId:
        return self.config.node_id

    @property
    def is_leader(self) -> bool:
        return self.node.status().role is Role.LEADER

    def take_ready(self) -> tuple[AnyMessage, ...]:
        """One Ready: its messages; a write begins, entries are applied at once."""
        ready = self.node.ready()
        if ready.persist is not None:
            assert self.writing is None
            self.writing = ready.persist
        self.apply(ready)
        self.reads += [(state, self.machine_index) for state in ready.read_states]
        self.reads_dropped += ready.reads_dropped
        return ready.messages

    def finish_write(self) -> None:
        assert self.writing is not None
        persist, self.writing = self.writing, None
        self.storage.save(persist)
        self.node.persisted(persist.token)

    def apply(self, ready: Ready) -> None:
        if ready.restore is not None:
            self._restore(ready.restore)
            self.node.applied(self.machine_index)
        for entry in ready.committed_entries:
            assert entry.index == self.machine_index + 1, "applied in order, once"
            self.machine_index = entry.index
            if entry.kind is EntryKind.COMMAND:
                self.machine.append(entry.data)
        if ready.committed_entries:
            self.node.applied(self.machine_index)

    def _restore(self, snapshot: Snapshot) -> None:
        assert snapshot.metadata.last_included_index >= self.machine_index, "state never goes back"
        self.machine = msgspec.msgpack.decode(snapshot.data, type=list[bytes])
        self.machine_index = snapshot.metadata.last_included_index

    def compact(self, keep: int = 0) -> None:
        """Snapshot the machine and drop all but the last ``keep`` entries behind it."""
        if self.machine_index <= self.storage.snapshot_metadata().last_included_index:
            return
        try:
            metadata = self.node.snapshot_metadata_at(self.machine_index)
        except SnapshotTemporarilyUnavailable:
            return
        self.storage.save_snapshot(
            Snapshot(metadata=metadata, data=msgspec.msgpack.encode(self.machine))
        )
        self.storage.compact(max(self.machine_index - keep, self.storage.first_index() - 1))


Configure = Callable[[RaftConfig], RaftConfig]


class Group:
    """Members ``"1"``, ``"2"``, ... and the network between them."""

    def __init__(
        self,
        size: int,
        *,
        seed: int = 1,
        configure: Configure = lambda config: config,
        storages: dict[NodeId, MemoryStorage] | None = None,
    ) -> None:
        self.rng = random.Random(seed)
        self.configure = configure
        self.configuration = Configuration(voters=tuple(names(size)))
        self.members: dict[NodeId, Member] = {}
        self.down: set[NodeId] = set()
        self.slow_disks: set[NodeId] = set()  # their writes begin and do not end
        self.in_flight: list[AnyMessage] = []
        self.cut_links: set[tuple[NodeId, NodeId]] = set()
        self.drop: Callable[[AnyMessage], bool] = lambda message: False
        self.sent: list[AnyMessage] = []
        self.history = ClusterHistory()
        for name in names(size):
            self.add(name, (storages or {}).get(name) or MemoryStorage(self.configuration))

    def add(self, name: str, storage: MemoryStorage | None = None) -> Member:
        """A member's process; with no storage it is new and knows nobody."""
        node_id = NodeId(name)
        config = self.configure(RaftConfig(node_id=node_id, incarnation=self.rng.getrandbits(32)))
        self.members[node_id] = Member(config, storage or MemoryStorage(), self.rng)
        return self.members[node_id]

    def __getitem__(self, name: str) -> Member:
        return self.members[NodeId(name)]

    @property
    def alive(self) -> list[Member]:
        return [member for name, member in self.members.items() if name not in self.down]

    # Faults

    def cut(self, source: str, target: str) -> None:
        """One direction only."""
        self.cut_links.add((NodeId(source), NodeId(target)))

    def disconnect(self, one: str, other: str) -> None:
        self.cut(one, other)
        self.cut(other, one)

    def isolate(self, name: str) -> None:
        for other in self.members:
            if other != name:
                self.disconnect(name, other)

    def heal(self) -> None:
        self.cut_links.clear()
        self.drop = lambda message: False

    def crash(self, name: str) -> None:
        """Memory and unfinished writes are gone; so is what it had not sent."""
        self.down.add(NodeId(name))
        self.history.crashed(NodeId(name))

    def restart(self, name: str) -> None:
        self.down.discard(NodeId(name))
        member = self[name]
        member.config = dataclasses.replace(member.config, incarnation=self.rng.getrandbits(32))
        member.start()
        self.check(member)

    # Events

    def check(self, *touched: Member) -> None:
        self.history.observe(
            [member.node for member in self.alive], [member.node for member in touched]
        )

    def pump(self, member: Member) -> None:
        """Let one member do all that is due, writes included."""
        is_slow = member.id in self.slow_disks
        while member.node.has_ready() or (member.writing and not is_slow):
            self.post(member.take_ready())
            if member.writing and not is_slow:
                member.finish_write()
            self.check(member)

    def post(self, messages: Iterable[AnyMessage]) -> None:
        for message in messages:
            self.sent.append(message)
            if not self.is_lost(message):
                self.in_flight.append(message)

    def is_lost(self, message: AnyMessage) -> bool:
        return (message.source, message.target) in self.cut_links or self.drop(message)

    def deliver(self, message: AnyMessage) -> None:
        member = self.members.get(message.target)
        if member is not None and message.target not in self.down and not self.is_lost(message):
            member.node.step(message)
            self.check(member)

    def run(self, rounds: int = 200) -> None:
        """Deliver and write until nothing is due any more."""
        for _ in range(rounds):
            for member in self.alive:
                self.pump(member)
            if not self.in_flight:
                return
            messages, self.in_flight = self.in_flight, []
            for message in messages:
                self.deliver(message)
        raise AssertionError("the group does not come to rest")

    def tick(self, count: int = 1, *, only: str | None = None) -> None:
        for _ in range(count):
            for member in self.alive:
                if only is None or member.id == only:
                    member.node.tick()
                    self.check(member)
            self.run()

    # What a test does

    def elect(self, name: str) -> Member:
        """Make this member the leader by its own campaign, as if the others' leader was silent.

        A member left behind in an old term learns the new one first, from a refusal.
        """
        for _ in range(2):
            for member in self.alive:
                state = member.node.state
                state.election_elapsed_ticks = max(state.election_elapsed_ticks, ELECTION_TICKS)
            self[name].node.campaign()
            self.run()
            if self[name].is_leader:
                break
        assert self[name].is_leader, f"{name} did not win"
        return self[name]

    def propose(self, data: bytes, at: str | None = None) -> LogPosition:
        member = self[at] if at is not None else self.leader()
        position = member.node.propose(data)
        self.run()
        return position

    def change(self, kind: ChangeKind, name: str, at: str | None = None) -> LogPosition:
        member = self[at] if at is not None else self.leader()
        position = member.node.propose_membership_change(MembershipChange(kind, NodeId(name)))
        self.run()
        return position

    def leaders(self) -> list[Member]:
        return [member for member in self.alive if member.is_leader]

    def leader(self) -> Member:
        """The leader of the latest term."""
        leaders = self.leaders()
        assert leaders, "nobody leads"
        return max(leaders, key=lambda member: member.node.status().current_term)

    def await_leader(self, ticks_max: int = 40) -> Member:
        for _ in range(ticks_max):
            if self.leaders():
                return self.leader()
            self.tick()
        raise AssertionError(f"no leader within {ticks_max} ticks")

    def check_all(self) -> None:
        check_cluster([member.node for member in self.alive])

    def terms(self, name: str) -> list[int]:
        """The terms in a member's log, snapshot's last entry first."""
        state = self[name].node.state
        first, last = state.log.first_index - 1, state.log.last_index
        return [state.log.term_at(index) for index in range(first, last + 1)]
