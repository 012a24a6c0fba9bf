"""A snapshot on its way to this member: its file is written and verified, in SNAPSHOT slices.

``SnapshotReceiving`` says which bytes are due. Raft is given the InstallSnapshot that the pieces
stand for when the file is there, whole, verified and durable, and not before; it then answers the
leader.
"""

from collections.abc import Callable

from minigfs.errors import CorruptSnapshot
from minigfs.raft import NodeId, RaftNode
from minigfs.raft.messages import InstallSnapshot
from minigfs.raft.records import Snapshot, SnapshotMetadata
from minigfs.replication.durable_log import DurableLog
from minigfs.replication.peer_messages import PeerMessage, SnapshotPiece
from minigfs.replication.snapshot_files import SnapshotFiles, SnapshotReceiver
from minigfs.replication.snapshot_lane import SnapshotLane
from minigfs.replication.snapshot_transfer import SnapshotReceiving, TransferLimits

__all__ = ["IncomingSnapshot"]


class IncomingSnapshot:
    """One file at a time, one slice of it at a time. Owner's thread only."""

    def __init__(
        self,
        *,
        node: RaftNode,
        log: DurableLog,
        lane: SnapshotLane,
        limits: TransferLimits,
        post: Callable[[PeerMessage], None],
    ) -> None:
        """``post`` takes what is to be sent."""
        self._node = node
        self._files = log.snapshots
        self._lane = lane
        self._limits = limits
        self._post = post
        self._receiving: SnapshotReceiving | None = None
        self._file: SnapshotReceiver | None = None
        self._slice: _Slice | None = None  # in the lane now

    def tick(self) -> None:
        if self._receiving is not None:
            self._receiving.tick()
            if self._receiving.has_failed:
                self._stop()

    def received(self, piece: SnapshotPiece) -> None:
        """A piece or an offer came. A snapshot that the log has passed already, or whose last
        entry it holds, is not transferred: Raft answers at once."""
        state, metadata = self._node.state, piece.metadata
        if piece.term < state.current_term or piece.name != self._files.name_of(metadata):
            return
        index, term = metadata.last_included_index, metadata.last_included_term
        if index <= state.commit_index or state.log.matches(index, term):
            self._step(piece.source, piece.term, metadata)
            return
        current = self._receiving
        if current is None or (not current.is_of(piece) and current.yields_to(piece)):
            self._stop()
            current = self._receiving = SnapshotReceiving(piece, self._limits)
        if current.is_of(piece):
            current.take(piece)
            self._go_on()

    def _go_on(self) -> None:
        """The answer to what came; and the next slice for the file, if none is under way."""
        receiving = self._receiving
        if receiving is None:
            return
        reply = receiving.take_reply(self._node.node_id)
        if reply is not None:
            self._post(reply)
        if self._slice is None:
            self._slice = self._next_slice(receiving)
            if self._slice is not None:
                self._add(self._slice)

    def _next_slice(self, receiving: SnapshotReceiving) -> "_Slice | None":
        if receiving.received_bytes is None:
            return _Slice(receiving, self._files, None)
        if (write := receiving.take_write()) is not None:
            return _Slice(receiving, self._files, self._file, write=write)
        if receiving.is_whole:
            return _Slice(receiving, self._files, self._file, finish=True)
        return None

    def _add(self, slice_: "_Slice") -> None:
        self._lane.add(
            "receive snapshot",
            slice_.run,
            then=lambda: self._sliced(slice_),
            no_space=lambda: self._no_space(slice_),
        )

    def _sliced(self, slice_: "_Slice") -> None:
        self._slice = None
        receiving = slice_.receiving
        if receiving is not self._receiving:
            self._close(slice_.file)
        elif slice_.is_corrupt:
            self._stop()
        elif slice_.metadata is not None:
            self._receiving = self._file = None
            self._step(receiving.sender, receiving.term, slice_.metadata)
        else:
            assert slice_.file is not None
            self._file = slice_.file
            if receiving.received_bytes is None:
                receiving.opened(self._file.received_bytes)
            else:
                receiving.wrote(self._file.received_bytes)
        self._go_on()

    def _no_space(self, slice_: "_Slice") -> None:
        """Forget the transfer; the next offer takes up what was written."""
        self._slice = None
        self._close(slice_.file)
        if slice_.receiving is self._receiving:
            self._receiving = self._file = None

    def _stop(self) -> None:
        """Leave off; the file stays, as far as it got. A slice under way closes it at its end."""
        if self._slice is None:
            self._close(self._file)
        self._receiving = self._file = None

    def _close(self, file: SnapshotReceiver | None) -> None:
        if file is not None:
            self._lane.clean_up("close received snapshot", file.close)

    def _step(self, sender: NodeId, term: int, metadata: SnapshotMetadata) -> None:
        """Give Raft the message that the pieces stood for; it answers it, too."""
        name = self._files.name_of(metadata)
        snapshot = Snapshot(metadata=metadata, data=name.encode())
        message = InstallSnapshot(
            source=sender, target=self._node.node_id, term=term, snapshot=snapshot
        )
        self._node.step(message)


class _Slice:
    """One visit to a file in the lane: open it, write to it, or finish it."""

    def __init__(
        self,
        receiving: SnapshotReceiving,
        files: SnapshotFiles,
        file: SnapshotReceiver | None,
        *,
        write: tuple[int, bytes] | None = None,
        finish: bool = False,
    ) -> None:
        self.receiving = receiving
        self.file = file
        self.is_corrupt = False
        self.metadata: SnapshotMetadata | None = None  # of the finished file
        self._files = files
        self._write = write
        self._finish = finish

    def run(self) -> None:
        if self.file is None:
            self.file = self._files.receive(self.receiving.name, self.receiving.size_bytes)
        elif self._write is not None:
            self.file.write(*self._write)
        elif self._finish:
            try:
                self.metadata = self.file.finish()
            except CorruptSnapshot:  # pieces of two files, or damaged on the way: from the start
                self.is_corrupt = True
