"""Snapshots between members: files are opened, read and written here, in SNAPSHOT slices.

Who has to do what is decided by the pure halves in ``snapshot_transfer``. A leader's Raft asks for
an InstallSnapshot; what travels are pieces of the file it names. The receiver's Raft is given the
message when the file is there, whole, verified and durable, and answers it. A snapshot that the
receiver's log has already passed is not transferred at all.

The file that is being sent stays readable, whatever is compacted meanwhile. A transfer under way
goes on as long as the log can follow it up; otherwise the newer snapshot takes its place.
"""

from collections.abc import Callable

from minigfs.errors import CorruptSnapshot, FileMissing
from minigfs.raft import NodeId, RaftNode
from minigfs.raft.messages import InstallSnapshot
from minigfs.raft.records import Snapshot, SnapshotMetadata
from minigfs.replication.durable_log import DurableLog
from minigfs.replication.peer_messages import PeerMessage, SnapshotPiece, SnapshotPieceReply
from minigfs.replication.settings import MemberSettings
from minigfs.replication.snapshot_files import SnapshotFiles, SnapshotReader, SnapshotReceiver
from minigfs.replication.snapshot_lane import SnapshotLane
from minigfs.replication.snapshot_transfer import (
    SnapshotReceiving,
    SnapshotSending,
    TransferLimits,
)

__all__ = ["SnapshotExchange"]


class SnapshotExchange:
    """Any number of snapshots going out, one coming in. Owner's thread only."""

    def __init__(
        self,
        *,
        node: RaftNode,
        log: DurableLog,
        lane: SnapshotLane,
        settings: MemberSettings,
        on_damaged_file: Callable[[], None],
    ) -> None:
        """``on_damaged_file``: the own newest snapshot cannot be sent, another one is wanted."""
        limits = TransferLimits(
            piece_bytes=settings.piece_bytes,
            pieces_in_flight=settings.pieces_in_flight,
            resend_ticks=settings.transfer_resend_ticks,
            give_up_ticks=settings.transfer_give_up_ticks,
        )
        self._outgoing = _Outgoing(node, log, lane, limits, self._post, on_damaged_file)
        self._incoming = _Incoming(node, log, lane, limits, self._post)
        self._messages: list[PeerMessage] = []

    @property
    def needed_from_index(self) -> int | None:
        """Members that are being sent a snapshot need the entries behind this index."""
        return self._outgoing.lowest_index

    def take_messages(self) -> list[PeerMessage]:
        messages, self._messages = self._messages, []
        return messages

    def tick(self) -> None:
        self._outgoing.tick()
        self._incoming.tick()

    def send(self, message: InstallSnapshot) -> None:
        """Raft wants a member to have a snapshot."""
        self._outgoing.send(message)

    def received_piece(self, piece: SnapshotPiece) -> None:
        self._incoming.received(piece)

    def received_reply(self, reply: SnapshotPieceReply) -> None:
        self._outgoing.received(reply)

    def _post(self, message: PeerMessage) -> None:
        self._messages.append(message)


