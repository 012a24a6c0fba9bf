"""Snapshots on their way to other members: files are opened and read, in SNAPSHOT slices.

Raft asks for an InstallSnapshot; what travels are pieces of the file it names, as
``SnapshotSending`` lets them go. The file stays open, so it can be read to its end whatever is
compacted meanwhile. A transfer goes on as long as the log can follow it up; otherwise a newer
snapshot takes its place.
"""

from collections.abc import Callable

from minigfs.errors import CorruptSnapshot, FileMissing
from minigfs.raft import NodeId, RaftNode
from minigfs.raft.messages import InstallSnapshot
from minigfs.replication.durable_log import DurableLog
from minigfs.replication.peer_messages import PeerMessage, SnapshotPieceReply
from minigfs.replication.snapshot_files import SnapshotReader
from minigfs.replication.snapshot_lane import SnapshotLane
from minigfs.replication.snapshot_transfer import SnapshotSending, TransferLimits

__all__ = ["OutgoingSnapshots"]


class OutgoingSnapshots:
    """A transfer for each member that needs one. Owner's thread only."""

    def __init__(
        self,
        *,
        node: RaftNode,
        log: DurableLog,
        lane: SnapshotLane,
        limits: TransferLimits,
        post: Callable[[PeerMessage], None],
        on_damaged_file: Callable[[], None],
    ) -> None:
        """``post`` takes what is to be sent; ``on_damaged_file`` hears that the own newest snapshot
        cannot be sent, and another one is wanted."""
        self._node = node
        self._log = log
        self._lane = lane
        self._limits = limits
        self._post = post
        self._on_damaged_file = on_damaged_file
        self._transfers: dict[NodeId, _Transfer] = {}
        self._next_attempt = 1

    @property
    def needed_from_index(self) -> int | None:
        """Members that are being sent a snapshot need the entries behind this index."""
        indexes = [transfer.index for transfer in self._transfers.values()]
        return min(indexes) if indexes else None

    def send(self, message: InstallSnapshot) -> None:
        """Raft wants a member to have a snapshot."""
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
        """A member says how much it has."""
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
