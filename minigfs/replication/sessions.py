"""Client sessions: a request is executed once, however often it is asked (thesis section 6.3).

A client that got no reply asks again, perhaps another leader, and the first request may have been
executed. So the replicated state remembers, for each session, the replies of its requests. The
table is itself a replicated machine (``apply``, ``freeze``, ``restore``) that opens and closes
sessions; whoever applies the log asks it about every entry, in log order::

    table.advance(now_ms)                     # every command, with or without an origin
    known = table.admit(origin)
    if known is not None:
        return known                          # a reply or an error; nothing is executed
    reply = machine.apply(index, command)
    table.record(origin, reply)               # before anything else is done with the table
    return reply

``admit`` decides:

===================================================== ==========================================
the session never was, was closed, or expired         ``SessionUnknown``
the request is below what the client has acknowledged ``StaleRequest``
it was executed                                       its reply, the very bytes
too many replies wait for an acknowledgement          ``ProtocolError``; once the client has
                                                      acknowledged some, it may ask again
otherwise                                             None: execute it
===================================================== ==========================================

Requests of a session may arrive in any order, and with gaps: those the client asks at the same
time overtake each other. Errors are values, part of no state, and the same on every member.

Time is log time: the latest ``now_ms`` of any entry so far. It never goes back, and no clock is
read here, so a session expires at the same entry on every member and in every replay: at the first
entry that is ``expire_after_ms`` or more past the session's last request. Opening more sessions
than ``sessions_max`` ends the one that has been quiet longest.

``freeze`` shares the sessions with its iterator; a session is copied when it changes afterwards.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from minigfs.errors import MinigfsError, ProtocolError, SessionUnknown, StaleRequest
from minigfs.ids import Origin, SessionId
from minigfs.replication.commands import (
    CloseSession,
    OpenSession,
    decode_session_command,
    encode_session_id,
)

__all__ = ["SessionSettings", "SessionTable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """Part of the replicated state's rules: the same on every member of a group, always."""

    expire_after_ms: int = 3_600_000
    sessions_max: int = 10_000
    replies_max: int = 1_024  # of one session, not acknowledged yet


class _Session:
    """Changed in place, but only by the generation it belongs to: older ones are frozen."""

    __slots__ = ("answered_below", "generation", "last_used_ms", "replies", "session_id")

    def __init__(
        self,
        session_id: SessionId,
        last_used_ms: int,
        answered_below: int,
        replies: dict[int, bytes],
        generation: int,
    ) -> None:
        self.session_id = session_id
        self.last_used_ms = last_used_ms
        self.answered_below = answered_below
        self.replies = replies  # by sequence, in the order of execution
        self.generation = generation

    def copy(self, generation: int) -> "_Session":
        return _Session(
            self.session_id,
            self.last_used_ms,
            self.answered_below,
            self.replies.copy(),
            generation,
        )

    def forget_below(self, answered_below: int) -> None:
        newly_answered = answered_below - self.answered_below
        if newly_answered <= len(self.replies):
            for sequence in range(self.answered_below, answered_below):
                self.replies.pop(sequence, None)
        else:  # a leap: walk what is there instead
            self.replies = {s: r for s, r in self.replies.items() if s >= answered_below}
        self.answered_below = answered_below


class _FrozenTable(msgspec.Struct, frozen=True, array_like=True):
    """The first record of the table in a snapshot; the sessions follow, quiet longest first."""

    log_time_ms: int


class _FrozenSession(msgspec.Struct, frozen=True, array_like=True):
    session_id: SessionId
    last_used_ms: int
    answered_below: int
    replies: tuple[tuple[int, bytes], ...]


_encoder = msgspec.msgpack.Encoder()
_table_decoder = msgspec.msgpack.Decoder(_FrozenTable)
_session_decoder = msgspec.msgpack.Decoder(_FrozenSession)


