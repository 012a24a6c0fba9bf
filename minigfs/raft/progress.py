"""The leader's view of one other member: how far it is, and how much may be sent to it.

========== ===================================== ================================================
state      the leader sends                      it leaves by
========== ===================================== ================================================
PROBE      one AppendEntries, then waits for     first success -> REPLICATE;
           an answer or a heartbeat's reply      entries compacted -> SNAPSHOT
REPLICATE  a pipeline, optimistically, within    rejection or unreachable -> PROBE at match + 1;
           the window of ``Inflights``           entries compacted -> SNAPSHOT
SNAPSHOT   nothing but heartbeats                acknowledgement that reaches the log -> REPLICATE;
                                                 failure reported, or silence too long -> PROBE
========== ===================================== ================================================

Invariant: ``0 <= match_index < next_index``.
"""

import enum
from collections import deque

__all__ = ["Inflights", "Progress", "ProgressState"]


class ProgressState(enum.Enum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Inflights:
    """The window of AppendEntries on the way: bounded by count and by bytes."""

    def __init__(self, *, count_max: int, bytes_max: int) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._sent: deque[tuple[int, int]] = deque()
        self._size_bytes = 0

    @property
    def count(self) -> int:
        return len(self._sent)

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    @property
    def full(self) -> bool:
        """One message may overshoot the bytes: without that a large entry could never travel."""
        return len(self._sent) >= self._count_max or self._size_bytes >= self._bytes_max

    def add(self, last_index: int, size_bytes: int) -> None:
        assert not self.full, "nothing is sent into a full window"
        assert not self._sent or self._sent[-1][0] < last_index, "sent in order"
        self._sent.append((last_index, size_bytes))
        self._size_bytes += size_bytes

    def free_to(self, index: int) -> None:
        """Everything up to ``index`` is acknowledged."""
        while self._sent and self._sent[0][0] <= index:
            self._size_bytes -= self._sent.popleft()[1]

    def clear(self) -> None:
        self._sent.clear()
        self._size_bytes = 0


class Progress:
    """``next_index`` and ``match_index`` of Figure 2 for one member, and the window around them."""

    def __init__(self, *, next_index: int, inflights: Inflights) -> None:
        self.match_index = 0
        self.next_index = next_index
        self.state = ProgressState.PROBE
        self.inflights = inflights
        self.recently_active = False
        """It answered since the last quorum check (thesis 6.2)."""
        self.probe_outstanding = False
        self.append_due = True
        """Send one AppendEntries even if it is empty: its answer tells where the member is."""
        self.commit_sent = 0
        """Highest commit index the member knows if everything sent arrives."""
        self.snapshot_due = False
        """The entry before ``next_index`` is compacted: only a snapshot can go on from here."""
        self.snapshot_index = 0
        self.snapshot_elapsed_ticks = 0
        self.read_sequence_acked = 0

    def become_probe(self) -> None:
        """Look for the match again, from the last one known."""
        self.next_index = self.match_index + 1
        self._enter(ProgressState.PROBE)

    def become_replicate(self) -> None:
        self.next_index = self.match_index + 1
        self._enter(ProgressState.REPLICATE)

    def become_snapshot(self, snapshot_index: int) -> None:
        self.next_index = snapshot_index + 1
        self._enter(ProgressState.SNAPSHOT)
        self.snapshot_index = snapshot_index

    def _enter(self, state: ProgressState) -> None:
        self.state = state
        self.inflights.clear()
        self.probe_outstanding = False
        self.append_due = state is ProgressState.PROBE
        self.commit_sent = min(self.commit_sent, self.match_index)
        self.snapshot_due = False
        self.snapshot_index = 0
        self.snapshot_elapsed_ticks = 0
        assert 0 <= self.match_index < self.next_index

    def sent(self, last_index: int, size_bytes: int) -> None:
        """Entries up to ``last_index`` are on the way."""
        if self.state is ProgressState.REPLICATE:
            self.inflights.add(last_index, size_bytes)
            self.next_index = last_index + 1
        else:
            self.probe_outstanding = True

    def acknowledged(self, match_index: int) -> None:
        """The member's log is durable and equal up to ``match_index``; old news change nothing."""
        self.match_index = max(self.match_index, match_index)
        self.next_index = max(self.next_index, self.match_index + 1)
        self.inflights.free_to(match_index)
        if self.state is ProgressState.PROBE and match_index == self.match_index:
            self.become_replicate()

    def rejected(self, rejected_index: int, hint_index: int) -> bool:
        """The member has no match at ``rejected_index``; true if that is news (5.3).

        A rejection that was overtaken must not move ``next_index`` back: in REPLICATE one at or
        below ``match_index`` is old, in PROBE one that does not answer the probe just sent.
        """
        if self.state is ProgressState.REPLICATE:
            if rejected_index <= self.match_index:
                return False
            self.become_probe()
            return True
        if self.state is ProgressState.SNAPSHOT or self.next_index - 1 != rejected_index:
            return False
        self.next_index = max(min(rejected_index, hint_index + 1), self.match_index + 1)
        self.probe_outstanding = False
        self.append_due = True
        return True

    def heard_heartbeat_reply(self, last_log_index: int) -> None:
        """The way to the member works again: resume a probe, or ask where it is."""
        self.probe_outstanding = False
        if self.match_index < last_log_index or self.state is ProgressState.PROBE:
            self.append_due = True
