"""Calls to the masters, whichever of them leads, each with the outcome of exactly one execution.

Finding the leader is ``minigfs.transport.group``. What is sent again there does no harm: a read
changes nothing, and a change carries its origin, under which the masters execute it once and
answer every repetition with the first reply.
"""

from msgspec.structs import replace as with_fields

from minigfs.client.config import ClientConfig
from minigfs.client.patience import Patience
from minigfs.client.sessions import ClientSessions
from minigfs.errors import Busy, InvalidConfig, SessionUnknown
from minigfs.ids import SessionId
from minigfs.master.messages import Change, OpenSession
from minigfs.transport.begun_call import BegunCall
from minigfs.transport.client import ConnectionPool
from minigfs.transport.group import GroupCaller
from minigfs.transport.messages import ReplyT, Request

__all__ = ["MasterCaller"]


class MasterCaller:
    """Thread-safe and fork-safe. Remembers who leads. Connects when it is first used."""

    def __init__(self, config: ClientConfig, pool: ConnectionPool) -> None:
        if not config.masters:
            raise InvalidConfig("no master is named: give the address of at least one")
        self._timeout_ms = config.timeout_ms
        self._group = GroupCaller(pool, config.masters)
        self._sessions = ClientSessions(self._open_session)

    def call(self, request: Request[ReplyT], *, answer_ms: int = 0) -> ReplyT:
        """The answer to a request that changes nothing, or bears repetition by its own contract.
        The leader may take ``answer_ms`` on purpose.

        Raises the error the leader answered with, or ``Unreachable``, ``NoQuorum`` or
        ``DeadlineExceeded`` if there was no answer in time.
        """
        return self._group.call(
            request, timeout_ms=self._timeout_ms + answer_ms, answer_ms=answer_ms
        )

    def begin(self, request: Request[ReplyT]) -> BegunCall[ReplyT]:
        """``call``, whose answer is waited for later; its time runs from now on."""
        return self._group.begin(request, timeout_ms=self._timeout_ms)

    def change(self, request: Change[ReplyT]) -> ReplyT:
        """The answer to a change, which is made once however often it must be sent.

        Raises as ``call``, and ``OutcomeUnknown`` if the change was sent and no answer came before
        the deadline, or before the masters forgot the session. Waits for what is ``Busy``.
        """
        patience = Patience(self._timeout_ms)
        while True:
            try:
                return self._change_once(request)
            except Busy:  # nothing was executed
                if not patience.pause():
                    raise

    def _change_once(self, request: Change[ReplyT]) -> ReplyT:
        while True:
            with self._sessions.origin() as origin:
                try:
                    return self._group.call(
                        with_fields(request, origin=origin),
                        timeout_ms=self._timeout_ms,
                        is_change=True,
                    )
                except SessionUnknown:  # and it was never executed
                    self._sessions.forget(origin.session_id)

    def _open_session(self) -> SessionId:
        # Sent again, it leaves a session behind that nobody uses and the masters forget.
        return self._group.call(OpenSession(), timeout_ms=self._timeout_ms).session_id
