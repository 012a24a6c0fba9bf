"""The durable half of one member: term, vote, entries and snapshots, on a disk (Figure 2, 7).

``DurableLog`` is the ``LogStorage`` that the core reads. What it shows is held in memory and equals
what is on disk at every moment: a write is begun, run (in any thread) and finished, and shows only
from then on. ::

    save = log.begin_save(ready.persist)     owner's thread
    save.run()                               any thread: one write, one sync
    log.finish_save(save)                    owner's thread; now tell the core

On disk there are segments (``segments``) and snapshot files (``snapshot_files``). A later record
overrides an earlier one, and nothing is ever rewritten. A snapshot's life is: file durable, record
in the log synced, segments that it makes useless removed (oldest first), older snapshots removed.
A start takes the newest snapshot that is recorded and verifies, if the entries behind it have no
gap; else it refuses, because the member's promises cannot be known any more.
"""

from collections.abc import Callable, Sequence

from minigfs.errors import CorruptLog, InvalidConfig
from minigfs.ports import Disk
from minigfs.raft import (
    Configuration,
    Entry,
    HardState,
    LogPosition,
    MemoryStorage,
    NodeId,
    Persist,
    Snapshot,
    SnapshotMetadata,
)
from minigfs.replication.log_records import Checkpoint, encode_keep, encode_persist
from minigfs.replication.log_replay import replayed
from minigfs.replication.segments import WHAT_TO_DO, LogSettings, SegmentedLog, segment_sequences
from minigfs.replication.snapshot_files import SnapshotFiles

__all__ = ["DurableLog", "LogSettings", "NoLog", "Save"]

_DEFAULT_SETTINGS = LogSettings()


class NoLog(InvalidConfig):
    """There is no member's log in this directory: make one, under a new member id."""


class Save:
    """One piece of work on the disk, made by ``DurableLog``."""

    def __init__(self, work: Callable[[], None], show: Callable[[], None]) -> None:
        self._work = work
        self.show = show
        self.is_done = False

    def run(self) -> None:
        """Do all I/O; in any thread.

        ``NoSpace``: nothing has changed, and it may be run again. Any other ``OSError``: it is not
        known what the disk holds, the process must end.
        """
        assert not self.is_done, "a save is run once"
        self._work()
        self.is_done = True


