"""A snapshot reaches a member in pieces, whatever the network and crashes do to them."""

import random
from collections.abc import Callable
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigfs.raft import NodeId, SnapshotMetadata
from minigfs.replication.jobs import Lane
from minigfs.replication.member import MemberSettings
from minigfs.replication.peer_messages import PeerMessage, SnapshotPiece, SnapshotPieceReply
from minigfs.replication.snapshot_transfer import (
    SnapshotReceiving,
    SnapshotSending,
    TransferLimits,
)
from tests.minigfs.replication.hub import Hub, Seat

A, B = NodeId("a"), NodeId("b")
LIMITS = TransferLimits(piece_bytes=10, pieces_in_flight=3, resend_ticks=4, give_up_ticks=20)
SMALL = MemberSettings(
    snapshot_every_entries=10, keep_entries=2, piece_bytes=256, pieces_in_flight=2
)


# The two pure halves


def sending(file: bytes, *, first_attempt: int = 1) -> SnapshotSending:
    return SnapshotSending(
        source=A,
        target=B,
        term=1,
        metadata=SnapshotMetadata(last_included_index=5, last_included_term=1),
        name="snapshot-5-1",
        size_bytes=len(file),
        limits=LIMITS,
        first_attempt=first_attempt,
    )


class Exchange:
    """Both halves, a file on each side, and a network that a test steers."""

    def __init__(self, file: bytes) -> None:
        self.file = file
        self.sender = sending(file)
        self.receiver: SnapshotReceiving | None = None
        self.written = bytearray()
        self.to_receiver: list[SnapshotPiece] = []
        self.to_sender: list[SnapshotPieceReply] = []
        self.in_flight_max = 0

    def turn(self) -> None:
        """Everything that either side has to do now, but nothing is delivered."""
        offer = self.sender.take_offer()
        if offer is not None:
            self.to_receiver.append(offer)
        for offset, length in self.sender.take_reads():
            data = self.file[offset : offset + length]
            self.to_receiver.append(self.sender.piece(offset=offset, data=data))
        if self.receiver is None:
            return
        if self.receiver.received_bytes is None:
            self.receiver.opened(len(self.written))
        while (write := self.receiver.take_write()) is not None:
            offset, data = write
            assert offset == len(self.written), "written without a gap, each byte once"
            self.written += data
            self.receiver.wrote(len(self.written))
        reply = self.receiver.take_reply(B)
        if reply is not None:
            self.to_sender.append(reply)

    def deliver_piece(self, piece: SnapshotPiece) -> None:
        if self.receiver is None:
            self.receiver = SnapshotReceiving(piece, LIMITS)
        self.receiver.take(piece)

    def crash_receiver(self, keep_bytes: int) -> None:
        """What it had written survives in part."""
        self.receiver = None
        del self.written[keep_bytes:]

    def restart_sender(self) -> None:
        self.sender = sending(self.file, first_attempt=self.sender.attempt + 1)


def test_without_loss_every_byte_travels_once_within_the_window() -> None:
    exchange = Exchange(bytes(range(95)))
    sent: list[SnapshotPiece] = []
    for _ in range(50):
        exchange.turn()
        pieces, exchange.to_receiver = exchange.to_receiver, []
        assert len(pieces) <= LIMITS.pieces_in_flight
        sent += pieces
        for piece in pieces:
            exchange.deliver_piece(piece)
        exchange.turn()
        replies, exchange.to_sender = exchange.to_sender, []
        for reply in replies:
            exchange.sender.replied(reply)
    assert bytes(exchange.written) == exchange.file
    assert sum(len(piece.data) for piece in sent) == len(exchange.file)
    assert max(len(piece.data) for piece in sent) == LIMITS.piece_bytes


Sent = TypeVar("Sent", SnapshotPiece, SnapshotPieceReply)


