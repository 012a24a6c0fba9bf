"""A snapshot file on its way to another member: pieces, a window, and going on after any loss.

::

    sender                                         receiver
    offer: attempt 1 (no bytes)    ------------->  how much of this file is here?
                                   <-------------  attempt 1, received 512 KiB
    pieces from 512 KiB on,        ------------->  written in order; what comes too early waits
    ``pieces_in_flight`` ahead     <-------------  attempt 1, received 768 KiB ...
    ... silence: offer, attempt 2  ------------->  ...

Answers count what is written, from the file's start. The sender keeps a window beyond the latest
answer, and when nothing moves for a while it begins a new attempt with a new offer: the answer
says where to go on, whatever was lost, and whichever side was restarted. Only answers to the
current attempt count, so late ones do no harm. Offers go on after the last piece, while the
receiver verifies the file, until Raft's own acknowledgement ends the transfer.

Both halves are pure: ticks are the only time, and bytes are read and written by somebody else.
"""

from dataclasses import dataclass

from minigfs.raft import NodeId, SnapshotMetadata
from minigfs.replication.peer_messages import SnapshotPiece, SnapshotPieceReply

__all__ = ["SnapshotReceiving", "SnapshotSending", "TransferLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferLimits:
    piece_bytes: int
    pieces_in_flight: int
    resend_ticks: int
    """Silence after which the sender asks again."""
    give_up_ticks: int
    """Time without progress after which a transfer has failed."""


class SnapshotSending:
    """The sender's half, for one file and one member."""

    def __init__(
        self,
        *,
        source: NodeId,
        target: NodeId,
        term: int,
        metadata: SnapshotMetadata,
        name: str,
        size_bytes: int,
        limits: TransferLimits,
        first_attempt: int,
    ) -> None:
        """``first_attempt`` is above every attempt this sender made before."""
        self.target = target
        self.term = term
        self.metadata = metadata
        self._source = source
        self._name = name
        self._size_bytes = size_bytes
        self._limits = limits
        self.attempt = first_attempt
        self.was_refused = False
        """The receiver had all of it and threw it away: its sums did not match."""
        self._offer_is_due = True
        self._received_bytes: int | None = None  # what the current attempt's answers say
        self._received_bytes_max = 0
        self._next_offset = 0
        self._quiet_ticks = 0
        self._stalled_ticks = 0

    @property
    def has_failed(self) -> bool:
        """No progress for too long: tell Raft, which tries again when it hears from the member."""
        return self._stalled_ticks >= self._limits.give_up_ticks

    def tick(self) -> None:
        self._stalled_ticks += 1
        self._quiet_ticks += 1
        if self._quiet_ticks >= self._limits.resend_ticks:
            self._quiet_ticks = 0
            self.attempt += 1
            self._offer_is_due = True
            self._received_bytes = None

    def replied(self, reply: SnapshotPieceReply) -> None:
        """Take an answer; one about another file or an earlier attempt says nothing."""
        if reply.name != self._name or reply.attempt != self.attempt:
            return
        received = min(reply.received_bytes, self._size_bytes)
        if received < self._size_bytes == self._received_bytes_max:
            self.was_refused = True
        if self._received_bytes is None:
            self._received_bytes = self._next_offset = received
        elif received > self._received_bytes:
            self._received_bytes = received
            self._next_offset = max(self._next_offset, received)
            self._quiet_ticks = 0
        if received > self._received_bytes_max or received == self._size_bytes:
            self._received_bytes_max = max(self._received_bytes_max, received)
            self._stalled_ticks = 0  # a receiver that has it all is busy with it

    def take_offer(self) -> SnapshotPiece | None:
        """The offer that begins an attempt, once."""
        if not self._offer_is_due:
            return None
        self._offer_is_due = False
        return self.piece(offset=0, data=b"")

    def take_reads(self) -> list[tuple[int, int]]:
        """(offset, length) of the pieces that the window lets go now, each once an attempt."""
        reads: list[tuple[int, int]] = []
        if self._received_bytes is None:
            return reads
        limits = self._limits
        window_end = self._received_bytes + limits.pieces_in_flight * limits.piece_bytes
        while self._next_offset < min(window_end, self._size_bytes):
            length = min(limits.piece_bytes, self._size_bytes - self._next_offset)
            reads.append((self._next_offset, length))
            self._next_offset += length
        return reads

    def piece(self, *, offset: int, data: bytes) -> SnapshotPiece:
        """The message that carries what was read at ``offset``."""
        return SnapshotPiece(
            source=self._source,
            target=self.target,
            term=self.term,
            metadata=self.metadata,
            name=self._name,
            size_bytes=self._size_bytes,
            attempt=self.attempt,
            offset=offset,
            data=data,
        )


class SnapshotReceiving:
    """The receiver's half: one file, from one leader at a time."""

    def __init__(self, piece: SnapshotPiece, limits: TransferLimits) -> None:
        self.metadata = piece.metadata
        self.name = piece.name
        self.size_bytes = piece.size_bytes
        self.sender = piece.source
        self.term = piece.term
        self.received_bytes: int | None = None
        """Written so far; None until the file is open."""
        self._limits = limits
        self._attempt = piece.attempt
        self._reply_is_due = False
        self._early: dict[int, bytes] = {}
        self._quiet_ticks = 0

    def is_of(self, piece: SnapshotPiece) -> bool:
        """Whether the piece belongs to this file. The same snapshot, made by another member, is
        the same file if it has the same size; the file's checksums have the last word."""
        return piece.name == self.name and piece.size_bytes == self.size_bytes

    def yields_to(self, piece: SnapshotPiece) -> bool:
        """Whether the other file is to be received instead: a newer leader's, or a newer one."""
        index = piece.metadata.last_included_index
        return (piece.term, index) > (self.term, self.metadata.last_included_index)

    @property
    def is_whole(self) -> bool:
        return self.received_bytes == self.size_bytes

    @property
    def has_failed(self) -> bool:
        """Nobody sends any more; what is written stays, for the next time."""
        return self._quiet_ticks >= self._limits.give_up_ticks

    def tick(self) -> None:
        self._quiet_ticks += 1

    def take(self, piece: SnapshotPiece) -> None:
        """A piece or an offer of this file came."""
        if piece.term < self.term:
            return
        self.sender, self.term, self._attempt = piece.source, piece.term, piece.attempt
        self._quiet_ticks = 0
        self._reply_is_due = True
        if piece.data and self.received_bytes is not None:
            self._keep(piece.offset, piece.data, self.received_bytes)

    def _keep(self, offset: int, data: bytes, received_bytes: int) -> None:
        """Hold bytes until they can be written; of too many, those farthest ahead give way."""
        end = offset + len(data)
        if offset < 0 or end > self.size_bytes or end <= received_bytes:
            return
        self._early[offset] = data
        if len(self._early) > 2 * self._limits.pieces_in_flight:
            del self._early[max(self._early)]

    def opened(self, received_bytes: int) -> None:
        """The file is open, with this much of it written in an earlier try."""
        self.received_bytes = received_bytes
        self._reply_is_due = True

    def take_write(self) -> tuple[int, bytes] | None:
        """(offset, bytes) that go on where the file ends now; ``wrote`` says when they are there.
        One write at a time."""
        if self.received_bytes is None:
            return None
        end = self.received_bytes
        parts: list[bytes] = []
        for offset in sorted(self._early):
            if offset > end:
                break
            data = self._early.pop(offset)
            if offset + len(data) > end:
                parts.append(data[end - offset :])
                end = offset + len(data)
        return (self.received_bytes, b"".join(parts)) if parts else None

    def wrote(self, received_bytes: int) -> None:
        self.received_bytes = received_bytes
        self._reply_is_due = True

    def take_reply(self, source: NodeId) -> SnapshotPieceReply | None:
        """The answer to everything that came since the last one."""
        if not self._reply_is_due or self.received_bytes is None:
            return None
        self._reply_is_due = False
        return SnapshotPieceReply(
            source=source,
            target=self.sender,
            term=self.term,
            name=self.name,
            attempt=self._attempt,
            received_bytes=self.received_bytes,
        )
