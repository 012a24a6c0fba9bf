"""The frames of one call, as its client or its handler sees them.

A plain call is a request and one message back; a stream goes on with messages either way. An error
frame ends the call; whatever the other side still sends for it is thrown away by the receiver, by
its call id, so an error never puts a connection out of step.
"""

import select
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from minigfs.errors import ClusterError, DeadlineExceeded, MinigfsError
from minigfs.ports import Clock
from minigfs.transport.codec import CONNECTION_CALL_ID, FrameKind, decode_body, error_of_body
from minigfs.transport.connection import (
    NO_PAYLOAD,
    Connection,
    ConnectionBroken,
    ConnectionLate,
    Payload,
)
from minigfs.transport.deadline import Deadline, Watch

__all__ = ["Stream", "first_to_answer"]

MessageT = TypeVar("MessageT", bound=msgspec.Struct)

DEFAULT_TIMEOUT_MS = 10_000


def first_to_answer(streams: "Sequence[Stream]", timeout_ms: int) -> "Stream | None":
    """The first of some calls of which something has arrived, be it an error; None in time.

    Where links cannot be waited on together, it is the first call, at once.
    """
    poll = select.poll()
    by_descriptor: dict[int, Stream] = {}
    for stream in streams:
        if stream.has_arrived:
            return stream
        descriptor = stream.descriptor
        if descriptor is None:
            return streams[0]
        by_descriptor[descriptor] = stream
        poll.register(descriptor, select.POLLIN)
    ready = poll.poll(timeout_ms)
    return by_descriptor[ready[0][0]] if ready else None


class Stream:
    """One call on one connection. One thread may send while another receives.

    As a context manager on the client's side: leaving the block cleanly gives the connection back
    for other calls, leaving it by an exception ends the connection, which tells the server.
    """

    def __init__(
        self,
        connection: Connection,
        call_id: int,
        clock: Clock,
        *,
        broken: type[ClusterError],
        request_payload: memoryview = NO_PAYLOAD,
        release: Callable[[], None] | None = None,
        watch: Watch | None = None,
    ) -> None:
        """``broken`` is raised when the connection is lost; ``release`` takes it back. ``watch``
        is asked about a peer that is silent (see ``deadline``)."""
        self._watch = watch
        self._connection = connection
        self._call_id = call_id
        self._clock = clock
        self._broken = broken
        self._release = release
        self._open = True
        self._receiving = threading.Lock()
        self.request_payload = request_payload
        self.sent_count = 0
        self.received_count = 0

    @property
    def peer(self) -> str:
        return self._connection.peer

    @property
    def has_arrived(self) -> bool:
        """Whether something has come that was not received yet."""
        return self._connection.has_arrived

    @property
    def descriptor(self) -> int | None:
        return self._connection.descriptor

    def send(
        self,
        message: msgspec.Struct,
        payload: Payload = b"",
        *,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        descriptor: int | None = None,
    ) -> None:
        """Send one message; the payload may be reused once this returns.

        ``descriptor`` is an open file to send along, which only a Unix socket can.

        When the connection is lost because the peer gave up, the peer's own error is raised if it
        left one.
        """
        deadline = Deadline(self._clock, timeout_ms, self._watch)
        try:
            self._connection.send(
                FrameKind.MESSAGE,
                self._call_id,
                message,
                payload,
                deadline=deadline,
                descriptor=descriptor,
            )
        except ConnectionBroken as error:
            raise (self.last_words() or self._lost(error)) from error
        except ConnectionLate as error:
            raise self._late(deadline, "took no more") from error
        self.sent_count += 1

    def receive(
        self,
        message_type: type[MessageT],
        *,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        into: memoryview | None = None,
    ) -> tuple[MessageT, memoryview]:
        """The next message of this call with its payload, which is the receiver's own memory.

        A payload that fits in ``into`` is received there, without a copy; what ``into`` holds after
        an error is undefined. Raises the peer's error if an error frame comes.
        """
        deadline = Deadline(self._clock, timeout_ms, self._watch)
        return self.receive_by(message_type, deadline, into=into)

    def receive_by(
        self,
        message_type: type[MessageT],
        deadline: Deadline,
        *,
        into: memoryview | None = None,
    ) -> tuple[MessageT, memoryview]:
        """``receive`` with a deadline that began earlier."""
        try:
            with self._receiving:
                return self._receive(message_type, deadline, into)
        except ConnectionBroken as error:
            raise self._lost(error) from error
        except ConnectionLate as error:
            raise self._late(deadline, "sent nothing") from error

    def take_descriptor(self) -> int | None:
        """The open file that came with the last message; the caller closes it."""
        return self._connection.take_descriptor()

    def last_words(self) -> MinigfsError | None:
        """The error frame of a peer that stopped listening, if one has already arrived."""
        if not self._receiving.acquire(blocking=False):
            return None  # whoever is receiving gets it
        no_waiting = Deadline(self._clock, 0)
        try:
            while True:
                self._receive(msgspec.Struct, no_waiting, None)
        except (ConnectionBroken, ConnectionLate):
            return None
        except MinigfsError as error:
            return error
        finally:
            self._receiving.release()

    def finish(self) -> None:
        """The call has ended: keep the connection for others if it is in step, else end it."""
        if self._open and self._release is not None and self._connection.usable:
            self._open = False
            self._release()
        self.close()

    def close(self) -> None:
        """Give the call up: the connection ends, unless the call has ended before."""
        if self._open:
            self._open = False
            if self._release is not None:
                self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None and self.received_count:
            self.finish()
        else:
            self.close()

    def _receive(
        self, message_type: type[MessageT], deadline: Deadline, into: memoryview | None
    ) -> tuple[MessageT, memoryview]:
        while True:
            frame = self._connection.receive(deadline=deadline, into=into)
            if frame.kind is FrameKind.ERROR and frame.call_id in (
                CONNECTION_CALL_ID,
                self._call_id,
            ):
                self.received_count += 1
                error = error_of_body(frame.body)
                if frame.call_id == CONNECTION_CALL_ID:
                    self._connection.close()
                    raise type(error)(f"{self.peer}: {error.message}")
                raise error
            if frame.kind is FrameKind.MESSAGE and frame.call_id == self._call_id:
                self.received_count += 1
                return decode_body(frame.body, message_type), frame.payload
            if frame.call_id >= self._call_id or frame.call_id == CONNECTION_CALL_ID:
                raise self._connection.out_of_turn(frame)
            # What is left of an earlier call on this connection belongs to nobody.

    def _lost(self, error: ConnectionBroken) -> ClusterError:
        return self._broken(
            f"the connection to {self.peer} broke before the call had ended: {error}"
        )

    def _late(self, deadline: Deadline, what: str) -> DeadlineExceeded:
        when = f"within {deadline.timeout_ms} ms" if deadline.is_over else "and does not answer"
        return DeadlineExceeded(f"{self.peer} {what} {when}: it may be overloaded or cut off")