def carry(
    queue: list[Sent], deliver: Callable[[Sent], None], chance: random.Random | None
) -> list[Sent]:
    """Deliver what waits; by chance in any order, not, or twice. Returns what goes on waiting."""
    later: list[Sent] = []
    if chance is not None:
        chance.shuffle(queue)
    for message in queue:
        fate = chance.random() if chance is not None else 1.0
        if fate < 0.2:
            later.append(message)
        if fate < 0.7 or chance is None:
            deliver(message)
    return later


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 300))
def test_whatever_is_lost_doubled_reordered_or_restarted_the_file_arrives(
    seed: int, size: int
) -> None:
    chance = random.Random(seed)
    exchange = Exchange(chance.randbytes(size))
    for round_number in range(400):
        exchange.turn()
        faulty = round_number < 200
        exchange.to_receiver = carry(
            exchange.to_receiver, exchange.deliver_piece, chance if faulty else None
        )
        exchange.to_sender = carry(
            exchange.to_sender, exchange.sender.replied, chance if faulty else None
        )
        exchange.sender.tick()
        if faulty and chance.random() < 0.03:
            exchange.crash_receiver(chance.randint(0, len(exchange.written)))
        if (faulty and chance.random() < 0.03) or exchange.sender.has_failed:
            exchange.restart_sender()
    assert bytes(exchange.written) == exchange.file


def test_a_silent_receiver_is_asked_again_and_then_given_up() -> None:
    sender = sending(bytes(50))
    offers = 0
    for _ in range(LIMITS.give_up_ticks):
        assert not sender.has_failed
        offers += sender.take_offer() is not None
        sender.tick()
    assert sender.has_failed
    assert offers == LIMITS.give_up_ticks // LIMITS.resend_ticks


def test_a_late_answer_to_an_earlier_attempt_opens_no_window() -> None:
    """The receiver may have thrown all away since; only the answer to the new offer says."""
    sender = sending(bytes(100))
    assert sender.take_offer() is not None
    late = SnapshotPieceReply(
        source=B, target=A, term=1, name="snapshot-5-1", attempt=1, received_bytes=60
    )
    for _ in range(LIMITS.resend_ticks):
        sender.tick()
    assert sender.take_offer() is not None
    sender.replied(late)
    assert sender.take_reads() == []
    sender.replied(msgspec.structs.replace(late, attempt=2, received_bytes=10))
    assert sender.take_reads() == [(10, 10), (20, 10), (30, 10)]


def test_a_receiver_that_has_it_all_is_waited_for() -> None:
    """It verifies, or its disk is full: it answers, and that is enough."""
    sender = sending(bytes(50))
    for _ in range(10 * LIMITS.give_up_ticks):
        offer = sender.take_offer()
        if offer is not None:
            reply = SnapshotPieceReply(
                source=B,
                target=A,
                term=1,
                name=offer.name,
                attempt=offer.attempt,
                received_bytes=50,
            )
            sender.replied(reply)
        sender.tick()
        assert not sender.has_failed
    assert not sender.was_refused
    sender.replied(
        SnapshotPieceReply(
            source=B,
            target=A,
            term=1,
            name="snapshot-5-1",
            attempt=sender.attempt,
            received_bytes=0,
        )
    )
    assert sender.was_refused, "all of it was there, and is not any more"


def test_bytes_far_ahead_never_crowd_out_those_that_are_due() -> None:
    """The receiver lost its file while the sender goes on at the end."""
    file = bytes(range(200))
    sender = sending(file)
    receiver = SnapshotReceiving(sender.piece(offset=0, data=b""), LIMITS)
    receiver.opened(0)
    for offset in range(100, 200, 10):
        receiver.take(sender.piece(offset=offset, data=file[offset : offset + 10]))
    receiver.take(sender.piece(offset=0, data=file[:10]))
    assert receiver.take_write() == (0, file[:10])


@pytest.mark.parametrize(("offset", "length"), [(-5, 10), (45, 10), (1 << 62, 1)])
def test_a_piece_outside_the_file_is_ignored(offset: int, length: int) -> None:
    sender = sending(bytes(50))
    receiver = SnapshotReceiving(sender.piece(offset=0, data=b""), LIMITS)
    receiver.opened(0)
    receiver.take(sender.piece(offset=offset, data=bytes(length)))
    assert receiver.take_write() is None


# Whole members


def group_with_one_far_behind(hub: Hub, count: int = 60) -> Seat:
    """A follower that was away while the log it needs was compacted."""
    leader, late = hub.leader(), hub.follower()
    hub.isolate(late.id)
    for number in range(count):
        assert hub.ask(b"%d " % number + bytes(100)) == b"%d" % (number + 1)
    assert leader.member.status().first_index > late.member.status().last_index + 1
    return late


def pieces_to(hub: Hub, seat: Seat) -> list[SnapshotPiece]:
    return [
        message
        for message in hub.sent
        if isinstance(message, SnapshotPiece) and message.target == seat.id and message.data
    ]


