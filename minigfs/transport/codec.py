"""The frame: a fixed header, a msgpack body, and raw payload bytes that nobody encodes.

::

    0      4      5        8          16           20              24
    +------+------+--------+----------+------------+---------------+------+---------+
    | "mGf1" | kind | zeros | call id | body bytes | payload bytes | body | payload |
    +------+------+--------+----------+------------+---------------+------+---------+
       4B     1B      3B       8B          4B             4B           big-endian numbers

The header is checked against ``TransportLimits`` before a byte is allocated for what follows. The
call id joins the frames of one call; id 0 speaks of the connection as a whole (the handshake).
Errors travel as a kind of their own, with the class's code and the message for the user.
"""

import os
import struct
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from minigfs.config import TransportLimits
from minigfs.errors import (
    FrameTooLarge,
    MinigfsError,
    ProtocolError,
    UnknownRequest,
    error_from_wire,
)
from minigfs.transport.messages import Message, Request

__all__ = [
    "CONNECTION_CALL_ID",
    "HEADER_BYTES",
    "INTERNAL_CODE",
    "Frame",
    "FrameKind",
    "Header",
    "RequestDecoder",
    "WireError",
    "decode_body",
    "decode_header",
    "encode_body",
    "encode_header",
    "error_of_body",
]

MAGIC = b"mGf1"
HEADER = struct.Struct("!4sB3sQII")
HEADER_BYTES = HEADER.size
ZEROS = bytes(3)
CONNECTION_CALL_ID = 0
INTERNAL_CODE = "internal"  # an exception nobody foresaw; the server's log has the traceback

StructT = TypeVar("StructT", bound=msgspec.Struct)


class FrameKind(IntEnum):
    HELLO = 1
    CHALLENGE = 2
    PROOF = 3
    REQUEST = 4
    MESSAGE = 5
    ERROR = 6
    ONE_WAY = 7  # nobody answers it: what masters say to each other


KINDS = {int(kind): kind for kind in FrameKind}


class Header(msgspec.Struct, frozen=True, gc=False):
    kind: FrameKind
    call_id: int
    body_bytes: int
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame as received; the payload is the receiver's own, fresh memory."""

    kind: FrameKind
    call_id: int
    body: bytes
    payload: memoryview


class WireError(Message, frozen=True):
    """Body of an error frame."""

    code: str
    message: str
    hint: str = ""


def _check_lengths(body_bytes: int, payload_bytes: int, limits: TransportLimits) -> None:
    if body_bytes > limits.body_bytes_max:
        raise FrameTooLarge(
            f"a message of {body_bytes} bytes is over the limit of {limits.body_bytes_max}: "
            "ask for less at once"
        )
    if payload_bytes > limits.payload_bytes_max:
        raise FrameTooLarge(
            f"a payload of {payload_bytes} bytes is over the limit of {limits.payload_bytes_max}: "
            "send it in smaller pieces"
        )


def encode_header(
    kind: FrameKind, call_id: int, body_bytes: int, payload_bytes: int, limits: TransportLimits
) -> bytes:
    """The header of a frame; lengths over the limits raise ``FrameTooLarge``."""
    _check_lengths(body_bytes, payload_bytes, limits)
    return HEADER.pack(MAGIC, kind, ZEROS, call_id, body_bytes, payload_bytes)


def decode_header(buffer: bytes | bytearray | memoryview, limits: TransportLimits) -> Header:
    """The header in the first ``HEADER_BYTES`` of a buffer, or a ``ProtocolError``."""
    if len(buffer) < HEADER_BYTES:
        raise ProtocolError(f"a frame header has {HEADER_BYTES} bytes, not {len(buffer)}")
    magic, number, zeros, call_id, body_bytes, payload_bytes = HEADER.unpack_from(buffer)
    kind = KINDS.get(number)
    if magic != MAGIC or zeros != ZEROS or kind is None:
        raise ProtocolError("the peer does not speak the protocol of minigfs: check the address")
    _check_lengths(body_bytes, payload_bytes, limits)
    return Header(kind, call_id, body_bytes, payload_bytes)


def encode_body(message: msgspec.Struct) -> bytes:
    return msgspec.msgpack.encode(message)


def decode_body(body: bytes | bytearray | memoryview, message_type: type[StructT]) -> StructT:
    """The body as ``message_type``; anything else raises ``ProtocolError``."""
    try:
        message: StructT = decoder_of(message_type).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"no valid {message_type.__name__} came: {error}") from error
    return message


@lru_cache(maxsize=1024)
def decoder_of(message_type: type[msgspec.Struct]) -> "msgspec.msgpack.Decoder[Any]":
    with _making_decoder:
        return msgspec.msgpack.Decoder(message_type)


# msgspec looks at a struct class when it is first decoded, and leaves what it knows so far for all
# to see: a second thread that wants the same class meanwhile reads through a null pointer.
_making_decoder = threading.Lock()
os.register_at_fork(  # no child may begin with the lock held by a thread that it does not have
    before=_making_decoder.acquire,
    after_in_parent=_making_decoder.release,
    after_in_child=_making_decoder.release,
)


class RequestDecoder:
    """Decodes a body to the request whose tag it bears, out of those a server answers."""

    def __init__(self, requests: Iterable[type[Request[Any]]]) -> None:
        by_tag = {str(request.__struct_config__.tag): request for request in requests}
        self._by_tag: Mapping[str, type[Request[Any]]] = by_tag

    def decode(self, body: bytes | bytearray | memoryview) -> Request[Any]:
        """The request; one this server does not answer raises ``UnknownRequest``."""
        tag = decode_body(body, Tagged).type
        request = self._by_tag.get(tag)
        if request is None:
            raise UnknownRequest(
                f"this server does not answer {tag!r}: check the address, or install the same "
                "release on both ends"
            )
        return decode_body(body, request)


class Tagged(msgspec.Struct):
    """Just the name of a request."""

    type: str


def error_of_body(body: bytes | bytearray | memoryview) -> MinigfsError:
    """The error in the body of an error frame, as the class it was raised with."""
    wire = decode_body(body, WireError)
    return error_from_wire(wire.code, wire.message, wire.hint)
