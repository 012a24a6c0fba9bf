"""Random histories of a member's log, and what it has to show after each step."""

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from minigfs.raft import (
    Configuration,
    Entry,
    EntryKind,
    HardState,
    LogStorage,
    NodeId,
    Persist,
    PersistToken,
    Snapshot,
    SnapshotMetadata,
)
from minigfs.replication.durable_log import DurableLog, LogSettings, Save

__all__ = [
    "FOUNDING",
    "SMALL",
    "Expected",
    "History",
    "entry",
    "found",
    "persist",
    "reopen",
    "snapshot_pieces",
    "write_snapshot",
]

FOUNDING = Configuration(voters=(NodeId("a"), NodeId("b"), NodeId("c")))
SMALL = LogSettings(segment_bytes=1024)


def entry(index: int, term: int = 1, data: bytes | None = None) -> Entry:
    return Entry(index=index, term=term, data=b"entry %d" % index if data is None else data)


def persist(*entries: Entry, hard_state: HardState | None = None, snapshot=None) -> Persist:
    return Persist(
        token=PersistToken(1), snapshot=snapshot, hard_state=hard_state, entries=tuple(entries)
    )


def found(disk, settings: LogSettings = SMALL) -> DurableLog:
    return DurableLog.create(
        disk, "raft", member_id=NodeId("a"), configuration=FOUNDING, settings=settings
    )


def reopen(disk, settings: LogSettings = SMALL) -> DurableLog:
    return DurableLog.open(disk, "raft", settings=settings)


def snapshot_pieces(metadata: SnapshotMetadata) -> list[bytes]:
    index = metadata.last_included_index
    return [b"state of %d " % index, b"", b"in term %d" % metadata.last_included_term * 20]


def write_snapshot(log: DurableLog, metadata: SnapshotMetadata) -> Snapshot:
    writer = log.snapshots.create(metadata)
    for piece in snapshot_pieces(metadata):
        writer.write(piece)
    writer.finish()
    return Snapshot(metadata=metadata, data=log.snapshots.name_of(metadata).encode())


@dataclass
class Expected:
    """What a log shows, said plainly: entries are overridden, but never forgotten."""

    hard_state: HardState = field(default_factory=HardState)
    entries: dict[int, Entry] = field(default_factory=dict)
    last: int = 0
    first: int = 1  # the lowest index that compaction let be dropped is below
    floor: int = 0  # nothing at or below it is known: a leader's snapshot took its place
    floor_term: int = 0
    snapshot: SnapshotMetadata = field(
        default_factory=lambda: SnapshotMetadata(configuration=FOUNDING)
    )

    def save(self, unit: Persist) -> None:
        if unit.snapshot is not None:
            self.snapshot = unit.snapshot.metadata
            self.floor = self.last = self.snapshot.last_included_index
            self.floor_term = self.snapshot.last_included_term
            self.first, self.entries = self.floor + 1, {}
        self.hard_state = unit.hard_state or self.hard_state
        for one in unit.entries:
            self.entries[one.index] = one
            self.last = one.index

    def term(self, index: int) -> int:
        return self.floor_term if index == self.floor else self.entries[index].term

    def differs(self, log: LogStorage) -> str | None:
        """What the log shows wrongly; entries that may be dropped may also be there."""
        if log.hard_state() != self.hard_state:
            return f"hard state {log.hard_state()}, due {self.hard_state}"
        if log.snapshot_metadata() != self.snapshot:
            return f"snapshot {log.snapshot_metadata()}, due {self.snapshot}"
        first, last = log.first_index(), log.last_index()
        if last != self.last or not self.floor < first <= self.first:
            return f"entries {first} to {last}, due {self.first} to {self.last}"
        if first <= last:
            due = [self.entries[index] for index in range(first, last + 1)]
            if list(log.entries(first, last, 1 << 30)) != due:
                return "an entry is not the one due"
        terms = [log.term(index) for index in range(first - 1, last + 1)]
        if terms != [self.term(index) for index in range(first - 1, last + 1)]:
            return f"terms {terms}"
        return None


class History:
    """Writes as a member makes them. ``steps`` goes on for ever; ``expected`` is before each."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.expected = Expected()

    def choose(self) -> str:
        weights = {"entries": 12, "truncate": 3, "vote": 3, "keep": 2, "compact": 2, "install": 1}
        return self.chance.choices(list(weights), list(weights.values()))[0]

    def step(self, log: DurableLog) -> tuple[Save, list[Expected]]:
        """The next save, begun, and what may be shown if it is cut: nothing, part or all of it."""
        kind = self.choose()
        now, after = self.expected, copy.deepcopy(self.expected)
        applied = now.snapshot.last_included_index
        if kind == "keep" and now.last > applied:
            index = self.chance.randint(applied + 1, now.last)
            after.snapshot = self.metadata(index, now.term(index))
            write_snapshot(log, after.snapshot)
            return log.begin_keep(after.snapshot), [now, after]
        if kind == "compact" and applied:
            after.first = max(now.first, self.chance.randint(max(applied - 9, 0), applied) + 1)
            return log.begin_compact(after.first - 1), [now, after]
        if kind == "install":
            index = now.last + self.chance.randint(1, 9)
            unit = persist(
                *self.new_entries(
                    index + 1, self.chance.randint(0, 1), now.hard_state.current_term
                ),
                snapshot=write_snapshot(
                    log, self.metadata(index, max(now.hard_state.current_term, 1))
                ),
            )
            part = copy.deepcopy(now)
            part.save(persist(snapshot=unit.snapshot))
            after.save(unit)
            return log.begin_save(unit), [now, part, after]
        unit = self.unit(kind)
        after.save(unit)
        return log.begin_save(unit), [now, after]

    def unit(self, kind: str) -> Persist:
        now = self.expected
        term = now.hard_state.current_term
        hard_state = None
        first = now.last + 1
        if kind == "truncate":
            lowest = max(now.snapshot.last_included_index, now.first - 1) + 1
            first = self.chance.randint(lowest, first) if lowest < first else first
        if kind != "entries" or term == 0:
            term += 1
            vote = self.chance.choice([None, NodeId("a"), NodeId("b")])
            hard_state = HardState(current_term=term, voted_for=vote)
        count = 0 if kind == "vote" else self.chance.randint(1, 4)
        return persist(*self.new_entries(first, count, term), hard_state=hard_state)

    def new_entries(self, first: int, count: int, term: int) -> Iterator[Entry]:
        for index in range(first, first + count):
            match self.chance.randrange(8):
                case 0:
                    yield Entry(index=index, term=max(term, 1), kind=EntryKind.NOOP)
                case 1:
                    yield Entry(
                        index=index,
                        term=max(term, 1),
                        kind=EntryKind.CONFIGURATION,
                        configuration=FOUNDING,
                    )
                case _:
                    size = self.chance.choice([0, 5, 40, 200, 1500])
                    yield entry(index, max(term, 1), self.chance.randbytes(size))

    @staticmethod
    def metadata(index: int, term: int) -> SnapshotMetadata:
        return SnapshotMetadata(
            last_included_index=index, last_included_term=term, configuration=FOUNDING
        )