class SessionTable:
    """See the module. Pure; a function of the entries it was shown."""

    def __init__(self, settings: SessionSettings | None = None) -> None:
        self._settings = settings or SessionSettings()
        self._log_time_ms = 0
        self._sessions: OrderedDict[SessionId, _Session] = OrderedDict()  # quiet longest first
        self._nothing_expires_before_ms = 0
        self._generation = 0

    @property
    def log_time_ms(self) -> int:
        return self._log_time_ms

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, session_id: SessionId) -> bool:
        return session_id in self._sessions

    def advance(self, now_ms: int) -> None:
        """An entry proposed at ``now_ms`` is being applied: sessions whose time is over end."""
        if now_ms > self._log_time_ms:
            self._log_time_ms = now_ms
            if now_ms >= self._nothing_expires_before_ms:
                self._expire()

    def admit(self, origin: Origin) -> bytes | MinigfsError | None:
        """None: execute the request and ``record`` its reply. Otherwise the answer."""
        session = self._use(origin.session_id)
        if session is None:
            return SessionUnknown(
                f"session {origin.session_id} is not open: it was quiet too long, or was closed. "
                "The request was not executed now, but a try before may have been: look, then ask "
                "again in a new session"
            )
        if origin.answered_below > session.answered_below:
            session.forget_below(origin.answered_below)
        sequence = origin.sequence
        if sequence < session.answered_below:
            return StaleRequest(
                f"request {sequence} of session {origin.session_id} is below "
                f"{session.answered_below}, from where replies are kept: its client has "
                "acknowledged the reply, so this is a late copy; it was not executed again"
            )
        known = session.replies.get(sequence)
        if known is None and len(session.replies) >= self._settings.replies_max:
            return ProtocolError(
                f"session {origin.session_id} has {len(session.replies)} requests whose replies "
                "it has not acknowledged: acknowledge some, then ask again"
            )
        return known

    def record(self, origin: Origin, reply: bytes) -> None:
        """The reply of the request just admitted."""
        session = self._sessions.get(origin.session_id)
        if session is not None:  # else the request was the one that closed its own session
            session.replies[origin.sequence] = reply

    def apply(self, index: int, command: bytes) -> bytes:
        """Open a session, named by the entry's index, or close one; closed is closed twice."""
        match decode_session_command(command):
            case OpenSession():
                self._open(SessionId(index))
                return encode_session_id(SessionId(index))
            case CloseSession(session_id):
                self._sessions.pop(session_id, None)
                return b""

    def freeze(self) -> Iterator[bytes]:
        """The table as it is now, as records; the table may change while they are drawn."""
        head = _FrozenTable(self._log_time_ms)
        sessions = list(self._sessions.values())
        self._generation += 1
        return _encode(head, sessions)

    def restore(self, records: Iterator[bytes]) -> None:
        """Become the frozen table; without any record, an empty one."""
        first = next(records, None)
        head = _table_decoder.decode(first) if first is not None else _FrozenTable(0)
        self._log_time_ms = head.log_time_ms
        self._sessions = OrderedDict()
        self._nothing_expires_before_ms = 0
        for record in records:
            frozen = _session_decoder.decode(record)
            self._sessions[frozen.session_id] = _Session(
                frozen.session_id,
                frozen.last_used_ms,
                frozen.answered_below,
                dict(frozen.replies),
                self._generation,
            )

    def _use(self, session_id: SessionId) -> _Session | None:
        """The session, now the one used last, and ours to change."""
        session = self._sessions.get(session_id)
        if session is None:
            return None
        if session.generation != self._generation:
            session = self._sessions[session_id] = session.copy(self._generation)
        session.last_used_ms = self._log_time_ms
        self._sessions.move_to_end(session_id)
        return session

    def _open(self, session_id: SessionId) -> None:
        if len(self._sessions) >= self._settings.sessions_max:
            self._sessions.popitem(last=False)
        self._sessions[session_id] = _Session(
            session_id, self._log_time_ms, 0, {}, self._generation
        )

    def _expire(self) -> None:
        limit_ms = self._settings.expire_after_ms
        while self._sessions:
            quietest = next(iter(self._sessions.values()))
            if self._log_time_ms - quietest.last_used_ms < limit_ms:
                self._nothing_expires_before_ms = quietest.last_used_ms + limit_ms
                return
            self._sessions.popitem(last=False)
        self._nothing_expires_before_ms = self._log_time_ms + limit_ms


def _encode(head: _FrozenTable, sessions: list[_Session]) -> Iterator[bytes]:
    yield _encoder.encode(head)
    for session in sessions:
        yield _encoder.encode(
            _FrozenSession(
                session.session_id,
                session.last_used_ms,
                session.answered_below,
                tuple(session.replies.items()),
            )
        )
