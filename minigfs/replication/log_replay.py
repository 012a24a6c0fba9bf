"""What the records of a log come to when they are read one after the other, at a start.

The first segment's checkpoint says how things stood before it; each record changes that. When the
oldest segments are gone, the first entry that is left may override one that was in them. Then the
log begins there; that is below the checkpoint's position, and a snapshot covers it all.
"""

import logging
from dataclasses import dataclass, field

import msgspec

from minigfs.errors import CorruptLog, CorruptSnapshot, FileMissing
from minigfs.raft import (
    Entry,
    HardState,
    LogPosition,
    MemoryStorage,
    Persist,
    PersistToken,
    Snapshot,
    SnapshotMetadata,
)
from minigfs.replication.log_records import (
    KEEP,
    REPLACE,
    SAVE,
    Checkpoint,
    Head,
    decode_keep,
    decode_replace,
    decode_save,
)
from minigfs.replication.segments import WHAT_TO_DO, SegmentedLog
from minigfs.replication.snapshot_files import SnapshotFiles
from minigfs.replication.wal_format import Record

__all__ = ["Replay", "replayed"]

logger = logging.getLogger(__name__)


def replayed(segments: SegmentedLog, wal: str) -> "Replay":
    """Read a log to its end; ``wal`` is its name in errors."""
    replay: Replay | None = None
    for item in segments.read_all():
        if isinstance(item, Head):
            replay = replay or Replay.after(item.checkpoint, wal)
            continue
        assert replay is not None, "a segment begins with its head"
        try:
            replay.take(item)
        except msgspec.MsgspecError as error:
            raise CorruptLog(
                f"{wal}: a record of type {item.type} behind entry {replay.last_index} is whole "
                f"but cannot be understood ({error}): did a newer release write it?"
            ) from error
    assert replay is not None, "a log has a segment"
    return replay


@dataclass(slots=True)
class Replay:
    wal: str
    hard_state: HardState
    base: LogPosition
    """Of the entry before the first that is held."""
    snapshots: list[SnapshotMetadata]
    """Recorded ones that the log can go on from, the newest last; the founding state counts."""
    entries: list[Entry] = field(default_factory=list)

    @classmethod
    def after(cls, checkpoint: Checkpoint, wal: str) -> "Replay":
        hard_state, snapshot, before = checkpoint
        return cls(wal=wal, hard_state=hard_state, base=before, snapshots=[snapshot])

    @property
    def last_index(self) -> int:
        return self.base.index + len(self.entries)

    def take(self, record: Record) -> None:
        if record.type == SAVE:
            saved = decode_save(record.payload)
            self.hard_state = saved.hard_state or self.hard_state
            if saved.entries:
                self._overwrite(saved.entries)
        elif record.type == KEEP:
            self.snapshots.append(decode_keep(record.payload))
        elif record.type == REPLACE:
            replacement = decode_replace(record.payload)
            self.hard_state = replacement.hard_state or self.hard_state
            self.base = _position(replacement.snapshot)
            self.entries = []
            self.snapshots = [replacement.snapshot]
        else:
            raise CorruptLog(
                f"{self.wal}: behind entry {self.last_index} there is a record of type "
                f"{record.type}, which this release does not know: did a newer one write it?"
            )

    def _overwrite(self, entries: list[Entry]) -> None:
        first = entries[0].index
        if first > self.last_index + 1:
            raise CorruptLog(
                f"{self.wal}: entry {self.last_index} is followed by entry {first}; {WHAT_TO_DO}"
            )
        if first <= self.base.index:
            self.base, self.entries = entries[0].position, entries[1:]
        else:
            del self.entries[first - self.base.index - 1 :]
            self.entries.extend(entries)

    def usable_snapshots(self, files: SnapshotFiles) -> list[SnapshotMetadata]:
        """Those that verify and whose log has no gap behind them, the newest first.

        Raises ``CorruptLog`` if there is none.
        """
        usable: list[SnapshotMetadata] = []
        reasons: list[str] = []
        for metadata in reversed(self.snapshots):
            index = metadata.last_included_index
            if index < self.base.index:
                reasons.append(
                    f"entries {index + 1} to {self.base.index}, behind the snapshot of "
                    f"{index}, are not in the log"
                )
                break
            try:
                self._check(metadata, files)
            except (CorruptSnapshot, FileMissing) as error:
                reasons.append(str(error))
            else:
                usable.append(metadata)
        if not usable:
            raise CorruptLog(f"{self.wal}: {'; '.join(reasons)}; {WHAT_TO_DO}")
        for reason in reasons[: 0 if usable[0] is self.snapshots[-1] else None]:
            logger.warning("%s; going on from an older snapshot and the log", reason)
        return usable

    def _check(self, metadata: SnapshotMetadata, files: SnapshotFiles) -> None:
        if metadata.last_included_index == 0:
            return
        position = _position(metadata)
        if position != self._position_at(position.index):
            raise CorruptLog(
                f"{self.wal}: there is a snapshot of entry {position.index} in term "
                f"{position.term}, but no such entry in the log; {WHAT_TO_DO}"
            )
        name = files.name_of(metadata)
        if files.verify(name) != metadata:
            raise CorruptSnapshot(f"{name} is not the snapshot that {self.wal} has recorded")

    def _position_at(self, index: int) -> LogPosition | None:
        if index == self.base.index:
            return self.base
        return (
            self.entries[index - self.base.index - 1].position if index <= self.last_index else None
        )

    def storage(self, snapshot: SnapshotMetadata) -> MemoryStorage:
        """The same in memory, with that snapshot as its newest."""
        storage = MemoryStorage(snapshot.configuration)
        base: Snapshot | None = None
        if self.base.index > 0:
            index, term = self.base.index, self.base.term
            base = Snapshot(
                metadata=SnapshotMetadata(last_included_index=index, last_included_term=term)
            )
        storage.save(
            Persist(
                token=PersistToken(0),
                snapshot=base,
                hard_state=self.hard_state,
                entries=tuple(self.entries),
            )
        )
        if snapshot.last_included_index > 0:
            name = SnapshotFiles.name_of(snapshot)
            storage.save_snapshot(Snapshot(metadata=snapshot, data=name.encode()))
        return storage


def _position(metadata: SnapshotMetadata) -> LogPosition:
    return LogPosition(metadata.last_included_index, metadata.last_included_term)
