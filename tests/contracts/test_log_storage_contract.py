"""What every ``LogStorage`` does: the one in memory, and a member's on a simulated or real disk."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigfs.ports import RealDisk
from minigfs.raft import (
    Configuration,
    Entry,
    HardState,
    LogStorage,
    MemoryStorage,
    NodeId,
    Persist,
    PersistToken,
    RaftConfig,
    RaftNode,
    Role,
    Snapshot,
    SnapshotMetadata,
)
from minigfs.raft.errors import Compacted, NotYetWritten
from minigfs.replication.durable_log import DurableLog, LogSettings
from tests.sim.disk import SimDisk

FOUNDING = Configuration(voters=(NodeId("a"),))
EVERYTHING = 1 << 30


class Writable(Protocol):
    """The storage and the writes of a driver."""

    storage: LogStorage

    def save(self, persist: Persist) -> None: ...
    def make_snapshot(self, metadata: SnapshotMetadata) -> Snapshot: ...
    def keep(self, metadata: SnapshotMetadata) -> None: ...
    def compact(self, up_to_index: int) -> None: ...


class InMemory:
    def __init__(self) -> None:
        self.storage = MemoryStorage(FOUNDING)

    def save(self, persist: Persist) -> None:
        self.storage.save(persist)

    def make_snapshot(self, metadata: SnapshotMetadata) -> Snapshot:
        return Snapshot(metadata=metadata, data=b"the state")

    def keep(self, metadata: SnapshotMetadata) -> None:
        self.storage.save_snapshot(self.make_snapshot(metadata))

    def compact(self, up_to_index: int) -> None:
        self.storage.compact(up_to_index)


class OnDisk:
    def __init__(self, disk) -> None:
        small = LogSettings(segment_bytes=4096)
        self.storage = DurableLog.create(
            disk, "raft", member_id=NodeId("a"), configuration=FOUNDING, settings=small
        )

    def save(self, persist: Persist) -> None:
        self.storage.save(persist)

    def make_snapshot(self, metadata: SnapshotMetadata) -> Snapshot:
        writer = self.storage.snapshots.create(metadata)
        writer.write(b"the state")
        writer.finish()
        return Snapshot(metadata=metadata, data=self.storage.snapshots.name_of(metadata).encode())

    def keep(self, metadata: SnapshotMetadata) -> None:
        self.make_snapshot(metadata)
        self.storage.complete(self.storage.begin_keep(metadata))

    def compact(self, up_to_index: int) -> None:
        self.storage.complete(self.storage.begin_compact(up_to_index))


@pytest.fixture(params=["memory", "simulated disk", "real disk"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Writable]:
    if request.param == "memory":
        yield InMemory()
    else:
        on_disk = OnDisk(SimDisk() if request.param == "simulated disk" else RealDisk(tmp_path))
        yield on_disk
        on_disk.storage.close()


def unit(*entries: Entry, hard_state=None, snapshot=None) -> Persist:
    return Persist(
        token=PersistToken(1), snapshot=snapshot, hard_state=hard_state, entries=tuple(entries)
    )


def entries(first: int, last: int, term: int = 1, data: bytes = b"data") -> list[Entry]:
    return [Entry(index=index, term=term, data=data) for index in range(first, last + 1)]


def metadata(index: int, term: int = 1) -> SnapshotMetadata:
    return SnapshotMetadata(
        last_included_index=index, last_included_term=term, configuration=FOUNDING
    )


def test_an_empty_one_has_the_founding_state_and_no_entry(log) -> None:
    storage = log.storage
    assert storage.hard_state() == HardState()
    assert (storage.first_index(), storage.last_index(), storage.term(0)) == (1, 0, 0)
    assert storage.snapshot_metadata() == SnapshotMetadata(configuration=FOUNDING)
    assert storage.snapshot() == Snapshot(metadata=storage.snapshot_metadata())


def test_a_unit_is_saved_as_one(log) -> None:
    state = HardState(current_term=2, voted_for=NodeId("a"))
    log.save(unit(*entries(1, 3), hard_state=state))
    assert log.storage.hard_state() == state
    assert list(log.storage.entries(1, 3, EVERYTHING)) == entries(1, 3)
    log.save(unit(*entries(4, 4)))
    assert log.storage.hard_state() == state


def test_an_entry_discards_all_stored_at_or_above_its_index(log) -> None:
    log.save(unit(*entries(1, 5)))
    log.save(unit(*entries(3, 3, term=2)))
    assert log.storage.last_index() == 3
    assert [log.storage.term(index) for index in range(4)] == [0, 1, 1, 2]


def test_entries_are_cut_to_a_size_but_never_to_nothing(log) -> None:
    log.save(unit(*entries(1, 5, data=b"x" * 68)))  # 100 bytes each
    assert [len(log.storage.entries(1, 5, most)) for most in (1, 99, 200, 299, 500)] == [
        1, 1, 2, 2, 5,
    ]  # fmt: skip
    assert list(log.storage.entries(2, 3, EVERYTHING)) == entries(2, 3, data=b"x" * 68)


def test_a_kept_snapshot_leaves_the_log_and_compaction_drops_what_it_covers(log) -> None:
    log.save(unit(*entries(1, 6)))
    log.keep(metadata(4))
    assert log.storage.first_index() == 1
    assert log.storage.snapshot_metadata() == metadata(4)
    log.compact(3)
    assert (log.storage.first_index(), log.storage.last_index()) == (4, 6)
    assert log.storage.term(3) == 1
    log.compact(2)
    assert log.storage.first_index() == 4


def test_what_is_dropped_is_compacted_and_what_is_not_there_is_not_yet_written(log) -> None:
    log.save(unit(*entries(1, 6)))
    log.keep(metadata(4))
    log.compact(4)
    for gone in (lambda: log.storage.term(3), lambda: log.storage.entries(4, 6, EVERYTHING)):
        with pytest.raises(Compacted):
            gone()
    for early in (lambda: log.storage.term(7), lambda: log.storage.entries(5, 7, EVERYTHING)):
        with pytest.raises(NotYetWritten):
            early()


def test_a_snapshot_in_a_unit_replaces_the_log_before_its_entries(log) -> None:
    log.save(unit(*entries(1, 6)))
    snapshot = log.make_snapshot(metadata(4, term=2))
    log.save(unit(*entries(5, 6, term=3), snapshot=snapshot))
    storage = log.storage
    assert (storage.first_index(), storage.last_index(), storage.snapshot()) == (5, 6, snapshot)
    assert [storage.term(index) for index in (4, 5, 6)] == [2, 3, 3]
    snapshot = log.make_snapshot(metadata(20, term=5))
    log.save(unit(snapshot=snapshot, hard_state=HardState(current_term=5)))
    assert (storage.first_index(), storage.last_index(), storage.term(20)) == (21, 20, 5)


def test_a_node_runs_on_it(log) -> None:
    node = RaftNode(RaftConfig(node_id=NodeId("a")), log.storage, lambda: 10)
    for _ in range(100):
        node.tick()
        if node.status().role is Role.LEADER:
            position = node.propose(b"command")
        while node.has_ready():
            ready = node.ready()
            if ready.persist is not None:
                log.save(ready.persist)
            node.advance(ready)
    assert log.storage.last_index() == position.index > 10
    assert log.storage.hard_state().voted_for == "a"


writes = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 6), st.integers(1, 4)),
        st.tuples(st.just("state"), st.integers(1, 9), st.just(0)),
        st.tuples(st.just("keep"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("compact"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("install"), st.integers(1, 5), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(writes=writes)
def test_the_one_on_disk_shows_what_the_one_in_memory_shows(writes) -> None:
    both: list[Writable] = [InMemory(), OnDisk(SimDisk())]
    model = both[0].storage
    for term, (kind, number, count) in enumerate(writes, 1):
        kept, last = model.snapshot_metadata().last_included_index, model.last_index()
        for log in both:
            if kind == "append":
                first = max(last + 1 - number, kept + 1)
                log.save(unit(*entries(first, first + count - 1, term)))
            elif kind == "state":
                log.save(unit(hard_state=HardState(current_term=number)))
            elif kind == "keep" and last > kept:
                index = min(kept + 1 + number, last)
                log.keep(metadata(index, both[0].storage.term(index)))
            elif kind == "compact":
                log.compact(max(kept - number, 0))
            elif kind == "install":
                log.save(unit(snapshot=log.make_snapshot(metadata(last + number, term))))
        other = both[1].storage
        assert (model.first_index(), model.last_index()) == (
            other.first_index(),
            other.last_index(),
        )
        assert model.hard_state() == other.hard_state()
        assert model.snapshot_metadata() == other.snapshot_metadata()
        indexes = range(model.first_index(), model.last_index() + 1)
        assert [model.term(index) for index in indexes] == [other.term(index) for index in indexes]
