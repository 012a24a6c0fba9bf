"""Machines on one log: what an entry does, and a snapshot that holds all of it."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigfs.errors import CorruptLog, CorruptSnapshot, MinigfsError, SessionUnknown
from minigfs.ids import Origin, SessionId
from minigfs.raft import Configuration, Entry, EntryKind, NodeId, SafetyViolation
from minigfs.replication.commands import (
    MEMBERS_MACHINE,
    SESSIONS_MACHINE,
    LoggedCommand,
    MemberAddress,
    OpenSession,
    decode_session_id,
    encode_logged_command,
    encode_member_command,
    encode_session_command,
)
from minigfs.replication.machines import ReplicatedMachines
from minigfs.replication.sessions import SessionSettings
from minigfs.replication.snapshot_stream import PIECE_BYTES_MAX

ALPHA, BETA = NodeId("alpha"), NodeId("beta")


class Notebook:
    """Keeps every command it was given: its state shows a command executed twice."""

    def __init__(self) -> None:
        self.lines: tuple[tuple[int, bytes], ...] = ()

    def apply(self, index: int, command: bytes) -> bytes:
        self.lines = (*self.lines, (index, command))
        return b"line %d" % len(self.lines)

    def freeze(self) -> Iterator[bytes]:
        lines = self.lines
        return (b"%d " % index + command for index, command in lines)

    def restore(self, records: Iterator[bytes]) -> None:
        pairs = (record.split(b" ", 1) for record in records)
        self.lines = tuple((int(index), command) for index, command in pairs)


class Member:
    """Machines fed with entries built here; the log is kept, to be replayed elsewhere."""

    def __init__(self, *names: str, settings: SessionSettings | None = None) -> None:
        self.notebooks = {name: Notebook() for name in names or ("a", "b")}
        self.machines = ReplicatedMachines(self.notebooks, settings)
        self.log: list[Entry] = []

    def append(self, entry_data: bytes, kind: EntryKind = EntryKind.COMMAND) -> Entry:
        entry = Entry(index=self.machines.applied_index + 1, term=1, kind=kind, data=entry_data)
        self.log.append(entry)
        return entry

    def run(
        self, machine: str, command: bytes, origin: Origin | None = None, now_ms: int = 1
    ) -> bytes | MinigfsError:
        logged = LoggedCommand(machine, now_ms, command, origin)
        return self.machines.apply(self.append(encode_logged_command(logged)))

    def open_session(self, now_ms: int = 1) -> SessionId:
        reply = self.run(SESSIONS_MACHINE, encode_session_command(OpenSession()), now_ms=now_ms)
        assert isinstance(reply, bytes)
        return decode_session_id(reply)

    def introduce(self, member: NodeId, address: str) -> None:
        self.run(MEMBERS_MACHINE, encode_member_command(MemberAddress(member, address)))


def state_of(machines: ReplicatedMachines) -> bytes:
    return b"".join(machines.freeze())


def test_a_command_reaches_the_machine_it_names() -> None:
    member = Member()
    assert member.run("a", b"x") == b"line 1"
    assert member.run("b", b"y") == b"line 1"
    assert member.notebooks["a"].lines == ((1, b"x"),)
    assert member.notebooks["b"].lines == ((2, b"y"),)
    assert member.machines.applied_index == 2


def test_a_retry_is_answered_and_not_executed() -> None:
    member = Member()
    session = member.open_session()
    origin = Origin(session, 1, 0)
    assert member.run("a", b"x", origin) == member.run("a", b"x", origin) == b"line 1"
    assert len(member.notebooks["a"].lines) == 1


def test_an_unknown_session_is_an_error_and_not_an_execution() -> None:
    member = Member()
    assert isinstance(member.run("a", b"x", Origin(SessionId(9), 1, 0)), SessionUnknown)
    assert member.notebooks["a"].lines == ()
    assert member.machines.applied_index == 1


def test_commands_of_the_masters_themselves_move_the_time() -> None:
    member = Member()
    session = member.open_session(now_ms=0)
    member.run("a", b"x", now_ms=3_600_000)
    assert isinstance(member.run("a", b"y", Origin(session, 1, 0)), SessionUnknown)


def test_entries_that_are_no_commands_are_counted() -> None:
    member = Member()
    assert member.machines.apply(member.append(b"", EntryKind.NOOP)) == b""
    assert member.machines.applied_index == 1
    assert member.run("a", b"x") == b"line 1"


def test_an_entry_out_of_order_is_not_applied() -> None:
    member = Member()
    member.run("a", b"x")
    for index in (1, 3):
        with pytest.raises(SafetyViolation):
            member.machines.apply(Entry(index=index, term=1, data=member.log[0].data))
    assert len(member.notebooks["a"].lines) == 1


def test_a_command_for_an_unknown_machine_names_the_entry() -> None:
    member = Member()
    assert "a" in member.machines
    assert "c" not in member.machines
    with pytest.raises(CorruptLog, match="entry 1 of the log is for a machine 'c'"):
        member.run("c", b"x")


def test_addresses_are_known_until_their_member_is_retired() -> None:
    member = Member()
    member.introduce(ALPHA, "h:1")
    member.introduce(BETA, "h:2")
    member.introduce(ALPHA, "h:3")
    before = member.machines.member_addresses
    change = Entry(
        index=4,
        term=1,
        kind=EntryKind.CONFIGURATION,
        configuration=Configuration(voters=(BETA,), retired=(ALPHA,)),
    )
    member.machines.apply(change)
    assert dict(before) == {ALPHA: "h:3", BETA: "h:2"}
    assert dict(member.machines.member_addresses) == {BETA: "h:2"}


def test_a_snapshot_has_sessions_addresses_and_machines() -> None:
    member = Member()
    member.introduce(ALPHA, "h:1")
    session = member.open_session()
    member.run("a", b"x", Origin(session, 1, 0))
    other = Member()
    other.run("b", b"of another life")
    other.machines.restore(member.machines.freeze(), 3)
    assert other.notebooks["b"].lines == ()
    assert dict(other.machines.member_addresses) == {ALPHA: "h:1"}
    assert other.run("a", b"x", Origin(session, 1, 0)) == b"line 1"
    assert other.notebooks["a"].lines == ((3, b"x"),)


def test_pieces_are_bounded_whatever_the_size_of_a_record() -> None:
    member = Member()
    for size in (0, PIECE_BYTES_MAX - 1, 3 * PIECE_BYTES_MAX + 17, 5, 0):
        member.run("a", b"z" * size)
    pieces = list(member.machines.freeze())
    assert [len(piece) for piece in pieces[:-1]] == [PIECE_BYTES_MAX] * 4
    assert 0 < len(pieces[-1]) <= PIECE_BYTES_MAX
    other = Member()
    other.machines.restore(iter(pieces), 5)
    assert other.notebooks["a"].lines == member.notebooks["a"].lines


@pytest.mark.parametrize("piece_bytes", [1, 7, 64])
def test_pieces_may_be_cut_anywhere_on_their_way(piece_bytes: int) -> None:
    member = Member()
    for command in (b"", b"x", b"y" * 100):
        member.run("a", command)
    whole = state_of(member.machines)
    other = Member()
    cut = (whole[at : at + piece_bytes] for at in range(0, len(whole), piece_bytes))
    other.machines.restore(cut, 3)
    assert state_of(other.machines) == whole


def test_a_snapshot_of_another_length_or_index_is_refused() -> None:
    member = Member()
    member.run("a", b"x")
    data = state_of(member.machines)
    for length in range(len(data)):
        with pytest.raises(CorruptSnapshot):
            Member().machines.restore(iter((data[:length],)), 1)
    for damaged, index in ((data + b"\x00", 1), (data, 2), (b"", 1)):
        with pytest.raises(CorruptSnapshot):
            Member().machines.restore(iter((damaged,)), index)


def test_a_machine_younger_than_the_snapshot_starts_anew_and_an_unknown_one_is_refused() -> None:
    old = Member("a")
    old.run("a", b"x")
    new = Member("a", "b")
    new.run("b", b"of another life")
    new.machines.restore(old.machines.freeze(), 1)
    assert new.notebooks["b"].lines == ()
    with pytest.raises(CorruptSnapshot, match="'b'"):
        Member("a").machines.restore(new.machines.freeze(), 1)


def test_records_a_machine_leaves_over_are_not_lost_in_silence() -> None:
    class Forgetful(Notebook):
        def restore(self, records: Iterator[bytes]) -> None:
            next(records, None)

    old = Member("a")
    for command in (b"x", b"y"):
        old.run("a", command)
    with pytest.raises(CorruptSnapshot, match="'a'"):
        ReplicatedMachines({"a": Forgetful()}).restore(old.machines.freeze(), 2)


SETTINGS = SessionSettings(expire_after_ms=20, sessions_max=3, replies_max=4)
opens = st.just(None)
commands = st.tuples(
    st.sampled_from(("a", "b")),
    st.sampled_from((b"", b"x", b"yy")),
    st.one_of(
        st.none(),
        st.builds(Origin, st.integers(1, 12).map(SessionId), st.integers(1, 6), st.integers(0, 3)),
    ),
    st.integers(0, 4),
)
histories = st.lists(st.one_of(opens, commands, commands, commands), max_size=50)


@given(histories, st.integers(0, 50), st.integers(0, 50))
def test_a_snapshot_and_the_tail_of_the_log_are_the_whole_log(history, cut, drawn) -> None:
    """Frozen anywhere, encoded while later entries are applied, restored elsewhere."""
    member = Member(settings=SETTINGS)
    answers: list[object] = []
    frozen, pieces = member.machines.freeze(), []
    for step, item in enumerate(history):
        if step == cut:
            frozen = member.machines.freeze()
        if step > cut + drawn:
            pieces += [piece for piece in (next(frozen, None),) if piece is not None]
        if item is None:
            answers.append(member.open_session(3 * step))
        else:
            machine, command, origin, delay_ms = item
            answers.append(member.run(machine, command, origin, 3 * step + delay_ms))
    cut = cut if cut < len(history) else 0

    other = Member(settings=SETTINGS)
    other.machines.restore(iter((*pieces, *frozen)), cut)
    replayed = [other.machines.apply(entry) for entry in member.log[cut:]]
    for answer, again in zip(answers[cut:], replayed, strict=True):
        if isinstance(answer, MinigfsError):
            assert (type(again), str(again)) == (type(answer), str(answer))
        elif isinstance(answer, bytes):
            assert again == answer
        else:
            assert isinstance(again, bytes)
            assert decode_session_id(again) == answer
    assert state_of(other.machines) == state_of(member.machines)
    assert other.machines.applied_index == len(history)
