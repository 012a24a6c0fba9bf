"""A call that was sent, and whose answer is waited for later, beside other work."""

from collections.abc import Callable
from contextlib import suppress
from typing import Generic, cast

from minigfs.closing import ClosedOnExit
from minigfs.errors import ClusterError
from minigfs.transport.client import Stream, reply_type_of
from minigfs.transport.deadline import Deadline
from minigfs.transport.messages import ReplyT, Request

__all__ = ["LAST_TRY_MS", "BegunCall"]

LAST_TRY_MS = 100  # a try cut shorter would report lateness instead of what is wrong


class BegunCall(ClosedOnExit, Generic[ReplyT]):
    """Closed without ``answer``, it is given up."""

    def __init__(
        self,
        request: Request[ReplyT],
        begun: Stream | ClusterError,
        deadline: Deadline,
        *,
        try_ms: int,
        ask_around: Callable[[ClusterError], ReplyT],
    ) -> None:
        """``begun`` is the call under way, or why there is none. Its answer is waited for
        ``try_ms`` at most; if it has none, ``ask_around`` is told why and asks others."""
        self._request = request
        self._begun = begun
        self._deadline = deadline
        self._try_ms = try_ms
        self._ask_around = ask_around

    def answer(self) -> ReplyT:
        """May wait until the deadline, which was set when the call began. Once only."""
        if isinstance(self._begun, Stream):
            try:
                return self._answer_of(self._begun)
            except ClusterError as error:
                return self._ask_around(error)
        return self._ask_around(self._begun)

    def _answer_of(self, stream: Stream) -> ReplyT:
        reply_type = reply_type_of(type(self._request))
        try:
            reply, _ = stream.receive(reply_type, timeout_ms=min(self._try_ms, self._left_ms()))
        finally:
            stream.finish()
        return cast("ReplyT", reply)

    def _left_ms(self) -> int:
        with suppress(TimeoutError):
            return max(self._deadline.remaining_ms() or 0, LAST_TRY_MS)
        return LAST_TRY_MS

    def close(self) -> None:
        if isinstance(self._begun, Stream):
            self._begun.close()