def test_a_member_far_behind_gets_the_state_in_bounded_pieces_and_then_the_log() -> None:
    hub = Hub(settings=SMALL)
    late = group_with_one_far_behind(hub)
    hub.heal()
    assert len(hub.converge()) == 60
    assert late.member.status().snapshot_index > 0
    pieces = pieces_to(hub, late)
    assert len(pieces) > 10
    assert max(len(piece.data) for piece in pieces) <= 256
    assert sum(len(piece.data) for piece in pieces) == pieces[0].size_bytes, "each byte once"
    assert hub.ask(b"on") == b"61"
    assert len(hub.converge()) == 61


def lossy(seed: int) -> Callable[[PeerMessage], bool]:
    chance = random.Random(seed)
    return lambda message: (
        isinstance(message, SnapshotPiece | SnapshotPieceReply) and chance.random() < 0.3
    )


@pytest.mark.parametrize("seed", range(5))
def test_lost_pieces_are_sent_again(seed: int) -> None:
    hub = Hub(settings=SMALL)
    group_with_one_far_behind(hub)
    hub.is_lost = lossy(seed)
    assert len(hub.converge(ticks_max=2_000)) == 60


def cut_after(hub: Hub, late: Seat, pieces_max: int) -> None:
    """Let so many pieces through, and nothing of the transfer behind them."""
    seen = 0

    def is_lost(message: PeerMessage) -> bool:
        nonlocal seen
        if isinstance(message, SnapshotPiece) and message.target == late.id and message.data:
            seen += 1
        return isinstance(message, SnapshotPiece) and seen > pieces_max

    hub.is_lost = is_lost


def test_a_transfer_goes_on_where_it_was_when_the_receiver_is_restarted() -> None:
    hub = Hub(settings=SMALL)
    late = group_with_one_far_behind(hub)
    cut_after(hub, late, 12)
    hub.tick(30)
    assert late.member.status().snapshot_index == 0
    late.disk.kill()
    late.start()
    hub.sent.clear()
    hub.heal()
    assert len(hub.converge()) == 60
    assert min(piece.offset for piece in pieces_to(hub, late)) > 0


def test_a_transfer_survives_a_crash_of_the_receivers_machine() -> None:
    hub = Hub(settings=SMALL)
    late = group_with_one_far_behind(hub)
    cut_after(hub, late, 12)
    hub.tick(30)
    late.crash()
    late.start()
    hub.heal()
    assert len(hub.converge(ticks_max=400)) == 60


def test_a_transfer_is_taken_up_by_the_next_leader() -> None:
    """Equal states make equal files, so what came from the old leader is not sent again."""
    hub = Hub(settings=SMALL)
    late = group_with_one_far_behind(hub)
    old = hub.leader()
    other = next(seat for seat in hub.alive if seat not in (old, late))
    assert other.member.status().snapshot_index == old.member.status().snapshot_index
    cut_after(hub, late, 12)
    hub.tick(30)
    old.crash()
    hub.sent.clear()
    hub.heal()
    assert hub.leader() is other
    hub.converge()
    assert min(piece.offset for piece in pieces_to(hub, late)) > 0
    assert len(late.machine.commands) == 60


def test_a_snapshot_being_sent_stays_readable_and_followed_up_while_others_are_made() -> None:
    """Commands go on all the time; the transfer's file is superseded and compacted meanwhile."""
    hub = Hub(settings=SMALL)
    late = group_with_one_far_behind(hub)
    leader = hub.leader()
    first = leader.member.status().snapshot_index
    cut_after(hub, late, 3)
    hub.tick(3)
    for number in range(40):
        hub.ask(b"more %d" % number)
    assert leader.member.status().snapshot_index > first
    assert leader.member.status().first_index <= first + 1, "what follows it is still here"
    hub.heal()
    assert len(hub.converge(ticks_max=400)) == 100
    names = {piece.name for piece in pieces_to(hub, late)}
    assert len(names) == 1


def test_a_transfer_nobody_answers_fails_and_is_begun_again_when_it_makes_sense() -> None:
    hub = Hub(settings=SMALL)
    late = group_with_one_far_behind(hub)
    hub.is_lost = lambda message: isinstance(message, SnapshotPiece)
    hub.tick(300)
    attempts = {
        message.attempt
        for message in hub.sent
        if isinstance(message, SnapshotPiece) and message.target == late.id
    }
    assert 20 < len(attempts) < 40, "now and then, not in a tight loop"
    hub.heal()
    assert len(hub.converge(ticks_max=400)) == 60


