"""The log: what storage holds, followed by the unstable tail that storage does not hold yet.

::

    compacted | stable (read through LogStorage)      | unstable (in memory)
    ----------|---------------------------------------|---------------------------------
              first_index              stable_index   |  [being written]         last_index

Entries leave the unstable tail only when a write that contained exactly them has been reported.
Cutting the tail while a write is under way shortens what that write will be believed to have done,
so a late report never vouches for entries that were replaced meanwhile (etcd's ABA race).

A snapshot received from the leader replaces everything; until its write is reported it is
``pending_snapshot`` and nothing is stable.
"""

from collections.abc import Sequence

from minigfs.raft.errors import Compacted, LogUnavailable, NotYetWritten, SafetyViolation
from minigfs.raft.records import Entry, LogPosition, Snapshot
from minigfs.raft.storage import LogStorage, take_bytes

__all__ = ["RaftLog"]


class RaftLog:
    """Figure 2's ``log[]``. It knows entries and what is durable; not what is committed."""

    def __init__(self, storage: LogStorage) -> None:
        self._storage = storage
        self._tail: list[Entry] = []
        self._tail_first_index = storage.last_index() + 1
        self._writing_to_index = 0
        self.pending_snapshot: Snapshot | None = None

    # What it holds

    @property
    def first_index(self) -> int:
        """Index of the first entry that can still be read."""
        if self.pending_snapshot is not None:
            return self.pending_snapshot.metadata.last_included_index + 1
        return self._storage.first_index()

    @property
    def last_index(self) -> int:
        return self._tail_first_index + len(self._tail) - 1

    @property
    def last_term(self) -> int:
        return self.term_at(self.last_index)

    @property
    def stable_index(self) -> int:
        """Everything up to here is durable; 0 while a received snapshot is not."""
        return 0 if self.pending_snapshot is not None else self._tail_first_index - 1

    def term_at(self, index: int) -> int:
        """Term of the entry; also of the last one compacted.

        Raises ``Compacted`` below that and ``NotYetWritten`` above the last.
        """
        if index > self.last_index:
            raise NotYetWritten(f"entry {index} is above the last, {self.last_index}")
        if index >= self._tail_first_index:
            return self._tail[index - self._tail_first_index].term
        if self.pending_snapshot is None:
            return self._storage.term(index)
        metadata = self.pending_snapshot.metadata
        if index == metadata.last_included_index:
            return metadata.last_included_term
        raise Compacted(f"entry {index} is below the snapshot at {metadata.last_included_index}")

    def matches(self, index: int, term: int) -> bool:
        """Whether the log holds this entry: the consistency check of AppendEntries (5.3)."""
        try:
            return self.term_at(index) == term
        except LogUnavailable:
            return False

    def entries(self, first: int, last: int, bytes_max: int) -> Sequence[Entry]:
        """Entries first..last, cut to ``bytes_max`` but never to nothing; raises ``Compacted``."""
        if first > last:
            return ()
        if first < self.first_index:
            raise Compacted(f"entry {first} is compacted; the first is {self.first_index}")
        if first >= self._tail_first_index:
            return take_bytes(self._tail_slice(first, last), bytes_max)
        stable_last = min(last, self._tail_first_index - 1)
        stable = self._storage.entries(first, stable_last, bytes_max)
        if len(stable) <= stable_last - first or last == stable_last:
            return stable
        return take_bytes((*stable, *self._tail_slice(self._tail_first_index, last)), bytes_max)

    def _tail_slice(self, first: int, last: int) -> Sequence[Entry]:
        return self._tail[first - self._tail_first_index : last - self._tail_first_index + 1]

    def is_up_to_date(self, last_log_index: int, last_log_term: int) -> bool:
        """Whether a log that ends there is at least as up-to-date as this one (5.4.1).

        The later last term wins; only within one term does length count.
        """
        return (last_log_term, last_log_index) >= (self.last_term, self.last_index)

    def last_match_by_term(self, index: int, term: int) -> tuple[int, int]:
        """The last entry at or below ``index`` whose term is at most ``term``: (index, its term).

        Nothing between it and ``index`` can match a log whose entry at ``index`` has ``term``, so
        one rejection skips whole terms (end of 5.3). The term is 0 where it is not known any more.
        """
        while index > 0:
            try:
                term_here = self.term_at(index)
            except LogUnavailable:
                return index, 0
            if term_here <= term:
                return index, term_here
            index -= 1
        return 0, 0

    # What changes it

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries after the last one. Only a leader appends without asking (5.3)."""
        assert entries[0].index == self.last_index + 1, "no gap and nothing overwritten"
        self._tail.extend(entries)

    def merge(self, entries: Sequence[Entry], *, commit_index: int) -> int | None:
        """Store a leader's entries, which follow one this log is known to hold.

        Figure 2, AppendEntries rules 3 and 4: an entry that conflicts (same index, other term) is
        deleted with all that follow it; what is there already stays, so a late or doubled message
        removes nothing. Returns the index from which entries were deleted, None if none were.
        """
        for position, entry in enumerate(entries):
            if not self.matches(entry.index, entry.term):
                fresh = entries[position:]
                break
        else:
            return None
        first = fresh[0].index
        deleted_from = first if first <= self.last_index else None
        if deleted_from is not None:
            if first <= commit_index:
                raise SafetyViolation(
                    f"entry {first} of term {fresh[0].term} conflicts with the committed one of "
                    f"term {self.term_at(first)}; a member's disk is not its own, stop the group"
                )
            self._cut(first)
        self.append(fresh)
        return deleted_from

    def _cut(self, first: int) -> None:
        """Forget the entries from ``first`` on; the next write will overwrite them in storage."""
        if first >= self._tail_first_index:
            del self._tail[first - self._tail_first_index :]
        else:
            self._tail.clear()
            self._tail_first_index = first
        self._writing_to_index = min(self._writing_to_index, first - 1)

    def restore(self, snapshot: Snapshot) -> None:
        """Replace everything by a snapshot from the leader (section 7)."""
        self.pending_snapshot = snapshot
        self._tail.clear()
        self._tail_first_index = snapshot.metadata.last_included_index + 1
        self._writing_to_index = 0

    # What becomes durable

    @property
    def has_unwritten(self) -> bool:
        """Whether there is anything that the write under way, if any, does not contain."""
        if not self._tail and self.pending_snapshot is None:
            return False
        return self._unwritten_snapshot or self.last_index > self._written_or_writing_to

    @property
    def _unwritten_snapshot(self) -> bool:
        return self.pending_snapshot is not None and self._writing_to_index == 0

    @property
    def _written_or_writing_to(self) -> int:
        return max(self._tail_first_index - 1, self._writing_to_index)

    def begin_write(self) -> tuple[Snapshot | None, tuple[Entry, ...]]:
        """Everything unstable, for one write."""
        self._writing_to_index = self.last_index
        return self.pending_snapshot, tuple(self._tail)

    def end_write(self) -> Snapshot | None:
        """The write is durable, as far as it was not overtaken; returns the snapshot it stored."""
        written_to, self._writing_to_index = self._writing_to_index, 0
        if written_to < self._tail_first_index - 1 or written_to == 0:
            return None
        snapshot, self.pending_snapshot = self.pending_snapshot, None
        del self._tail[: written_to - self._tail_first_index + 1]
        self._tail_first_index = written_to + 1
        return snapshot

    def unstable_positions(self) -> tuple[LogPosition, ...]:
        """The unstable tail, for checkers."""
        return tuple(entry.position for entry in self._tail)

    # Snapshots of the own machine

    @property
    def snapshot_index(self) -> int:
        """Last entry covered by the newest durable snapshot."""
        return self._storage.snapshot_metadata().last_included_index

    def storage_snapshot(self) -> Snapshot:
        """The newest durable snapshot; raises ``SnapshotTemporarilyUnavailable``."""
        return self._storage.snapshot()
