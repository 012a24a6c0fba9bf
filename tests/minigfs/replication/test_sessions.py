"""A request is executed once, however often, late, early or elsewhere it is asked (thesis 6.3)."""

from hypothesis import given
from hypothesis import strategies as st

from minigfs.errors import MinigfsError, ProtocolError, SessionUnknown, StaleRequest
from minigfs.ids import Origin, SessionId
from minigfs.replication.commands import (
    CloseSession,
    OpenSession,
    decode_session_id,
    encode_session_command,
)
from minigfs.replication.sessions import SessionSettings, SessionTable

HOUR_MS = 3_600_000


class Log:
    """Applies entries to a table and counts executions: the reply of the n-th is b"n"."""

    def __init__(self, settings: SessionSettings | None = None) -> None:
        self.table = SessionTable(settings)
        self.index = 0
        self.executed_count = 0

    def open(self, now_ms: int = 0) -> SessionId:
        self.index += 1
        self.table.advance(now_ms)
        return decode_session_id(
            self.table.apply(self.index, encode_session_command(OpenSession()))
        )

    def close(self, session: SessionId) -> None:
        self.index += 1
        self.table.apply(self.index, encode_session_command(CloseSession(session)))

    def ask(
        self, session: SessionId, sequence: int, answered_below: int = 0, now_ms: int = 0
    ) -> bytes | MinigfsError:
        self.index += 1
        self.table.advance(now_ms)
        origin = Origin(session, sequence, answered_below)
        known = self.table.admit(origin)
        if known is not None:
            return known
        self.executed_count += 1
        reply = str(self.executed_count).encode()
        self.table.record(origin, reply)
        return reply


def test_a_session_is_named_by_the_entry_that_opened_it() -> None:
    log = Log()
    log.index = 41
    assert log.open() == 42
    assert log.open() == 43


def test_a_retry_gets_the_reply_of_the_first_try_and_executes_nothing() -> None:
    log = Log()
    session = log.open()
    assert log.ask(session, 1) == b"1"
    assert log.ask(session, 2) == b"2"
    assert log.ask(session, 1) == b"1"
    assert log.ask(session, 2) == b"2"
    assert log.executed_count == 2


def test_an_empty_reply_is_a_reply() -> None:
    table = SessionTable()
    table.apply(1, encode_session_command(OpenSession()))
    origin = Origin(SessionId(1), 1, 0)
    assert table.admit(origin) is None
    table.record(origin, b"")
    assert table.admit(origin) == b""


def test_requests_of_one_session_may_overtake_each_other() -> None:
    log = Log()
    session = log.open()
    assert [log.ask(session, sequence) for sequence in (3, 1, 2)] == [b"1", b"2", b"3"]
    assert [log.ask(session, sequence) for sequence in (1, 2, 3)] == [b"2", b"3", b"1"]


def test_the_same_sequence_of_another_session_is_another_request() -> None:
    log = Log()
    one, other = log.open(), log.open()
    assert log.ask(one, 1) == b"1"
    assert log.ask(other, 1) == b"2"


def test_a_late_copy_of_an_acknowledged_request_is_stale_and_not_executed() -> None:
    log = Log()
    session = log.open()
    log.ask(session, 1)
    log.ask(session, 2, answered_below=2)
    assert isinstance(log.ask(session, 1), StaleRequest)
    assert log.executed_count == 2


def test_an_older_acknowledgement_that_arrives_late_takes_nothing_back() -> None:
    log = Log()
    session = log.open()
    log.ask(session, 5, answered_below=5)
    assert isinstance(log.ask(session, 3, answered_below=1), StaleRequest)
    assert log.ask(session, 5, answered_below=1) == b"1"


def test_an_acknowledgement_keeps_the_replies_above_it() -> None:
    log = Log()
    session = log.open()
    for sequence in range(1, 6):
        log.ask(session, sequence)
    log.ask(session, 6, answered_below=4)
    assert log.ask(session, 4) == b"4"
    assert log.ask(session, 1_000_000_000_000, answered_below=6) == b"7"
    assert log.ask(session, 6) == b"6"
    assert isinstance(log.ask(session, 5), StaleRequest)