def test_pieces_of_a_deposed_leader_and_wrong_names_change_nothing() -> None:
    hub = Hub(settings=SMALL)
    leader, follower = hub.leader(), hub.follower()
    hub.ask(b"x")
    metadata = SnapshotMetadata(last_included_index=99, last_included_term=1)
    for term, name in [(0, "snapshot-99-1"), (9, "../../etc/passwd"), (9, "snapshot-98-1")]:
        follower.member.receive(
            SnapshotPiece(
                source=leader.id,
                target=follower.id,
                term=term,
                metadata=metadata,
                name=name,
                size_bytes=10,
                attempt=1,
                offset=0,
                data=bytes(10),
            )
        )
    hub.run()
    assert follower.disk.list("snapshots") == []
    assert hub.ask(b"y") == b"2"
    assert hub.converge() == [b"x", b"y"]


def test_a_snapshot_damaged_on_the_way_is_thrown_away_and_sent_again() -> None:
    hub = Hub(settings=SMALL)
    late = group_with_one_far_behind(hub)
    damage = 1

    def flip(message: PeerMessage) -> bool:
        nonlocal damage
        if isinstance(message, SnapshotPiece) and message.offset > 2_000 and damage:
            damage -= 1
            forged = bytearray(message.data)
            forged[7] ^= 1
            late.member.receive(
                SnapshotPiece(
                    source=message.source,
                    target=message.target,
                    term=message.term,
                    metadata=message.metadata,
                    name=message.name,
                    size_bytes=message.size_bytes,
                    attempt=message.attempt,
                    offset=message.offset,
                    data=bytes(forged),
                )
            )
            return True
        return False

    hub.is_lost = flip
    assert len(hub.converge(ticks_max=400)) == 60
    assert damage == 0


def test_a_snapshot_damaged_on_the_leaders_disk_is_made_anew() -> None:
    hub = Hub(settings=SMALL)
    group_with_one_far_behind(hub)
    leader = hub.leader()
    [name] = leader.log.snapshots.names()
    leader.disk.flip_bit(f"snapshots/{name}", 3_000, 3)
    hub.heal()
    hub.tick(60)
    hub.ask(b"on")
    assert len(hub.converge(ticks_max=400)) == 61
    assert name not in leader.log.snapshots.names()


def test_a_receiver_with_a_full_disk_goes_on_when_there_is_space() -> None:
    hub = Hub(settings=SMALL)
    late = group_with_one_far_behind(hub)
    late.disk.resize(late.disk.used_bytes())
    hub.heal()
    hub.tick(200)
    assert late.member.status().snapshot_index == 0
    assert hub.ask(b"others go on") == b"61"
    late.disk.resize(1 << 24)
    assert len(hub.converge(ticks_max=600)) == 61


def test_an_own_snapshot_that_is_overtaken_by_the_leaders_is_abandoned() -> None:
    hub = Hub(settings=SMALL)
    leader, late = hub.leader(), hub.follower()
    late.held.add(Lane.SNAPSHOT)
    for number in range(12):
        hub.ask(b"%d" % number)
    hub.converge()
    assert [job.name for job in late.jobs] == ["write own snapshot"]
    hub.isolate(late.id)
    for number in range(40):
        hub.ask(b"%d" % number)
    hub.heal()
    hub.tick(5)
    late.held.clear()
    late.run_jobs()
    assert len(hub.converge(ticks_max=400)) == 52
    assert len(late.disk.list("snapshots")) == 1
    late.crash()
    late.start()
    assert len(hub.converge(ticks_max=400)) == 52
    assert leader.member.is_leader


def test_nothing_is_applied_before_the_restored_state_is_there() -> None:
    hub = Hub(settings=SMALL)
    late = group_with_one_far_behind(hub)
    applied = late.member.applied_index
    late.held.add("restore")
    hub.heal()
    hub.tick(20)
    assert [job.name for job in late.jobs] == ["restore"]
    hub.ask(b"on")
    assert late.member.commit_index > applied
    assert late.member.applied_index == applied
    assert late.machine.commands == []
    late.held.clear()
    late.run_jobs()
    assert len(hub.converge()) == 61
