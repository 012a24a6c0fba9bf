"""What a worker and its executor child say to each other, over an inherited socket pair.

::

    parent                                    child
      | OpenJob    once, the first message ---> |   bounds its memory, unpickles the job
      | RunAttempts one, or some short ones --> |   runs one after the other
      | <------------------- AttemptProgress    |   now and then
      | <------------------------ AskOutputs    |   of a reduce, until it has heard of all maps
      | OutputNews ---------------------------> |
      | <-------------------- AttemptsEnded     |   until the last of those that were given

A message is one frame of `minigfs.transport`; the socket pair is private to the two processes, so
there is no handshake. Cancelling has no message: the parent kills the child, or keeps attempts from
taking their *turn* (the first of those given together has turn 1) by the page that they share.
"""

import select
import socket
from typing import TypeVar

import msgspec

from minigfs.config import TransportLimits
from minigfs.ports import SystemClock
from minigfs.transport.codec import FrameKind, decode_body
from minigfs.transport.connection import Connection, ConnectionBroken, ConnectionLate
from minigfs.transport.deadline import Deadline
from minigfs.transport.messages import Message
from minigfs.transport.security import TlsFiles
from minigfs.transport.sockets import SocketLink
from minimr.ids import WorkerId
from minimr.messages import (
    Assignment,
    AttemptResult,
    Failure,
    GetMapOutputs,
    JobSpec,
    MapOutputNews,
)

__all__ = [
    "AskOutputs",
    "AttemptEnd",
    "AttemptProgress",
    "AttemptsEnded",
    "ChannelClosed",
    "ExecutorChannel",
    "FromExecutor",
    "OpenJob",
    "OutputNews",
    "RunAttempts",
    "ToExecutor",
]

# Both ends are ours and on one machine; a plan of a million splits must pass.
_LIMITS = TransportLimits(body_bytes_max=512 * 1024 * 1024, payload_bytes_max=0)


class OpenJob(Message, frozen=True, tag="open"):
    """The job whose attempts follow; an executor serves one job and then ends."""

    spec: JobSpec
    scratch: str  # this worker's segment directory
    worker_id: WorkerId
    address: str  # of the worker's segment server
    host: str
    token: bytes  # to fetch segments from other workers; empty when there are none
    cluster_id: str
    tls: TlsFiles | None = None


class RunAttempts(Message, frozen=True, tag="run"):
    """``logs`` are the files for what user code prints, one each; (): the executor's own."""

    assignments: tuple[Assignment, ...]
    logs: tuple[str, ...] = ()


class OutputNews(Message, frozen=True, tag="outputs"):
    news: MapOutputNews


ToExecutor = OpenJob | RunAttempts | OutputNews


class AttemptProgress(Message, frozen=True, tag="progress"):
    turn: int
    done_bytes: int
    total_bytes: int


class AttemptEnd(Message, frozen=True, array_like=True):
    """With a result or a failure; ``worked_ms`` is as in `Progress`."""

    turn: int
    worked_ms: int
    result: AttemptResult | None = None
    failure: Failure | None = None


class AttemptsEnded(Message, frozen=True, tag="ended"):
    """``is_last``: no more follow of those that were given, even if some did not begin."""

    ends: tuple[AttemptEnd, ...]
    is_last: bool


class AskOutputs(Message, frozen=True, tag="ask"):
    """Answered by one ``OutputNews``, however long that takes."""

    request: GetMapOutputs


FromExecutor = AttemptProgress | AttemptsEnded | AskOutputs


class ChannelClosed(Exception):
    """The other process ended, or closed its end."""


class _ToExecutorFrame(Message, frozen=True):
    message: ToExecutor


class _FromExecutorFrame(Message, frozen=True):
    message: FromExecutor


_FrameT = TypeVar("_FrameT", _ToExecutorFrame, _FromExecutorFrame)


class ExecutorChannel:
    """One end of the pair. One thread may send while another receives."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._connection = Connection(SocketLink(end, "executor"), _LIMITS)
        self._clock = SystemClock()

    def send_to_executor(self, message: ToExecutor) -> None:
        self._send(_ToExecutorFrame(message=message))

    def send_from_executor(self, message: FromExecutor) -> None:
        self._send(_FromExecutorFrame(message=message))

    def receive_in_executor(self) -> ToExecutor:
        """The parent's next message; waits for ever."""
        received = self._receive(_ToExecutorFrame, None)
        assert received is not None
        return received.message

    def receive_from_executor(self, timeout_ms: int) -> FromExecutor | None:
        """The child's next message, or None if nothing begins to arrive in ``timeout_ms``."""
        received = self._receive(_FromExecutorFrame, timeout_ms)
        return None if received is None else received.message

    def has_message(self) -> bool:
        """Something has arrived, or the other end is gone."""
        return not self._connection.is_quiet()

    def shutdown(self) -> None:
        """Wake whoever waits on this end; from any thread."""
        self._connection.shutdown()

    def close(self) -> None:
        self._connection.close()

    def _send(self, frame: msgspec.Struct) -> None:
        try:
            self._connection.send(FrameKind.MESSAGE, 0, frame, deadline=Deadline(self._clock, None))
        except ConnectionBroken as error:
            raise ChannelClosed from error

    def _receive(self, frame_type: type[_FrameT], timeout_ms: int | None) -> _FrameT | None:
        if timeout_ms is not None and not self.has_message():
            poll = select.poll()
            poll.register(self._end, select.POLLIN)
            if not poll.poll(timeout_ms):
                return None
        try:
            frame = self._connection.receive(deadline=Deadline(self._clock, None))
        except (ConnectionBroken, ConnectionLate) as error:
            raise ChannelClosed from error
        return decode_body(frame.body, frame_type)
