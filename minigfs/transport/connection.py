"""Frames over a blocking link, for clients and bulk servers.

Sending gives the kernel header, body and payload as they lie, without joining them. Receiving reads
through a small buffer, so that a short frame costs one system call; a payload goes straight into
the memory that the receiver brought for it, else into memory of its own.

Trouble comes out as two exceptions of this layer, because what it means for a call depends on how
far the call had come: ``ConnectionBroken`` and ``ConnectionLate``. A frame whose ``send`` raised
never reached the peer whole, so the peer has not acted on it. After either exception, and after a
frame that breaks the protocol, the connection is not ``usable`` for another call; as long as it
``can_send``, the peer can still be told why.
"""

import contextlib
import os
import secrets
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from minigfs.config import TransportLimits
from minigfs.errors import AuthenticationFailed, InvalidPath, ProtocolError, UsageError
from minigfs.ports import Buffer
from minigfs.transport.codec import (
    CONNECTION_CALL_ID,
    HEADER_BYTES,
    Frame,
    FrameKind,
    WireError,
    decode_body,
    decode_header,
    encode_body,
    encode_header,
    error_of_body,
)
from minigfs.transport.deadline import Deadline
from minigfs.transport.handshake import (
    HANDSHAKE_LIMITS,
    NONCE_BYTES,
    Challenge,
    ClientHandshake,
    Hello,
    Proof,
    ServerHandshake,
)
from minigfs.transport.network import Link
from minigfs.transport.security import Security
from minigfs.transport.sockets import SocketLink, UnixLink

__all__ = ["NO_PAYLOAD", "Connection", "ConnectionBroken", "ConnectionLate", "Payload"]

Payload: TypeAlias = Buffer | Sequence[Buffer]

RECEIVE_BUFFER_BYTES = 16 * 1024
NO_PAYLOAD = memoryview(b"")


class ConnectionBroken(Exception):
    """The link ended or failed."""


class ConnectionLate(Exception):
    """The deadline passed first."""


def views_of(payload: Payload) -> list[memoryview]:
    buffers = (payload,) if isinstance(payload, bytes | bytearray | memoryview) else payload
    return [memoryview(buffer).cast("B") for buffer in buffers]