def test_a_session_that_never_was_executes_nothing() -> None:
    log = Log()
    assert isinstance(log.ask(SessionId(7), 1), SessionUnknown)
    assert log.executed_count == 0


def test_a_closed_session_executes_nothing_and_is_closed_twice() -> None:
    log = Log()
    session = log.open()
    log.ask(session, 1)
    log.close(session)
    log.close(session)
    assert isinstance(log.ask(session, 1), SessionUnknown)


def test_a_session_expires_an_hour_of_log_time_after_its_last_request() -> None:
    log = Log()
    session = log.open(now_ms=1_000)
    assert log.ask(session, 1, now_ms=1_000 + HOUR_MS - 1) == b"1"
    assert log.ask(session, 1, now_ms=1_000 + 2 * HOUR_MS - 2) == b"1"  # a retry is a sign of life
    assert isinstance(log.ask(session, 2, now_ms=1_000 + 3 * HOUR_MS - 2), SessionUnknown)


def test_sessions_expire_by_entries_that_are_not_their_own() -> None:
    log = Log()
    quiet, busy = log.open(now_ms=0), log.open(now_ms=0)
    log.ask(busy, 1, now_ms=HOUR_MS // 2)
    log.table.advance(HOUR_MS)
    assert quiet not in log.table
    assert busy in log.table


def test_time_never_goes_back() -> None:
    log = Log()
    session = log.open(now_ms=HOUR_MS)
    log.ask(session, 1, now_ms=0)  # a new leader with a late clock
    assert log.table.log_time_ms == HOUR_MS
    log.table.advance(2 * HOUR_MS - 1)
    assert session in log.table
    log.table.advance(2 * HOUR_MS)
    assert session not in log.table


def test_one_session_too_many_ends_the_one_that_was_quiet_longest() -> None:
    log = Log(SessionSettings(sessions_max=2))
    first, second = log.open(), log.open()
    log.ask(first, 1)
    third = log.open()
    assert (first in log.table, second in log.table, third in log.table) == (True, False, True)


def test_too_many_unacknowledged_replies_are_refused_until_some_are_acknowledged() -> None:
    log = Log(SessionSettings(replies_max=2))
    session = log.open()
    log.ask(session, 1)
    log.ask(session, 2)
    assert isinstance(log.ask(session, 3), ProtocolError)
    assert log.ask(session, 2) == b"2"
    assert log.ask(session, 3, answered_below=2) == b"3"


def test_a_frozen_table_does_not_show_later_requests() -> None:
    log = Log()
    session, closed = log.open(), log.open()
    for sequence in (1, 2, 3):
        log.ask(session, sequence)
    frozen = log.table.freeze()
    log.ask(session, 4, answered_below=2, now_ms=HOUR_MS // 2)
    log.close(closed)
    copy = SessionTable()
    copy.restore(frozen)
    assert copy.log_time_ms == 0
    assert closed in copy
    assert [copy.admit(Origin(session, sequence, 0)) for sequence in (1, 2, 3)] == [
        b"1",
        b"2",
        b"3",
    ]
    assert copy.admit(Origin(session, 4, 0)) is None


def test_restoring_forgets_what_the_table_was() -> None:
    young = Log()
    session = young.open(now_ms=0)
    old = Log()
    old.open(now_ms=5 * HOUR_MS)
    old.open(now_ms=7 * HOUR_MS)
    old.table.restore(young.table.freeze())
    assert (len(old.table), old.table.log_time_ms) == (1, 0)
    old.table.advance(HOUR_MS)
    assert session not in old.table
    old.table.restore(iter(()))
    assert (len(old.table), old.table.log_time_ms) == (0, 0)


def test_an_acknowledgement_may_leap() -> None:
    log = Log()
    session = log.open()
    log.ask(session, 1)
    log.ask(session, 1 << 60)
    assert log.ask(session, (1 << 60) + 1, answered_below=1 << 60) == b"3"
    assert log.ask(session, 1 << 60) == b"2"


SETTINGS = SessionSettings(expire_after_ms=10, sessions_max=3, replies_max=3)
opens = st.tuples(st.just("open"), st.integers(0, 8))
closes = st.tuples(st.just("close"), st.integers(1, 12))
asks = st.tuples(
    st.just("ask"), st.integers(0, 8), st.integers(1, 12), st.integers(0, 6), st.integers(0, 4)
)
# Half of the entries ask; the time of an entry is that of the one before, or a little later.
entries = st.lists(st.one_of(opens, asks, asks, closes), max_size=60)


def apply(log: Log, entry: tuple, base_ms: int) -> object:
    match entry:
        case ("open", delay_ms):
            return log.open(base_ms + delay_ms)
        case ("close", session):
            return log.close(session)
        case ("ask", delay_ms, session, sequence, answered_below):
            answer = log.ask(session, sequence, answered_below, base_ms + delay_ms)
            return (type(answer), str(answer)) if isinstance(answer, MinigfsError) else answer
    raise AssertionError(entry)


class NaiveSessions:
    """Thesis 6.3 with lists and no tricks."""

    def __init__(self) -> None:
        self.now_ms = self.index = self.executed_count = 0
        self.sessions: list[dict] = []  # quiet longest first

    def apply(self, entry: tuple, base_ms: int) -> object:
        self.index += 1
        if entry[0] == "close":
            self.sessions = [s for s in self.sessions if s["id"] != entry[1]]
            return None
        self.now_ms = max(self.now_ms, base_ms + entry[1])
        self.sessions = [s for s in self.sessions if self.now_ms - s["used"] < 10]
        if entry[0] == "open":
            self.sessions = self.sessions[-2:]
            new = {"id": self.index, "used": self.now_ms, "floor": 0, "replies": {}}
            self.sessions.append(new)
            return self.index
        return self.ask(*entry[2:])

    def ask(self, session_id: int, sequence: int, answered_below: int) -> object:
        session = next((s for s in self.sessions if s["id"] == session_id), None)
        if session is None:
            return SessionUnknown
        self.sessions.remove(session)
        self.sessions.append(session)
        session["used"] = self.now_ms
        floor = session["floor"] = max(session["floor"], answered_below)
        session["replies"] = {s: r for s, r in session["replies"].items() if s >= floor}
        if sequence < floor:
            return StaleRequest
        if sequence not in session["replies"]:
            if len(session["replies"]) == 3:
                return ProtocolError
            self.executed_count += 1
            session["replies"][sequence] = str(self.executed_count).encode()
        return session["replies"][sequence]


@given(entries)
def test_the_table_is_the_naive_one(history) -> None:
    log, naive = Log(SETTINGS), NaiveSessions()
    for step, entry in enumerate(history):
        answer = apply(log, entry, 2 * step)
        error = answer[0] if isinstance(answer, tuple) else answer
        assert error == naive.apply(entry, 2 * step)
    assert list(log.table._sessions) == [s["id"] for s in naive.sessions]


@given(entries, st.integers(0, 60))
def test_a_restored_table_answers_as_if_it_had_seen_the_whole_log(history, cut) -> None:
    log = Log(SETTINGS)
    for step, entry in enumerate(history[:cut]):
        apply(log, entry, 2 * step)
    frozen = log.table.freeze()
    copy = Log(SETTINGS)
    copy.index, copy.executed_count = log.index, log.executed_count
    tail = list(enumerate(history))[cut:]
    answers = [apply(log, entry, 2 * step) for step, entry in tail]
    copy.table.restore(frozen)  # drawn only now, after the table has gone on
    assert [apply(copy, entry, 2 * step) for step, entry in tail] == answers
    assert list(copy.table.freeze()) == list(log.table.freeze())