class DurableLog:
    """A member's log in one directory. For one process; ``create`` or ``open`` it."""

    def __init__(self, segments: SegmentedLog, snapshots: SnapshotFiles, shown: MemoryStorage):
        self._segments = segments
        self._shown = shown
        self._outstanding: Save | None = None
        self.snapshots = snapshots

    @classmethod
    def create(
        cls,
        disk: Disk,
        directory: str,
        *,
        member_id: NodeId,
        configuration: Configuration,
        settings: LogSettings = _DEFAULT_SETTINGS,
    ) -> "DurableLog":
        """Found a new member.

        ``configuration``: of the founding group, the same on all its members; an empty one for a
        member that will be added. Raises ``InvalidConfig`` if a log is there already. After a crash
        there is a whole log or none.
        """
        wal, snapshots = _directories(directory)
        if segment_sequences(disk, wal):
            raise InvalidConfig(
                f"{directory or 'the directory'} holds a member's log already: start that member, "
                "or give the new one an empty directory"
            )
        for path in (wal, snapshots):
            _make_durable_dirs(disk, path)
        files = SnapshotFiles(disk, snapshots)
        _refuse_orphans(files, wal)
        founding = SnapshotMetadata(configuration=configuration)
        checkpoint = Checkpoint(HardState(), founding, LogPosition(0, 0))
        segments = SegmentedLog.create(
            disk, wal, member_id=member_id, checkpoint=checkpoint, settings=settings
        )
        return cls(segments, files, MemoryStorage(configuration))

    @classmethod
    def open(
        cls, disk: Disk, directory: str, *, settings: LogSettings = _DEFAULT_SETTINGS
    ) -> "DurableLog":
        """Read a log back. A torn tail, which nobody was told of, is dropped.

        Raises ``NoLog`` if there is none, and ``CorruptLog``, which says where and what to do, if
        something that was durable is not there as it was; then nothing has been changed.
        """
        wal, snapshots = _directories(directory)
        files = SnapshotFiles(disk, snapshots)
        if not segment_sequences(disk, wal):
            if disk.exists(snapshots):
                _refuse_orphans(files, wal)
            raise NoLog(f"there is no member's log in {directory or 'the directory'}")
        segments = SegmentedLog(disk, wal, settings)
        replay = replayed(segments, wal)
        usable = replay.usable_snapshots(files)
        shown = replay.storage(usable[0])
        files.remove_leftovers(
            {files.name_of(metadata) for metadata in usable}, usable[0].last_included_index
        )
        segments.start()
        return cls(segments, files, shown)

    @property
    def member_id(self) -> NodeId:
        """Made together with the directory: a wiped disk is another member."""
        return self._segments.member_id

    # Reading: ``LogStorage``.

    def hard_state(self) -> HardState:
        return self._shown.hard_state()

    def first_index(self) -> int:
        return self._shown.first_index()

    def last_index(self) -> int:
        return self._shown.last_index()

    def term(self, index: int) -> int:
        return self._shown.term(index)

    def entries(self, first: int, last: int, bytes_max: int) -> Sequence[Entry]:
        return self._shown.entries(first, last, bytes_max)

    def snapshot_metadata(self) -> SnapshotMetadata:
        return self._shown.snapshot_metadata()

    def snapshot(self) -> Snapshot:
        """``data`` is the name that ``snapshots`` knows it by; empty for the founding state."""
        return self._shown.snapshot()

    # Writing.

    @property
    def room_bytes(self) -> int:
        """What surely fits into space preallocated already.

        A write takes at most 256 bytes and the ``size_bytes`` of its entries, and what its
        configurations take.
        """
        return self._segments.room_bytes

    @property
    def has_room_ahead(self) -> bool:
        """Whether the next segment is preallocated; not to be asked while a save runs."""
        return self._segments.has_spare

    def begin_save(self, persist: Persist) -> Save:
        """What a Ready asks for; one write and one sync.

        A snapshot in it is in ``snapshots`` already, finished, and its data is its name.
        """
        snapshot, entries = persist.snapshot, persist.entries
        last = self.last_index()
        if snapshot is not None:
            name = self.snapshots.name_of(snapshot.metadata)
            assert snapshot.data == name.encode(), f"the snapshot's data must be the name {name}"
            last = snapshot.metadata.last_included_index
        if entries:
            first = entries[0].index
            assert first <= last + 1, f"entry {first} leaves a gap after {last}"
            assert snapshot is not None or first >= self.first_index(), f"entry {first} is dropped"
            assert entries[-1].index == first + len(entries) - 1, "entries have a gap"

        def work() -> None:
            self._segments.append(encode_persist(persist), self._checkpoint)
            if snapshot is not None:
                self._remove_obsolete(snapshot.metadata.last_included_index, snapshot.metadata)

        return self._begin(Save(work, lambda: self._shown.save(persist)))

    def begin_keep(self, metadata: SnapshotMetadata) -> Save:
        """Record a snapshot of the own machine, whose file is finished. The log stays."""
        name = self.snapshots.name_of(metadata)
        newest = self.snapshot_metadata()
        assert metadata.last_included_index >= newest.last_included_index, "a snapshot goes back"
        assert self.term(metadata.last_included_index) == metadata.last_included_term

        def work() -> None:
            self._segments.append([encode_keep(metadata)], self._checkpoint)

        snapshot = Snapshot(metadata=metadata, data=name.encode())
        return self._begin(Save(work, lambda: self._shown.save_snapshot(snapshot)))

    def begin_compact(self, up_to_index: int) -> Save:
        """Forget entries up to an index that the durable snapshot covers.

        Their space on disk is freed by whole segments, so some of them may show again after the
        next start.
        """
        newest = self.snapshot_metadata()
        assert up_to_index <= newest.last_included_index, f"{up_to_index} is in no snapshot yet"
        return self._begin(
            Save(
                lambda: self._remove_obsolete(up_to_index, newest),
                lambda: self._shown.compact(up_to_index),
            )
        )

    def begin_room(self) -> Save | None:
        """Try again to have space ahead; None if it is there. ``room_bytes`` says if it is now."""
        if self.has_room_ahead:
            return None
        return self._begin(Save(self._segments.make_room, _show_nothing))

    def finish_save(self, save: Save) -> None:
        """From now on reads show it."""
        assert save is self._outstanding, "this save is not the one outstanding"
        assert save.is_done, "a save is finished when it has run"
        self._outstanding = None
        save.show()

    def save(self, persist: Persist) -> None:
        """Begin, run and finish at once."""
        self.complete(self.begin_save(persist))

    def complete(self, save: Save) -> None:
        """Run and finish a save at once."""
        save.run()
        self.finish_save(save)

    def close(self) -> None:
        self._segments.close()

    def _begin(self, save: Save) -> Save:
        assert self._outstanding is None, "one save at a time"
        self._outstanding = save
        return save

    def _checkpoint(self) -> Checkpoint:
        """What stands before a write; only asked for while it is outstanding, so nothing moves."""
        last = self.last_index()
        before = LogPosition(last, self.term(last))
        return Checkpoint(self.hard_state(), self.snapshot_metadata(), before)

    def _remove_obsolete(self, up_to_index: int, snapshot: SnapshotMetadata) -> None:
        self._segments.remove_obsolete(up_to_index)
        self.snapshots.remove_older(snapshot.last_included_index)


def _show_nothing() -> None:
    pass


def _directories(directory: str) -> tuple[str, str]:
    prefix = f"{directory}/" if directory else ""
    return f"{prefix}wal", f"{prefix}snapshots"


def _make_durable_dirs(disk: Disk, path: str) -> None:
    disk.make_dirs(path)
    while path:
        path = path.rpartition("/")[0]
        disk.sync_dir(path)


def _refuse_orphans(files: SnapshotFiles, wal: str) -> None:
    """Snapshots without a log are what is left of a member, not an empty directory."""
    if files.names():
        raise CorruptLog(
            f"{wal}: there are snapshots ({files.names()[-1]}) but no segment of the log at offset "
            f"0 or anywhere; {WHAT_TO_DO}"
        )
