"""Snapshots of the own machines: when, how, and what may be forgotten afterwards (section 7).

::

    enough applied -> freeze -> SNAPSHOT slices write the file -> LOG record "snapshot" -> compact

Machines are frozen in no time and encoded a few pieces a slice while entries go on being applied.
A crash in between leaves a file without a record, which the next start removes. One that is
overtaken by a snapshot from the leader is abandoned: the log never goes back.
"""

from collections.abc import Callable, Iterator

from minigfs.raft import RaftNode, SnapshotMetadata
from minigfs.raft.errors import SnapshotTemporarilyUnavailable
from minigfs.replication.durable_log import DurableLog, Save
from minigfs.replication.log_lane import LogLane
from minigfs.replication.machines import ReplicatedMachines
from minigfs.replication.settings import MemberSettings
from minigfs.replication.snapshot_files import SnapshotFiles, SnapshotWriter
from minigfs.replication.snapshot_lane import SnapshotLane

__all__ = ["OwnSnapshots"]

ENTRIES_FACTOR_MAX = 10
PIECES_PER_SLICE = 4
RETRY_TICKS = 100


class OwnSnapshots:
    """At most one is being made."""

    def __init__(
        self,
        *,
        node: RaftNode,
        log: DurableLog,
        machines: ReplicatedMachines,
        log_lane: LogLane,
        snapshot_lane: SnapshotLane,
        settings: MemberSettings,
        needed_from_index: Callable[[], int | None],
    ) -> None:
        """``needed_from_index``: entries behind it are needed by a member that is being sent an
        older snapshot."""
        self._node = node
        self._log = log
        self._machines = machines
        self._log_lane = log_lane
        self._snapshot_lane = snapshot_lane
        self._settings = settings
        self._needed_from_index = needed_from_index
        self._entries_count = 0
        self._entries_bytes = 0
        self._last_bytes = 0
        self._wait_ticks = 0
        self._another_is_wanted = False
        self._making: _Making | None = None

    def tick(self) -> None:
        if self._wait_ticks > 0:
            self._wait_ticks -= 1

    def count(self, entries: int, size_bytes: int) -> None:
        """So much was applied."""
        self._entries_count += entries
        self._entries_bytes += size_bytes

    def make_another(self) -> None:
        """The newest file is damaged; what it was made of is not."""
        self._another_is_wanted = True

    def begin_if_due(self) -> None:
        """Freeze the machines and begin to write them, if enough was applied since the last time.

        Not to be called while the machines are being replaced.
        """
        if self._making is not None or self._wait_ticks > 0 or not self._is_due():
            return
        if self._node.state.log.pending_snapshot is not None:
            return
        try:
            metadata = self._node.snapshot_metadata_at(self._machines.applied_index)
        except SnapshotTemporarilyUnavailable:
            self._wait_ticks = RETRY_TICKS
            return
        self._entries_count = self._entries_bytes = 0
        self._another_is_wanted = False
        self._making = _Making(self._log.snapshots, metadata, self._machines.freeze())
        self._add_slice(self._making)

    def abandon(self) -> None:
        """A snapshot from the leader overtakes the one being made."""
        self._entries_count = self._entries_bytes = 0
        if self._making is not None:
            self._snapshot_lane.clean_up("abandon own snapshot", self._making.abandon)
            self._making = None

    def _is_due(self) -> bool:
        return (
            self._entries_count >= self._entries_between
            or self._entries_bytes >= self._settings.snapshot_every_bytes
            or (self._another_is_wanted and self._entries_count > 0)
        )

    @property
    def _entries_between(self) -> int:
        """Entries from one snapshot to the next: more of them behind a large one (ADR 4)."""
        least = self._settings.snapshot_every_entries
        by_size = self._last_bytes // self._settings.snapshot_entry_bytes
        return max(least, min(by_size, ENTRIES_FACTOR_MAX * least))

    def _add_slice(self, making: "_Making") -> None:
        self._snapshot_lane.add(
            "write own snapshot",
            making.write_slice,
            then=lambda: self._sliced(making),
            no_space=lambda: self._no_space(making),
        )

    def _sliced(self, making: "_Making") -> None:
        if making is not self._making:
            return
        if not making.is_finished:
            self._add_slice(making)
            return
        self._last_bytes = making.size_bytes
        self._log_lane.add("record own snapshot", lambda: self._begin_keep(making), self._kept)

    def _no_space(self, making: "_Making") -> None:
        """Later again, from the start: what was frozen is partly used up."""
        if making is self._making:
            self.abandon()
            self._entries_count = self._entries_between
            self._wait_ticks = RETRY_TICKS

    def _begin_keep(self, making: "_Making") -> Save | None:
        if making is not self._making:
            return None
        return self._log.begin_keep(making.metadata)

    def _kept(self) -> None:
        self._making = None
        self._log_lane.add("compact", self._begin_compact, _nothing)

    def _begin_compact(self) -> Save | None:
        """Keep entries for members that are late, and for those that get an older snapshot."""
        snapshot_index = self._log.snapshot_metadata().last_included_index
        up_to = snapshot_index - self._settings.keep_entries
        needed = self._needed_from_index()
        if needed is not None and needed >= snapshot_index - self._settings.keep_entries_max:
            up_to = min(up_to, needed)
        return self._log.begin_compact(max(up_to, self._log.first_index() - 1))


class _Making:
    """A snapshot being written; slices run in the SNAPSHOT lane."""

    def __init__(
        self, files: SnapshotFiles, metadata: SnapshotMetadata, pieces: Iterator[bytes]
    ) -> None:
        self.metadata = metadata
        self.is_finished = False
        self.size_bytes = 0
        self._files = files
        self._pieces = pieces
        self._writer: SnapshotWriter | None = None

    def write_slice(self) -> None:
        if self._writer is None:
            self._writer = self._files.create(self.metadata)
        for _ in range(PIECES_PER_SLICE):
            piece = next(self._pieces, None)
            if piece is None:
                self._writer.finish()
                self.is_finished = True
                return
            self._writer.write(piece)
            self.size_bytes += len(piece)

    def abandon(self) -> None:
        if self._writer is not None and not self.is_finished:
            self._writer.abandon()


def _nothing() -> None:
    pass
