"""Where the durable half of a node's state is read from, and the version of it that is memory.

The core only reads, through ``LogStorage``; whatever must be written leaves it as a ``Persist`` in
a ``Ready`` and is written by the driver. A ``Persist`` is one unit: written in full before its
token is reported, in the order snapshot, hard state, entries. Writing entry *i* discards every
stored entry at or above *i*; a snapshot in a ``Persist`` replaces the whole log. (A snapshot the
driver makes of its own machine is no ``Persist``: it keeps the log, which is compacted later.)
"""

from collections.abc import Sequence
from typing import Protocol

from minigfs.raft.errors import Compacted, NotYetWritten
from minigfs.raft.ready import Persist
from minigfs.raft.records import (
    Configuration,
    Entry,
    HardState,
    Snapshot,
    SnapshotMetadata,
    total_bytes,
)

__all__ = ["LogStorage", "MemoryStorage", "take_bytes"]


class LogStorage(Protocol):
    """What survived the last crash, and what has been written since.

    Invariants: ``first_index() - 1 <= snapshot_metadata().last_included_index <= last_index()``;
    indexes from ``first_index()`` to ``last_index()`` have no gap; terms never fall along them.
    """

    def hard_state(self) -> HardState:
        """The last one written; ``HardState()`` if none was."""
        ...

    def first_index(self) -> int:
        """Index of the first entry still held; ``last_index() + 1`` if none is."""
        ...

    def last_index(self) -> int: ...

    def term(self, index: int) -> int:
        """Term of the entry at ``index``, from ``first_index() - 1`` (the last one dropped) on.

        Raises ``Compacted`` below and ``NotYetWritten`` above.
        """
        ...

    def entries(self, first: int, last: int, bytes_max: int) -> Sequence[Entry]:
        """Entries first..last inclusive, cut to ``bytes_max`` but never to nothing.

        Raises ``Compacted`` if ``first`` is gone, ``NotYetWritten`` if ``last`` is not there.
        """
        ...

    def snapshot_metadata(self) -> SnapshotMetadata:
        """Of the newest durable snapshot; of the founding state (index 0) if there is none."""
        ...

    def snapshot(self) -> Snapshot:
        """The newest durable snapshot, for a member that is too far behind.

        Raises ``SnapshotTemporarilyUnavailable`` if it cannot be had now.
        """
        ...


class MemoryStorage:
    """A ``LogStorage`` in memory, with the writes a driver makes: for tests and for models."""

    def __init__(self, configuration: Configuration | None = None) -> None:
        """``configuration`` founds the group; leave it out on a node that will be added later."""
        founding = SnapshotMetadata(configuration=configuration or Configuration())
        self._hard_state = HardState()
        self._snapshot = Snapshot(metadata=founding)
        self._dropped_index = 0
        self._dropped_term = 0
        self._entries: list[Entry] = []

    def hard_state(self) -> HardState:
        return self._hard_state

    def first_index(self) -> int:
        return self._dropped_index + 1

    def last_index(self) -> int:
        return self._dropped_index + len(self._entries)

    def term(self, index: int) -> int:
        if index == self._dropped_index:
            return self._dropped_term
        self._check(index)
        return self._entries[index - self._dropped_index - 1].term

    def entries(self, first: int, last: int, bytes_max: int) -> Sequence[Entry]:
        self._check(first)
        self._check(last)
        base = self._dropped_index + 1
        return take_bytes(self._entries[first - base : last - base + 1], bytes_max)

    def snapshot_metadata(self) -> SnapshotMetadata:
        return self._snapshot.metadata

    def snapshot(self) -> Snapshot:
        return self._snapshot

    def save(self, persist: Persist) -> None:
        """Write one unit. It counts as durable when this returns."""
        if persist.snapshot is not None:
            metadata = persist.snapshot.metadata
            self._snapshot = persist.snapshot
            self._entries = []
            self._dropped_index = metadata.last_included_index
            self._dropped_term = metadata.last_included_term
        if persist.hard_state is not None:
            self._hard_state = persist.hard_state
        if persist.entries:
            self._append(persist.entries)

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot of the own machine; the log stays until ``compact``."""
        metadata = snapshot.metadata
        assert metadata.last_included_index >= self._snapshot.metadata.last_included_index, (
            "a snapshot never goes back"
        )
        assert self.term(metadata.last_included_index) == metadata.last_included_term
        self._snapshot = snapshot

    def compact(self, up_to_index: int) -> None:
        """Drop entries up to ``up_to_index``, which a durable snapshot must cover."""
        assert up_to_index <= self._snapshot.metadata.last_included_index, (
            f"entry {up_to_index} is in no snapshot yet"
        )
        if up_to_index <= self._dropped_index:
            return
        term = self.term(up_to_index)
        del self._entries[: up_to_index - self._dropped_index]
        self._dropped_index, self._dropped_term = up_to_index, term

    def _append(self, entries: Sequence[Entry]) -> None:
        first = entries[0].index
        assert self._dropped_index < first <= self.last_index() + 1, (
            f"entry {first} leaves a gap after {self.last_index()}"
        )
        del self._entries[first - self._dropped_index - 1 :]
        self._entries.extend(entries)

    def _check(self, index: int) -> None:
        if index <= self._dropped_index:
            raise Compacted(f"entry {index} is compacted; the first is {self.first_index()}")
        if index > self.last_index():
            raise NotYetWritten(f"entry {index} is not written; the last is {self.last_index()}")


def take_bytes(entries: Sequence[Entry], bytes_max: int) -> Sequence[Entry]:
    """The longest prefix within ``bytes_max``, but at least one entry if there is any."""
    if total_bytes(entries) <= bytes_max:
        return entries
    taken_bytes = 0
    for count, entry in enumerate(entries):
        taken_bytes += entry.size_bytes
        if taken_bytes > bytes_max and count > 0:
            return entries[:count]
    return entries