class _Outgoing:
    """The sending half: a transfer for each member that needs one."""

    def __init__(
        self,
        node: RaftNode,
        log: DurableLog,
        lane: SnapshotLane,
        limits: TransferLimits,
        post: Callable[[PeerMessage], None],
        on_damaged_file: Callable[[], None],
    ) -> None:
        self._node = node
        self._log = log
        self._lane = lane
        self._limits = limits
        self._post = post
        self._on_damaged_file = on_damaged_file
        self._transfers: dict[NodeId, _Transfer] = {}
        self._next_attempt = 1

    @property
    def lowest_index(self) -> int | None:
        indexes = [transfer.index for transfer in self._transfers.values()]
        return min(indexes) if indexes else None

    def send(self, message: InstallSnapshot) -> None:
        current = self._transfers.get(message.target)
        if current is not None:
            if current.index + 1 >= self._log.first_index() and current.term == message.term:
                return
            self._end(message.target)
        transfer = self._transfers[message.target] = _Transfer(message, self._log)
        self._lane.add(
            "open snapshot to send",
            transfer.open,
            then=lambda: self._opened(transfer),
            no_space=lambda: self._fail(transfer),
        )

    def received(self, reply: SnapshotPieceReply) -> None:
        transfer = self._transfers.get(reply.source)
        if transfer is not None and transfer.sending is not None:
            transfer.sending.replied(reply)
            if transfer.sending.was_refused and not transfer.is_verified:
                self._verify(transfer)
            else:
                self._go_on(transfer)

    def tick(self) -> None:
        for target, transfer in list(self._transfers.items()):
            if self._is_over(transfer):
                self._end(target)
                continue
            if transfer.sending is None:
                continue
            transfer.sending.tick()
            if transfer.sending.has_failed:
                self._fail(transfer)
            else:
                self._go_on(transfer)

    def _is_over(self, transfer: "_Transfer") -> bool:
        """The member has it, is no member any more, or this node does not lead in that term."""
        leadership = self._node.state.leadership
        if leadership is None or self._node.state.current_term != transfer.term:
            return True
        progress = leadership.progress.get(transfer.target)
        return progress is None or progress.match_index >= transfer.index

    def _opened(self, transfer: "_Transfer") -> None:
        if self._transfers.get(transfer.target) is not transfer:
            self._lane.clean_up("close sent snapshot", transfer.close)
            return
        if transfer.is_damaged:
            self._on_damaged_file()
        if transfer.reader is None:
            self._fail(transfer)
            return
        transfer.sending = SnapshotSending(
            source=self._node.node_id,
            target=transfer.target,
            term=transfer.term,
            metadata=transfer.metadata,
            name=transfer.name,
            size_bytes=transfer.reader.size_bytes,
            limits=self._limits,
            first_attempt=self._next_attempt,
        )
        self._go_on(transfer)

    def _go_on(self, transfer: "_Transfer") -> None:
        sending = transfer.sending
        assert sending is not None
        self._next_attempt = max(self._next_attempt, sending.attempt + 1)
        offer = sending.take_offer()
        if offer is not None:
            self._post(offer)
        if not transfer.is_reading and (reads := sending.take_reads()):
            transfer.is_reading = True
            self._lane.add(
                "read snapshot to send",
                lambda: transfer.read(reads),
                then=lambda: self._read(transfer),
                no_space=lambda: self._fail(transfer),
            )

    def _read(self, transfer: "_Transfer") -> None:
        transfer.is_reading = False
        pieces, transfer.pieces = transfer.pieces, []
        if self._transfers.get(transfer.target) is not transfer or transfer.sending is None:
            return
        for offset, data in pieces:
            self._post(transfer.sending.piece(offset=offset, data=data))
        self._go_on(transfer)

    def _verify(self, transfer: "_Transfer") -> None:
        """The receiver threw away all of it. Was it damaged on the way, or is it here?"""
        transfer.is_verified = True

        def verified() -> None:
            if transfer.is_damaged:
                self._on_damaged_file()
                self._fail(transfer)
            elif self._transfers.get(transfer.target) is transfer:
                self._go_on(transfer)

        self._lane.add(
            "verify snapshot to send",
            transfer.verify,
            then=verified,
            no_space=lambda: self._fail(transfer),
        )

    def _fail(self, transfer: "_Transfer") -> None:
        if self._transfers.get(transfer.target) is transfer:
            self._end(transfer.target)
            self._node.report_snapshot(transfer.target, delivered=False)

    def _end(self, target: NodeId) -> None:
        transfer = self._transfers.pop(target)
        if transfer.sending is not None:
            self._lane.clean_up("close sent snapshot", transfer.close)


class _Transfer:
    """One file on its way to one member; all but its making is done in the lane."""

    def __init__(self, message: InstallSnapshot, log: DurableLog) -> None:
        self.target = message.target
        self.term = message.term
        self.metadata = message.snapshot.metadata
        self.index = self.metadata.last_included_index
        self.name = message.snapshot.data.decode()
        self.sending: SnapshotSending | None = None
        self.reader: SnapshotReader | None = None
        self.is_reading = False
        self.is_verified = False
        self.is_damaged = False
        self.pieces: list[tuple[int, bytes]] = []
        self._files = log.snapshots

    def open(self) -> None:
        try:
            self.reader = self._files.open(self.name)
        except FileMissing:  # a newer one took its place; Raft will name that
            pass
        except CorruptSnapshot:
            self.is_damaged = True

    def read(self, reads: list[tuple[int, int]]) -> None:
        assert self.reader is not None
        self.pieces = [(offset, self.reader.read_at(offset, length)) for offset, length in reads]

    def verify(self) -> None:
        assert self.reader is not None
        try:
            for _ in self.reader.pieces():
                pass
        except CorruptSnapshot:
            self.is_damaged = True

    def close(self) -> None:
        if self.reader is not None:
            self.reader.close()


class _Incoming:
    """The receiving half: one file at a time, one slice of it at a time."""

    def __init__(
        self,
        node: RaftNode,
        log: DurableLog,
        lane: SnapshotLane,
        limits: TransferLimits,
        post: Callable[[PeerMessage], None],
    ) -> None:
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