class _TroubleHasAName:
    """Tells the deadline's ``TimeoutError`` from all the ways in which a link breaks.

    A class: a generator takes five times as long, and every frame passes here.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, TimeoutError):
            if error.errno is not None:  # the kernel gave the peer up
                raise ConnectionBroken(str(error)) from error
            raise ConnectionLate from error
        if isinstance(error, OSError):
            raise ConnectionBroken(error.strerror or str(error)) from error


trouble_has_a_name = _TroubleHasAName()


class Connection:
    """One thread may send while another receives; not more of either."""

    def __init__(self, link: Link, limits: TransportLimits) -> None:
        self._link = link
        self._limits = limits
        self._buffer = memoryview(bytearray(RECEIVE_BUFFER_BYTES))
        self._start = 0  # of the bytes received but not yet used
        self._end = 0
        self._process = os.getpid()
        self._receives_in_step = True
        self._sends_in_step = True

    @property
    def usable(self) -> bool:
        return self._receives_in_step and self._sends_in_step

    @property
    def can_send(self) -> bool:
        return self._sends_in_step

    @property
    def peer(self) -> str:
        return self._link.peer

    def is_quiet(self) -> bool:
        """Fit for another call: in step with the peer, and nothing has arrived unasked."""
        return self.usable and self._start == self._end and self._link.is_quiet()

    @property
    def has_arrived(self) -> bool:
        """Whether bytes are here that were not received as a frame yet, or the peer's end."""
        return self._start != self._end or not self._link.is_quiet()

    @property
    def descriptor(self) -> int | None:
        """To wait on; None if the link has none."""
        return self._link.fileno() if isinstance(self._link, SocketLink) else None

    def send(
        self,
        kind: FrameKind,
        call_id: int,
        message: msgspec.Struct,
        payload: Payload = b"",
        *,
        deadline: Deadline,
        descriptor: int | None = None,
    ) -> None:
        """Send one whole frame, with an open file if the link is a Unix socket.

        ``FrameTooLarge`` leaves the connection as it was.
        """
        body = _encoded(message)
        views = views_of(payload)
        payload_bytes = sum(view.nbytes for view in views)
        header = encode_header(kind, call_id, len(body), payload_bytes, self._limits)
        buffers = [memoryview(header + body), *views]
        unix_link = None if descriptor is None else self._unix_link()
        try:
            with trouble_has_a_name:
                if descriptor is None or unix_link is None:
                    self._link.send(buffers, deadline)
                else:
                    unix_link.send_descriptor(descriptor, buffers, deadline)
        except BaseException:  # Ctrl-C too: part of a frame may be on its way
            self._sends_in_step = False
            raise

    def send_error(self, call_id: int, code: str, message: str, *, deadline: Deadline) -> None:
        error = WireError(code=code, message=message)
        self.send(FrameKind.ERROR, call_id, error, deadline=deadline)

    def receive(
        self,
        *,
        deadline: Deadline,
        limits: TransportLimits | None = None,
        into: memoryview | None = None,
    ) -> Frame:
        """The next frame. A frame over the limits raises before memory is taken for it.

        A payload that fits in ``into`` is received there, and is then a view of it.
        """
        try:
            with trouble_has_a_name:
                header = decode_header(self._take(HEADER_BYTES, deadline), limits or self._limits)
                body = bytes(self._take(header.body_bytes, deadline))
                payload = NO_PAYLOAD
                if header.payload_bytes:
                    fits = into is not None and header.payload_bytes <= len(into)
                    room = into if fits else None
                    payload = self._take_payload(header.payload_bytes, room, deadline)
        except BaseException as error:  # Ctrl-C too: part of a frame may have been read
            self._receives_in_step = False
            self._sends_in_step = self._sends_in_step and not isinstance(error, ConnectionBroken)
            raise
        return Frame(header.kind, header.call_id, body, payload)

    def take_descriptor(self) -> int | None:
        """The open file that came with the frame just received; the taker closes it."""
        return self._unix_link().take_descriptor()

    def prove_as_client(self, security: Security, deadline: Deadline) -> None:
        """Do the handshake; the server's last word on it comes with its first reply."""
        handshake = ClientHandshake(security, secrets.token_bytes(NONCE_BYTES))
        self.send(FrameKind.HELLO, CONNECTION_CALL_ID, handshake.hello(), deadline=deadline)
        frame = self.receive(deadline=deadline, limits=HANDSHAKE_LIMITS)
        if frame.kind is FrameKind.ERROR:
            raise error_of_body(frame.body)
        challenge = decode_body(self._expect(frame, FrameKind.CHALLENGE), Challenge)
        proof = handshake.answer(challenge)
        self.send(FrameKind.PROOF, CONNECTION_CALL_ID, proof, deadline=deadline)

    def prove_as_server(self, security: Security, deadline: Deadline) -> None:
        """Do the handshake; a client that fails it is told why before the error is raised."""
        handshake = ServerHandshake(security, secrets.token_bytes(NONCE_BYTES))
        try:
            hello = decode_body(self._receive_handshake(FrameKind.HELLO, deadline), Hello)
            challenge = handshake.challenge(hello)
            self.send(FrameKind.CHALLENGE, CONNECTION_CALL_ID, challenge, deadline=deadline)
            proof = decode_body(self._receive_handshake(FrameKind.PROOF, deadline), Proof)
            handshake.verify(hello, proof)
        except (AuthenticationFailed, ProtocolError) as error:
            with contextlib.suppress(ConnectionBroken, ConnectionLate):
                self.send_error(CONNECTION_CALL_ID, error.code, error.message, deadline=deadline)
            raise

    def shutdown(self) -> None:
        """Wake whoever waits on this connection; from any thread."""
        self._link.shutdown()

    def close(self) -> None:
        """End the connection; in a forked child, free the child's copy of its parent's."""
        self._receives_in_step = self._sends_in_step = False
        if os.getpid() == self._process:
            self._link.close()
        else:
            self._link.forget()

    def out_of_turn(self, frame: Frame) -> ProtocolError:
        """The error for a frame that may not come now, which ends what can be received."""
        self._receives_in_step = False
        return ProtocolError(f"{self.peer} sent {frame.kind.name} {frame.call_id} out of turn")

    def _receive_handshake(self, kind: FrameKind, deadline: Deadline) -> bytes:
        return self._expect(self.receive(deadline=deadline, limits=HANDSHAKE_LIMITS), kind)

    def _unix_link(self) -> UnixLink:
        if not isinstance(self._link, UnixLink):
            raise ProtocolError(f"{self.peer}: only a Unix socket carries open files")
        return self._link

    def _expect(self, frame: Frame, kind: FrameKind) -> bytes:
        if frame.kind is not kind:
            raise self.out_of_turn(frame)
        return frame.body

    def _take(self, length: int, deadline: Deadline) -> memoryview:
        """Exactly ``length`` bytes: a view of the buffer when they fit, else fresh memory.

        A view of the buffer is good until the next take.
        """
        fresh = length > RECEIVE_BUFFER_BYTES
        have = self._end - self._start
        if not fresh and have >= length:
            self._start += length
            return self._buffer[self._start - length : self._start]
        if fresh:
            return self._take_payload(length, None, deadline)
        self._buffer[:have] = bytes(self._buffer[self._start : self._end])
        self._start, self._end = 0, have
        while self._end < length:
            self._end += self._receive_into(self._buffer[self._end :], deadline)
        self._start = length
        return self._buffer[:length]

    def _take_payload(self, length: int, into: memoryview | None, deadline: Deadline) -> memoryview:
        memory = memoryview(bytearray(length)) if into is None else into[:length]
        have = self._end - self._start
        at = min(have, length)
        memory[:at] = self._buffer[self._start : self._start + at]
        self._start += at
        while at < length:
            at += self._receive_into(memory[at:], deadline)
        return memory

    def _receive_into(self, buffer: memoryview, deadline: Deadline) -> int:
        count = self._link.receive_into(buffer, deadline)
        if count == 0:
            raise ConnectionResetError("the peer closed the connection")
        return count


def _encoded(message: msgspec.Struct) -> bytes:
    """Its body; what a caller gave and no message can hold is the caller's error, not ours."""
    try:
        return encode_body(message)
    except UnicodeEncodeError as error:
        raise InvalidPath(f"{error.object!r} is not valid Unicode: give it another name") from None
    except OverflowError:
        raise UsageError("a number is too large to be sent: give a smaller one") from None
